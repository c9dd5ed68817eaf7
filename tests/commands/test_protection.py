from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from access.policy import service
from commands.edge import Edge, InterventionMissing
from commands.matches import shut_out_match
from commands.plan import Context, Receipt
from commands.players import PlayerRegistered
from commands.sealing import KeyNotHeld
from domain import logins, protection
from domain.errors import Forbidden
from domain.kernel import PlayerId
from domain.players import ActivationAwaited, Registered
from domain.protection import (
    ActionIsBlocked,
    Answer,
    Excluded,
    Grounds,
    LiftRefused,
    PlayerExcluded,
    PlayerTimedOut,
    PlayRefused,
    RegisterAsked,
    RegisterUnanswered,
    Said,
    Source,
    Stop,
    TermNotOffered,
    TimedOut,
)
from policies.protection import Moment, Silence
from policies.rules import RULES
from tests.commands.house import CODEC, House, deposit_of, made
from tests.ledger import OWNED

WHY = {"kind": "complaint", "reason": "Ada called, and cried"}
SECRETS = (b"Ada", b"ada@example.org", b"cried", b"+43 1 99")
ADA = {"name": "Ada Lovelace", "birth_date": "1990-12-10", "email": "ada@example.org", "phone": "+43 1 99"}


async def protect(house: House, player: str, what: str, body: object = None, **more: Any) -> Receipt:
    return await house.process.post(f"/v1/players/{player}/{what}", body, **more)


async def log_in(house: House, player: str, session: str = "s1", **more: Any) -> Receipt:
    return await house.process.post(f"/v1/players/{player}/logins", {"session": session}, **more)


def refusals(house: House) -> list[tuple[Stop, str]]:
    return [(each.action, each.code) for each in house.log.events("protection") if isinstance(each, PlayRefused)]


def told(
    register: str, said: Said, moment: Moment = Moment.LOGIN, silence: Silence | None = None
) -> tuple[Answer, ...]:
    return (Answer(register, moment, said, silence=silence),)


# Time-outs and exclusions


async def test_who_excludes_themselves_is_logged_out_and_their_games_are_ended_by_the_same_command(
    house: House,
) -> None:
    player = await house.player()
    await log_in(house, player, "at home")
    await log_in(house, player, "under way")
    await house.process.post(f"/v1/players/{player}/sessions", {"provider": "acme", "game": "book", "kind": "slot"})
    receipt = await protect(house, player, "exclude", {"term": "6_months"})
    last = [CODEC.decode(entry) for entry in house.log.entries][-1].body.command
    together = [e.event.tag for e in map(CODEC.decode, house.log.entries) if e.body.command.id == last.id]
    assert together == ["protection.excluded", "play.session_ended", "login.ended", "login.ended"]
    assert receipt.answer.until is not None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("what", "body", "refusal"),
    [
        ("exclude", {"term": "6_months"}, PlayerExcluded),
        ("time-out", {"term": "24_hours"}, PlayerTimedOut),
        ("panic", {}, PlayerTimedOut),
    ],
)
async def test_who_is_shut_out_neither_deposits_nor_logs_in_and_each_refusal_stands_in_the_log(
    house: House, what: str, body: object, refusal: type[Exception]
) -> None:
    player = await house.player()
    await protect(house, player, what, body)
    for process in (house.process, house.another_process()):
        with pytest.raises(refusal):
            await process.post(f"/v1/players/{player}/deposits", deposit_of(100))
    with pytest.raises(refusal):
        await log_in(house, player, key="once")
    count = len(house.log.entries)
    with pytest.raises(refusal) as again:
        await log_in(house, player, key="once")
    assert len(house.log.entries) == count
    assert again.value.facts["until"] is not None  # type: ignore[attr-defined]
    code = refusal.code  # type: ignore[attr-defined]
    assert refusals(house) == [(Stop.DEPOSIT, code), (Stop.DEPOSIT, code), (Stop.LOGIN, code)]
    assert not house.log.events("transaction")


