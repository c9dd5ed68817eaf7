"""
Four eyes as laws: people ask, approve, reject, lose their rights and come back, time passes, processes are replaced, two act at
once. After every step the whole log is read, and whatever moved money by hand must have been allowed to. Each planted bug
breaks a law.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from itertools import groupby
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from access.policy import Action, Principal, principal, service
from commands import approvals as four_eyes
from domain import approvals, wallets
from domain.adjustments import Adjustments, Made
from domain.approvals import Approved, Declined, Expired, Requested
from domain.errors import Rejected
from domain.kernel import Event, instant
from domain.wallets import Accounts, Direction
from eventstore.record import Body, Recorded
from tests.commands.house import CODEC, House, euros, in_the_clear, made

ROLES = {
    "operator:maria": "cashier",
    "operator:olga": "cashier",
    "supervisor:bo": "supervisor",
    "supervisor:cy": "supervisor",
}
BEHIND = {"operator:maria": "staff-1", "supervisor:cy": "staff-1"}
"""Maria has two accounts; the others' speak for themselves."""
PEOPLE = st.sampled_from(sorted(ROLES))
CASHIERS, SUPERVISORS = (
    st.sampled_from([actor for actor, held in ROLES.items() if held == role]) for role in ("cashier", "supervisor")
)
AMOUNTS = st.sampled_from([1, 10_000, 10_001, 10_001])
WHICH = st.sampled_from([0, 0, 0, 1, 2])
"""Counted from the last."""
ALONE, ALONE_OF_ALL = 10_000, 25_000
"""Cents that one person, or all together, may move on a day with nobody else (policies/approvals.py)."""


def acting(actor: str, role: str) -> Principal:
    return principal(actor, [role], person=BEHIND.get(actor, ""), machine=True)


