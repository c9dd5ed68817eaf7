"""Load, authorise, decide, append: what a caller may rely on, whatever other processes do meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from access.policy import Action
from commands import decider as decider_module
from commands.plan import Fact, Plan, Receipt, RefusedFact, WrongRegion, ledger_position
from commands.transactions import Payment
from domain import players
from domain.errors import (
    AlreadyRegistered,
    Forbidden,
    KeyReused,
    LimitExceeded,
    LimitRaise,
    NotFound,
    PlayerBlocked,
    RuleRefused,
)
from domain.kernel import Money, PlayerId, Sealed, suffix, uuid7
from domain.limits import LIMITS
from domain.players import Blocked, Registered
from domain.transactions import DepositSettled, Status
from eventstore.log import Command, Outcome, state_schema
from eventstore.record import decode_body
from tests.commands.house import NOON, House, Process, deposit_of, euros, made

BLOCK = {"reason": "fraud"}


# The way of a command


async def test_a_deposits_life(house: House) -> None:
    player = await house.player()
    requested = await house.process.post(f"/v1/players/{player}/deposits", deposit_of(50))
    assert requested.answer == Payment(made(requested), Status.REQUESTED, Money(50, "EUR"))
    settled = await house.process.post(f"/v1/transactions/{made(requested)}/settle")
    assert settled.answer == Payment(made(requested), Status.SETTLED, balance=Money(50, "EUR"))
    tags = [event.tag for event in house.log.events()]
    assert tags == [
        "player.registered",
        "transaction.deposit_requested",
        "limits.headroom_consumed",
        "transaction.deposit_settled",
        "wallet.credited",
    ]


async def test_a_receipt_says_where_the_last_event_stands(house: House) -> None:
    receipt = await house.process.post(f"/v1/players/{await house.player()}/deposits", deposit_of(50))
    assert receipt.position == f"eu/3/{house.log.entries[2].leaf[:8].hex()}"
    assert receipt.position == ledger_position("eu", 3, house.log.entries[2].leaf)


async def test_an_envelope_says_who_asked_what_and_where(house: House) -> None:
    player = await house.player()
    plan = house.plan(f"/v1/players/{player}/deposits", deposit_of(50))
    await house.process.decider.decide(plan)
    bodies = [decode_body(entry.body) for entry in house.log.entries[1:]]
    for i, body in enumerate(bodies, 1):
        assert (body.actor, body.command.id, body.command.i, body.command.n) == (
            "operator:maria",
            plan.context.command_id.hex(),
            i,
            2,
        )
        assert body.command.fingerprint == plan.context.fingerprint
        assert (body.partition, body.epoch, body.version) == (players.stream(PlayerId(player)).partition, 1, 1)
        assert body.occurred is None
    assert len({body.id for body in bodies}) == 2


async def test_history_says_when_it_occurred(house: House) -> None:
    player = await house.player(occurred="1997-01-05")
    await house.process.post(f"/v1/players/{player}/deposits", deposit_of(50, occurred="1997-01-06"))
    occurred = [decode_body(entry.body).occurred for entry in house.log.entries]
    assert occurred == ["1997-01-05T00:00:00Z", *["1997-01-06T00:00:00Z"] * 3]


async def test_personal_fields_are_sealed_and_their_key_is_kept_before_anything_is_appended(house: House) -> None:
    player = await house.player(email="anna@example.com", name="Anna")
    (registered,) = house.log.events()
    assert isinstance(registered, Registered)
    assert b"nna" not in house.log.entries[0].body
    key = house.vault.kept[registered.key.id]
    assert key.commitment == registered.key.commitment
    event_id = decode_body(house.log.entries[0].body).id
    assert isinstance(registered.email, Sealed)
    assert key.open(registered.email, event_id=event_id, path="data.email") == "anna@example.com"
    assert house.vault.before_keeping == [0]
    assert await house.vault.find("email", "ANNA@example.com") == [player.removeprefix("player_")]


# Who may


async def test_who_may_not_is_told_so_and_nothing_happens(house: House) -> None:
    player = await house.player()
    for path, body, roles in (
        (f"/v1/players/{player}/block", BLOCK, ["viewer"]),
        ("/v1/players", {"country": "DE", "currency": "EUR"}, ["payments"]),
        ("/v1/players", {"country": "DE", "currency": "EUR", "occurred": "1997-01-05"}, ["operator"]),
        (f"/v1/players/{player}/deposits", deposit_of(1), []),
    ):
        with pytest.raises(Forbidden):
            await house.process.post(path, body, roles=roles)
    assert len(house.log.entries) == 1


async def test_a_repeat_is_answered_only_to_who_may_ask(house: House) -> None:
    player = await house.player()
    await house.process.post(f"/v1/players/{player}/block", BLOCK, key="k")
    with pytest.raises(Forbidden):
        await house.process.post(f"/v1/players/{player}/block", BLOCK, key="k", roles=["viewer"])


# Repeats


async def test_the_same_key_with_the_same_request_gets_the_first_answer(house: House) -> None:
    player = await house.player()
    path = f"/v1/players/{player}/deposits"
    first = await house.process.post(path, deposit_of(50), key="k")
    again = await house.process.post(path, deposit_of(50), key="k")
    assert again == msgspec.structs.replace(first, repeated=True)
    assert not first.repeated
    assert len(house.log.entries) == 3


async def test_the_first_answer_holds_after_the_state_has_moved_on(house: House) -> None:
    player = await house.player()
    path = f"/v1/players/{player}/deposits"
    first = await house.process.post(path, deposit_of(50), key="k")
    settled = await house.process.post(f"/v1/transactions/{made(first)}/settle", key="s")
    await house.process.post(f"/v1/players/{player}/block", BLOCK)
    await house.process.post(f"/v1/players/{player}/limits/deposit", {"limit": euros(1)})
    for process in (house.process, house.another_process()):
        assert await process.post(path, deposit_of(50), key="k") == msgspec.structs.replace(first, repeated=True)
        again = await process.post(f"/v1/transactions/{made(first)}/settle", key="s")
        assert again == msgspec.structs.replace(settled, repeated=True)


async def test_a_repeated_registration_names_the_first_player_and_keeps_no_second_key(house: House) -> None:
    asked = {"country": "DE", "currency": "EUR", "email": "anna@example.com"}
    first = await house.process.post("/v1/players", asked, key="k")
    again = await house.another_process().post("/v1/players", asked, key="k")
    assert again == msgspec.structs.replace(first, repeated=True)
    assert len(house.vault.kept) == 1


async def test_the_same_registration_twice_at_once_makes_one_player(house: House) -> None:
    asked = {"country": "DE", "currency": "EUR"}
    processes = [house.process, house.another_process()]
    receipts = await asyncio.gather(*(process.post("/v1/players", asked, key="k") for process in processes * 2))
    assert len({made(receipt) for receipt in receipts}) == 1
    assert len(house.log.entries) == 1


async def test_the_same_key_for_another_request_is_refused(house: House) -> None:
    player = await house.player()
    path = f"/v1/players/{player}/deposits"
    await house.process.post(path, deposit_of(50), key="k")
    for other_path, other in ((path, deposit_of(51)), (f"/v1/players/{await house.player()}/deposits", deposit_of(50))):
        with pytest.raises(KeyReused):
            await house.process.post(other_path, other, key="k")


async def test_another_callers_same_key_is_another_command(house: House) -> None:
    player = await house.player()
    path = f"/v1/players/{player}/deposits"
    receipts = [await house.process.post(path, deposit_of(50), key="k", actor=actor) for actor in ("a", "b")]
    assert made(receipts[0]) != made(receipts[1])


async def test_a_refusal_takes_no_key(house: House) -> None:
    player = await house.player()
    await house.process.post(f"/v1/players/{player}/block", BLOCK)
    with pytest.raises(PlayerBlocked):
        await house.process.post(f"/v1/players/{player}/deposits", deposit_of(101), key="k")
    await house.process.post(f"/v1/players/{player}/unblock", BLOCK)
    receipt = await house.process.post(f"/v1/players/{player}/deposits", deposit_of(100), key="k")
    assert not receipt.repeated


# Several processes


async def test_a_lost_race_is_decided_again(house: House) -> None:
    player = await house.player()
    other = house.another_process()
    await other.post(f"/v1/players/{player}/limits/deposit", {"limit": euros(100)})
    await house.deposit(player, 60)  # and now this process has cached it
    await other.post(f"/v1/players/{player}/deposits", deposit_of(30))
    with pytest.raises(LimitExceeded) as refused:
        await house.deposit(player, 20)  # which fits into what this process had seen
    assert refused.value.facts["used"] == Money(90, "EUR")
    await house.deposit(player, 10)


async def test_a_command_is_decided_on_what_others_have_recorded_since(house: House) -> None:
    player = await house.player()
    await house.deposit(player, 10)
    await house.another_process().post(f"/v1/players/{player}/block", BLOCK)
    with pytest.raises(PlayerBlocked):
        await house.deposit(player, 10)


async def test_a_stale_cache_never_refuses(house: House) -> None:
    """Each refusal below was right when it was cached, and no longer is."""
    other = house.another_process()
    register = house.plan("/v1/players", {"country": "AT", "currency": "EUR"})
    player = "player_" + register.writes["player"].name.partition("-")[2]
    for path, body in (("block", BLOCK), ("deposits", deposit_of(1)), ("limits/deposit", {"limit": euros(5)})):
        with pytest.raises(NotFound):
            await house.process.post(f"/v1/players/{player}/{path}", body)
    await other.decider.decide(register)
    await house.process.post(f"/v1/players/{player}/limits/deposit", {"limit": euros(100)})

    deposit = await house.deposit(player, 100)
    with pytest.raises(LimitExceeded):
        await house.deposit(player, 100)
    await other.post(f"/v1/transactions/{deposit}/fail", {"reason": "declined"})
    await house.deposit(player, 100)


async def test_a_stale_cache_never_says_that_there_is_nothing_to_do(house: House) -> None:
    player = await house.player()
    other = house.another_process()
    await house.process.post(f"/v1/players/{player}/limits/deposit", {"limit": euros(100)})
    await other.post(f"/v1/players/{player}/limits/deposit", {"limit": euros(50)})
    with pytest.raises(LimitRaise):
        await house.process.post(f"/v1/players/{player}/limits/deposit", {"limit": euros(100)})


async def test_a_refusal_is_confirmed_by_the_log(house: House) -> None:
    player = await house.player()
    await house.process.post(f"/v1/players/{player}/block", BLOCK)
    with pytest.raises(PlayerBlocked):
        await house.deposit(player, 1)
    ((confirmation,),) = house.log.appended[-1:]
    assert confirmation.bodies == ()
    assert (players.stream(PlayerId(player)).name, 2) in confirmation.reads
    assert len(confirmation.reads) == 6, "every stream that the decision saw"


async def test_what_changes_nothing_records_nothing_and_is_confirmed(house: House) -> None:
    player = await house.player()
    await house.process.post(f"/v1/players/{player}/block", BLOCK)
    again = await house.process.post(f"/v1/players/{player}/block", {"reason": "again"})
    assert (again.position, again.repeated) == (None, False)
    assert len(house.log.entries) == 2
    assert house.log.appended[-1][0].bodies == ()


async def test_only_one_of_many_racing_processes_gets_the_last_of_a_limit(house: House) -> None:
    player = await house.player()
    await house.process.post(f"/v1/players/{player}/limits/deposit", {"limit": euros(100)})
    processes = [house.process, *(house.another_process() for _ in range(3))]
    results = await asyncio.gather(
        *(process.post(f"/v1/players/{player}/deposits", deposit_of(30)) for process in processes for _ in range(2)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, LimitExceeded) for result in results) == 5
    assert sum(not isinstance(result, Exception) for result in results) == 3


class Meddler:
    """A writer beside which something else happens while it commits."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        outcomes = await self.process.house.log.append(commands)
        decider = self.process.decider
        decider._states.clear()  # as a full cache does
        name = next(name for name in self.process.house.log._streams if name.startswith("limits-"))
        decider._states[name] = (await decider._fold({name: LIMITS}))[name]  # as another task does that reads it
        return outcomes