async def test_the_way_to_ones_money_stays_open(house: House) -> None:
    player = await house.player()
    deposit = await house.deposit(player, 5_000)
    await house.process.post(f"/v1/transactions/{deposit}/settle")
    await protect(house, player, "exclude", {"term": "1_year"})
    body = {"amount": {"amount": 1_000, "currency": "EUR"}, "provider": "acme"}
    await house.process.post(f"/v1/players/{player}/tags", {"tag": "risk"})  # so that a person looks at it
    waiting = made(await house.process.post(f"/v1/players/{player}/withdrawals", body))
    await protect(house, player, "blocks", {"action": "withdraw", "reason": "fraud", "intervention": WHY})
    with pytest.raises(ActionIsBlocked):
        await house.process.post(f"/v1/players/{player}/withdrawals", body)
    with pytest.raises(ActionIsBlocked):
        await house.process.post(f"/v1/transactions/{waiting}/approve", {"intervention": WHY})
    await protect(house, player, "unblocks", {"action": "withdraw", "reason": "fraud", "intervention": WHY})
    assert made(await house.process.post(f"/v1/players/{player}/withdrawals", body))


async def test_it_ends_by_itself_and_then_the_player_is_back(house: House) -> None:
    player = await house.player()
    receipt = await protect(house, player, "exclude", {"term": "6_months"})
    house.now = receipt.answer.until + timedelta(seconds=1)  # type: ignore[attr-defined]
    await log_in(house, player)
    assert refusals(house) == []


async def test_asking_again_records_nothing_and_answers_until_when(house: House) -> None:
    player = await house.player()
    first = await protect(house, player, "exclude", {"term": "1_year"})
    count = len(house.log.entries)
    again = await protect(house, player, "exclude", {"term": "6_months"})
    assert again.answer == first.answer
    assert len(house.log.entries) == count


async def test_a_person_of_the_house_who_shuts_somebody_out_says_why_and_a_player_need_not(house: House) -> None:
    player = await house.player()
    for what, term in (("time-out", "24_hours"), ("exclude", "6_months")):
        with pytest.raises(InterventionMissing):
            await protect(house, player, what, {"term": term, "source": "operator"})
        await protect(house, player, what, {"term": term, "source": "operator", "intervention": WHY})
    await protect(house, player, "exclude", {"term": "1_year"})
    assert [each.source for each in house.log.events("protection")] == [  # type: ignore[attr-defined]
        Source.OPERATOR, Source.OPERATOR, Source.PLAYER
    ]  # fmt: skip


async def test_a_term_that_is_not_offered_and_one_that_is_none(house: House) -> None:
    player = await house.player(country="CA", jurisdiction="CA-ON", currency="CAD", birth_date="1980-01-01")
    with pytest.raises(TermNotOffered):
        await protect(house, player, "exclude", {"term": "7_months"})
    for term in ("a while", "6_moons", "0_days"):
        with pytest.raises(Exception, match="match"):
            await protect(house, player, "exclude", {"term": term})


# Lifting, blocks


async def test_only_who_may_lift_lifts_and_only_as_the_rules_say(house: House) -> None:
    player = await house.player(country="DE")
    until = (await protect(house, player, "exclude", {"term": "6_months"})).answer
    assert until.until is None  # type: ignore[attr-defined]
    with pytest.raises(LiftRefused):
        await protect(house, player, "exclusion/lift", {"intervention": WHY})
    (excluded,) = house.log.events("protection")
    house.now = excluded.until + timedelta(days=1)  # type: ignore[attr-defined]
    with pytest.raises(Forbidden):
        await protect(house, player, "exclusion/lift", {"intervention": WHY}, roles=("operator",))
    with pytest.raises(InterventionMissing):
        await protect(house, player, "exclusion/lift")
    lifted = await protect(house, player, "exclusion/lift", {"intervention": WHY})
    again = await protect(house, player, "exclusion/lift", {"intervention": WHY})
    assert lifted.answer == again.answer
    with pytest.raises(PlayerExcluded):
        await log_in(house, player)
    house.now = lifted.answer.effective_at  # type: ignore[attr-defined]
    await log_in(house, player)


