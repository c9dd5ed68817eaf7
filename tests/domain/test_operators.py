"""Operators: what they may do follows from what was granted to them, until when, and whether they are active."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from domain import administrators, operators
from domain.administrators import LastAdministrator
from domain.approvals import SamePerson
from domain.errors import NotFound
from domain.operators import (
    Activated,
    AlreadyJoined,
    FactorEnrolled,
    FactorKind,
    FactorRemoved,
    FactorUnknown,
    IdentityLinked,
    IdentityUnknown,
    IdentityUnlinked,
    InThePast,
    InvitationRefused,
    Invited,
    LastMeans,
    MeansChanged,
    Operator,
    OperatorEvent,
    OperatorNotActive,
    PasswordSet,
    RegulatorApart,
    Resumed,
    RoleGranted,
    RoleRevoked,
    Status,
    Suspended,
)
from domain.players import DataKey

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=72)
INVITED = Invited(
    name="Maria", email="maria@house.example", person="staff-17", key=DataKey("key", "00"), invitation="aa", until=LATER
)
FOR_AUSTRIA = msgspec.structs.replace(INVITED, countries=("AT",))


def given(*events: OperatorEvent, at: datetime = NOON) -> Operator:
    operator = Operator()
    for event in events:
        operator = operators.evolve(operator, event, at)
    return operator


def test_who_was_invited_may_do_nothing_yet_whatever_was_granted() -> None:
    operator = given(INVITED, RoleGranted("support"))
    assert operator.holds(NOON) == {"support"}
    assert operator.roles_at(NOON) == frozenset()


@pytest.mark.parametrize(
    ("operator", "invitation", "at"),
    [
        (Operator(), "", NOON),
        (given(INVITED), "ab", NOON),
        (given(INVITED), "aa", LATER),
        (given(INVITED, Activated()), "aa", NOON),
        (given(INVITED, Activated()), "", NOON),
        (given(INVITED, Suspended("left")), "aa", NOON),
        (given(INVITED, operators.InvitedAgain("bb", LATER)), "aa", NOON),
    ],
)
def test_an_invitation_is_good_once_until_its_time_is_over_and_no_other_is(
    operator: Operator, invitation: str, at: datetime
) -> None:
    with pytest.raises(InvitationRefused):
        operators.activate(operator, invitation=invitation, at=at)


def test_whom_the_invitation_was_for_joins() -> None:
    assert operators.activate(given(INVITED), invitation="aa", at=NOON) == [Activated()]


BY_ANNA = msgspec.structs.replace(INVITED, by="staff-1")


def test_an_invitation_opens_nothing_until_another_person_has_confirmed_it() -> None:
    waits = given(BY_ANNA)
    assert waits.status is Status.AWAITING
    with pytest.raises(InvitationRefused):
        operators.activate(waits, invitation="aa", at=NOON)
    with pytest.raises(SamePerson):
        operators.confirm_invitation(waits, person="staff-1")
    [confirmed] = operators.confirm_invitation(waits, person="staff-2")
    now = given(BY_ANNA, confirmed)
    assert operators.activate(now, invitation="aa", at=NOON) == [Activated()]
    assert operators.confirm_invitation(now, person="staff-3") == []
    with pytest.raises(AlreadyJoined):
        operators.confirm_invitation(given(BY_ANNA, confirmed, Activated()), person="staff-2")


def test_whoever_learns_the_secret_of_another_invitation_does_not_confirm_it() -> None:
    [again] = operators.invite_again(given(INVITED), invitation="bb", until=LATER, by="staff-2")
    now = given(INVITED, again)
    with pytest.raises(InvitationRefused):
        operators.activate(now, invitation="bb", at=NOON)
    with pytest.raises(SamePerson):
        operators.confirm_invitation(now, person="staff-2")


def test_a_suspended_invitation_waits_again_when_it_is_resumed() -> None:
    assert given(BY_ANNA, Suspended("left"), Resumed()).status is Status.AWAITING


def test_nobody_is_invited_again_after_they_have_joined() -> None:
    with pytest.raises(AlreadyJoined):
        operators.invite_again(given(INVITED, Activated()), invitation="bb", until=LATER, by="staff-1")


def test_a_role_ends_by_itself() -> None:
    operator = given(INVITED, Activated(), RoleGranted("support", LATER), RoleGranted("risk"))
    assert operator.roles_at(LATER - timedelta(microseconds=1)) == {"support", "risk"}
    assert operator.roles_at(LATER) == {"risk"}


def test_a_role_that_would_have_ended_already_is_not_granted() -> None:
    with pytest.raises(InThePast):
        operators.grant(given(INVITED), role="support", until=NOON, at=NOON)


def test_granting_again_what_is_held_as_long_records_nothing() -> None:
    operator = given(INVITED, RoleGranted("support", LATER))
    assert operators.grant(operator, role="support", until=LATER, at=NOON) == []
    assert operators.grant(operator, role="support", until=None, at=NOON) == [RoleGranted("support", None)]
    assert operators.grant(operator, role="support", until=LATER + timedelta(1), at=LATER) != []


def test_a_regulator_has_a_jurisdiction_and_no_other_role() -> None:
    with pytest.raises(RegulatorApart):
        operators.grant(given(INVITED), role="regulator", until=None, at=NOON)
    regulator = given(FOR_AUSTRIA, *operators.grant(given(FOR_AUSTRIA), role="regulator", until=LATER, at=NOON))
    with pytest.raises(RegulatorApart):
        operators.grant(regulator, role="support", until=None, at=NOON)
    with pytest.raises(RegulatorApart):
        operators.scope(regulator, brands=None, countries=None, at=NOON)
    with pytest.raises(RegulatorApart):
        operators.grant(given(FOR_AUSTRIA, RoleGranted("support")), role="regulator", until=None, at=NOON)
    assert operators.grant(regulator, role="support", until=None, at=LATER), "they are none any more"


def test_who_comes_back_from_a_suspension_is_what_they_were() -> None:
    assert given(INVITED, Suspended("left"), Resumed()).status is Status.INVITED
    assert given(INVITED, Activated(), Suspended("left"), Resumed()).status is Status.ACTIVE
    assert operators.resume(given(INVITED, Activated())) == []
    assert operators.suspend(given(INVITED, Suspended("left")), reason="left") == []


def test_nobody_who_is_not_active_gets_a_means_to_sign_in() -> None:
    for operator in (given(INVITED), given(INVITED, Activated(), Suspended("left"))):
        with pytest.raises(OperatorNotActive):
            operators.set_password(operator, hash="argon2id")
        with pytest.raises(OperatorNotActive):
            operators.link_identity(operator, issuer="https://login.example", subject="00")
        with pytest.raises(OperatorNotActive):
            operators.enrol(operator, enrolled=FactorEnrolled(factor="one", kind=FactorKind.TOTP, secret="s"))


def test_new_recovery_codes_take_the_place_of_the_old_ones_alone() -> None:
    one, two = (FactorEnrolled(factor=name, kind=FactorKind.RECOVERY, secret="hashes") for name in ("one", "two"))
    totp = FactorEnrolled(factor="totp", kind=FactorKind.TOTP, secret="s")
    operator = given(INVITED, Activated(), totp, one)
    assert operators.enrol(operator, enrolled=two) == [FactorRemoved("one"), two]
    assert operators.enrol(operator, enrolled=one) == []
    with pytest.raises(FactorUnknown):
        operators.remove_factor(operator, factor="two")


LINKED = IdentityLinked("https://login.example", "00")
TOTP = FactorEnrolled(factor="totp", kind=FactorKind.TOTP, secret="s")
PASSKEY = FactorEnrolled(factor="passkey", kind=FactorKind.PASSKEY, credential="c", public_key="k")


def test_an_identity_is_taken_away_unless_they_come_in_by_nothing_else() -> None:
    gone = IdentityUnlinked("https://login.example")
    for other in (PasswordSet("argon2id"), PASSKEY, IdentityLinked("https://another.example", "11")):
        assert operators.unlink_identity(given(INVITED, Activated(), LINKED, other), issuer=gone.issuer) == [gone]
    assert given(INVITED, Activated(), LINKED, gone).identities == ()
    with pytest.raises(LastMeans):
        operators.unlink_identity(given(INVITED, Activated(), LINKED, TOTP), issuer=gone.issuer)
    with pytest.raises(IdentityUnknown):
        operators.unlink_identity(given(INVITED, Activated(), PasswordSet("argon2id")), issuer=gone.issuer)


@pytest.mark.parametrize(
    ("events", "means"),
    [
        ([LINKED, TOTP, PASSKEY], 0),
        ([PasswordSet("one"), PasswordSet("two")], 2),
        ([TOTP, FactorRemoved("totp")], 1),
        ([LINKED, IdentityUnlinked("https://login.example")], 1),
        ([LINKED, IdentityLinked("https://login.example", "11")], 1),
        ([LINKED, IdentityLinked("https://another.example", "11")], 0),
    ],
)
def test_what_takes_a_way_in_away_is_counted(events: list[OperatorEvent], means: int) -> None:
    operator = given(INVITED, Activated(), *events)
    assert operator.means == means
    operators.require_means(operator, means)
    with pytest.raises(MeansChanged):
        operators.require_means(operator, means - 1)


def administrator(person: str, *more: OperatorEvent) -> Operator:
    return given(msgspec.structs.replace(INVITED, person=person), Activated(), RoleGranted("administrator"), *more)


@pytest.mark.parametrize(
    ("others", "stays"),
    [
        ([], True),
        ([administrator("staff-2")], True),
        ([administrator("staff-17"), administrator("staff-2")], False),
        ([administrator("staff-2"), administrator("staff-2")], True),
        ([administrator("staff-2"), administrator("staff-3", Suspended("left"))], True),
        ([administrator("staff-2"), administrator("staff-3", RoleGranted("administrator", LATER))], True),
        ([administrator("staff-2"), administrator("staff-3")], False),
    ],
)
def test_of_those_who_administer_without_an_end_two_persons_stay(others: list[Operator], stays: bool) -> None:
    anna = administrator("staff-17")
    for decided in (
        operators.suspend(anna, reason="left"),
        operators.revoke(anna, role="administrator"),
        operators.grant(anna, role="administrator", until=LATER, at=NOON),
    ):
        if stays:
            with pytest.raises(LastAdministrator):
                administrators.keep(anna, decided, others, NOON)
        else:
            assert administrators.keep(anna, decided, others, NOON) == decided


def test_two_administrators_are_not_named_one_person() -> None:
    anna = administrator("staff-17")
    named = operators.name_person(anna, person="staff-2")
    with pytest.raises(LastAdministrator):
        administrators.keep(anna, named, [administrator("staff-2")], NOON)
    assert administrators.keep(anna, named, [administrator("staff-2"), administrator("staff-3")], NOON) == named


def test_who_does_not_administer_leaves_however_few_do() -> None:
    for somebody in (given(INVITED), given(INVITED, Activated(), RoleGranted("support"))):
        left = operators.suspend(somebody, reason="left")
        assert administrators.keep(somebody, left, [], NOON) == left


def test_nothing_is_done_to_an_operator_who_is_nobody() -> None:
    for decision in (
        lambda: operators.grant(Operator(), role="support", until=None, at=NOON),
        lambda: operators.revoke(Operator(), role="support"),
        lambda: operators.scope(Operator(), brands=None, countries=None, at=NOON),
        lambda: operators.suspend(Operator(), reason="left"),
        lambda: operators.resume(Operator()),
        lambda: operators.name_person(Operator(), person="staff-1"),
        lambda: operators.invite_again(Operator(), invitation="bb", until=LATER, by="staff-1"),
        lambda: operators.confirm_invitation(Operator(), person="staff-1"),
        lambda: operators.unlink_identity(Operator(), issuer="https://login.example"),
    ):
        with pytest.raises(NotFound):
            decision()  # type: ignore[no-untyped-call]


# The law: granted ∩ not over ∩ not suspended

ROLES = ("support", "risk", "regulator", "administrator")


class Work(RuleBasedStateMachine):
    """Whatever is decided about an operator, their roles are those which their history gives, read back from its end."""

    evolve: Callable[[Operator, Any, datetime], Operator] = staticmethod(operators.evolve)
    roles_at: Callable[[Operator, datetime], frozenset[str]] = staticmethod(Operator.roles_at)

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.history: list[OperatorEvent] = []
        self.operator = Operator()

    def decided(self, decide: Callable[[], list[OperatorEvent]]) -> None:
        try:
            events = decide()
        except operators.Conflict:
            return
        for event in events:
            self.history.append(event)
            self.operator = self.evolve(self.operator, event, self.now)

    @precondition(lambda self: not self.history)
    @rule(countries=st.sampled_from([None, ("AT",)]))
    def invite(self, countries: tuple[str, ...] | None) -> None:
        invited = msgspec.structs.replace(INVITED, countries=countries, until=self.now + timedelta(hours=72))
        self.decided(lambda: operators.invite(self.operator, invited=invited))

    @precondition(lambda self: self.operator.status is Status.INVITED and self.now < self.operator.invited_until)
    @rule()
    def join(self) -> None:
        self.decided(lambda: operators.activate(self.operator, invitation="aa", at=self.now))

    @precondition(lambda self: self.history)
    @rule(role=st.sampled_from(ROLES), hours=st.none() | st.integers(1, 50))
    def grant(self, role: str, hours: int | None) -> None:
        until = None if hours is None else self.now + timedelta(hours=hours)
        self.decided(lambda: operators.grant(self.operator, role=role, until=until, at=self.now))

    @precondition(lambda self: self.history)
    @rule(role=st.sampled_from(ROLES))
    def revoke(self, role: str) -> None:
        self.decided(lambda: operators.revoke(self.operator, role=role))

    @precondition(lambda self: self.history)
    @rule(countries=st.sampled_from([None, ("AT",), ("DE",)]))
    def scope(self, countries: tuple[str, ...] | None) -> None:
        self.decided(lambda: operators.scope(self.operator, brands=None, countries=countries, at=self.now))

    @precondition(lambda self: self.history)
    @rule(suspends=st.booleans())
    def suspend_or_resume(self, suspends: bool) -> None:
        self.decided(
            lambda: operators.suspend(self.operator, reason="left") if suspends else operators.resume(self.operator)
        )

    @rule(hours=st.integers(1, 30))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @invariant()
    def roles_are_those_of_the_history(self) -> None:
        assert self.roles_at(self.operator, self.now) == {role for role in ROLES if self.gives(role)}

    def gives(self, role: str) -> bool:
        joined = any(isinstance(event, Activated) for event in self.history)
        turns = [event for event in self.history if isinstance(event, (Suspended, Resumed))]
        told = [e for e in self.history if isinstance(e, (RoleGranted, RoleRevoked)) and e.role == role]
        last = told[-1] if told else None
        is_granted = isinstance(last, RoleGranted) and (last.until is None or self.now < last.until)
        return is_granted and joined and not (turns and isinstance(turns[-1], Suspended))

    @invariant()
    def a_regulator_is_nothing_else_and_has_countries(self) -> None:
        held = self.operator.holds(self.now)
        assert "regulator" not in held or (held == {"regulator"} and self.operator.countries)


LAW = settings(max_examples=50, stateful_step_count=30)


def test_nobody_has_a_role_that_was_not_granted_or_is_over_or_while_suspended() -> None:
    run_state_machine_as_test(Work, settings=LAW)


def _forgets_revocations(operator: Operator, event: OperatorEvent, at: datetime) -> Operator:
    return operator if isinstance(event, RoleRevoked) else operators.evolve(operator, event, at)


def _forgets_suspensions(operator: Operator, event: OperatorEvent, at: datetime) -> Operator:
    return operator if isinstance(event, Suspended) else operators.evolve(operator, event, at)


def _activates_who_comes_back(operator: Operator, event: OperatorEvent, at: datetime) -> Operator:
    now = operators.evolve(operator, event, at)
    return msgspec.structs.replace(now, status=Status.ACTIVE) if isinstance(event, Resumed) else now


def _knows_no_end(operator: Operator, _at: datetime) -> frozenset[str]:
    return frozenset(operator.roles) if operator.status is Status.ACTIVE else frozenset()


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ("evolve", _forgets_revocations),
        ("evolve", _forgets_suspensions),
        ("evolve", _activates_who_comes_back),
        ("roles_at", _knows_no_end),
        ("roles_at", Operator.holds),
    ],
)
def test_the_law_catches(part: str, fault: Callable[..., Any]) -> None:
    faulty = type("Faulty", (Work,), {part: staticmethod(fault)})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            faulty, settings=settings(LAW, max_examples=300, database=None, phases=[Phase.generate], derandomize=True)
        )