async def test_an_event_that_was_loaded_again_meanwhile_is_not_folded_twice(house: House) -> None:
    player = await house.player()
    await house.deposit(player, 10)
    decider = house.process.decider
    decider._writer = Meddler(house.process)  # type: ignore[assignment]
    await house.deposit(player, 10)
    (cached,) = [folded for name, folded in decider._states.items() if name.startswith("limits-")]
    assert (cached.version, cached.state.requested) == (2, 20)


# Cold caches and snapshots


async def test_a_fresh_process_replays_what_it_needs(house: House) -> None:
    player = await house.player()
    deposit = await house.deposit(player, 50)
    fresh = house.another_process()
    house.log.loaded.clear()
    receipt = await fresh.post(f"/v1/transactions/{deposit}/settle")
    assert isinstance(receipt.answer, Payment)
    assert receipt.answer.balance == Money(50, "EUR")
    assert set(*house.log.loaded[:1]) == {"transaction-" + deposit.partition("_")[2]}


async def test_a_warm_process_loads_nothing(house: House) -> None:
    player = await house.player()
    await house.deposit(player, 1)
    house.log.loaded.clear()
    await house.deposit(player, 1)
    assert house.log.loaded == []


async def test_the_cache_is_bounded_also_by_what_is_not_there(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decider_module, "_CACHED_STATES", 10)
    for number in range(20):
        stranger = "player_" + suffix(uuid7(NOON, bytes([number]) * 10, 1))
        with pytest.raises(NotFound):
            await house.process.post(f"/v1/players/{stranger}/block", BLOCK)
    assert len(house.process.decider._states) <= 10


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> int:
    """Snapshots every 10 events, which is as good as every 500 and faster."""
    assert decider_module.SNAPSHOT_EVERY == 500
    monkeypatch.setattr(decider_module, "SNAPSHOT_EVERY", 10)
    return 10


