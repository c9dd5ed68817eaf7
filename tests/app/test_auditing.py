"""The audit over HTTP: pages, streams, live events, proofs, and the trace that each read leaves."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

import projections
from app import auditing, commanding, tiling
from domain.kernel import partition_of
from eventstore import schema
from eventstore.log import Command
from eventstore.record import Body, CommandPart, encode_body
from eventstore.vault import RegionKey
from tests.app.reading import Client, events, region, serving
from tests.ledger import Ledger, new_id
from tests.published import leaves, publish, trusting
from tests.stack import Servers
from verifier import merkle
from verifier.proof import verify_proof

READ = Path(projections.__file__).parent / "schema"


class House(NamedTuple):
    client: Client
    ledger: Ledger
    player: str

    async def json(self, path: str, role: str = "auditor") -> Any:
        answer = await self.client.get(path, role)
        assert answer.status == 200, answer
        return answer.json

    async def deposit(self, key: str) -> None:
        body = {"amount": {"amount": 500, "currency": "EUR"}, "provider": "acme"}
        await self.client.post(f"/v1/players/{self.player}/deposits", body, "operator", Idempotency_Key=key)

    def reads(self) -> list[tuple[str, str, str]]:
        """(actor, what, query) of all that was recorded."""
        return [
            (event.body.actor, read["what"], read["query"])
            for event in events(self.ledger, "reads")
            for read in json.loads(bytes(event.body.data))["reads"]
        ]


@pytest.fixture
async def house(ledger: Ledger, servers: Servers) -> AsyncIterator[House]:
    schema.migrate(ledger.dsn, [("ledger", schema.HERE), ("read", READ)])
    async with region(ledger, servers, RegionKey(bytes(32)), gap=False) as made:
        routers = [
            commanding.router(made.services, made.read.start, made.schemas, lambda _: None),
            auditing.router(made.read, made.schemas),
            tiling.router(made.read, made.schemas),
        ]
        async with serving(made.schemas, routers) as client:
            body = {"country": "AT", "currency": "EUR", "name": "Anna"}
            answer = await client.post("/v1/players", body, "operator", Idempotency_Key="a")
            found = House(client, ledger, answer.json["player"])
            await found.deposit("b")
            yield found


async def test_a_page_is_events_with_their_bodies_and_goes_on_by_its_cursor(house: House) -> None:
    head = len(house.ledger.entries())
    seen: list[Any] = []
    page = await house.json("/v1/audit?limit=2")
    while True:
        seen += page["items"]
        if page["next_cursor"] is None:
            break
        page = await house.json(f"/v1/audit?limit=2&cursor={page['next_cursor']}")
    assert [item["position"] for item in seen] == list(range(1, len(house.ledger.entries())))  # but its own, the last
    for item, entry in zip(seen, house.ledger.entries(), strict=False):
        assert item["body"] == json.loads(entry.body)
        assert (item["log"], item["leaf"], item["counts"]) == ("eu", entry.leaf.hex(), True)
        assert "proof" not in item
    assert len(seen) > head


async def test_a_stream_ends_at_the_heads_of_its_start_and_says_how_far_it_went(house: House) -> None:
    head = len(house.ledger.entries())
    answer = await house.client.get("/v1/audit", Accept="application/x-ndjson")
    *items, last = [json.loads(line) for line in answer.raw.splitlines()]
    assert [item["position"] for item in items] == list(range(1, head + 1))
    assert last == {"positions": f"eu/{head},us/0"}
    rest = await house.client.get(f"/v1/audit?after={last['positions']}&type=reads.*", Accept="application/x-ndjson")
    first, *_ = [json.loads(line) for line in rest.raw.splitlines()]
    assert (first["position"], first["body"]["type"]) == (head + 1, "reads.recorded")


async def test_filters(house: House) -> None:
    times = [entry.recorded for entry in house.ledger.entries()]
    for query, tags in (
        (f"player={house.player}", ["player.registered", "transaction.deposit_requested", "limits.headroom_consumed"]),
        (f"player={house.player}&type=limits.*", ["limits.headroom_consumed"]),
        ("operator=operator:test&type=player.registered", ["player.registered"]),
        ("operator=system&log=eu", ["log.opened", "service.started"]),
        (f"from={instant(times[2])}&to={instant(times[3])}", ["player.registered"]),
        ("log=us", []),
    ):
        found = (await house.json(f"/v1/audit?{query}"))["items"]
        assert [item["body"]["type"] for item in found] == tags, query


def instant(microseconds: int) -> str:
    from domain.kernel import instant as at

    return at(microseconds).isoformat().replace("+00:00", "Z")


async def test_proofs_lead_to_the_published_head_and_are_null_beyond(house: House) -> None:
    publish(house.ledger, 3)
    known = leaves(house.ledger)[:3]
    for item in (await house.json("/v1/audit?proofs=true"))["items"]:
        if item["position"] > 3:
            assert item["proof"] is None
            continue
        hashes = [bytes.fromhex(each) for each in item["proof"]["hashes"]]
        leaf = bytes.fromhex(item["leaf"])
        assert item["proof"]["size"] == 3
        merkle.verify_inclusion(item["position"] - 1, 3, leaf, hashes, merkle.root(known))


async def test_an_entry_has_the_bytes_that_were_hashed_and_a_proof(house: House) -> None:
    publish(house.ledger, 3)
    found = await house.json("/v1/audit/entries/eu/3?proof=true")
    entry = base64.b64decode(found["entry"])
    leaf = hashlib.sha256(b"\0" + entry).digest()
    assert (found["leaf"], found["body"]) == (leaf.hex(), json.loads(entry[48:]))
    lines = ["c2sp.org/tlog-proof@v1", f"index {found['proof']['index']}"]
    lines += [base64.b64encode(bytes.fromhex(each)).decode() for each in found["proof"]["hashes"]]
    proof = "\n".join([*lines, "", found["proof"]["checkpoint"]]).encode()
    assert verify_proof(proof, leaf, trusting("eu")).index == 2
    assert (await house.json("/v1/audit/entries/eu/3"))["proof"] is None
    assert (await house.json("/v1/audit/entries/eu/4?proof=true"))["proof"] is None


async def test_a_player_as_of_then_with_what_it_was_made_from(house: House) -> None:
    publish(house.ledger, 5)
    before = await house.json(f"/v1/audit/players/{house.player}?at=eu/3")
    after = await house.json(f"/v1/audit/players/{house.player}?proofs=true")
    assert (before["transactions"], before["deposit_limit"], before["events"]) == ([], None, None)
    assert [each["status"] for each in after["transactions"]] == ["requested"]
    assert after["deposit_limit"]["used"] == 500
    assert [(event["position"], event["proof"]["size"]) for event in after["events"]] == [(3, 5), (4, 5), (5, 5)]
    assert after["personal"] == before["personal"]
    assert after["personal"]["sealed"] is True


async def test_every_read_is_recorded_with_its_reader_and_a_refused_one_is_not(house: House) -> None:
    await house.json(f"/v1/audit?player={house.player}&type=wallet.*")
    await house.json("/v1/audit/entries/eu/1", "compliance")
    await house.json(f"/v1/audit/players/{house.player}?at=eu/3")
    await house.client.get("/v1/audit", Accept="application/x-ndjson")
    expected = [
        ("auditor:test", "audit.events", f"player={house.player}&type=wallet.%2A&limit=50"),
        ("compliance:test", "audit.entry", "log=eu&position=1"),
        ("auditor:test", "audit.player", f"player_id={house.player}&at=eu%2F3"),
        ("auditor:test", "audit.stream", ""),
    ]
    assert house.reads() == expected
    for path, status, code in (
        ("/v1/audit?log=mars", 404, "not_found"),
        ("/v1/audit?player=x", 422, "invalid_id"),
        ("/v1/audit?type=%25", 422, "invalid"),
        ("/v1/audit?from=now", 422, "unknown_moment"),
        ("/v1/audit?after=eu", 422, "invalid"),
        ("/v1/audit?after=mars/1", 422, "invalid"),
        ("/v1/audit?limit=0", 422, "invalid"),
        ("/v1/audit?cursor=x", 422, "invalid"),
        ("/v1/audit?operator=%00", 422, "invalid"),
        (f"/v1/audit?operator={'x' * 600}", 422, "invalid"),
        ("/v1/audit/entries/eu/0", 422, "invalid"),
        ("/v1/audit/entries/eu/99999", 404, "not_found"),
        ("/v1/audit/entries/%00/1", 404, "not_found"),
        ("/v1/audit/players/player_01ka7g0000e00800000000001a", 404, "not_found"),
        (f"/v1/audit/players/{house.player}?at=then", 422, "unknown_moment"),
    ):
        assert (await house.client.get(path)).problem() == (status, code), path
    for role, status in (("operator", 403), (None, 401)):
        assert (await house.client.get("/v1/audit", role)).status == status
    assert house.reads() == expected


async def test_while_the_log_is_read_only_nothing_of_the_audit_is_read(house: House) -> None:
    house.ledger.sql("SELECT ledger.guard(1::smallint)")
    try:
        answer = await asyncio.wait_for(house.client.get("/v1/audit/entries/eu/1"), 10)
    finally:
        house.ledger.sql("DELETE FROM ledger.clearance")
    assert answer.problem() == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"


async def test_a_live_stream_goes_on_and_is_resumed_by_its_last_id(house: House) -> None:
    await asyncio.to_thread(_live, house, asyncio.get_running_loop())


def _live(house: House, loop: asyncio.AbstractEventLoop) -> None:
    with live(house, f"?player={house.player}") as stream:
        first = [next(stream) for _ in range(3)]
        asyncio.run_coroutine_threadsafe(house.deposit("c"), loop).result()
        later = [next(stream) for _ in range(2)]
    assert [data["position"] for _, data in first] == [3, 4, 5]
    assert [data["body"]["type"] for _, data in later] == ["transaction.deposit_requested", "limits.headroom_consumed"]
    with live(house, f"?player={house.player}", Last_Event_ID=first[0][0]) as again:
        resumed = [next(again) for _ in range(4)]
    assert [data for _, data in resumed] == [data for _, data in [*first[1:], *later]]


@contextmanager
def live(house: House, query: str, **headers: str) -> Iterator[Iterator[tuple[str, Any]]]:
    """(id, data) of each event that has data."""
    sent = {"Authorization": "Bearer auditor", "Accept": "text/event-stream"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{house.client.url}/v1/audit{query}", headers=sent)

    def parsed(lines: Any) -> Iterator[tuple[str, Any]]:
        id_ = ""
        for line in lines:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "id":
                id_ = value
            elif name == "data":
                yield id_, json.loads(value)

    with urllib.request.urlopen(request, timeout=20) as stream:
        yield parsed(stream)


async def test_the_interface_describes_itself(house: House) -> None:
    document = (await house.client.get("/openapi.json", None)).json
    for path in ("/v1/audit", "/v1/audit/entries/{log}/{position}", "/v1/audit/players/{player_id}"):
        responses = document["paths"][path]["get"]["responses"]
        assert {"200", "401", "403", "404", "422", "429", "503"} <= set(responses)
        assert "`too_many_reads`" in responses["429"]["description"]
        assert "HTTPValidationError" not in json.dumps(responses)
    parameters = {each["name"] for each in document["paths"]["/v1/audit"]["get"]["parameters"]}
    assert parameters >= {"player", "operator", "type", "log", "from", "to", "after", "limit", "cursor", "proofs"}


async def test_what_a_later_release_wrote_is_left_to_its_services(house: House) -> None:
    """The card as it was before can still be read; nothing is decided from a state that is not understood."""
    name = f"player-{house.player.partition('_')[2]}"
    before = sum(json.loads(each.body)["actor"] == "operator:test" for each in house.ledger.entries())
    later = new_id()
    raw = encode_body(
        Body(
            stream=name,
            version=2,
            type="player.teleported",
            id="019a8f00-0000-7000-8000-000000000001",
            actor="service:later",
            command=CommandPart(id=later.hex(), i=1, n=1),
            data=msgspec.Raw(b"{}"),
            partition=partition_of(name),
            epoch=1,
        )
    )
    assert house.ledger.append(Command(later, [raw], (), frozenset({name}))) == [0]
    await house.json(f"/v1/audit/players/{house.player}?at=eu/3")
    body = {"amount": {"amount": 500, "currency": "EUR"}}
    client = house.client
    asked = await client.get(f"/v1/audit/players/{house.player}")
    path = f"/v1/players/{house.player}/limits/deposit"
    sent = await client.post(path, {"period": "day", "limit": body["amount"]}, "operator", Idempotency_Key="c")
    for answer in (asked, sent):
        assert (answer.status, answer.json["code"]) == (503, "unavailable"), answer
        assert "player.teleported" in answer.json["detail"]
        assert answer.headers["retry-after"] == "1"
    written = [each.body for each in house.ledger.entries() if json.loads(each.body)["actor"] == "operator:test"]
    assert len(written) == before