@pytest.mark.parametrize("action", ["deposit", "login"])
async def test_the_house_stops_one_thing_says_why_and_allows_it_again(house: House, action: str) -> None:
    player = await house.player()
    with pytest.raises(InterventionMissing):
        await protect(house, player, "blocks", {"action": action, "reason": "harm"})
    await protect(house, player, "blocks", {"action": action, "reason": "harm", "intervention": WHY})

    async def act() -> None:
        if action == "login":
            await log_in(house, player)
        else:
            await house.process.post(f"/v1/players/{player}/deposits", deposit_of(100))

    with pytest.raises(ActionIsBlocked) as refused:
        await act()
    assert refused.value.facts == {"action": action}
    allowed = {"action": action, "reason": "harm", "intervention": WHY}
    with pytest.raises(Forbidden):
        await protect(house, player, "unblocks", allowed, roles=("support",))
    await protect(house, player, "unblocks", {**allowed, "reason": "another"})
    with pytest.raises(ActionIsBlocked):
        await act()
    await protect(house, player, "unblocks", allowed)
    await act()


async def test_a_block_for_one_reason_outlasts_that_for_another(house: House) -> None:
    player = await house.player()
    for reason in ("harm", "fraud"):
        await protect(house, player, "blocks", {"action": "deposit", "reason": reason, "intervention": WHY})
    await protect(house, player, "unblocks", {"action": "deposit", "reason": "harm", "intervention": WHY})
    with pytest.raises(ActionIsBlocked):
        await house.process.post(f"/v1/players/{player}/deposits", deposit_of(100))
    await protect(house, player, "unblocks", {"action": "deposit", "reason": "fraud", "intervention": WHY})
    assert await house.deposit(player, 100)


# Without the player's key


PROTECTIVE = [
    ("time-out", {"term": "24_hours", "source": "operator"}),
    ("exclude", {"term": "6_months", "source": "operator"}),
    ("exclude", {"term": "6_months"}),
    ("blocks", {"action": "deposit", "reason": "harm"}),
]


@pytest.mark.parametrize(("what", "body"), PROTECTIVE)
async def test_what_protects_a_player_is_recorded_without_its_reason_where_their_key_is_not_held(
    house: House, what: str, body: dict[str, str]
) -> None:
    player = await house.player()
    house.vault.kept.clear()
    done = await protect(house, player, what, {**body, "intervention": WHY}, key="once")
    with pytest.raises((PlayerExcluded, PlayerTimedOut, ActionIsBlocked)):
        await house.process.post(f"/v1/players/{player}/deposits", deposit_of(100))
    (event, _refused) = house.log.events("protection")
    assert event.intervention == Grounds(WHY["kind"])  # type: ignore[attr-defined]
    assert done.answer.reason_kept is False  # type: ignore[attr-defined]
    house.now += timedelta(days=1)
    again = await house.another_process().decider.decide(
        house.plan(f"/v1/players/{player}/{what}", {**body, "intervention": WHY}, key="once")
    )
    assert (again.answer, again.repeated) == (done.answer, True)
    assert not any(b"cried" in entry.body for entry in house.log.entries)


@pytest.mark.parametrize(("what", "body"), PROTECTIVE)
async def test_with_the_key_the_reason_is_kept_and_sealed(house: House, what: str, body: dict[str, str]) -> None:
    player = await house.player()
    done = await protect(house, player, what, {**body, "intervention": WHY})
    assert done.answer.reason_kept is True  # type: ignore[attr-defined]
    (event,) = house.opened("protection")
    assert event.intervention == Grounds(WHY["kind"], WHY["reason"])  # type: ignore[attr-defined]
    assert not any(b"cried" in entry.body for entry in house.log.entries)