async def cut_limits(house: House, count: int) -> str:
    player = await house.player()
    for cut in range(count):
        await house.process.post(f"/v1/players/{player}/limits/deposit", {"limit": euros(1000 - cut)})
    return player


async def loaded_after(house: House, player: str) -> int:
    """From which version on a fresh process loads the player's limits, and whether it then knows them."""
    house.log.loaded.clear()
    with pytest.raises(LimitRaise) as refused:
        await house.another_process().post(f"/v1/players/{player}/limits/deposit", {"limit": euros(1000)})
    assert refused.value.facts["limit"] == Money(1000 - 24, "EUR")
    return house.log.loaded[0]["limits-" + player.partition("_")[2]]


@pytest.mark.usefixtures("often")
async def test_a_snapshot_spares_the_events_before_it(house: House) -> None:
    player = await cut_limits(house, 25)
    assert await loaded_after(house, player) == 20


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    "change", [{"leaf": bytes(32)}, {"schema": "limits/000000000000", "state": b"{}"}, {"version": 21}, {"version": 26}]
)
async def test_a_snapshot_that_does_not_fit_is_ignored(house: House, change: dict[str, Any]) -> None:
    player = await cut_limits(house, 25)
    name = "limits-" + player.partition("_")[2]
    house.log._snapshots[name] = house.log._snapshots[name]._replace(**change)
    assert await loaded_after(house, player) == 0