class Desk(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.house = self.run(self._house())
        self.process = self.house.process
        self.house.known |= {actor: acting(actor, role) for actor, role in ROLES.items()}
        self.sent: dict[str, tuple[Any, dict[str, Principal]]] = {}
        self.recorded: set[str] = set()
        self.told: list[Recorded] = []
        self.asked: list[tuple[str, str]] = []
        self.keys: list[tuple[str, str, dict[str, Any]]] = []
        registered = self.run(
            self.process.post("/v1/players", {"country": "DE", "currency": "EUR"}, actor="operator:xenia")
        )
        self.player = made(registered)

    async def _house(self) -> House:
        return House()

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def teardown(self) -> None:
        self.run(self.house.close())
        self.loop.close()

    def plan(self, path: str, body: dict[str, Any], who: Principal, key: str = "") -> Any:
        """A command as it is sent, remembered with the rights that people had then."""
        rights = dict(self.house.known)
        plan = self.house.plan(path, body, actor=who.actor, key=key, person=who.person)
        self.house.known = rights
        plan = msgspec.structs.replace(plan, context=msgspec.structs.replace(plan.context, principal=who))
        if (id_ := plan.context.command_id.hex()) not in self.recorded:  # what was refused is decided anew
            self.sent[id_] = (plan.context, rights)
        return plan

    def send(self, *plans: Any) -> list[Any]:
        async def together() -> list[Any]:
            return await asyncio.gather(*map(self.process.decider.decide, plans), return_exceptions=True)

        results: list[Any] = self.run(together())
        for each in results:
            if isinstance(each, BaseException) and not isinstance(each, Rejected):
                raise each
        return results

    # What people do

    @rule(who=PEOPLE, amount=AMOUNTS, direction=st.sampled_from(["credit", "credit", "debit"]))
    def ask(self, who: str, amount: int, direction: str) -> None:
        path = f"/v1/players/{self.player}/adjustments"
        why = {"kind": "correction", "reason": "as counted"}
        body = {"amount": euros(amount), "direction": direction, "reason_code": "other", "intervention": why}
        self.keys.append((f"key {len(self.keys)} of the desk", who, body))
        self._ask(path, *self.keys[-1])

    @rule(which=WHICH)
    def ask_again_with_the_same_key(self, which: int) -> None:
        if self.keys:
            self._ask(f"/v1/players/{self.player}/adjustments", *self.keys[-1 - which % len(self.keys)])

    def _ask(self, path: str, key: str, who: str, body: dict[str, Any]) -> None:
        [result] = self.send(self.plan(path, body, self.house.known[who], key))
        answer = getattr(result, "answer", None)
        if isinstance(answer, four_eyes.AwaitingApproval) and (answer.approval, answer.hash) not in self.asked:
            self.asked.append((answer.approval, answer.hash))

    @rule(which=WHICH, who=st.one_of(SUPERVISORS, PEOPLE), other=st.one_of(SUPERVISORS, PEOPLE), mistaken=st.booleans())
    def approve_two_at_once(self, which: int, who: str, other: str, mistaken: bool) -> None:
        if self.asked:
            approval, hash_ = self.asked[-1 - which % len(self.asked)]
            named = {who: hash_, other: "0" * 64 if mistaken else hash_}
            path = f"/v1/approvals/{approval}/approve"
            self.send(*(self.plan(path, {"hash": each}, self.house.known[actor]) for actor, each in named.items()))

    @rule(which=WHICH, who=st.one_of(PEOPLE, st.just("")))
    def reject_or_fire_the_timer(self, which: int, who: str) -> None:
        if self.asked:
            path = f"/v1/approvals/{self.asked[-1 - which % len(self.asked)][0]}"
            if who:
                self.send(self.plan(f"{path}/reject", {"reason": "no"}, self.house.known[who]))
            else:
                self.send(self.plan(f"{path}/expire", {}, service("reaction:timers", "reaction")))

    @rule(who=st.one_of(CASHIERS, PEOPLE))
    def lose_or_regain_rights(self, who: str) -> None:
        held = self.house.known[who].granted == principal(who, [ROLES[who]]).granted
        self.house.known[who] = acting(who, "viewer" if held else ROLES[who])

    @rule(hours=st.sampled_from([1, 24]))
    def wait_and_restart(self, hours: int) -> None:
        self.house.now += timedelta(hours=hours)
        self.house.log.clock.now = int(self.house.now.timestamp() * 1_000_000)
        self.process = self.run(self._another())

    async def _another(self) -> Any:
        return self.house.another_process()

    # The laws

    @invariant()
    def whatever_moved_money_by_hand_was_allowed_to(self) -> None:
        for entry in self.house.log.entries[len(self.told) :]:
            self.told.append(CODEC.decode(entry)._replace(event=in_the_clear(entry, self.house.vault)))
        asked: dict[str, Requested] = {}
        ended: set[str] = set()
        books = Books()
        self.recorded = {each.body.command.id for each in self.told}
        for command, group in groupby(self.told, key=lambda each: each.body.command.id):
            if command not in self.sent:  # the registration
                continue
            read = list(group)
            events = [each.event for each in read]
            match events:
                case [Requested() as requested]:
                    self.was_asked_as_it_says(command, requested)
                    asked[read[0].body.stream] = requested
                case [Approved() as approved, *ran]:
                    self.was_approved_by_another(command, read[0].body, approved, asked[read[0].body.stream], ended)
                    self.is_what_was_asked(asked[read[0].body.stream], ran, read[-1].body)
                case [Declined() | Expired() as end]:
                    assert read[0].body.stream not in ended, "it ends once"
                    ended.add(read[0].body.stream)
                    due = asked[read[0].body.stream].expires_at
                    assert (self.sent[command][0].now >= due) == isinstance(end, Expired), "an end has its time"
                case [Made() as alone, wallets.Moved()]:
                    assert alone.operator == read[0].body.actor, "who acts alone acts for themselves"
                case _:
                    raise AssertionError(f"a command of a shape that nobody knows: {events}")
            books.take(read, alone=not isinstance(events[0], Approved))

    def was_asked_as_it_says(self, command: str, requested: Requested) -> None:
        context, _ = self.sent[command]
        assert requested.requester == context.principal.actor
        assert requested.hash == approvals.digest(requested.path, str(requested.salt), str(requested.body))
        assert requested.expires_at == context.now + timedelta(hours=24)

    def was_approved_by_another(
        self, command: str, body: Body, approved: Approved, asked: Requested, ended: set[str]
    ) -> None:
        context, rights = self.sent[command]
        assert body.stream not in ended, "it ends once"
        ended.add(body.stream)
        assert approved.hash == asked.hash, "what is approved is what was asked"
        assert body.actor == context.principal.actor
        assert BEHIND.get(body.actor, body.actor) != BEHIND.get(asked.requester, asked.requester), (
            "never the same person"
        )
        people = [(approved.person or body.actor), (asked.person or asked.requester)]
        assert people == [BEHIND.get(actor, actor) for actor in (body.actor, asked.requester)], (
            "the log tells who they were"
        )
        assert context.now < asked.expires_at, "nothing is approved late"
        assert Action.APPROVAL_DECIDE in rights[body.actor].granted
        assert Action.MONEY_ADJUST in rights[asked.requester].granted, "who asked may do so still"

    def is_what_was_asked(self, asked: Requested, ran: list[Event], last: Body) -> None:
        wanted = msgspec.json.decode(str(asked.body))
        [made_, moved] = ran
        assert isinstance(made_, Made)
        assert isinstance(moved, wallets.Moved)
        assert msgspec.to_builtins(made_.money) == wanted["amount"], "what runs is what was approved"
        assert (made_.direction, made_.operator) == (wanted["direction"], asked.requester)
        assert last.stream.partition("-")[2] in asked.path


class Books:
    """What was moved by hand: the player's cash, and who has moved how much on which day."""

    def __init__(self) -> None:
        self.cash = 0
        self.moved: Counter[tuple[date, str]] = Counter()

    def take(self, read: list[Recorded], *, alone: bool) -> None:
        for each in read:
            match each.event:
                case Made(money=money, direction=direction, operator=operator):
                    self.cash += money.amount if direction is Direction.CREDIT else -money.amount
                    day = instant(each.recorded).date()
                    self.moved[day, (person := BEHIND.get(operator, operator))] += money.amount
                    of_all = sum(amount for (on, _), amount in self.moved.items() if on == day)
                    assert not alone or self.moved[day, person] <= ALONE, "one person moves no more alone"
                    assert not alone or of_all <= ALONE_OF_ALL, "nor do all together"
                case wallets.Moved(accounts=accounts) as moved:
                    assert accounts == Accounts(cash=self.cash), "the wallet holds what was adjusted"
                    assert sum(amount for _, amount in wallets.postings(moved)) == 0
                case _:
                    pass


LAWS = settings(
    max_examples=60,
    stateful_step_count=25,
    database=None,
    derandomize=True,
    report_multiple_bugs=False,
    phases=[Phase.generate],
)


def check(examples: int) -> None:
    run_state_machine_as_test(Desk, settings=settings(LAWS, max_examples=examples))  # type: ignore[no-untyped-call]


def test_the_laws_of_four_eyes_hold_whatever_happens() -> None:
    check(60)


def own_eyes(patch: pytest.MonkeyPatch) -> None:
    approve = approvals.approve
    patch.setattr(
        approvals,
        "approve",
        lambda approval, *, by, person, **more: approve(approval, by="nobody", person="nobody", **more),
    )


def one_account_is_one_person(patch: pytest.MonkeyPatch) -> None:
    approve = approvals.approve

    def approve_it(approval: Any, *, person: str, requester: str, **more: Any) -> Any:
        known = msgspec.structs.replace(approval, person="")
        return [msgspec.structs.replace(each, person=person) for each in approve(known, **more)]

    patch.setattr(approvals, "approve", approve_it)


def forgets_who_asked(patch: pytest.MonkeyPatch) -> None:
    request = approvals.request
    without = lambda requested: msgspec.structs.replace(requested, person="")  # noqa: E731
    patch.setattr(approvals, "request", lambda approval, requested: request(approval, requested=without(requested)))


def counts_accounts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Made, "behind", property(lambda made: made.operator))