async def test_a_player_who_asks_for_it_themselves_gives_no_reason(house: House) -> None:
    receipt = await protect(house, await house.player(), "exclude", {"term": "6_months"})
    assert receipt.answer.reason_kept is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("what", "body"), [("unblocks", {"action": "deposit", "reason": "harm"}), ("exclusion/dismiss-match", {})]
)
async def test_what_protects_a_player_less_is_refused_where_its_reason_could_not_be_kept(
    house: House, what: str, body: dict[str, str]
) -> None:
    other, player = await house.player(), await house.player()
    await protect(house, player, "blocks", {"action": "deposit", "reason": "harm", "intervention": WHY})
    await protect(house, other, "exclude", {"term": "6_months"})
    await house.process.decider.decide(shut_out_match(PlayerId(player), PlayerId(other), reacting(house)))
    house.vault.kept.clear()
    count = len(house.log.entries)
    with pytest.raises(KeyNotHeld):
        await protect(house, player, what, {**body, "intervention": WHY})
    assert len(house.log.entries) == count


def reacting(house: House) -> Edge:
    context = Context(service("reaction:protection", "reaction"), house.now, b"m" * 16, fingerprint=None)
    return Edge(context, house.vault, list(OWNED), "eu")  # type: ignore[arg-type]


# Registers


async def rich(house: House, country: str) -> str:
    player = await house.player(country=country, birth_date="1980-01-01")
    known = {"level": "identity", "method": "passport", "age_verified": True, "intervention": WHY}
    await house.process.post(f"/v1/players/{player}/kyc/approve", known)
    deposit = await house.deposit(player, 5_000)
    await house.process.post(f"/v1/transactions/{deposit}/settle")
    return player


async def withdraw(house: House, player: str, **more: Any) -> Receipt:
    body = {"amount": {"amount": 1_000, "currency": "EUR"}, "provider": "acme", "instrument": "ES91 2100"}
    return await house.process.post(f"/v1/players/{player}/withdrawals", body, **more)


def paying() -> str:
    """A jurisdiction whose register is asked before prizes are paid."""
    rows = (rule for rule in RULES.all if rule.name == "self_exclusion.register_checked_at")
    return next(rule.jurisdiction for rule in rows if "prize_payment" in rule.value)  # type: ignore[operator]


async def test_who_is_paid_is_asked_about_where_the_law_says_so_and_gets_their_money_in_any_case(house: House) -> None:
    player = await rich(house, paying())
    await log_in(house, player)
    for said in (Said.CLEAR, Said.EXCLUDED):
        house.unasked, house.asked = Silence.NOT_ASKED, told("RGIAJ", said, Moment.PRIZE_PAYMENT)
        assert made(await withdraw(house, player, key=said.value)).startswith("transaction_")
        asked = [each for each in house.log.events("protection") if isinstance(each, RegisterAsked)]
        assert asked[-1] == RegisterAsked(register="RGIAJ", moment=Moment.PRIZE_PAYMENT, answer=said)
    assert isinstance(house.log.events()[-1], logins.Ended), "by the same command"
    with pytest.raises(PlayerExcluded):
        await house.process.post(f"/v1/players/{player}/deposits", deposit_of(100))
    count = len(house.log.entries)
    again = await withdraw(house, player, key=Said.EXCLUDED.value)
    assert (again.repeated, len(house.log.entries)) == (True, count)


async def test_a_register_that_is_silent_when_a_prize_is_paid_stands_in_the_log_and_holds_no_money(
    house: House,
) -> None:
    player = await rich(house, paying())
    house.unasked, house.asked = Silence.NOT_ASKED, ()
    assert made(await withdraw(house, player))
    (asked,) = (each for each in house.log.events("protection") if isinstance(each, RegisterAsked))
    assert (asked.moment, asked.silence) == (Moment.PRIZE_PAYMENT, Silence.NOT_ASKED)


async def test_elsewhere_nobody_is_asked_about_for_being_paid(house: House) -> None:
    player = await rich(house, "PT")
    house.unasked = Silence.NOT_ASKED
    assert made(await withdraw(house, player))
    assert not house.log.events("protection")


