"""Keys of registrations that never came go after a day, and no key goes that any log held here may need."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest

from eventstore import postgres
from eventstore.log import Command
from eventstore.vault import KEPT, Owed, RegionKey, Vault
from reactions.erasing import SWEEP_EVERY_S, Sweeping
from tests.ledger import US, Ledger, body, chained, new_id, opening, stream

REGION = RegionKey(b"r" * 32)
WORD = ("email", "anna@example.com")


class House:
    def __init__(self, ledger: Ledger, vault: Vault) -> None:
        self.ledger = ledger
        self.vault = vault

    async def keep(self, subject: str, *, days: int = 2) -> str:
        """A key and a word; its id."""
        key = self.vault.new_key(uuid.uuid4().bytes)
        await self.vault.keep([Owed(subject, key, [WORD])])
        self.ledger.sql(
            "UPDATE vault.data_key SET kept = now() - make_interval(days => %s) WHERE id = %s", days, key.id
        )
        return key.id

    def append(self, name: str, stream_: str, **more: object) -> None:
        id_ = new_id()
        raw = body(name, 1, id_, stream=stream_, **more)
        assert self.ledger.append(Command(id_, [raw], (), frozenset())) == [0]

    def left(self) -> set[str]:
        """Of whom anything is left in the tables."""
        both = "SELECT subject FROM vault.data_key UNION SELECT subject FROM vault.blind_index"
        return {subject for (subject,) in self.ledger.sql(both)}


@pytest.fixture
async def house(ledger: Ledger) -> AsyncIterator[House]:
    async with postgres.pool(ledger.dsn, "countroom_writer", size=2) as pool:
        yield House(ledger, Vault(pool, REGION))


def of(name: str) -> str:
    return stream(name).removeprefix("player-")


ANNA, BEN = of("player 5"), of("player 6")


async def test_who_never_came_is_forgotten_with_every_word_after_a_day(house: House) -> None:
    await house.keep(ANNA)
    await house.keep(BEN, days=0)
    assert await house.vault.destroy_unused(None, 10) == (None, 1)
    assert house.left() == {BEN}
    assert await house.vault.find(*WORD) == [BEN]


NEEDED: dict[str, Callable[[House], None]] = {
    "player": lambda house: house.append("player 5", f"player-{ANNA}"),
    "operator": lambda house: house.append("player 5", f"operator-{ANNA}"),
    "copied": lambda house: house.ledger.sql(
        "INSERT INTO vault.copy (subject, log, key, commitment, jurisdiction, told) VALUES (%s, 1, %s, '', '', 1)",
        ANNA, uuid.uuid4(),
    )
    and None,
}  # fmt: skip


@pytest.mark.parametrize("why", NEEDED)
async def test_whom_a_log_held_here_knows_stays(house: House, why: str) -> None:
    await house.keep(ANNA)
    NEEDED[why](house)
    assert await house.vault.destroy_unused(None, 10) == (None, 0)
    assert house.left() == {ANNA}


async def test_whom_another_regions_log_knows_stays_also_where_the_entry_does_not_count(house: House) -> None:
    there, late = of("player 200"), of("player 7")
    for subject in (there, late):
        await house.keep(subject)
    registered, lost = body("player 200", 1, new_id()), body("player 7", 1, new_id())
    house.ledger.append_copy(chained(US, [opening(US, (128, 255)).bodies[0], registered, lost]))
    [(uncounted,)] = house.ledger.sql(
        "SELECT count(*) FROM ledger.entry WHERE stream IS NULL AND position > 1 AND log = 2"
    )
    assert uncounted == 1, "player 7 is not of a partition of that region"
    assert await house.vault.destroy_unused(None, 10) == (None, 0)
    assert house.left() == {there, late}


async def test_what_is_not_written_like_an_identifier_stays(house: House) -> None:
    await house.keep("compartment:suspicions")
    assert await house.vault.destroy_unused(None, 10) == (None, 0)


async def test_nothing_goes_while_entries_may_be_missing_from_the_log(house: House) -> None:
    await house.keep(ANNA)
    house.ledger.sql("SELECT ledger.guard(1::smallint)")
    try:
        assert await house.vault.destroy_unused(None, 10) == (None, 0)
        house.ledger.sql("SELECT ledger.clear_to_write(1::smallint, 'test')")
        assert await house.vault.destroy_unused(None, 10) == (None, 1)
    finally:
        house.ledger.sql("DELETE FROM ledger.clearance")


@pytest.mark.parametrize("comes", ["a newer key", "the registration"])
async def test_what_comes_while_it_waits_is_seen(house: House, comes: str) -> None:
    await house.keep(ANNA)
    keeping = psycopg.connect(house.ledger.dsn)
    keeping.execute("SELECT pg_advisory_xact_lock_shared(%s)", (KEPT,))
    sweeping = asyncio.create_task(house.vault.destroy_unused(None, 10))
    while not house.ledger.sql("SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"):
        assert not sweeping.done(), sweeping.result()
        await asyncio.sleep(0.01)
    if comes == "a newer key":
        keeping.execute("INSERT INTO vault.data_key (id, subject, wrapped) VALUES (%s, %s, '')", (uuid.uuid4(), ANNA))
    else:
        house.append("player 5", f"player-{ANNA}")
    keeping.commit()
    keeping.close()
    assert await sweeping == (None, 0)
    assert house.left() == {ANNA}


async def test_all_keys_are_looked_at_page_by_page_and_again_after_a_day(house: House) -> None:
    at = 0.0
    sweeping = Sweeping(house.vault, elapsed=lambda: at, page=2)
    house.append("player 5", f"player-{ANNA}")
    for subject in (ANNA, *(of(f"player {n}") for n in range(20, 24))):
        await house.keep(subject)
    await sweeping.step()
    assert len(house.left()) >= 3
    for _ in range(2):
        await sweeping.step()
    assert house.left() == {ANNA}
    await house.keep(BEN)
    await sweeping.step()
    assert house.left() == {ANNA, BEN}
    at = SWEEP_EVERY_S
    await sweeping.step()
    assert house.left() == {ANNA}


async def test_a_service_cannot_say_whose_key_is_unused(house: House) -> None:
    for statement in ("SELECT vault.is_unused('x')", "UPDATE vault.data_key SET kept = 'epoch'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            house.ledger.sql(statement.encode(), role="writer")
