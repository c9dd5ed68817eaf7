"""A player as of any moment is what the domain had made of the log at that moment."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import limits, players, wallets
from domain.errors import InvalidId, NotFound
from domain.kernel import PlayerId, instant, partition_of, suffix, uuid7
from domain.limits import Limits
from domain.players import Player
from domain.wallets import Wallet
from queries import asof
from queries import players as cards
from queries.asof import Adoption, UnknownMoment, closed
from tests.projections.books import NOON, Book, write
from tests.projections.knowing import KNOWN
from tests.queries.house import House
from tests.replay.test_moments import MINUTE, Regions, apart


class Lived(Book):
    """A log that remembers what the domain made of it at each position."""

    def __init__(self, name: str) -> None:
        self.then: dict[int, dict[str, Any]] = {}
        super().__init__(name)

    def _commit(self, command: bytes, bodies: list[bytes]) -> None:
        super()._commit(command, bodies)
        self.then[len(self.entries)] = {name: state for name, (_, state) in self._states.items()}

    def state_then(self, position: int, stream: Any) -> Any:
        return self.then[position].get(stream.name, stream.aggregate.initial)


def lived(name: str) -> Lived:
    draw = random.Random(name)
    book = Lived(name)
    for _ in range(4):
        book.register(name="Ada", email="ada@example.com")
    for _ in range(60):
        book.wait(timedelta(minutes=draw.randint(0, 200)))
        player = draw.choice(book.players)
        waiting = book.open_transactions()
        match draw.choice(["request", "settle", "fail", "limit", "import", "block", "know", "know"]):
            case "know":
                book.know(player, draw.choice(KNOWN))
            case "settle" if waiting:
                book.settle(draw.choice(waiting))
            case "fail" if waiting:
                book.fail(draw.choice(waiting))
            case "limit":
                book.limit(player, draw.randint(1_000, 9_000))
            case "import":
                book.imported(player, draw.randint(1, 500), "2025-01-01T00:00:00Z")
            case "block" if draw.random() < 0.2:
                book.block(player)
            case _:
                book.request(player, draw.randint(1, 500))
    return book


def same(card: asof.PlayerAsOf, player: Player, limit: Limits, wallet: Wallet) -> bool:
    balances = {each.currency: (each.cash, each.reserved) for each in card.balances}
    kept = card.deposit_limit
    return (
        (card.status, card.country, card.currency) == (player.status, player.country, player.currency)
        and (card.facts.tags, card.facts.consents) == (player.tags, player.consents)
        and (card.block_reason, card.facts.profile.jurisdiction) == (player.block_reason, player.jurisdiction)
        and balances == {currency: (each.cash, each.reserved) for currency, each in wallet.balances.items()}
        and (
            limit == Limits()
            if kept is None
            else (kept.daily, kept.day, kept.used) == (limit.daily_deposit, limit.deposited.day, limit.deposited.of_day)
        )
    )


async def test_as_of_any_position_and_any_time_it_is_what_it_was(house: House) -> None:
    eu, us = lived("eu"), lived("us")
    write(house.dsn, eu, us)
    draw = random.Random(11)
    for _ in range(40):
        book = draw.choice([eu, us])
        position = draw.choice([at for at in book.then if at > 5])
        player = draw.choice(book.players)
        streams = players.stream(player), limits.stream(player), wallets.stream(player)
        states = [book.state_then(position, stream) for stream in streams]
        time = instant(book.entries[position - 1].recorded).isoformat().replace("+00:00", "Z")
        for at in (f"{book.name}/{position}", time):
            card = await asof.player(house.context, player, at, proofs=True)
            assert same(card, *states), at
            assert card.positions[book.name] == position
            assert card.events is not None
            assert all(event.position <= card.positions[event.log] for event in card.events)


async def test_as_of_now_it_is_the_card(house: House) -> None:
    eu, us = lived("eu"), lived("us")
    await house.project(eu, us)
    for player in (*eu.players, *us.players):
        now, card = await asof.player(house.context, player), await cards.card(house.context, player)
        for field in (
            "status",
            "block_reason",
            "brand",
            "country",
            "currency",
            "registered_at",
            "personal",
            "facts",
            "balances",
        ):
            assert getattr(now, field) == getattr(card, field), field
        assert now.deposit_limit == card.deposit_limit
        assert now.versions[f"player-{player.partition('_')[2]}"] == card.player_version
        assert now.events is None


async def test_transactions_are_shown_as_they_stood(house: House) -> None:
    book = Book("eu")
    player = book.register()
    transaction = book.request(player, 500)
    asked = len(book.entries)
    book.settle(transaction)
    write(house.dsn, book)
    before = await asof.player(house.context, player, f"eu/{asked}")
    after = await asof.player(house.context, player)
    assert [(each.id, each.status, each.money.amount) for each in before.transactions] == [
        (transaction, "requested", 500)
    ]
    assert [each.status for each in after.transactions] == ["settled"]
    assert [(each.deposited, each.deposits) for each in after.balances] == [(500, 1)]


async def test_there_is_no_card_before_the_registration_and_none_of_nobody(house: House) -> None:
    book = Book("eu")
    book.register()
    book.wait(timedelta(hours=1))
    late = book.register()
    write(house.dsn, book)
    stranger = PlayerId("player_" + suffix(uuid7(NOON, bytes(10), 1)))
    for player, at in (
        (late, "eu/2"),
        (late, "2026-03-01T12:30:00Z"),
        (stranger, None),
        (late, "eu/99"),
        (late, "mars/1"),
        (late, "0001-01-01T00:00:00+23:00"),
    ):
        with pytest.raises(NotFound):
            await asof.player(house.context, player, at)
    assert (await asof.player(house.context, late, "eu/3")).positions["eu"] == 3
    with pytest.raises(InvalidId):
        await asof.player(house.context, PlayerId("player_x"))
    for at in (
        "",
        "yesterday",
        "eu/0",
        "eu",
        "2026-03-01",
        "2026-02-30T12:00:00Z",
        "2026-03-01T12:00:00",
    ):
        with pytest.raises(UnknownMoment):
            await asof.player(house.context, late, at)


# After a hand-over, the clock of the region that gave the player up being an hour ahead


def written(house: House) -> Regions:
    regions = apart()
    write(house.dsn, regions.eu, regions.us)
    [adopted] = regions.logs.ownership.adoptions()
    owned = partition_of(regions.player)
    with psycopg.connect(house.dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO ledger.ownership (partition, epoch, log, since, after_log, after_position, after_leaf)"
            " SELECT %s, 2, id, %s, 'eu', %s, %s FROM ledger.log WHERE name = 'us'",
            (owned, adopted.position, adopted.cut, regions.eu.entries[adopted.cut - 1].leaf),
        )
    return regions


async def cash(house: House, player: PlayerId, at: str) -> int:
    card = await asof.player(house.context, player, at)
    return sum(each.cash for each in card.balances)


async def test_as_of_a_time_after_a_hand_over_the_giver_is_read_up_to_the_cut(house: House) -> None:
    regions = written(house)
    true_time = (regions.us.now + 5 * MINUTE).isoformat().replace("+00:00", "Z")
    card = await asof.player(house.context, regions.player, true_time)
    assert card.positions == {"eu": regions.cut, "us": len(regions.us.entries)}
    assert [each.cash for each in card.balances] == [577]
    assert await cash(house, regions.player, f"us/{len(regions.us.entries)}") == 577


async def test_as_of_a_position_before_the_hand_over_nothing_is_read_of_what_came_after_it(house: House) -> None:
    regions = written(house)
    card = await asof.player(house.context, regions.player, f"eu/{regions.cut - 1}")
    [adopted] = regions.logs.ownership.adoptions()
    assert card.positions == {"eu": regions.cut - 1, "us": adopted.position - 1}
    assert [each.cash for each in card.balances] == [570]


PLACES = st.integers(0, 30)
VECTOR = st.fixed_dictionaries({"eu": PLACES, "us": PLACES, "ap": PLACES})
ADOPTIONS = st.lists(st.builds(Adoption, st.sampled_from(["eu", "us", "ap"]), st.integers(1, 30), st.sampled_from(["eu", "us", "ap"]), st.integers(1, 30)), max_size=6)  # fmt: skip


@given(VECTOR, VECTOR, ADOPTIONS)
def test_no_adoption_is_read_without_what_it_goes_on_from(
    upto: dict[str, int], most: dict[str, int], adoptions: list[Adoption]
) -> None:
    apart = [each for each in adoptions if each.log != each.of]
    found = closed(upto, most, apart)
    assert all(found[each.of] >= each.cut for each in apart if found[each.log] >= each.position)
    assert all(found[log] <= most[log] for log in most)
    if not any(each.position <= upto[each.log] for each in apart):
        assert found == {log: min(upto[log], most[log]) for log in upto}
