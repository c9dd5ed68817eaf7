"""Many commands in one request: order where it matters, one append where it does not, and each item as if sent alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from commands import batch
from commands.batch import Batch, BatchItem, DependencyFailed
from commands.plan import Plan, Receipt
from domain.errors import Invalid, InvalidAmount, KeyReused, LimitExceeded, NotFound, PlayerBlocked
from domain.kernel import Money
from domain.transactions import DepositFailed, DepositRequested, DepositSettled
from domain.wallets import Credited
from tests.commands.house import House, deposit_of, euros, made

REGISTER = {"country": "AT", "currency": "EUR"}
FAIL = {"reason": "declined"}


def kinds(results: list[Receipt | Exception]) -> list[type]:
    return [type(result) for result in results]


async def test_results_stand_where_the_items_stood(house: House) -> None:
    player = await house.player()
    results = await house.process.post_batch(
        ("1", f"/v1/players/{player}/deposits", deposit_of(1)),
        ("2", f"/v1/players/{player}/deposits", deposit_of(0)),
        ("3", "/v1/players", REGISTER),
        ("4", f"/v1/players/player_{'0' * 26}/block", {"reason": "x"}),
        ("5", f"/v1/players/{player}/deposits", deposit_of(5)),
        ("6", "/v1/players/nobody/block", {"reason": "x"}),
    )
    assert kinds(results) == [Receipt, InvalidAmount, Receipt, NotFound, Receipt, type(results[5])]
    assert isinstance(results[5], Invalid)
    amounts = [results[n].answer.amount.amount for n in (0, 4)]  # type: ignore[union-attr]
    assert amounts == [1, 5]


async def test_items_on_one_stream_run_in_the_order_given(house: House) -> None:
    player = await house.player()
    limit, deposits = f"/v1/players/{player}/limits/deposit", f"/v1/players/{player}/deposits"
    results = await house.process.post_batch(
        ("1", limit, {"limit": euros(100)}),
        ("2", deposits, deposit_of(60)),
        ("3", deposits, deposit_of(60)),
        ("4", limit, {"limit": euros(60)}),
        ("5", deposits, deposit_of(1)),
        ("6", f"/v1/players/{player}/block", {"reason": "x"}),
        ("7", deposits, deposit_of(1)),
    )
    assert kinds(results) == [Receipt, Receipt, LimitExceeded, Receipt, LimitExceeded, Receipt, PlayerBlocked]


async def test_items_on_different_streams_are_one_append(house: House) -> None:
    known = [await house.player() for _ in range(20)]
    house.log.appended.clear()
    await house.process.post_batch(*((p, f"/v1/players/{p}/deposits", deposit_of(1)) for p in known))
    assert [len(commands) for commands in house.log.appended] == [20]


async def test_an_item_may_name_what_an_earlier_one_made(house: House) -> None:
    results = await house.process.post_batch(
        ("1", "/v1/players", REGISTER),
        ("2", "/v1/players/$0/limits/deposit", {"limit": euros(100)}),
        ("3", "/v1/players/$0/deposits", deposit_of(80)),
        ("4", "/v1/transactions/$2/settle", {}),
        ("5", "/v1/players/$0/deposits", deposit_of(21)),
        ("6", "/v1/players/$0/deposits", deposit_of(20)),
        ("7", "/v1/transactions/$5/fail", FAIL),
    )
    assert kinds(results) == [Receipt] * 4 + [LimitExceeded] + [Receipt] * 2
    settled: Any = results[3]
    assert settled.answer.balance == Money(80, "EUR")


async def test_many_players_with_deposits_take_few_appends(house: House) -> None:
    """An import's pattern: a registration, and what names it. The groups do not wait for one another."""
    items = []
    for group in range(50):
        first = 3 * group
        items += [
            (f"r{group}", "/v1/players", {**REGISTER, "occurred": "1997-01-01"}),
            (f"a{group}", f"/v1/players/${first}/deposits", deposit_of(1, occurred="1997-01-02")),
            (f"b{group}", f"/v1/players/${first}/deposits", deposit_of(2, occurred="1997-01-03")),
        ]
    results = await house.process.post_batch(*items)
    assert set(kinds(results)) == {Receipt}
    assert [len(commands) for commands in house.log.appended] == [50, 50, 50]


async def test_what_names_a_refused_item_is_not_run(house: House) -> None:
    player = await house.player()
    await house.process.post(f"/v1/players/{player}/limits/deposit", {"limit": euros(10)})
    before = len(house.log.entries)
    results = await house.process.post_batch(
        ("1", f"/v1/players/{player}/deposits", deposit_of(11)),
        ("2", "/v1/transactions/$0/settle", {}),
        ("3", "/v1/transactions/$1/fail", FAIL),
    )
    assert kinds(results) == [LimitExceeded, DependencyFailed, DependencyFailed]
    assert len(house.log.entries) == before + 1, "that it was refused is recorded"


@pytest.mark.parametrize("name", ["$1", "$2", "$-1", "$", "$x", "$0x1", "$\u0661", "$99999999999999999999", "$ 0"])
async def test_an_item_names_only_earlier_ones(house: House, name: str) -> None:
    results = await house.process.post_batch(
        ("1", "/v1/players", REGISTER), ("2", f"/v1/players/{name}/deposits", deposit_of(1))
    )
    assert kinds(results) == [Receipt, DependencyFailed]


