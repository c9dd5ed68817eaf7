"""A log over HTTP: what a regulator's client sees, headers included."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app import tiling
from eventstore.vault import RegionKey
from tests.app.reading import Client, region, serving
from tests.ledger import Ledger
from tests.published import append, head, leaves, publish, trusting
from tests.stack import Servers
from verifier import merkle
from verifier.note import open_note, parse_checkpoint
from verifier.policy import parse_policy
from verifier.proof import verify_proof
from verifier.tiles import TileReader, decode_bundle

FOR_EVER = "private, max-age=31536000, immutable"


@pytest.fixture
async def client(ledger: Ledger, servers: Servers) -> AsyncIterator[Client]:
    """Of a service with a log of 300 entries, of which 260 are published."""
    append(ledger, 299)
    publish(ledger, 260)
    async with (
        region(ledger, servers, RegionKey(bytes(32)), gap=False) as made,
        serving(made.schemas, [tiling.router(made.read, made.schemas)]) as served,
    ):
        yield served


async def test_anybody_reads_the_checkpoint(client: Client, ledger: Ledger) -> None:
    answer = await client.get("/v1/logs/eu/checkpoint", role=None)
    assert (answer.status, answer.raw) == (200, head("eu", leaves(ledger)[:260]))
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=1"
    publish(ledger, 300)
    assert (await client.get("/v1/logs/eu/checkpoint", role=None)).raw == head("eu", leaves(ledger)[:300])


async def test_the_verifier_reads_the_log(client: Client, ledger: Ledger) -> None:
    known = leaves(ledger)[:260]

    def fetch(path: str) -> bytes:
        answer = client.ask(f"/v1/logs/eu/{path}")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["cache-control"] == FOR_EVER
        return answer.raw

    reader = TileReader(fetch, 260, merkle.root(known))
    assert [merkle.leaf_hash(entry) for entry in await asyncio.to_thread(lambda: list(reader.entries()))] == known


@pytest.mark.parametrize(
    ("accepted", "coded"),
    [
        ("gzip", True),
        ("identity, GZIP;q=0.5", True),
        ("br, *", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0, *", False),
        ("br;q=1, *;q=0", False),
        ("gzip;q=nan", False),
        ("gzip;level=9", False),
    ],
)
async def test_bundles_are_compressed_for_whoever_takes_it(client: Client, accepted: str, coded: bool) -> None:
    answer = await client.get("/v1/logs/eu/tile/entries/000", Accept_Encoding=accepted)
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers.get("content-encoding") == ("gzip" if coded else None)
    assert len(decode_bundle(gzip.decompress(answer.raw) if coded else answer.raw, 256)) == 256
    tile = await client.get("/v1/logs/eu/tile/0/000", Accept_Encoding=accepted)
    assert (len(tile.raw), "content-encoding" in tile.headers) == (8192, False)


async def test_entries_and_their_hashes_need_the_right_to_read_the_audit(client: Client) -> None:
    for path in ("tile/0/000", "tile/entries/000", "tile/no/such", "entries/1/proof"):
        assert (await client.get(f"/v1/logs/eu/{path}", role=None)).problem() == (401, "unauthenticated")
        assert (await client.get(f"/v1/logs/eu/{path}", role="operator")).problem() == (403, "forbidden")
    for path in ("checkpoint", "heads", "consistency?from=1&to=260"):
        assert (await client.get(f"/v1/logs/eu/{path}", role=None)).status == 200


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("us/checkpoint", 404, "not_published"),
        ("mars/checkpoint", 404, "not_found"),
        ("mars/heads", 404, "not_found"),
        ("e%00u/checkpoint", 404, "not_found"),
        ("eu/tile/0/00", 404, "not_found"),
        ("eu/tile/0/000/", 404, "not_found"),
        ("eu/tile/00/000", 404, "not_found"),
        ("eu/tile/0/x000/000", 404, "not_found"),
        ("eu/tile/0/000.p/256", 404, "not_found"),
        ("eu/tile/0/000%0a", 404, "not_found"),
        ("eu/tile/0/001.p/5", 404, "not_published"),
        ("eu/tile/0/001", 404, "not_published"),
        ("eu/tile/entries/001.p/5", 404, "not_published"),
        ("eu/entries/261/proof", 404, "not_published"),
        ("eu/entries/0/proof", 422, "invalid"),
        ("eu/entries/x/proof", 422, "invalid"),
        ("eu/entries/9223372036854775808/proof", 422, "invalid"),
        ("eu/entries/1/proof?format=pdf", 422, "invalid"),
        ("eu/consistency", 422, "invalid"),
        ("eu/consistency?from=0&to=5", 422, "invalid"),
        ("eu/consistency?from=6&to=5", 422, "invalid"),
        ("eu/consistency?from=1&to=261", 404, "not_published"),
        ("eu/heads?after=-1", 422, "invalid"),
        ("eu/heads?after=9223372036854775808", 422, "invalid"),
        ("eu/heads?limit=201", 422, "invalid"),
        ("eu/heads?cursor=%ff", 422, "invalid"),
    ],
)
async def test_what_is_not_there_is_a_problem_with_a_code(client: Client, path: str, status: int, code: str) -> None:
    assert (await client.get(f"/v1/logs/{path}")).problem() == (status, code)


async def test_a_proof_is_json_or_a_file(client: Client, ledger: Ledger) -> None:
    known = leaves(ledger)[:260]
    shown = await client.get("/v1/logs/eu/entries/7/proof")
    assert shown.headers["vary"] == "Accept"
    hashes = [bytes.fromhex(each) for each in shown.json["hashes"]]
    merkle.verify_inclusion(6, 260, known[6], hashes, merkle.root(known))
    assert shown.json["checkpoint"].encode() == head("eu", known)
    for answer in (
        await client.get("/v1/logs/eu/entries/7/proof", Accept="text/plain"),
        await client.get("/v1/logs/eu/entries/7/proof?format=tlog-proof"),
    ):
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert verify_proof(answer.raw, known[6], trusting("eu")).index == 6


async def test_heads_and_their_consistency(client: Client, ledger: Ledger) -> None:
    publish(ledger, 300)
    known = leaves(ledger)[:300]
    page = (await client.get("/v1/logs/eu/heads?after=0&limit=1", role=None)).json
    assert [each["size"] for each in page["items"]] == [260]
    rest = (await client.get(f"/v1/logs/eu/heads?cursor={page['next_cursor']}", role=None)).json
    assert [each["root"] for each in rest["items"]] == [merkle.root(known).hex()]
    found = (await client.get("/v1/logs/eu/consistency?from=260&to=300", role=None)).json
    assert (found["from"], found["to"]) == (260, 300)
    proof = [bytes.fromhex(each) for each in found["hashes"]]
    merkle.verify_consistency(260, 300, merkle.root(known[:260]), merkle.root(known), proof)


async def test_the_interface_describes_itself(client: Client) -> None:
    document = (await client.get("/openapi.json", role=None)).json
    paths = document["paths"]
    public = {path for path, methods in paths.items() if methods["get"].get("security") == []}
    assert public == {f"/v1/logs/{{log}}/{name}" for name in ("checkpoint", "heads", "consistency")}
    assert set(paths) - public == {"/v1/logs/{log}/tile/{path}", "/v1/logs/{log}/entries/{position}/proof"}
    for path, methods in paths.items():
        responses = methods["get"]["responses"]
        assert "`not_published`" in responses["404"]["description"], path
        assert ("401" in responses) == (path not in public)
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert named == set(document["components"]["schemas"])


def test_the_examples_of_the_reference_verify() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/log-interface.md").read_text()
    vkey = re.findall(r"`(countroom\S+\+\S+)`", text)[0]
    leaf = bytes.fromhex(re.findall(r"leaf of that entry is `(\w+)`", text)[0])
    file = re.findall(r"(?:    [^\n]+\n|\n)+", text[text.index("    c2sp.org/tlog-proof@v1") :])[0]
    proof = f"{textwrap.dedent(file).strip()}\n".encode()
    proven = verify_proof(proof, leaf, parse_policy(f"log {vkey}\nquorum none\n".encode())).head.checkpoint
    head, consistency = (json.loads(each) for each in re.findall(r"```json\n(.*?)```", text, re.DOTALL))
    older = parse_checkpoint(open_note(head["items"][0]["note"].encode(), [vkey]).text)
    hashes = [bytes.fromhex(each) for each in consistency["hashes"]]
    merkle.verify_consistency(older.size, proven.size, older.root, proven.root, hashes)
    assert older.root.hex() == head["items"][0]["root"]
