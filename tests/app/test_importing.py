"""A table of players through the real API: row by row, tried first, safe to repeat."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app import commanding, importing
from app.importing import Imported, parse
from app.sending import ImportStopped
from domain.players import Registered
from eventstore.vault import RegionKey
from tests.app.reading import CODEC, Client, region, serving
from tests.ledger import Ledger
from tests.stack import Servers

TABLE = """country,currency,birth_date,name,email,consents
DE,EUR,1985-12-10,Ada Lovelace,ada@example.com,email sms
SE,SEK,1956-06-06,Björn Borg,,
XX,EUR,1970-01-01,Nobody,not checked,
DE,EURO,1976-12-09,Grace Hopper,grace@example.com,
DE,EUR,1982-06-23,Alan Turing,alan@example.com,pigeon
"""


class House(NamedTuple):
    client: Client
    ledger: Ledger
    folder: Path

    async def imported(self, text: str = TABLE, **how: Any) -> Imported:
        file = self.folder / "players.csv"
        file.write_text(text)
        return await importing.import_players(file, self.client.url, "importer", **how)

    def registered(self) -> list[Registered]:
        read = [CODEC.decode(entry).event for entry in self.ledger.entries()]
        return [event for event in read if isinstance(event, Registered)]

    def keys(self) -> int:
        return int(self.ledger.sql("SELECT count(*) FROM vault.data_key")[0][0])


@pytest.fixture
async def house(ledger: Ledger, servers: Servers, tmp_path: Path) -> AsyncIterator[House]:
    async with region(ledger, servers, RegionKey(b"k" * 32), gap=False) as made:
        commands = commanding.router(made.services, made.read.start, made.schemas, lambda _: None)
        async with serving(made.schemas, [commands]) as client:
            yield House(client, ledger, tmp_path)


async def test_rows_become_players_and_those_refused_are_told_by_their_lines(house: House) -> None:
    done = await house.imported()
    assert (done.players, done.repeated, done.status) == (3, 0, 1)
    assert [(each.line, each.code) for each in done.refused] == [(5, "unknown_currency"), (6, "invalid")]
    assert [event.country for event in house.registered()] == ["DE", "SE", "XX"]
    assert "line 5" in importing.in_words(done)


async def test_importing_again_registers_nobody_twice(house: House) -> None:
    await house.imported()
    before = len(house.ledger.entries())
    again = await house.imported()
    assert (again.players, again.repeated) == (3, 3)
    assert len(house.ledger.entries()) == before


async def test_a_dry_run_tells_the_same_and_records_nothing(house: House) -> None:
    before, keys = house.ledger.entries(), house.keys()
    tried = await house.imported(dry_run=True)
    assert house.ledger.entries() == before
    assert house.keys() == keys
    done = await house.imported()
    assert (tried.players, tried.refused, tried.pending) == (done.players, done.refused, done.pending)
    assert tried.dry_run
    assert "would be" in importing.in_words(tried)


async def test_a_dry_run_sees_who_is_there_already(house: House) -> None:
    header = "country,currency,birth_date,email\n"
    await house.imported(f"{header}DE,EUR,1985-12-10,ada@example.com\n")
    tried = await house.imported(
        f"{header}SE,SEK,1985-12-10,ada@example.com\nSE,SEK,1985-12-10,new@example.com\n", dry_run=True
    )
    assert (tried.players, tried.pending) == (2, 1)


async def test_a_dry_run_of_what_was_imported_tells_who_is_there_already(house: House) -> None:
    done = await house.imported()
    tried = await house.imported(dry_run=True)
    assert (tried.players, tried.repeated, tried.pending) == (done.players, 3, done.pending)
    assert tried.refused == done.refused


async def test_in_a_dry_run_no_item_can_name_what_another_would_make(house: House) -> None:
    deposit = {"amount": {"amount": 100, "currency": "EUR"}, "provider": "card"}
    items = [
        {"key": "a", "path": "/v1/players", "body": {"country": "DE", "currency": "EUR", "birth_date": "1985-12-10"}},
        {"key": "b", "path": "/v1/players/$0/deposits", "body": deposit},
    ]
    answer = await house.client.post("/v1/batch", {"items": items, "dry_run": True}, "operator")
    assert [(item["status"], item["body"].get("code")) for item in answer.json["items"]] == [
        (201, None), (424, "dependency_failed"),
    ]  # fmt: skip
    assert "position" not in answer.json["items"][0]
    assert house.registered() == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("country,currency,shoe_size\n", "shoe_size"),
        ("country,email\n", "currency"),
        ("country,currency,country\n", "twice"),
        ("country,currency\nDE,EUR\nDE\n", "line 3"),
        ("country,currency\nDE,EUR,more\n", "line 2"),
    ],
)
async def test_a_file_that_cannot_be_understood_sends_nothing(house: House, text: str, why: str) -> None:
    with pytest.raises(ImportStopped, match=why):
        await house.imported(text)
    assert house.registered() == []


async def test_a_region_that_is_away_is_told_and_a_refusal_of_all_at_once(house: House) -> None:
    with pytest.raises(ImportStopped, match="has not taken a batch"):
        await importing.import_players(_file(house), "http://127.0.0.1:9", "importer", patience_s=0)
    with pytest.raises(ImportStopped, match="401"):
        await importing.import_players(_file(house), house.client.url, "nobody")


def _file(house: House) -> Path:
    file = house.folder / "one.csv"
    file.write_text("country,currency\nDE,EUR\n")
    return file


def test_cells_may_hold_commas_quotes_and_a_byte_order_mark() -> None:
    [row] = parse('\ufeffcountry,currency,name\r\nDE,EUR,"Smith, ""Bob"""\r\n'.encode())
    assert row.body == {"country": "DE", "currency": "EUR", "name": 'Smith, "Bob"'}