def test_a_snapshot_names_the_shape_of_the_state() -> None:
    assert state_schema(LIMITS).startswith("limits/")
    assert state_schema(LIMITS) == state_schema.__wrapped__(LIMITS)


# Refusals that are facts


class LoggedRefusal(RuleRefused):
    code = "logged"


async def test_a_refusal_that_a_regulator_must_see_is_recorded_and_repeated(house: House) -> None:
    player = PlayerId(await house.player())

    def answer(facts: Sequence[Fact]) -> msgspec.Struct:
        stands = [decode_body(entry.body).id for entry in house.log.entries[1:2]]
        assert facts == [Fact(players.stream(player).name, Blocked(**BLOCK), *stands)]
        raise LoggedRefusal

    known = house.plan(f"/v1/players/{player}/block", BLOCK, key="k")
    plan = Plan(
        known.context,
        require=(Action.PLAYER_BLOCK,),
        writes={"player": players.stream(player)},
        decision=lambda _at, **_: RefusedFact(LoggedRefusal(), [Blocked(**BLOCK)]),
        answer=answer,
    )
    for _ in range(3):
        with pytest.raises(LoggedRefusal):
            await house.process.decider.decide(plan)
    beside, repeated = await house.process.decider.run([house.plan(f"/v1/players/{player}/block", BLOCK), plan])
    assert isinstance(repeated, LoggedRefusal)
    assert isinstance(beside, Receipt), "whose neighbours do not suffer from it"
    assert [type(event) for event in house.log.events()] == [Registered, Blocked]


