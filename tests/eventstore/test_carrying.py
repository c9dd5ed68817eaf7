"""The vault of a closed database, carried into the one that goes on."""

from __future__ import annotations

import stat
from pathlib import Path

import psycopg
import pytest

from eventstore import carrying, postgres
from eventstore.vault import Owed, RegionKey, Vault
from tests.ledger import Ledger

REGION_KEY = RegionKey(b"e" * 32)
PERSON = "01ka7g0000e00800000000001a"


async def filled(ledger: Ledger) -> dict[str, str]:
    """A vault with a key, what its owner is found by, and traces of a rotation; the key's commitment by its id."""
    async with postgres.pool(ledger.dsn, "countroom_writer", size=1) as pool:
        vault = Vault(pool, REGION_KEY)
        key = vault.new_key(bytes.fromhex("019a8f0000007000800000000000002a"))
        await vault.keep([Owed(PERSON, key, [("email", "a\tb\\c@example.com")])])
    ledger.sql("INSERT INTO vault.region_key (id, destroyed) VALUES ('first', now()), ('second', NULL)")
    return {key.id: key.commitment}


async def carried(into: Ledger, folder: Path) -> dict[str, int]:
    async with await psycopg.AsyncConnection.connect(into.dsn, autocommit=True) as connection:
        return await carrying.read(connection, folder)


@pytest.fixture
def other(migrated: str) -> Ledger:
    return Ledger(migrated)


async def test_what_the_vault_held_opens_and_is_found_in_the_other_database(
    ledger: Ledger, other: Ledger, tmp_path: Path
) -> None:
    commitments = await filled(ledger)
    ledger.sql("DELETE FROM vault.region_key")  # as before any rotation: the only key wraps
    assert carrying.write(ledger.dsn, tmp_path)["data_key"] == 1
    assert await carried(other, tmp_path) == {"data_key": 1, "blind_index": 1, "region_key": 0, "index_key": 0}
    async with postgres.pool(other.dsn, "countroom_writer", size=1) as pool:
        vault = Vault(pool, REGION_KEY)
        assert (await vault.keys(commitments)).keys() == commitments.keys()
        assert await vault.find("email", "a\tb\\c@example.com") == [PERSON]
    other.close()


async def test_carried_twice_it_is_the_same_and_what_is_there_stays(
    ledger: Ledger, other: Ledger, tmp_path: Path
) -> None:
    await filled(ledger)
    carrying.write(ledger.dsn, tmp_path)
    assert (await carried(other, tmp_path))["region_key"] == 2
    other.sql("UPDATE vault.region_key SET destroyed = now() WHERE id = 'second'")
    assert set((await carried(other, tmp_path)).values()) == {0}
    assert other.sql("SELECT count(*) FROM vault.region_key WHERE destroyed IS NULL") == [(0,)]
    other.sql("INSERT INTO vault.region_key (id) VALUES ('third')")
    assert other.sql("SELECT id FROM vault.region_key ORDER BY number DESC LIMIT 1") == [("third",)]
    other.close()


def test_nobody_else_may_read_what_is_carried(ledger: Ledger, tmp_path: Path) -> None:
    carrying.write(ledger.dsn, tmp_path)
    files = sorted(tmp_path.iterdir())
    assert [file.stem for file in files] == sorted(carrying.TABLES)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
