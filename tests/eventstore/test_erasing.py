"""Erasure in a vault: keys go when a log says so and not otherwise, everywhere, and again after a restore."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import psycopg
import pytest

from eventstore import erasing, postgres
from eventstore.log import Command
from eventstore.vault import KEPT, Owed, RegionKey, Vault
from eventstore.writer import Unavailable
from tests.ledger import US, Ledger, body, chained, command, new_id, opening, stream

REGION = RegionKey(b"r" * 32)
WORD = ("email", "anna@example.com")
ANNA, BEN = (stream(name).removeprefix("player-") for name in ("player 5", "player 6"))


class House:
    def __init__(self, ledger: Ledger, vault: Vault) -> None:
        self.ledger = ledger
        self.vault = vault
        self.keys = {who: vault.new_key(uuid.uuid4().bytes) for who in (ANNA, BEN)}

    async def held(self, vault: Vault | None = None) -> set[str]:
        """Whose key opens."""
        found = await (vault or self.vault).keys({key.id: key.commitment for key in self.keys.values()})
        return {who for who, key in self.keys.items() if key.id in found}

    def rows(self) -> set[str]:
        """Of whom anything is left in the tables."""
        return {
            subject
            for (subject,) in self.ledger.sql(
                "SELECT subject FROM vault.data_key UNION SELECT subject FROM vault.blind_index"
            )
        }

    def erase(self) -> None:
        id_ = new_id()
        raw = body("player 5", 1, id_, type="player.erased")
        assert self.ledger.append(Command(id_, [raw], (), frozenset())) == [0]


@pytest.fixture
async def house(ledger: Ledger) -> AsyncIterator[House]:
    async with postgres.pool(ledger.dsn, "countroom_writer", size=2) as pool:
        made = House(ledger, Vault(pool, REGION))
        await made.vault.keep([Owed(who, key, [WORD]) for who, key in made.keys.items()])
        yield made


async def test_when_the_log_says_so_key_and_words_go_and_nobody_elses(house: House) -> None:
    assert await house.held() == {ANNA, BEN}
    house.erase()
    assert await house.vault.apply_erasures() == 1
    house.vault.forget([house.keys[ANNA].id])
    assert await house.held() == {BEN}
    assert house.rows() == {BEN}
    assert await house.vault.find(*WORD) == [BEN]
    assert await house.vault.apply_erasures() == 0


async def test_nothing_is_kept_of_one_who_was_erased_since_it_was_decided(house: House) -> None:
    house.erase()
    await house.vault.apply_erasures()
    for key in (None, house.vault.new_key(uuid.uuid4().bytes)):
        with pytest.raises(Unavailable, match="erased meanwhile"):
            await house.vault.keep([Owed(ANNA, key, [("email", "new@example.com")])])
    await house.vault.keep([Owed(BEN, None, [("email", "new@example.com")])])
    assert house.rows() == {BEN}
    assert await house.vault.find("email", "new@example.com") == [BEN]


async def test_what_is_being_kept_when_somebody_is_erased_goes_with_the_rest(house: House) -> None:
    """It was asked before the erasure stood in the log, and is committed after that."""
    await house.vault.apply_erasures()
    keeping = psycopg.connect(house.ledger.dsn)
    keeping.execute("SELECT pg_advisory_xact_lock_shared(%s)", (KEPT,))
    house.erase()
    applying = asyncio.create_task(house.vault.apply_erasures())
    while not house.ledger.sql("SELECT 1 FROM pg_locks WHERE NOT granted"):
        assert not applying.done(), applying.result()
        await asyncio.sleep(0.01)
    keeping.execute("INSERT INTO vault.blind_index (field, digest, subject) VALUES ('email', 'x', %s)", (ANNA,))
    keeping.commit()
    keeping.close()
    assert await applying == 1
    assert house.rows() == {BEN}


async def test_no_key_goes_for_whom_no_log_says_so(house: House) -> None:
    assert house.ledger.append(command(("player 5", 1))) == [0]
    assert await house.vault.apply_erasures() == 0
    assert house.rows() == {ANNA, BEN}
    for statement in (
        "DELETE FROM vault.data_key",
        "UPDATE vault.data_key SET subject = ''",
        "DELETE FROM vault.blind_index",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            house.ledger.sql(statement.encode(), role="writer")


async def test_an_erasure_in_another_regions_log_is_applied_when_its_copy_arrives(house: House) -> None:
    id_ = new_id()
    erased = body("player 200", 1, id_, type="player.erased")
    there = stream("player 200").removeprefix("player-")
    await house.vault.keep([Owed(there, house.vault.new_key(uuid.uuid4().bytes), [WORD])])
    await house.vault.apply_erasures()
    assert there in house.rows()
    entries = chained(US, [opening(US, (128, 255)).bodies[0], erased])
    assert house.ledger.append_copy(entries) == 2
    await house.vault.apply_erasures()
    assert house.rows() == {ANNA, BEN}


async def test_a_process_that_had_opened_a_key_forgets_it_as_soon_as_another_destroys_it(house: House) -> None:
    async with postgres.pool(house.ledger.dsn, "countroom_writer", size=1) as pool:
        other = Vault(pool, REGION)
        following = asyncio.create_task(erasing.follow(other, house.ledger.dsn))
        async with asyncio.timeout(60):
            await asyncio.sleep(0)  # it has begun, and hears nothing yet
            while not other._hears:  # noqa: ASYNC110 — it tells nobody
                await asyncio.sleep(0.01)
            assert await house.held(other) == {ANNA, BEN}
            house.erase()
            await house.vault.apply_erasures()
            while await house.held(other) != {BEN}:  # noqa: ASYNC110 — nor when
                await asyncio.sleep(0.01)
        following.cancel()


async def test_who_is_told_nothing_uses_no_key_again(house: House) -> None:
    house.vault.hears(False)
    assert await house.held() == {ANNA, BEN}
    house.ledger.sql("DELETE FROM vault.data_key WHERE subject = %s", ANNA)  # by whatever it was
    assert await house.held() == {BEN}


async def test_a_key_that_was_read_before_it_was_destroyed_is_not_kept_after_that(house: House) -> None:
    await house.vault.apply_erasures()
    blocking = psycopg.connect(house.ledger.dsn)
    blocking.execute("LOCK TABLE vault.data_key IN ACCESS EXCLUSIVE MODE")
    reading = asyncio.create_task(house.held())
    while not house.ledger.sql("SELECT 1 FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 — until it waits for the rows
        await asyncio.sleep(0.01)
    house.vault.forget([house.keys[ANNA].id])  # heard while it is on its way from the database
    blocking.close()
    assert await reading == {BEN}


async def test_a_key_that_is_there_again_after_it_was_destroyed_opens(house: House) -> None:
    """A copy that was given up and fetched anew, as its player had moved and moved back."""
    await house.vault.apply_erasures()
    house.vault.forget([house.keys[ANNA].id])
    assert await house.held() == {ANNA, BEN}


async def test_a_process_that_starts_on_a_restored_backup_destroys_before_it_opens(house: House) -> None:
    backup = house.ledger.sql("SELECT id, subject, wrapped, wrapped_by FROM vault.data_key")
    words = house.ledger.sql("SELECT field, digest, subject FROM vault.blind_index")
    house.erase()
    await house.vault.apply_erasures()
    for row in backup:
        house.ledger.sql("INSERT INTO vault.data_key VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING", *row)
    for word in words:
        house.ledger.sql("INSERT INTO vault.blind_index VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", *word)
    assert house.rows() == {ANNA, BEN}
    async with postgres.pool(house.ledger.dsn, "countroom_writer", size=1) as pool:
        for first in ("keys", "find", "disclose"):
            started = Vault(pool, REGION)
            if first == "keys":
                assert await house.held(started) == {BEN}
            elif first == "find":
                assert await started.find(*WORD) == [BEN]
            else:
                assert list(await started.keys_to_disclose(_commitments(house))) == [house.keys[BEN].id]
            assert house.rows() == {BEN}


async def test_what_is_restored_beside_a_running_log_goes_when_all_is_looked_at_anew(house: House) -> None:
    backup = house.ledger.sql("SELECT id, subject, wrapped, wrapped_by FROM vault.data_key WHERE subject = %s", ANNA)
    house.erase()
    await house.vault.apply_erasures()
    house.ledger.sql(
        "INSERT INTO vault.data_key (id, subject, wrapped, wrapped_by) VALUES (%s, %s, %s, %s)", *backup[0]
    )
    assert await house.vault.apply_erasures() == 0
    assert house.rows() == {ANNA, BEN}
    assert await house.vault.apply_erasures(anew=True) == 1
    assert house.rows() == {BEN}


async def test_nothing_is_opened_while_erasures_may_be_missing_from_the_log(house: House) -> None:
    """A restored log is read-only until it was compared: what it lacks may be an erasure."""
    house.ledger.sql("SELECT ledger.guard(1::smallint)")
    try:
        async with postgres.pool(house.ledger.dsn, "countroom_writer", size=1) as pool:
            started = Vault(pool, REGION)
            with pytest.raises(Unavailable, match="compared"):
                await house.held(started)
            with pytest.raises(Unavailable):
                await started.find(*WORD)
            house.ledger.sql("SELECT ledger.clear_to_write(1::smallint, 'test')")
            assert await house.held(started) == {ANNA, BEN}
    finally:
        house.ledger.sql("DELETE FROM ledger.clearance")


def _commitments(house: House) -> dict[str, str]:
    return {key.id: key.commitment for key in house.keys.values()}