# Many at once


async def test_plans_run_together_have_results_of_their_own(house: House) -> None:
    known, blocked = await house.player(), await house.player()
    await house.process.post(f"/v1/players/{blocked}/block", BLOCK)
    elsewhere = "player_" + suffix(uuid7(NOON, bytes(10), 200))
    house.log.appended.clear()
    plans = [
        house.plan(f"/v1/players/{known}/deposits", deposit_of(1)),
        house.plan(f"/v1/players/{blocked}/deposits", deposit_of(2)),
        house.plan(f"/v1/players/{elsewhere}/deposits", deposit_of(3)),
        house.plan("/v1/players", {"country": "DE", "currency": "EUR"}),
    ]
    one, two, three, four = await house.process.decider.run(plans)
    assert isinstance(two, PlayerBlocked)
    assert isinstance(three, WrongRegion)
    assert not isinstance(one, Exception)
    assert not isinstance(four, Exception)
    assert len(house.log.appended) == 1, "one append for all"


async def test_players_are_registered_once_each(house: House) -> None:
    register = house.plan("/v1/players", {"country": "DE", "currency": "EUR"})
    await house.process.decider.decide(register)
    other_key = house.plan("/v1/players", {"country": "DE", "currency": "EUR"})
    same_stream = Plan(
        other_key.context,
        require=other_key.require,
        writes=register.writes,
        decision=register.decision,
        answer=register.answer,
    )
    with pytest.raises(AlreadyRegistered):
        await house.process.decider.decide(same_stream)


async def test_a_settlement_is_booked_once_however_often_it_is_told(house: House) -> None:
    player = await house.player()
    deposit = await house.deposit(player, 50)
    processes = [house.process, house.another_process()]
    await asyncio.gather(*(process.post(f"/v1/transactions/{deposit}/settle") for process in processes * 3))
    assert sum(isinstance(event, DepositSettled) for event in house.log.events()) == 1


async def test_an_unknown_transaction_is_refused_with_its_own_error(house: House) -> None:
    stranger = "transaction_" + suffix(uuid7(NOON, bytes(10), 1))
    with pytest.raises(NotFound):
        await house.process.post(f"/v1/transactions/{stranger}/settle")