def any_hash(patch: pytest.MonkeyPatch) -> None:
    approve = approvals.approve

    def approve_it(approval: Any, *, hash: str, **more: Any) -> Any:  # noqa: A002
        return [Approved(hash)] if approve(approval, hash=approval.hash, **more) else []

    patch.setattr(approvals, "approve", approve_it)


def never_late(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(approvals, "_refuse_late", lambda *_: None)


def forgets_its_end(patch: pytest.MonkeyPatch) -> None:
    evolve = approvals.evolve
    patch.setattr(
        approvals.APPROVALS,
        "evolve",
        lambda approval, event, at: approval if isinstance(event, Approved) else evolve(approval, event, at),
    )


def expires_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        approvals, "expire", lambda approval, at: [Expired()] if approval.status == "awaiting_approval" else []
    )


def never_asks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(four_eyes, "reasons", lambda *_: ())


def forgets_what_one_did(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Adjustments, "by", lambda *_: 0)


def forgets_what_all_did(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Adjustments, "on", lambda *_: 0)


def old_rights(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(four_eyes, "_require_still", lambda *_: None)


def runs_another_body(patch: pytest.MonkeyPatch) -> None:
    read = four_eyes.read_body

    def doubled(decoder: Any, raw: bytes) -> Any:
        command = read(decoder, raw)
        amount = msgspec.structs.replace(command.amount, amount=2 * command.amount.amount)
        return msgspec.structs.replace(command, amount=amount)

    patch.setattr(four_eyes, "read_body", doubled)


@pytest.mark.parametrize(
    "plant",
    [
        own_eyes,
        one_account_is_one_person,
        forgets_who_asked,
        counts_accounts,
        any_hash,
        never_late,
        forgets_its_end,
        expires_early,
        never_asks,
        forgets_what_one_did,
        forgets_what_all_did,
        old_rights,
        runs_another_body,
    ],
    ids=lambda plant: plant.__name__,
)
def test_a_planted_bug_breaks_a_law(plant: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(500)