async def test_a_log_in_records_what_the_register_said_of_it(house: House) -> None:
    player = await house.player(country="DE")
    house.unasked, house.asked = Silence.NOT_ASKED, told("OASIS", Said.CLEAR)
    await log_in(house, player)
    assert house.log.events("protection") == [RegisterAsked(register="OASIS", moment=Moment.LOGIN, answer=Said.CLEAR)]
    assert isinstance(house.log.events()[-1], logins.Succeeded)


async def test_who_the_register_names_is_not_let_in_and_is_logged_out_elsewhere(house: House) -> None:
    player = await house.player(country="DE")
    house.unasked, house.asked = Silence.NOT_ASKED, told("OASIS", Said.CLEAR)
    await log_in(house, player, "first")
    house.asked = told("OASIS", Said.EXCLUDED)
    with pytest.raises(PlayerExcluded):
        await log_in(house, player, "second")
    assert [each.tag for each in house.log.events()[-4:]] == [
        "protection.register_asked", "protection.excluded", "login.ended", "protection.play_refused"
    ]  # fmt: skip
    house.asked = told("OASIS", Said.CLEAR)
    await log_in(house, player, "third")


@pytest.mark.parametrize("silence", [Silence.DOWN, Silence.NO_ADAPTER, Silence.NOT_ASKED])
async def test_a_register_that_does_not_answer_keeps_the_player_out_and_says_so(house: House, silence: Silence) -> None:
    player = await house.player(country="DE")
    house.unasked = Silence.NOT_ASKED
    house.asked = () if silence is Silence.NOT_ASKED else told("OASIS", Said.UNANSWERED, silence=silence)
    with pytest.raises(RegisterUnanswered):
        await log_in(house, player)
    asked, refused = house.log.events("protection")
    assert (asked.silence, asked.holds) == (silence, True)  # type: ignore[attr-defined]
    assert refused == PlayRefused(action=Stop.LOGIN, code="register_unanswered")
    with pytest.raises(RegisterUnanswered):
        await house.process.post(f"/v1/players/{player}/deposits", deposit_of(100))


async def test_an_answer_of_another_register_than_the_jurisdictions_is_none(house: House) -> None:
    player = await house.player(country="DE")
    house.unasked, house.asked = Silence.NOT_ASKED, told("CRUKS", Said.CLEAR)
    with pytest.raises(RegisterUnanswered):
        await log_in(house, player)


async def test_a_house_that_was_told_of_no_register_lets_in_and_its_log_says_once_that_none_was_asked(
    house: House,
) -> None:
    for country, register, silence in (("DE", "OASIS", Silence.NOT_CONFIGURED), ("AT", "", Silence.NOT_RESEARCHED)):
        player = await house.player(country=country)
        await log_in(house, player, "s1")
        await log_in(house, player, "s2")
        stream = protection.stream(PlayerId(player)).name
        events = [each.event for each in map(CODEC.decode, house.log.entries) if each.body.stream == stream]
        assert events == [
            RegisterAsked(register=register, moment=Moment.LOGIN, answer=Said.UNANSWERED, silence=silence)
        ]


async def test_who_is_in_the_register_gets_no_account_and_nothing_is_kept_of_them(house: House) -> None:
    house.unasked, house.asked = Silence.NOT_ASKED, told("OASIS", Said.EXCLUDED, Moment.REGISTRATION)
    for _ in range(2):
        with pytest.raises(PlayerExcluded) as refused:
            await house.process.post("/v1/players", {"country": "DE", "currency": "EUR", **ADA}, key="once")
        last = house.log.entries[-1]
        assert refused.value.position == f"eu/{last.position}/{last.leaf.hex()[:16]}"
    assert [type(each) for each in house.log.events()] == [RegisterAsked, PlayRefused]
    assert not house.vault.kept
    assert not await house.vault.find("email", ADA["email"])


