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
from domain.kernel import Sealed
from tests.domain.history import NOON, PLAYER, given

PATH, BODY, SALT = f"/v1/players/{PLAYER}/adjustments", '{"amount": 1}', "5a" * 16
LAPSES = NOON + timedelta(hours=24)
REQUESTED = Requested(
    action="money.adjust",
    path=PATH,
    body=BODY,
    salt=SALT,
    hash=approvals.digest(PATH, SALT, BODY),
    player=PLAYER,
    requester="operator:maria",
    expires_at=LAPSES,
    reasons=("operator_day",),
)
HASH = REQUESTED.hash
APPROVED, DECLINED, EXPIRED = Approved(HASH), Declined("no"), Expired()
BO = "supervisor:bo"


def approve(
    *events: approvals.ApprovalEvent,
    by: str = BO,
    named: str = HASH,
    after: timedelta = timedelta(),
    asked: Requested | None = REQUESTED,
) -> list:
    return approvals.approve(given(APPROVALS, *events), asked=asked, hash=named, by=by, at=NOON + after)


def test_the_hash_is_of_the_path_the_salt_and_the_body_with_line_feeds_between() -> None:
    # printf '/x\n00\n{}' | sha256sum
    assert approvals.digest("/x", "00", "{}") == "a743f8fa51fdd8317bcaefb8be642cd9a986a851c7efb90408b3e344d4a8a2f5"


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
        approve(REQUESTED, named=approvals.digest(PATH, SALT, BODY + " "))


@pytest.mark.parametrize("forged", [{"body": '{"amount": 1000000}'}, {"path": "/v1/x"}, {"salt": "00" * 16}], ids=str)
def test_what_does_not_have_the_hash_that_was_approved_never_runs(forged: dict[str, str]) -> None:
    with pytest.raises(HashDiffers):
        approve(REQUESTED, asked=msgspec.structs.replace(REQUESTED, **forged))


def test_what_could_not_be_opened_never_runs() -> None:
    with pytest.raises(HashDiffers):
        approve(REQUESTED, asked=None)
    sealed = msgspec.structs.replace(REQUESTED, body=Sealed("AAAA", "1"), salt=Sealed("AAAA", "1"))
    with pytest.raises(HashDiffers):
        approve(sealed, asked=sealed)


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
        "approve": lambda: approvals.approve(closed, asked=None, hash=HASH, by=BO, at=NOON),
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
        approvals.approve(nothing, asked=REQUESTED, hash=HASH, by=BO, at=NOON)
    with pytest.raises(NotFound):
        approvals.reject(nothing, reason="no", at=NOON)
    with pytest.raises(NotFound):
        approvals.expire(nothing, at=NOON)
