"""Reading one's own writes over HTTP: what waits, what is refused, and that every route says what it reads."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple

import httpx2
import psycopg
import pytest
from fastapi.routing import APIRoute

from access.policy import ROLES
from app import causal, querying
from eventstore.log import Command, Resumed
from eventstore.postgres import PostgresStreams
from projections import catalog
from queries import seeing, states
from queries.causal import HEADS, LOG
from queries.causal import parse as positions_in
from tests.app.reading import serving
from tests.app.twins import ENDLESS, QUERIES, Places, Twin, places, twin
from tests.ledger import US, body, chained, new_id, opening
from tests.stack import Servers

PLAYER = {"country": "AT", "currency": "EUR", "name": "Anna"}
TABLES = {table.name: projection.name for projection in catalog.TABLES for table in projection.tables}


@pytest.fixture(scope="module")
def where(servers: Servers) -> Places:
    return places(servers)


@pytest.fixture
async def house(where: Places) -> AsyncIterator[Twin]:
    await where.empty(0)
    async with twin(where, 0) as made:
        yield made


async def wrote(house: Twin, key: str = "a") -> str:
    """The position of a registration that no read model has applied yet; its player is the last one."""
    answer = await house.ask("POST", "/v1/players", "operator", PLAYER, key)
    house.players.append(answer.json()["player"])
    return str(answer.headers["ledger-position"])


async def look(house: Twin, path: str, role: str = "operator", **query: object) -> httpx2.Response:
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    return await house.ask("GET", f"{path}{'&' if '?' in path else '?'}{asked}" if asked else path, role)


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_read_waits_for_what_was_written_and_says_what_it_was_made_from(house: Twin) -> None:
    position = await wrote(house)
    path = "/v1/players"
    assert (await look(house, path)).json()["items"] == []
    waiting = asyncio.create_task(look(house, path, at_least=position))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await house.project()
    answer = await waiting
    assert (answer.status_code, answer.headers["ledger-position"]) == (200, position)
    assert [each["id"] for each in answer.json()["items"]] == house.players
    again = await look(house, path, at_least=answer.headers["ledger-position"], wait=0)
    assert again.status_code == 200


async def test_waiting_is_bounded_and_a_read_in_vain_is_refused_with_a_hint(house: Twin) -> None:
    position = await wrote(house)
    answer = await look(house, "/v1/players", at_least=position, wait=50)
    assert (*code(answer), answer.headers["retry-after"]) == (503, "not_yet", "1")
    assert answer.json()["reached"] == ""
    assert (await look(house, "/v1/players")).status_code == 200


async def test_a_position_that_holds_another_entry_is_stranded(house: Twin) -> None:
    position = await wrote(house)
    log, number, leaf = position.split("/")
    other = f"{log}/{number}/{leaf[:-1]}{'1' if leaf[-1] == '0' else '0'}"
    assert code(await look(house, "/v1/players", at_least=other)) == (409, "position_stranded")
    await house.project()
    assert code(await look(house, "/v1/players", at_least=other)) == (409, "position_stranded")


async def test_a_position_at_which_nothing_counts_is_stranded(house: Twin) -> None:
    """As beyond the cut of a takeover: here an entry for a partition that its log never owned."""
    foreign = Command(id_ := new_id(), [body("player 5", 1, id_)], (), frozenset())
    entries = chained(US, [*opening(US, (128, 255)).bodies, *foreign.bodies])
    house.ledger.sql("SELECT ledger.register_log('us', %s, false)", US)
    columns = [list(each) for each in zip(*((e.recorded, e.leaf, e.body) for e in entries), strict=True)]
    house.ledger.sql(
        "SELECT ledger.append_copy(id, 1, %s::bigint[], %s::bytea[], %s::bytea[]) FROM ledger.log WHERE name = 'us'",
        *columns,
    )
    at = [f"us/{entry.position}/{entry.leaf.hex()[:16]}" for entry in entries]
    assert code(await look(house, "/v1/logs", "auditor", at_least=at[1])) == (409, "position_stranded")
    assert (await look(house, "/v1/logs", "auditor", at_least=at[0])).status_code == 200


@pytest.mark.parametrize(
    ("query", "refused"),
    [
        ("at_least=xx/1", (400, "unknown_log")),
        ("at_least=xx/0", (400, "unknown_log")),
        ("at_least=eu-1", (400, "position_malformed")),
        ("at_least=eu/1,eu/1", (400, "position_malformed")),
        ("at_least=eu/1/abc", (400, "position_malformed")),
        ("at_least=eu/1&wait=5001", (422, "invalid")),
        ("at_least=eu/1&wait=-1", (422, "invalid")),
        ("at_least=eu/1&wait=%D9%A3", (422, "invalid")),
    ],
)
async def test_what_cannot_be_meant_is_refused_at_once(house: Twin, query: str, refused: tuple[int, str]) -> None:
    assert code(await look(house, f"/v1/logs?{query}", "auditor")) == refused


async def test_nobody_waits_who_is_not_known(house: Twin) -> None:
    answer = await asyncio.wait_for(house.client.get("/v1/players?at_least=eu/999"), 3)
    assert code(answer) == (401, "unauthenticated")
    assert (await house.client.get("/v1/players?at_least=nonsense")).status_code == 401


class Walked(NamedTuple):
    path: str
    address: str
    operation: dict[str, Any]

    @property
    def reads(self) -> list[str]:
        return [each.format(name="players") for each in self.operation["x-reads"]]

    def asked(self, query: str) -> str:
        return f"{self.address}{'&' if '?' in self.address else '?'}{query}"


def walk(house: Twin) -> Iterator[Walked]:
    """Every GET of the API, with an address at which there is something wherever that is easy."""
    known = {
        "player_id": house.players[0], "transaction_id": house.transactions[0], "ticket_id": house.tickets[0], "name": "players",
        "compartment": "north", "log": "eu", "position": "1", "path": "0/000", "round": "round_1", "command_id": "0" * 32,
        "disclosure_id": "019aab5c-4000-7000-8000-000000000001",
    }  # fmt: skip
    queries = {**QUERIES, "/v1/logs/{log}/consistency": "?from=1&to=1"}
    for path, methods in house.app.openapi()["paths"].items():
        if "get" in methods:
            address = re.sub(
                r"{(\w+)}", lambda name: known.get(name[1], f"{name[1][:-3]}_01m81j18g0fs6r2yb5e8r30c1a"), path
            )
            yield Walked(path, address + queries.get(path, ""), methods["get"])


async def lively(house: Twin) -> str:
    """A house in which something has happened; the last position, which no read model has applied."""
    await wrote(house)
    one = f"/v1/players/{house.players[0]}"
    asked = {"amount": {"amount": 500, "currency": "EUR"}, "provider": "acme"}
    house.transactions.append((await house.post(f"{one}/deposits", "operator", asked, "b"))["transaction"])
    ticket = {"channel": "email", "subject": "late", "text": "where is it", "priority": "normal"}
    house.tickets.append((await house.post(f"{one}/tickets", "operator", ticket, "c"))["ticket"])
    answer = await house.ask("POST", f"{one}/notes", "operator", {"text": "called"}, "d")
    return str(answer.headers["ledger-position"])


async def test_every_read_says_what_it_is_made_of_and_waits_for_just_that(house: Twin) -> None:
    last = await lively(house)
    walked = list(walk(house))
    assert len(walked) > 45
    for each in walked:
        reads = each.operation["x-reads"]
        named = {parameter["name"] for parameter in each.operation.get("parameters", ())}
        assert ({"at_least", "wait"} <= named) == bool(reads), each.path
        if not reads:
            continue
        for status, said in (("400", "unknown_log"), ("409", "position_stranded"), ("503", "not_yet")):
            assert f"`{said}`" in each.operation["responses"][status]["description"], (each.path, status)
        assert "Ledger-Position" in each.operation["responses"]["200"]["headers"], each.path
        never = await house.ask("GET", each.asked("at_least=eu/999999&wait=0"), "auditor")
        assert code(never) == (503, "not_yet"), each.path
        if each.path in ENDLESS:
            continue
        now = await house.ask("GET", each.asked(f"at_least={last}&wait=0"), "auditor")
        is_behind = bool(set(each.reads) & {*catalog.NAMES, HEADS})
        assert (now.status_code == 503) == is_behind, (each.path, now.text)


async def test_every_answer_says_positions_that_can_be_asked_for_again(house: Twin) -> None:
    last = await lively(house)
    await house.project()
    (written,) = positions_in(last)
    answered = set()
    for each in walk(house):
        if not each.operation["x-reads"] or each.path in ENDLESS or HEADS in each.reads:
            continue
        for role in ROLES:
            answer = await house.ask("GET", each.asked(f"at_least={last}"), role)
            assert answer.status_code != 503, (each.path, answer.text)
            if answer.status_code != 200:
                continue
            answered.add(each.path)
            (place,) = positions_in(answer.headers["ledger-position"])
            assert place.position >= written.position, each.path
            await house.project()
            again = await house.ask("GET", each.asked(f"at_least={answer.headers['ledger-position']}"), role)
            assert again.status_code == 200, (each.path, again.text)
            break
    assert len(answered) > 30, sorted(answered)


async def test_no_read_looks_at_a_read_model_that_it_does_not_name(
    house: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lively(house)
    await house.project()
    said: list[str] = []
    execute = psycopg.AsyncCursor.execute

    async def heard(self: Any, query: Any, *arguments: Any, **more: Any) -> Any:
        said.append(str(query))
        return await execute(self, query, *arguments, **more)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", heard)
    looked: set[str] = set()
    for each in walk(house):
        if each.path in ENDLESS or each.path in FROM_THE_LOG or not each.operation["x-reads"]:
            continue
        for role in ("administrator", "auditor", "operator", "supervisor"):
            said.clear()
            await house.ask("GET", each.address, role)
            found = {TABLES[table] for text in said for table in re.findall(r"\bread\.(\w+)", text) if table in TABLES}
            assert found <= set(each.reads), (each.path, found)
            looked |= found
        if seeing.THINGS.keys() & set(re.findall(r"{(\w+)}", each.path)) and "/compartments/" not in each.path:
            assert "players" in each.reads, f"{each.path}: whom somebody sees is asked of players"
    assert looked > {"players", "transactions", "tickets", "notices", "rounds"}


async def test_no_read_folds_what_stands_in_the_logs_without_naming_them(
    house: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among them what other regions have recorded to protect a player, which is looked for where there are any."""
    await lively(house)
    await house.project()
    house.ledger.sql("SELECT ledger.register_log('us', %s, false)", US)
    resume, folded = PostgresStreams.resume, set[str]()

    async def heard(self: PostgresStreams, schemas: Mapping[str, str]) -> dict[str, Resumed]:
        folded.update(schemas)
        return await resume(self, schemas)

    monkeypatch.setattr(states, "PostgresStreams", type("Heard", (PostgresStreams,), {"resume": heard}))
    found = set()
    for each in walk(house):
        if each.path in ENDLESS or not each.operation["x-reads"]:
            continue
        folded.clear()
        await house.ask("GET", each.address, "supervisor")
        if folded:
            assert LOG in each.reads, (each.path, folded)
            found.add(each.path)
    assert {"/v1/players/{player_id}", "/v1/players/{player_id}/protection"} <= found


