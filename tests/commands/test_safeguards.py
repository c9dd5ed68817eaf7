"""What protects a player is recorded in US while EU, which owns them, cannot be reached; and what EU makes of it when it comes."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from access.policy import Scope, principal
from commands import safeguards
from commands.edge import Edge
from commands.plan import Context, Plan, Receipt
from commands.safeguards import NeedsOwner
from domain import limits, logins, players, protection
from domain.errors import Forbidden, LimitExceeded, NotFound, PlayerBlocked, Rejected
from domain.kernel import PlayerId, suffix, uuid7
from domain.players import Channel
from domain.protection import ActionIsBlocked, PlayerExcluded, PlayerTimedOut, Stop
from reactions import safeguards as reaction_module
from reactions.safeguards import TakingUp
from replay.account import Story
from replay.ownership import Ownership
from tests.commands.house import CODEC, NOON, House, deposit_of, euros
from tests.commands.us import Us, player_of_both

HALF_A_YEAR = {"term": "6_months"}
COMPLAINT = {"kind": "complaint", "reason": "she cried"}


def taking_up(house: House) -> TakingUp:
    def edge(context: Context) -> Edge:
        return Edge(context, house.vault, [1], "eu")  # type: ignore[arg-type]

    decider = house.another_process().decider
    return TakingUp("eu", house.log, CODEC, decider.decide, decider.look, edge, clock=lambda: house.now)


def tags(house: House, aggregate: str) -> list[str]:
    return [event.tag for event in house.log.events(aggregate) if event.tag != "protection.register_asked"]


async def states(house: House, player: str) -> list[Any]:
    id_ = PlayerId(player)
    looked = {"p": protection.stream(id_), "l": limits.stream(id_), "w": players.stream(id_)}
    return list((await house.another_process().decider.look(looked)).values())


async def test_an_exclusion_binds_where_it_was_recorded_and_everywhere_when_it_arrives(house: House, us: Us) -> None:
    player = await player_of_both(house, us)
    plan = house.plan(f"/v1/players/{player}/exclude", HALF_A_YEAR, key="stop me")
    receipt = await us.record(plan)
    assert us.recorded() == ["safeguard.excluded"]
    assert receipt.position is not None
    assert receipt.position.startswith("us/1/")
    assert receipt.answer.player == player  # type: ignore[attr-defined]
    assert isinstance(await us.refusal(Stop.LOGIN, player), PlayerExcluded)
    assert await us.refusal(Stop.WITHDRAW, player) is None
    await house.deposit(player, 100)  # the owner does not know yet
    us.send()
    with pytest.raises(PlayerExcluded):
        await house.deposit(player, 100)
    with pytest.raises(PlayerExcluded):
        await house.process.post(f"/v1/players/{player}/logins", {"session": "again"})
    assert "protection.excluded" not in tags(house, "protection"), "it binds before the owner has taken it up"


async def test_the_owner_takes_it_up_once_and_ends_log_ins(house: House, us: Us) -> None:
    player = await player_of_both(house, us)
    await us.record(house.plan(f"/v1/players/{player}/exclude", HALF_A_YEAR))
    us.send()
    for _ in range(2):
        reaction = taking_up(house)
        await reaction.step()
        await reaction.step()
    assert tags(house, "protection") == ["protection.excluded", "protection.safeguards_taken_up"]
    assert [type(each) for each in house.log.events("login")][-1] is logins.Ended
    body = CODEC.decode(house.log.entries[-1]).body
    assert (body.actor, body.cause) == ("reaction:protection", CODEC.decode(us.log.entries[0]).body.id)
    with pytest.raises(PlayerExcluded):
        await house.deposit(player, 100)
    us.receive()
    [here] = (await safeguards.look_here([PlayerId(player)], await us.decider.logs(), us.decider.look)).values()
    assert not here.is_open()
    assert here.states[protection.PROTECTION].exclusions == (await states(house, player))[0].exclusions


async def test_a_command_that_the_owner_has_run_after_all_is_taken_up_as_nothing_new(house: House, us: Us) -> None:
    player = await player_of_both(house, us)
    plan = house.plan(f"/v1/players/{player}/exclude", HALF_A_YEAR, key="stop me")
    await us.record(plan)
    first = await house.process.decider.decide(plan)
    before = (await states(house, player))[0]
    us.send()
    await taking_up(house).step()
    assert tags(house, "protection") == ["protection.excluded", "protection.safeguards_taken_up"]
    after = (await states(house, player))[0]
    assert (after.exclusions, after.shut_outs) == (before.exclusions, before.shut_outs)
    again = await house.process.decider.decide(plan)
    assert (again.repeated, again.answer.player) == (True, first.answer.player)  # type: ignore[attr-defined]


async def test_the_same_command_sent_to_the_owner_later_is_a_repeat_with_the_same_answer(house: House, us: Us) -> None:
    player = await player_of_both(house, us, consents=["email"])
    for path, body in PROTECTIVE:
        plan = house.plan(f"/v1/players/{player}{path}", body)
        here = await us.record(plan)
        us.send()
        there = await house.another_process().decider.decide(plan)
        assert (there.repeated, there.answer, there.position) == (True, here.answer, here.position), path


PROTECTIVE: list[tuple[str, dict[str, Any]]] = [
    ("/consents/withdraw", {"channels": ["email"]}),
    ("/limits/deposit", {"limit": euros(2_000)}),
    ("/limits", {"kind": "loss", "period": "week", "limit": euros(1_000)}),
    ("/limits/operator", {"kind": "deposit", "period": "month", "limit": euros(5_000), "reason": "harm"}),
    ("/blocks", {"action": "bonus", "reason": "harm", "intervention": COMPLAINT}),
    ("/time-out", {"term": "24_hours"}),
    ("/panic", {}),
    ("/exclude", HALF_A_YEAR),
    ("/block", {"reason": "fraud"}),
]


async def test_each_of_them_comes_to_what_it_would_have_been_in_the_owners_region(house: House, us: Us) -> None:
    here, there = [await player_of_both(house, us, consents=["email", "sms"]) for _ in range(2)]
    assert {f"/v1/players/{{player_id}}{path}" for path, _ in PROTECTIVE} == safeguards.PATHS
    house.log.clock.now = us.log._clock.now = int(house.now.timestamp()) * 1_000_000  # type: ignore[attr-defined]
    for path, body in PROTECTIVE:
        await us.record(house.plan(f"/v1/players/{here}{path}", body))
        await house.process.post(f"/v1/players/{there}{path}", body)
    assert b"cried" not in b"".join(entry.body for entry in us.log.entries)
    us.send()
    with pytest.raises(PlayerExcluded):
        await house.process.post(f"/v1/players/{here}/sessions", {"provider": "a", "game": "b", "kind": "slot"})
    with pytest.raises(PlayerBlocked):
        await house.process.post(f"/v1/players/{await blocked_only(house, us)}/deposits", deposit_of(1))
    await taking_up(house).step()
    mine, theirs = await states(house, here), await states(house, there)
    assert mine[1].given == theirs[1].given
    assert (mine[2].consents, mine[2].status, mine[2].block_reason) == ((Channel.SMS,), "blocked", "fraud")
    assert mine[2].consents == theirs[2].consents
    assert mine[0].stopped == theirs[0].stopped
    ends = [
        [round(each.until.timestamp()) for each in state.exclusions if each.until] for state in (mine[0], theirs[0])
    ]
    assert abs(ends[0][0] - ends[1][0]) <= 1
    assert {log: upto > 0 for log, upto in mine[0].taken_up.items()} == {"us": True}


async def blocked_only(house: House, us: Us) -> str:
    player = await player_of_both(house, us)
    await us.record(house.plan(f"/v1/players/{player}/block", {"reason": "fraud"}))
    us.send()
    return player


async def test_a_cut_limit_holds_for_the_owner_as_soon_as_it_arrives(house: House, us: Us) -> None:
    player = await player_of_both(house, us)
    await us.record(house.plan(f"/v1/players/{player}/limits/deposit", {"limit": euros(50)}))
    await house.deposit(player, 40)
    us.send()
    with pytest.raises(LimitExceeded):
        await house.deposit(player, 11)


@pytest.mark.parametrize(
    ("path", "body", "refusal"),
    [
        ("/block", {"reason": "fraud"}, PlayerBlocked),
        ("/block", {"reason": "chargeback"}, None),
        ("/blocks", {"action": "withdraw", "reason": "harm", "intervention": COMPLAINT}, ActionIsBlocked),
        ("/exclude", HALF_A_YEAR, None),
    ],
)
async def test_a_withdrawal_is_closed_where_it_was_recorded_by_what_holds_money_and_by_nothing_else(
    house: House, us: Us, path: str, body: dict[str, Any], refusal: type[Rejected] | None
) -> None:
    player = await player_of_both(house, us)
    await us.record(house.plan(f"/v1/players/{player}{path}", body))
    found = await us.refusal(Stop.WITHDRAW, player)
    assert (found and type(found)) is refusal


async def test_a_block_that_the_owner_knows_of_is_left_to_the_owner_who_may_have_ended_it(house: House, us: Us) -> None:
    player = await player_of_both(house, us)
    await house.process.post(f"/v1/players/{player}/block", {"reason": "fraud"})
    us.receive()
    await us.record(house.plan(f"/v1/players/{player}/limits/deposit", {"limit": euros(1_000)}))
    assert await us.refusal(Stop.WITHDRAW, player) is None


def test_a_player_whose_own_log_has_not_come_is_not_said_to_be_none() -> None:
    here = safeguards.Here({each: each.initial for each in (protection.PROTECTION, players.PLAYERS)}, {})
    assert here.refusal(Stop.WITHDRAW, NOON) is None


async def test_what_lifts_or_raises_is_not_recorded_without_the_owner(house: House, us: Us) -> None:
    player = await player_of_both(house, us)
    limit = {"kind": "deposit", "period": "day"}
    await us.record(house.plan(f"/v1/players/{player}/limits", {**limit, "limit": euros(50)}))
    await us.record(
        house.plan(f"/v1/players/{player}/limits/operator", {**limit, "limit": euros(50), "reason": "harm"})
    )
    for path, body in (
        ("/limits", {**limit, "limit": euros(60)}),
        ("/limits", limit),
        ("/limits/operator", {**limit, "limit": euros(60), "reason": "harm"}),
        ("/limits/operator", {**limit, "reason": "harm"}),
        ("/limits/operator", {**limit, "limit": euros(10), "reason": "aml"}),
        ("/block", {"reason": "aml"}),
    ):
        with pytest.raises(NeedsOwner):
            await us.record(house.plan(f"/v1/players/{player}{path}", body))
    assert us.recorded() == ["safeguard.limit_set"] * 2
    same = await us.record(house.plan(f"/v1/players/{player}/limits", {**limit, "limit": euros(50)}))
    assert (same.position, same.answer.outcome) == (None, "unchanged")  # type: ignore[attr-defined]


async def test_of_two_only_the_longer_adds_to_what_is_recorded_there(house: House, us: Us) -> None:
    player = await player_of_both(house, us)
    week = await us.record(house.plan(f"/v1/players/{player}/time-out", {"term": "1_week"}))
    for path, body in (("/time-out", {"term": "24_hours"}), ("/panic", {})):
        shorter = await us.record(house.plan(f"/v1/players/{player}{path}", body))
        assert (shorter.position, shorter.answer.until) == (None, week.answer.until)  # type: ignore[attr-defined]
    assert isinstance(await us.refusal(Stop.BET, player), PlayerTimedOut)
    assert us.recorded() == ["safeguard.timed_out"]


async def test_who_may_not_there_may_not_here(house: House, us: Us) -> None:
    player = await player_of_both(house, us, brand="north")
    plan = house.plan(f"/v1/players/{player}/exclude", HALF_A_YEAR)

    def by(**more: Any) -> Plan:
        who = principal("operator:max", ["supervisor"], stepped_up=house.now, **more)
        return msgspec.structs.replace(plan, context=msgspec.structs.replace(plan.context, principal=who))

    with pytest.raises(Forbidden):
        await us.record(by(scope=Scope(frozenset({"south"}), None)))
    with pytest.raises(Forbidden):
        await us.record(house.plan(f"/v1/players/{player}/exclude", HALF_A_YEAR, roles=["auditor"]))
    assert us.recorded() == []
    await us.record(by(scope=Scope(frozenset({"north"}), None)))
    stranger = "player_" + suffix(uuid7(NOON, bytes(10), 7))
    with pytest.raises(NotFound):
        await us.record(house.plan(f"/v1/players/{stranger}/exclude", HALF_A_YEAR))


async def test_an_account_as_of_then_holds_what_was_recorded_without_the_owner(house: House, us: Us) -> None:
    player = await player_of_both(house, us, consents=["email", "sms"])
    await us.record(house.plan(f"/v1/players/{player}/limits/deposit", {"limit": euros(50)}))
    await us.record(house.plan(f"/v1/players/{player}/consents/withdraw", {"channels": ["email"]}))
    ownership = Ownership()
    ownership.take_for_granted("eu")
    story = Story(PlayerId(player), ownership)
    for entry in (*us.log.entries, *house.log.entries):
        story.take(entry)
    account = story.account(CODEC)
    assert account.player.consents == (Channel.SMS,)
    assert [each.amount for each in account.limits.given] == [50]
    assert {each.body.type for each in story.concerned()} > {"safeguard.limit_set", "safeguard.consent_withdrawn"}
    us.send()
    await taking_up(house).step()
    for entry in house.log.entries[-4:]:
        story.take(entry)
    later = story.account(CODEC)
    assert (later.player.consents, later.limits.given) == (account.player.consents, account.limits.given)
    assert later.limits.taken_up == {"us": 1}


async def test_what_the_copy_says_already_is_left_to_the_owner_who_may_have_ended_it(house: House, us: Us) -> None:
    player = await player_of_both(house, us, consents=["email"])
    block = house.plan(f"/v1/players/{player}/block", {"reason": "fraud"})
    await house.process.post(f"/v1/players/{player}/block", {"reason": "fraud"})
    us.receive()
    await house.process.post(f"/v1/players/{player}/unblock", {"reason": "cleared"})
    with pytest.raises(NeedsOwner):
        await us.record(block)
    for key in ("first", "again"):  # what is recorded here, the owner has not ended: it is to be taken up
        await us.record(house.plan(f"/v1/players/{player}/consents/withdraw", {"channels": ["email"]}, key=key))
    assert us.recorded() == ["safeguard.consent_withdrawn"]


async def test_the_clock_of_the_other_region_ends_nothing_earlier(house: House, us: Us) -> None:
    player = await player_of_both(house, us, consents=["email"])
    await house.process.post(f"/v1/players/{player}/time-out", {"term": "24_hours"})
    us.receive()
    us.log._clock.now = int((NOON.timestamp() + 2 * 86_400) * 1_000_000)  # type: ignore[attr-defined]
    await us.record(house.plan(f"/v1/players/{player}/consents/withdraw", {"channels": ["email"]}))
    await us.record(
        house.plan(
            f"/v1/players/{player}/blocks",
            {"action": "bonus", "reason": "harm", "intervention": {"kind": "complaint", "reason": "x"}},
        )
    )
    us.send()
    with pytest.raises(PlayerTimedOut):
        await house.deposit(player, 1)


# What the owner's reaction looks at


class Counted:
    """The streams of a log, and how often each question was asked."""

    def __init__(self, of: Any) -> None:
        self.of = of
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.asked[name] += 1
        return getattr(self.of, name)


async def excluded_by_us(house: House, us: Us, count: int) -> list[str]:
    each = [await player_of_both(house, us) for _ in range(count)]
    for player in each:
        await us.record(house.plan(f"/v1/players/{player}/exclude", HALF_A_YEAR))
    us.send()
    return each


def reacting(house: House, decided: list[str], before: Any = None) -> tuple[TakingUp, Counted]:
    """A reaction, the streams that it asks, and whom it has decided on."""
    reaction, streams = taking_up(house), Counted(house.log)
    decide = reaction._decide

    async def spied(plan: Plan) -> Receipt:
        decided.append("player_" + plan.writes["player"].name.partition("-")[2])
        if before:
            await before()
        return await decide(plan)

    reaction._decide, reaction._streams = spied, streams  # type: ignore[assignment]
    return reaction, streams


async def test_after_a_restart_what_was_taken_up_is_not_decided_on_again(house: House, us: Us) -> None:
    await excluded_by_us(house, us, 3)
    await taking_up(house).step()
    count, decided = len(house.log.entries), list[str]()
    reaction, _ = reacting(house, decided)
    await reaction.step()
    assert decided == []
    [late] = await excluded_by_us(house, us, 1)
    await reaction.step()
    assert decided == [late]
    assert len(house.log.entries) > count


async def test_each_log_is_listed_once_and_then_looked_at_from_where_it_was(house: House, us: Us) -> None:
    decided: list[str] = []
    reaction, streams = reacting(house, decided)
    expected = await excluded_by_us(house, us, 2)
    for _ in range(5):
        await reaction.step()
        expected += await excluded_by_us(house, us, 1)
    await reaction.step()
    assert streams.asked["beginning"] == 2, "once for each log"
    assert (sorted(decided), len(set(decided))) == (sorted(expected), 7)
    assert (reaction._open, reaction._patience._tries) == ({}, {}), "nothing is remembered of what is done"


async def test_what_is_new_does_not_wait_for_all_that_is_old(
    house: House, us: Us, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaction_module, "PAGE", 1)
    old = await excluded_by_us(house, us, 4)
    new: list[str] = []

    async def comes() -> None:
        if not new:
            new.extend(await excluded_by_us(house, us, 1))

    decided: list[str] = []
    reaction, _ = reacting(house, decided, comes)
    await reaction.step()
    assert sorted(decided) == sorted([*old, *new])
    assert decided.index(new[0]) == 2, "after the page that was in hand"


async def test_one_that_fails_is_tried_again_later_and_holds_up_no_other(house: House, us: Us) -> None:
    one, other = await excluded_by_us(house, us, 2)
    decided: list[str] = []

    async def fails() -> None:
        if decided[-1] == one and len(decided) < 3:
            raise RuntimeError("planted")

    reaction, _ = reacting(house, decided, fails)
    await reaction.step()
    await reaction.step()
    assert sorted(decided) == sorted([one, other]), "not at once"
    house.now += timedelta(seconds=3)
    await reaction.step()
    assert decided[2:] == [one]
    assert "protection.excluded" in tags(house, f"protection-{one.removeprefix('player_')}")
    assert reaction._open == {}