@pytest.mark.parametrize("name", ["$x", "$\u0661", "$", "$1"])
async def test_a_wrong_name_beside_one_that_waits_is_an_answer_too(house: House, name: str) -> None:
    results = await house.process.post_batch(("1", "/v1/players", REGISTER), ("2", f"/v1/players/$0/{name}", {}))
    assert kinds(results) == [Receipt, DependencyFailed]


async def test_what_waits_for_an_earlier_item_is_not_overtaken_on_its_streams(house: House) -> None:
    """Item 1 will write the player's wallet, which nobody can know before item 0 has run; item 2 writes it, too."""
    player = await house.player()
    await house.process.post_batch(
        ("1", f"/v1/players/{player}/deposits", deposit_of(10)),
        ("2", "/v1/transactions/$0/settle", {}),
        ("3", f"/v1/players/{player}/deposits", deposit_of(7, occurred="1997-01-01")),
    )
    credited = [event.transfer.money.amount for event in house.log.events("wallet") if isinstance(event, Credited)]
    assert credited == [10, 7]


async def test_one_of_two_ends_wins_and_it_is_the_first(house: House) -> None:
    player = await house.player()
    results = await house.process.post_batch(
        ("1", f"/v1/players/{player}/deposits", deposit_of(10)),
        ("2", "/v1/transactions/$0/settle", {}),
        ("3", "/v1/transactions/$0/fail", FAIL),
        ("4", "/v1/transactions/$0/settle", {}),
    )
    assert [isinstance(result, Receipt) for result in results] == [True, True, False, True]
    assert [type(event) for event in house.log.events("transaction")] == [DepositRequested, DepositSettled]
    assert DepositFailed not in map(type, house.log.events())


# As if sent alone


async def test_an_item_and_the_same_command_alone_are_one_command(house: House) -> None:
    player = await house.player()
    path = f"/v1/players/{player}/deposits"
    (in_batch,) = await house.process.post_batch(("k", path, deposit_of(10)))
    assert isinstance(in_batch, Receipt)
    assert await house.process.post(path, deposit_of(10), key="k") == msgspec.structs.replace(in_batch, repeated=True)
    alone = await house.process.post(path, deposit_of(20), key="l")
    assert await house.process.post_batch(("l", path, deposit_of(20))) == [
        msgspec.structs.replace(alone, repeated=True)
    ]
    assert len(house.log.events("transaction")) == 2


async def test_a_reference_counts_as_what_it_stands_for(house: House) -> None:
    registered, deposited = await house.process.post_batch(
        ("r", "/v1/players", REGISTER), ("d", "/v1/players/$0/deposits", deposit_of(10))
    )
    assert isinstance(registered, Receipt)
    assert isinstance(deposited, Receipt)
    alone = await house.process.post(f"/v1/players/{made(registered)}/deposits", deposit_of(10), key="d")
    assert alone == msgspec.structs.replace(deposited, repeated=True)


async def test_a_batch_that_is_sent_again_gets_the_first_answers(house: House) -> None:
    items: list[tuple[str, str, object]] = [
        ("r", "/v1/players", REGISTER),
        ("l", "/v1/players/$0/limits/deposit", {"limit": euros(10)}),
        ("d", "/v1/players/$0/deposits", deposit_of(10)),
        ("e", "/v1/players/$0/deposits", deposit_of(1)),
        ("s", "/v1/transactions/$2/settle", {}),
    ]
    first = await house.process.post_batch(*items)
    stood = list(house.log.entries)
    again = await house.another_process().post_batch(*items)
    assert house.log.entries == stood
    assert [msgspec.structs.replace(r, repeated=True) for r in first if isinstance(r, Receipt)] == [
        r for r in again if isinstance(r, Receipt)
    ]
    assert kinds(again) == kinds(first)


async def test_a_key_that_stands_twice_is_one_command_or_a_mistake(house: House) -> None:
    player = await house.player()
    path = f"/v1/players/{player}/deposits"
    one, same, other = await house.process.post_batch(
        ("k", path, deposit_of(1)), ("k", path, deposit_of(1)), ("k", path, deposit_of(2))
    )
    assert isinstance(one, Receipt)
    assert same == msgspec.structs.replace(one, repeated=True)
    assert isinstance(other, KeyReused)
    registrations = await house.process.post_batch(("r", "/v1/players", REGISTER), ("r", "/v1/players", REGISTER))
    assert len({made(receipt) for receipt in registrations if isinstance(receipt, Receipt)}) == 1


async def test_whoever_is_to_be_asked_hears_of_an_item_once_its_path_is_known_and_before_it_is_described(
    house: House,
) -> None:
    paths = [
        "/v1/players",
        "/v1/players",
        "/v1/players/$0/deposits",
        "/v1/transactions/$2/fail",
        "/v1/players/$9/block",
    ]
    bodies: list[object] = [REGISTER, REGISTER, deposit_of(1), FAIL, {"reason": "x"}]
    items = [BatchItem(str(n), path, msgspec.Raw(msgspec.json.encode(bodies[n]))) for n, path in enumerate(paths)]
    happened: list[tuple[str, int]] = []

    def plan(place: int, path: str) -> Plan:
        happened.append(("described", place))
        return house.plan(path, bytes(items[place].body), key=items[place].key)

    async def ask(known: Mapping[int, str]) -> None:
        assert not any("$" in path for path in known.values())
        happened.extend(("asked", place) for place in known)

    await batch.run(
        Batch(items), plan=plan, decide=lambda wave: house.process.decider.run(list(wave.values())), made=made, ask=ask
    )
    assert happened == [
        ("described", 0), ("described", 1), ("asked", 2), ("described", 2), ("asked", 3), ("described", 3),
    ]  # fmt: skip