FROM_THE_LOG = {"/v1/audit", "/v1/audit/players/{player_id}"}
"""Their events are found in the logs, however far read models are (queries/events.py)."""


async def test_a_route_that_does_not_say_what_it_reads_does_not_come_into_being(house: Twin) -> None:
    made: type[APIRoute] = causal.routes(house.made.read, house.made.schemas)
    with pytest.raises(ValueError, match="does not say"):
        made("/v1/new", lambda: None, methods=["GET"])


async def test_a_streams_ids_are_positions_and_its_reader_goes_on_where_they_were(house: Twin) -> None:
    position = await wrote(house)
    await house.project()
    async with serving(house.made.schemas, [querying.router(house.made.read, house.made.schemas)]) as client:
        url = f"{client.url}/v1/dashboard/live"

        def ask(last_id: str = "", query: str = "") -> tuple[str, str]:
            """The stream's position, and the id of its first event; of a stream that is resumed, none."""
            headers = {"Authorization": "Bearer viewer", "Last-Event-ID": last_id}
            try:
                with urllib.request.urlopen(urllib.request.Request(url + query, headers=headers), timeout=30) as stream:
                    lines = () if last_id else (line.decode().strip() for line in stream)
                    ids = (line.removeprefix("id: ") for line in lines if line.startswith("id: "))
                    return stream.headers["Ledger-Position"], next(ids, "")
            except urllib.error.HTTPError as error:
                return str(error.code), json.loads(error.read())["code"]

        assert await asyncio.to_thread(ask) == (position, position)
        later = await wrote(house, "b")
        assert await asyncio.to_thread(ask, later, "?wait=50") == ("503", "not_yet")
        await house.project()
        assert await asyncio.to_thread(ask, later) == (later, "")
        stranded = f"{position[:-1]}{'1' if position[-1] == '0' else '0'}"
        assert await asyncio.to_thread(ask, stranded) == ("409", "position_stranded")
