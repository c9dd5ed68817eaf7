from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from domain import approvals
from domain.approvals import (
    APPROVALS,
    ApprovalClosed,
    ApprovalNotDue,
    Approved,
    Declined,
    Expired,
    HashDiffers,
    Requested,
    SamePerson,
)
from domain.errors import Conflict, NotFound
from tests.domain.history import NOON, PLAYER, given

PATH, BODY = f"/v1/players/{PLAYER}/adjustments", '{"amount": 1}'
LAPSES = NOON + timedelta(hours=24)
REQUESTED = Requested(
    action="money.adjust",
    path=PATH,
    body=BODY,
    hash=approvals.digest(PATH, BODY),
    player=PLAYER,
    requester="operator:maria",
    expires_at=LAPSES,
    reasons=("operator_day",),
)
HASH = REQUESTED.hash
APPROVED, DECLINED, EXPIRED = Approved(HASH), Declined("no"), Expired()
BO = "supervisor:bo"


def approve(*events: approvals.ApprovalEvent, by: str = BO, named: str = HASH, after: timedelta = timedelta()) -> list:
    return approvals.approve(given(APPROVALS, *events), hash=named, by=by, at=NOON + after)


def test_the_hash_is_of_the_path_a_line_feed_and_the_body() -> None:
    # printf '/x\n{}' | sha256sum
    assert approvals.digest("/x", "{}") == "5494191710ddd9642c6c847d6a667a543b83350f5c2b2556a902730e1e9bb381"


def test_a_request_is_recorded_once() -> None:
    assert approvals.request(given(APPROVALS), requested=REQUESTED) == [REQUESTED]
    with pytest.raises(Conflict):
        approvals.request(given(APPROVALS, REQUESTED), requested=REQUESTED)


def test_another_person_approves_what_was_asked() -> None:
    assert approve(REQUESTED) == [APPROVED]


def test_nobody_approves_what_they_have_asked_for() -> None:
    with pytest.raises(SamePerson):
        approve(REQUESTED, by="operator:maria")
    with pytest.raises(SamePerson):
        approve(REQUESTED, APPROVED, by="operator:maria")


def test_another_hash_is_another_command() -> None:
    with pytest.raises(HashDiffers):
        approve(REQUESTED, named=approvals.digest(PATH, BODY + " "))


def test_a_request_whose_hash_is_not_that_of_its_body_is_never_approved() -> None:
    forged = msgspec.structs.replace(REQUESTED, body='{"amount": 1000000}')
    with pytest.raises(HashDiffers):
        approve(forged)


def test_approving_rejecting_and_expiring_again_records_nothing() -> None:
    assert approve(REQUESTED, APPROVED) == []
    assert approve(REQUESTED, APPROVED, by="supervisor:cy", after=timedelta(days=9)) == []
    assert approvals.reject(given(APPROVALS, REQUESTED, DECLINED), reason="still no", at=LAPSES) == []
    assert approvals.expire(given(APPROVALS, REQUESTED, EXPIRED), at=NOON) == []


@pytest.mark.parametrize("end", [APPROVED, DECLINED, EXPIRED], ids=lambda end: end.tag)
@pytest.mark.parametrize("act", ["approve", "reject", "expire"])
def test_an_approval_ends_once(act: str, end: approvals.ApprovalEvent) -> None:
    closed = given(APPROVALS, REQUESTED, end)
    acts = {
        "approve": lambda: approvals.approve(closed, hash=HASH, by=BO, at=NOON),
        "reject": lambda: approvals.reject(closed, reason="no", at=NOON),
        "expire": lambda: approvals.expire(closed, at=LAPSES),
    }
    if (act, end.tag) in {
        ("approve", "approval.approved"),
        ("reject", "approval.rejected"),
        ("expire", "approval.expired"),
    }:
        assert acts[act]() == []
        return
    with pytest.raises(ApprovalClosed) as refused:
        acts[act]()
    assert refused.value.facts == {"ended": end.tag.partition(".")[2]}


def test_after_its_time_nothing_is_approved_or_rejected_though_no_timer_has_said_so() -> None:
    assert approve(REQUESTED, after=timedelta(hours=24, microseconds=-1)) == [APPROVED]
    for late in (timedelta(hours=24), timedelta(days=9)):
        with pytest.raises(ApprovalClosed) as refused:
            approve(REQUESTED, after=late)
        assert refused.value.facts == {"ended": "expired"}
        with pytest.raises(ApprovalClosed):
            approvals.reject(given(APPROVALS, REQUESTED), reason="no", at=NOON + late)


def test_it_expires_at_its_time_and_no_sooner() -> None:
    with pytest.raises(ApprovalNotDue):
        approvals.expire(given(APPROVALS, REQUESTED), at=LAPSES - timedelta(microseconds=1))
    assert approvals.expire(given(APPROVALS, REQUESTED), at=LAPSES) == [EXPIRED]


def test_what_nobody_has_asked_for_cannot_be_decided() -> None:
    nothing = given(APPROVALS)
    with pytest.raises(NotFound):
        approvals.approve(nothing, hash=HASH, by=BO, at=NOON)
    with pytest.raises(NotFound):
        approvals.reject(nothing, reason="no", at=NOON)
    with pytest.raises(NotFound):
        approvals.expire(nothing, at=NOON)
