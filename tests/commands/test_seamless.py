"""The seamless wallet under whatever providers may say: its laws hold, and each is broken by a planted fault."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from commands import games
from commands.decider import Decider
from commands.plan import Receipt
from domain import bets, rounds, wallets
from domain.kernel import PlayerId
from domain.tallies import Rounds
from domain.wallets import WALLETS, Accounts, RolledBack, Staked, Wallet
from eventstore.writer import Writer
from policies.limits import Period
from tests.commands.gaming import EUR, Games
from tests.commands.house import CODEC, House, MemoryVault
from tests.commands.seamless import Counted, Repeated, Seamless, Stuck, TakenBack
from tests.ledger import Ledger


def check(machine: type[Seamless], **options: Any) -> None:
    options = {"stateful_step_count": 25, "deadline": None, "print_blob": True} | options
    run_state_machine_as_test(machine, settings=settings(suppress_health_check=list(HealthCheck), **options))


def test_the_laws_hold_whatever_is_said() -> None:
    check(Seamless, max_examples=50)


# Each law is broken by a fault

Patch = pytest.MonkeyPatch


def post_one_side_only(patch: Patch) -> None:
    both = wallets.postings
    patch.setattr(wallets, "postings", lambda event: both(event)[1:])


def overdraw(patch: Patch) -> None:
    def after(before: Accounts, moved: Any) -> Accounts:
        amount = moved.money.amount
        held = {
            name: getattr(before, name) + amount * ((moved.target == name) - (moved.source == name))
            for name in wallets.OWN
        }
        return Accounts(**held)

    patch.setattr(wallets, "_after", after)


def forget_the_reference(patch: Patch) -> None:
    numbers = itertools.count()
    patch.setattr(games, "command_id", lambda *_: next(numbers).to_bytes(16, "big"))


def answer_from_the_present(patch: Patch) -> None:
    numbers = itertools.count()
    right = games._balance
    patch.setattr(games, "_balance", lambda accounts, currency: right(Accounts(next(numbers)), currency))


def forget_what_was_given_back(patch: Patch) -> None:
    right = bets.roll_back

    def roll_back(*given: Any, last: RolledBack | None, **more: Any) -> Any:
        return right(*given, last=last and msgspec.structs.replace(last, total=0), **more)

    patch.setattr(bets, "roll_back", roll_back)


def give_back_cash(patch: Patch) -> None:
    right = bets._given_back

    def given_back(*arguments: Any) -> Any:
        return [msgspec.structs.replace(each, target="cash") for each in right(*arguments)]

    patch.setattr(bets, "_given_back", given_back)


def forget_the_era(patch: Patch) -> None:
    right = bets._given_back
    patch.setattr(
        bets,
        "_given_back",
        lambda bet, returned, back, _, reference: right(bet, returned, back, bet.bonus_era, reference),
    )


def claim_nothing(patch: Patch) -> None:
    right = bets.roll_back_nothing
    patch.setattr(bets, "roll_back_nothing", lambda *given, **more: right(*given, **more)[:1])


def never_take_back(patch: Patch) -> None:
    right = WALLETS.evolve

    def evolve(wallet: Wallet, event: Any, at: Any) -> Wallet:
        after = right(wallet, event, at)
        if isinstance(event, RolledBack):
            return msgspec.structs.replace(after, wagered=wallet.wagered)
        return after

    patch.setattr(WALLETS, "evolve", evolve)


def lose_bonus_money(patch: Patch) -> None:
    right = WALLETS.evolve

    def evolve(wallet: Wallet, event: Any, at: Any) -> Wallet:
        after = right(wallet, event, at)
        if isinstance(event, Staked):
            return msgspec.structs.replace(after, lost=wallet.lost.add(event.money.amount, day=event.day, at=at))
        return after

    patch.setattr(WALLETS, "evolve", evolve)


def forget_what_came_early(patch: Patch) -> None:
    patch.setattr(Wallet, "early_of", lambda *_: 0)


def void_at_once(patch: Patch) -> None:
    patch.setattr(rounds, "require_stuck", lambda *_: None)


def lose_the_session(patch: Patch) -> None:
    patch.setattr(bets, "in_session", lambda played, _session: played)


def close_no_round(patch: Patch) -> None:
    patch.setattr(Rounds, "told", lambda self, *_: self)


@pytest.mark.parametrize(
    ("plant", "machine", "law"),
    [
        (post_one_side_only, Repeated, "books_balance"),
        (overdraw, Repeated, "books_balance"),
        (forget_the_reference, Repeated, "one_effect"),
        (answer_from_the_present, Repeated, "answered otherwise"),
        (forget_what_was_given_back, TakenBack, "rolled_back_whole"),
        (give_back_cash, TakenBack, "of_a_bet_no_more"),
        (forget_the_era, TakenBack, "of_a_bet_no_more"),
        (claim_nothing, TakenBack, "rolled_back_whole"),
        (never_take_back, Counted, "naive_recount"),
        (lose_bonus_money, Counted, "naive_recount"),
        (forget_what_came_early, TakenBack, "of_a_bet_is_taken"),
        (void_at_once, Stuck, "only_stuck_rounds"),
        (lose_the_session, Stuck, "a_win_without_a_session"),
        (close_no_round, Stuck, "open_rounds"),
    ],
)
def test_a_planted_fault_breaks_a_law(
    monkeypatch: pytest.MonkeyPatch, plant: Callable[[Patch], None], machine: type[Seamless], law: str
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError) as broken:
        check(
            machine,
            max_examples=300,
            stateful_step_count=10,
            phases=[Phase.generate],
            derandomize=True,
            database=None,
            report_multiple_bugs=False,
        )
    names = [entry.name for entry in broken.traceback] + [str(broken.value)]
    assert any(law in name for name in names), names


# Every order leads to the same books

BET = ("bet", {"reference": "b1", "amount": 100})
WIN = ("win", {"reference": "w1", "amount": 50})
WHOLE = ("rollback", {"reference": "rb1", "bet": "b1"})
AGAIN = ("rollback", {"reference": "rb2", "bet": "b1"})
PART = ("rollback", {"reference": "rb3", "bet": "b1", "amount": 30})
MORE = ("rollback", {"reference": "rb4", "bet": "b1", "amount": 80})
CLOSE = ("close", {"reference": "c1"})
OTHER = ("bet", {"reference": "b2", "amount": 60})


@pytest.mark.parametrize(
    "said",
    [(BET, WIN, WHOLE, CLOSE, AGAIN), (BET, PART, MORE, WIN, CLOSE), (BET, PART, WHOLE, WIN, OTHER), (BET, OTHER, WIN, PART, CLOSE)],
    ids=["whole", "parts", "part and whole", "part"],
)  # fmt: skip
async def test_every_order_of_five_messages_said_twice_leads_to_the_same_books(
    house: House, said: Sequence[tuple[str, dict[str, Any]]]
) -> None:
    games = Games.of(house)
    books = set()
    for number, order in enumerate(itertools.permutations(said)):
        player = await games.player(1000)
        for verb, words in (*order, *reversed(order), *order):
            named = {name: f"{word}.{number}" if isinstance(word, str) else word for name, word in words.items()}
            await games.ask(verb, player, **named)
        state: Wallet = house.process.decider._states[wallets.stream(PlayerId(player)).name].state
        used = [usage.within(p, day=usage.day, at=games.now) for usage in (state.wagered, state.lost) for p in Period]
        [found] = [*state.rounds.open, *state.rounds.over, *state.rounds.awaited]
        books.add((state.balance(EUR), found.staked, found.is_open, state.lost_in("session_1"), *used))
    assert len(books) == 1


# Two processes and one PostgreSQL


@pytest.fixture
async def two(ledger: Ledger) -> AsyncIterator[Games]:
    async with AsyncExitStack() as stack:
        deciders, writers = [], []
        for _ in range(2):
            log = await stack.enter_async_context(ledger.log())
            streams = await stack.enter_async_context(ledger.streams())

            async def connect(log: Any = log) -> Any:
                return log

            writer = Writer(connect)
            writers.append((writer, asyncio.create_task(writer.run())))
            deciders.append(Decider("eu", writer, streams, MemoryVault(), CODEC))  # type: ignore[arg-type]
        yield Games(*deciders)
        for writer, task in writers:
            writer.close()
            await task


async def race(two: Games, verb: str, player: str, count: int, **said: Any) -> list[Receipt]:
    """The same, asked of both at once."""
    return await asyncio.gather(*(two.ask(verb, player, by=place % 2, **said) for place in range(count)))


async def test_a_hundred_duplicates_of_a_bet_and_of_its_rollback_have_one_effect_each(
    two: Games, ledger: Ledger
) -> None:
    player = await two.player(100)
    taken = await race(two, "bet", player, 100, reference="b1", amount=60)
    assert len({(receipt.answer, receipt.position) for receipt in taken}) == 1
    assert [receipt.repeated for receipt in taken].count(False) == 1
    assert await two.balance(player) == (40, 0)
    back = await race(two, "rollback", player, 100, reference="rb1", bet="b1")
    assert len({(receipt.answer, receipt.position) for receipt in back}) == 1
    assert await two.balance(player) == (100, 0)
    tags = [CODEC.decode(entry).body.type for entry in ledger.entries()]
    assert (tags.count("wallet.staked"), tags.count("wallet.rolled_back"), tags.count("bet.claimed")) == (1, 1, 1)


async def test_a_bet_and_its_rollback_that_race_leave_nothing_taken(two: Games) -> None:
    for place in range(10):
        player = await two.player(100)
        bet, back = {"reference": f"b{place}", "amount": 60}, {"reference": f"b{place}"}
        await asyncio.gather(
            *(two.ask("bet", player, by=place % 2, **bet) for _ in range(3)),
            *(two.ask("rollback", player, by=1 - place % 2, **back) for _ in range(3)),
        )
        assert await two.balance(player) == (100, 0)


async def test_parts_that_race_give_back_no_more_than_the_stake(two: Games, ledger: Ledger) -> None:
    player = await two.player(100)
    await two.ask("bet", player, reference="b1", amount=60)
    receipts = await asyncio.gather(
        *(two.ask("rollback", player, by=n % 2, reference=f"rb{n}", bet="b1", amount=7) for n in range(12))
    )
    assert sum(receipt.answer.returned for receipt in receipts) == 60  # type: ignore[attr-defined]
    assert await two.balance(player) == (100, 0)
    parts = [
        event.part
        for entry in ledger.entries()
        if isinstance(event := CODEC.decode(entry).event, RolledBack) and event.part
    ]
    assert parts == list(range(1, 10))