@pytest.mark.parametrize("unasked", [Silence.NOT_ASKED, Silence.NOT_CONFIGURED])
async def test_a_registration_that_was_refused_stays_refused_whatever_is_known_later(
    house: House, unasked: Silence
) -> None:
    house.unasked, house.asked = Silence.NOT_ASKED, told("OASIS", Said.EXCLUDED, Moment.REGISTRATION)
    with pytest.raises(PlayerExcluded):
        await house.process.post("/v1/players", {"country": "DE", "currency": "EUR", **ADA}, key="once")
    house.unasked, house.asked = unasked, ()
    with pytest.raises(PlayerExcluded):
        await house.process.post("/v1/players", {"country": "DE", "currency": "EUR", **ADA}, key="once")


@pytest.mark.parametrize("said", [Said.CLEAR, Said.UNANSWERED])
async def test_a_registration_stands_with_what_the_register_said(house: House, said: Said) -> None:
    silence = Silence.DOWN if said is Said.UNANSWERED else None
    house.unasked, house.asked = Silence.NOT_ASKED, told("OASIS", said, Moment.REGISTRATION, silence)
    receipt = await house.process.post("/v1/players", {"country": "DE", "currency": "EUR", **ADA})
    assert isinstance(receipt.answer, PlayerRegistered)
    found = [each for each in house.log.events() if isinstance(each, Registered | RegisterAsked | ActivationAwaited)]
    assert [type(each) for each in found] == [Registered, RegisterAsked]
    assert found[1].holds is (said is Said.UNANSWERED)  # type: ignore[union-attr]


async def test_a_check_before_marketing_is_recorded_and_shuts_out_whom_the_register_names(house: House) -> None:
    player = await house.player(country="DK", birth_date="1980-01-01")
    house.unasked, house.asked = Silence.NOT_ASKED, told("ROFUS", Said.CLEAR, Moment.MARKETING)
    receipt = await protect(house, player, "register-check", {"moment": "marketing"})
    assert receipt.answer.answer is Said.CLEAR  # type: ignore[attr-defined]
    house.asked = told("ROFUS", Said.EXCLUDED, Moment.MARKETING)
    await protect(house, player, "register-check", {"moment": "marketing"})
    with pytest.raises(PlayerExcluded):
        await house.process.post(f"/v1/players/{player}/deposits", deposit_of(100))


# Secrecy


async def test_nothing_of_who_they_are_or_of_what_was_said_stands_in_the_clear(house: House) -> None:
    player = await house.player(country="DE", **ADA)
    house.unasked, house.asked = Silence.NOT_ASKED, told("OASIS", Said.CLEAR)
    await log_in(house, player)
    await protect(house, player, "time-out", {"term": "24_hours", "source": "operator", "intervention": WHY})
    await protect(house, player, "blocks", {"action": "bonus", "reason": "harm", "intervention": WHY})
    await protect(house, player, "exclude", {"term": "6_months", "source": "operator", "intervention": WHY})
    await protect(house, player, "unblocks", {"action": "bonus", "reason": "harm", "intervention": WHY})
    stored = b"\n".join(entry.body for entry in house.log.entries)
    for secret in SECRETS:
        assert secret not in stored
    said = [each.intervention for each in house.opened("protection") if getattr(each, "intervention", None)]
    assert {each.reason for each in said} == {WHY["reason"]}
    assert [type(each) for each in house.log.events("protection") if isinstance(each, TimedOut | Excluded)] == [
        TimedOut, Excluded
    ]  # fmt: skip


@pytest.mark.parametrize("behind", [timedelta(hours=1), timedelta(days=1)])
async def test_a_time_out_is_as_long_though_the_clock_was_set_back_since_anything_was_recorded(
    house: House, behind: timedelta
) -> None:
    player = await house.player()
    house.now += timedelta(days=3)
    house.log.clock.now += 3 * 86_400_000_000
    began = house.now
    await house.player()  # somebody else: the log has a time
    house.now -= behind
    await protect(house, player, "time-out", {"term": "24_hours"})
    (paused,) = (each for each in house.log.events("protection") if isinstance(each, TimedOut))
    assert paused.until >= began + timedelta(hours=24, seconds=-1)
