"""`countroom export`: what is exported, of what, and what stands beside it."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jsonschema_rs
import pytest
from psycopg import AsyncConnection
from redis.asyncio import Redis

import app.exporting as package
from app import cli
from app.exporting import copying, disclosing, schemas, selecting
from app.exporting.plan import UNFINISHED
from app.exporting.selection import Choice, read_event
from app.exporting.stopped import ExportStopped, NotIntact
from domain import wallets
from domain.catalog import AGGREGATES
from domain.kernel import PlayerId
from eventstore import postgres
from projections import catalog
from projections import postgres as projections
from tests.app.exports import busy_book, make, region_of, shown, small_book, trust_file
from tests.app.shop import answer
from tests.projections.books import Book, MemorySource, write
from tests.projections.histories import follow
from tests.projections.servers import database
from tests.replay.logs import head, sound
from tests.stack import Servers
from tests.verifier.region import TOKEN, Region, serving
from verifier import merkle
from verifier.export import Export, files_in, is_export, verify_export
from verifier.faults import CouldNotCheck

SCRIPT = Path(package.__file__).with_name("check.py")
VECTORS = Path(__file__).parents[1] / "vectors" / "events"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("COUNTROOM_TOKEN", TOKEN)


@pytest.fixture(scope="module")
def book() -> Book:
    return busy_book()


@pytest.fixture(scope="module")
def region(book: Book) -> Iterator[Region]:
    with region_of(book, size=len(book.entries) - 2, sizes=(50, 200)) as here:
        yield here


def checked(out: Path) -> tuple[int, dict[tuple[str, str, str], int], str]:
    """What the script says: exit status, balances by stream, account and currency, and its words."""
    done = subprocess.run([sys.executable, "-I", out / "check.py"], capture_output=True, text=True, check=False)
    rows = re.findall(r"^(\S+)  (\w+) +(-?[\d,]+) ([A-Z]{3})$", done.stdout, re.MULTILINE)
    sums = {(stream, account, currency): int(sum_.replace(",", "")) for stream, account, sum_, currency in rows}
    return done.returncode, sums, done.stdout + done.stderr


def folded(book: Book) -> dict[tuple[str, str, str], int]:
    """The same as the domain makes it of the log."""
    found = {}
    for player in book.players:
        stream = wallets.stream(player)
        for currency, balance in book.state(stream).balances.items():
            found[stream.name, "cash", currency] = balance.cash
            found[stream.name, "reserved", currency] = balance.reserved
    return found


def without_zeros(sums: dict[tuple[str, str, str], int]) -> dict[tuple[str, str, str], int]:
    return {key: amount for key, amount in sums.items() if amount}


# What is exported


def test_a_whole_log_is_exported_up_to_the_newest_head_and_verifies(region: Region, tmp_path: Path, book: Book) -> None:
    made = make(region.url, tmp_path / "out")
    size = len(book.entries) - 2
    assert (made["logs"]["eu"]["entries"], made["beyond"]) == (size, {"eu": 2})
    report = verify_export(str(tmp_path / "out"))["eu"]
    assert (report.intact, report.entries, report.fault) == (True, size, None)
    assert report.signed is not None
    assert (report.signed.heads, report.signed.witnessed_size) == (3, size)
    assert [entry[48:] for _, entry in Export.open(str(tmp_path / "out")).logs["eu"].entries()] == [
        entry.body for entry in sound(book)[:size]
    ]


@pytest.mark.parametrize(
    ("first", "last", "kept"),
    [
        ("eu/100", "eu/299", (100, 299)),
        ("eu/257", None, (257, 426)),
        (None, "eu/1", (1, 1)),
        ("2026-03-01T12:00:00.000100Z", "2026-03-01T12:00:00.000199Z", (101, 200)),
    ],
)
def test_a_range_holds_the_tiles_that_prove_it_and_no_others(
    region: Region, tmp_path: Path, first: str | None, last: str | None, kept: tuple[int, int]
) -> None:
    make(region.url, tmp_path / "out", first=first, last=last)
    log = Export.open(str(tmp_path / "out")).logs["eu"]
    assert (log.kind, log.first, log.last) == ("range", *kept)
    assert verify_export(str(tmp_path / "out"))["eu"].intact
    assert checked(tmp_path / "out")[0] == 0
    bundles = sorted((tmp_path / "out/eu/tile/entries").iterdir())
    assert len(bundles) == (kept[1] - 1) // 256 - (kept[0] - 1) // 256 + 1


def test_a_player_is_exported_with_every_stream_and_transaction_of_theirs(
    region: Region, tmp_path: Path, book: Book
) -> None:
    player = book.players[4]
    make(region.url, tmp_path / "out", player=player)
    log = Export.open(str(tmp_path / "out")).logs["eu"]
    bodies = [json.loads(entry[48:]) for _, entry in log.entries()]
    of_player = [
        body
        for entry in sound(book)[: log.size]
        if (body := json.loads(entry.body))["stream"][-26:] == player[-26:]
        or (body["stream"].startswith("transaction-") and owner(book, body["stream"]) == player)
    ]
    assert bodies == of_player
    assert log.streams is not None
    assert set(log.streams) == {body["stream"] for body in of_player}
    assert verify_export(str(tmp_path / "out"))["eu"].intact
    assert without_zeros(checked(tmp_path / "out")[1]) == {
        key: amount
        for key, amount in without_zeros(folded(book)).items()
        if key[0] == f"wallet-{player.removeprefix('player_')}"
    }


def owner(book: Book, stream: str) -> PlayerId:
    return book._owners[f"transaction_{stream.partition('-')[2]}"]  # type: ignore[index]


def test_a_jurisdiction_is_its_players_and_whatever_names_them(region: Region, tmp_path: Path, book: Book) -> None:
    make(region.url, tmp_path / "out", jurisdiction="DE")
    assert Export.open(str(tmp_path / "out")).logs["eu"].count == len(book.entries) - 2 - 1  # all but the opening
    with pytest.raises(ExportStopped, match="nothing is chosen"):
        make(region.url, tmp_path / "none", jurisdiction="FR")
    assert list((tmp_path / "none").iterdir()) == []
    make(region.url, tmp_path / "none", player=book.players[0], jurisdiction="DE", types=("wallet.*",), last="eu/400")
    kinds = {json.loads(entry[48:])["type"] for _, entry in Export.open(str(tmp_path / "none")).logs["eu"].entries()}
    assert kinds == {"wallet.credited", "wallet.reserved"}


def test_an_event_on_a_regions_own_stream_is_chosen_when_it_names_the_player() -> None:
    suffix = "01kjmma2g0fmvvfnm1e7fznp84"
    choice = Choice([suffix], ())

    def wants(stream: str, data: object) -> bool:
        return choice.wants(
            read_event(json.dumps({"stream": stream, "version": 1, "type": "x.y", "data": data}).encode())
        )

    assert wants("region-eu-disclosures", {"keys": [{"player": f"player_{suffix}"}]})
    assert wants(f"region-eu-protection_{suffix}", {})
    assert wants(f"ticket-{suffix}", {})
    assert not wants("region-eu-disclosures", {"keys": [{"player": f"player_{suffix[:-1]}0"}]})
    for child, name in (("ticket", "01kjmma2g0fmvvfnm1e7fznp81"), ("approval", "01kjmma2g0fmvvfnm1e7fznp82")):
        assert not wants(f"{child}-{name}", {"reason": "?"})
        assert wants(f"{child}-{name}", {"player": f"player_{suffix}"})
        assert wants(f"{child}-{name}", {"reason": "?"})
    assert not wants("other-01kjmma2g0fmvvfnm1e7fznp80", {"player": f"player_{suffix}"})


def test_types_choose_by_tag_or_by_its_beginning(region: Region, tmp_path: Path) -> None:
    make(region.url, tmp_path / "out", types=("wallet.reserved", "limits.*"), first="eu/10")
    log = Export.open(str(tmp_path / "out")).logs["eu"]
    assert log.streams is None
    assert min(position for position, _ in log.entries()) >= 10
    kinds = {json.loads(entry[48:])["type"] for _, entry in log.entries()}
    assert kinds == {"wallet.reserved", "limits.headroom_consumed", "limits.headroom_released"}
    assert verify_export(str(tmp_path / "out"))["eu"].intact
    assert checked(tmp_path / "out")[0] == 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"player": "../../etc"}, "is no player's id"),
        ({"jurisdiction": "Germany"}, "is no country"),
        ({"types": ("../x",)}, "is no event's tag"),
        ({"log": "us"}, "there is no log us"),
        ({"first": "eu/900"}, "there is no eu/900"),
        ({"first": "yesterday"}, "neither a position"),
        ({"first": "eu/9", "last": "eu/8"}, "nothing of it lies between"),
        ({"first": "us/9", "log": "eu"}, "there is no log us"),
        ({"trust": "log x\n"}, "the policy cannot be read"),
        ({"disclose_to": "age1"}, "give --reason"),
        ({"disclose_to": "age1", "reason": "for Mr Smith"}, "a word such as"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_sentence(
    region: Region, tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(ExportStopped, match=re.escape(said)):
        make(region.url, tmp_path / "out", **asked)


def test_a_tree_that_does_not_lead_to_the_head_is_not_exported(book: Book, tmp_path: Path) -> None:
    log = sound(book)
    for path in ("tile/entries/000", "tile/0/000", "tile/1/000.p/1"):
        spoilt = shown(log)
        data = bytearray(spoilt.files[f"/v1/logs/eu/{path}"])
        data[20] ^= 1
        spoilt.files[f"/v1/logs/eu/{path}"] = bytes(data)
        with serving(spoilt) as region, pytest.raises(NotIntact):
            make(region.url, tmp_path / path.replace("/", "_"))


def test_a_log_under_a_foreign_name_is_not_exported(book: Book, tmp_path: Path) -> None:
    foreign = shown(sound(book))
    foreign.announce = {"log": "events", "origin": "countroom.test/events"}
    foreign.files = {
        path.replace("/eu/", "/events/"): data.replace(b"test/eu\n", b"test/events\n")
        for path, data in foreign.files.items()
    }
    with serving(foreign) as region, pytest.raises(ExportStopped, match="cannot be exported under this name"):
        make(region.url, tmp_path / "out")


# Going on


@pytest.mark.parametrize("asked", [{}, {"types": ("limits.*", "player.*")}], ids=["whole", "selection"])
def test_an_export_that_was_stopped_goes_on_and_is_the_same(
    book: Book, tmp_path: Path, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selecting, "LOOK_EVERY", 7)
    monkeypatch.setattr(selecting, "SAVE_S", 0)
    log = sound(book)
    broken = shown(log)
    missing = broken.files.pop("/v1/logs/eu/tile/entries/001.p/172")
    with serving(broken) as region:
        with pytest.raises(CouldNotCheck, match="there is nothing at this address"):
            make(region.url, tmp_path / "out", **asked)
        assert not is_export(str(tmp_path / "out"))
        with pytest.raises(ExportStopped, match="other arguments"):
            make(region.url, tmp_path / "out", last="eu/3")
        broken.files["/v1/logs/eu/tile/entries/001.p/172"] = missing
        broken.requests.clear()
        make(region.url, tmp_path / "out", **asked)
        assert broken.requests.count("/v1/logs/eu/tile/entries/000") == (0 if not asked else 1)
        make(region.url, tmp_path / "again", **asked)
        with pytest.raises(ExportStopped, match="is finished"):
            make(region.url, tmp_path / "out", **asked)
    for file in (each for each in (tmp_path / "again").rglob("*") if each.is_file()):
        if file.name not in {"MANIFEST.json", "SHA256SUMS", "HOWTO.txt"}:  # they tell when it was made
            assert (tmp_path / "out" / file.relative_to(tmp_path / "again")).read_bytes() == file.read_bytes()
    assert not (tmp_path / "out" / UNFINISHED).exists()


def test_a_directory_that_holds_anything_else_is_left_alone(region: Region, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(ExportStopped, match="is not empty"):
        make(region.url, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]


def test_several_processes_write_the_same(region: Region, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "STRETCH", 256)
    monkeypatch.setattr(copying, "STRETCHES_FOR_WORKERS", 1)
    made = [make(region.url, tmp_path / str(workers), workers=workers)["logs"] for workers in (1, 2)]
    assert made[0] == made[1]
    one, other = (
        {name: (tmp_path / out / name).read_bytes() for name in files_in(tmp_path / out) if name.startswith("eu/")}
        for out in "12"
    )
    assert one == other


# From a database, and against its read models


async def test_the_balances_of_the_script_are_the_folds_and_the_read_models(servers: Servers, tmp_path: Path) -> None:
    book = busy_book()
    book.entries = sound(book)
    dsn = database(servers, "exported")
    write(dsn, book)
    size, note = head("eu", book.entries, len(book.entries), {})
    async with await postgres.connect(dsn, "countroom_heads") as connection:
        await connection.execute(
            "SELECT ledger.keep_checkpoint(1::smallint, %s::bigint, %s::bytea, %s::bytea, true)",
            (size, merkle.root(entry.leaf for entry in book.entries), note),
        )
    async with await projections.connect(dsn) as connection, Redis.from_url(servers.endpoints.redis) as client:
        live = await balances(connection, client, book)
    await asyncio.to_thread(make, dsn, tmp_path / "out")
    status, sums, said = checked(tmp_path / "out")
    assert (status, said.endswith("was not looked at\n")) == (0, True)
    assert without_zeros(sums) == without_zeros(folded(book)) == live
    assert "password" not in (tmp_path / "out" / "MANIFEST.json").read_text()
    assert verify_export(str(tmp_path / "out"))["eu"].intact


async def balances(connection: AsyncConnection[Any], client: Redis, book: Book) -> dict[tuple[str, str, str], int]:
    await follow(catalog.stores(connection, client).values(), MemorySource(book))
    cursor = await connection.execute("SELECT player, currency, cash, reserved FROM read.balance")
    found = {}
    for player, currency, cash, reserved in await cursor.fetchall():
        stream = wallets.stream(PlayerId(player if player.startswith("player_") else f"player_{player}")).name
        found |= {(stream, "cash", currency): cash, (stream, "reserved", currency): reserved}
    return without_zeros(found)


# The script


def test_the_script_fits_on_a_page_and_needs_nothing_of_ours() -> None:
    text = SCRIPT.read_text()
    assert len(text.splitlines()) <= 60
    tree = ast.parse(text, feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= sys.stdlib_module_names
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))


@pytest.mark.parametrize("asked", [{}, {"first": "eu/5", "last": "eu/20"}, {"jurisdiction": "DE"}])
def test_the_script_notices_every_byte_of_the_log(tmp_path: Path, asked: dict[str, Any]) -> None:
    with region_of(small_book()) as region:
        make(region.url, tmp_path / "out", **asked)
    folder = tmp_path / "out" / "eu"
    kept = "entries.ndjson" if asked.get("jurisdiction") else next((folder / "tile/entries").rglob("*.p/*"))
    file = folder / kept
    data = file.read_bytes()
    for place in range(60, len(data), max(len(data) // 5, 1)):
        changed = bytearray(data)
        changed[place] ^= 1
        file.write_bytes(bytes(changed))
        inside = not (asked.get("first") and not within(data, place, 5, 20))
        status, _, said = checked(tmp_path / "out")
        assert (status, "NOT INTACT" in said) == ((1, True) if inside else (0, False)), (place, said)
        assert "Traceback" not in said


def within(bundle: bytes, place: int, first: int, last: int) -> bool:
    """Whether a byte of a bundle belongs to one of these entries, or decides where they stand."""
    at, position = 0, 1
    while position <= last:
        end = at + 2 + int.from_bytes(bundle[at : at + 2])
        if at <= place < end:
            return position >= first or place < at + 2
        at, position = end, position + 1
    return False


# What lies beside


def test_every_event_has_a_description_and_a_schema_that_takes_what_is_stored() -> None:
    for aggregate in AGGREGATES:
        for tag, event in aggregate.events.items():
            assert len(schemas.describe(event)) > 10, f"{tag} does not say what it means"
            jsonschema_rs.validator_for(schemas.schema_of(tag))


def test_the_golden_events_fit_their_schemas() -> None:
    files = sorted(VECTORS.glob("*.json"))
    assert files
    for file in files:
        body = json.loads(json.loads(file.read_text())["body"])
        jsonschema_rs.validate(schemas.schema_of(body["type"]), body["data"])


def test_events_that_are_exported_are_described_and_fit(region: Region, tmp_path: Path, book: Book) -> None:
    make(region.url, tmp_path / "out")
    described = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "out" / "events").iterdir()}
    bodies = [json.loads(entry.body) for entry in sound(book)[:-2]]
    assert set(described) == {body["type"] for body in bodies}
    validators = {tag: jsonschema_rs.validator_for(schema) for tag, schema in described.items()}
    for body in bodies:
        validators[body["type"]].validate(body["data"])
    in_the_clear = {**bodies[1]["data"], "name": "Ada"}
    assert not validators["player.registered"].is_valid(in_the_clear)


def test_an_event_of_a_later_release_is_exported_all_the_same(tmp_path: Path) -> None:
    book = small_book()
    book.unknown(book.players[0])
    with region_of(book) as region:
        make(region.url, tmp_path / "out")
    assert "later release" in (tmp_path / "out/events/player.renamed.json").read_text()


def test_the_sums_are_those_of_sha256sum(region: Region, tmp_path: Path) -> None:
    make(region.url, tmp_path / "out")
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path / "out", check=True)


def test_a_target_that_states_no_keys_gives_an_export_that_says_so(region: Region, tmp_path: Path) -> None:
    assert make(region.url, tmp_path / "out", enclose=False)["trust"] is False
    assert "no trust.policy came with this export" in (tmp_path / "out/HOWTO.txt").read_text()
    assert not verify_export(str(tmp_path / "out"))["eu"].trusted


# The command


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.app([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return int(ended.value.code or 0), out, err


def test_the_command_exports_and_verifies(
    region: Region, tmp_path: Path, book: Book, capsys: pytest.CaptureFixture[str]
) -> None:
    out, trust = tmp_path / "out", trust_file(tmp_path)
    asked = ("export", region.url, out, "--player", book.players[0], "--from", "eu/2", "--trust", trust)
    status, said, err = command(capsys, *asked)
    assert (status, err) == (0, "")
    assert "2 entries behind it are not exported" in said
    assert command(capsys, *asked)[0] == 2, "it is finished"
    status, said, _ = command(capsys, "verify", out, "--trust", trust)
    assert status == 0
    assert "chosen from positions 2 to" in said
    assert "CAME WITH THE EXPORT" not in said
    assert "CAME WITH THE EXPORT" in command(capsys, "verify", out)[1]
    (out / "HOWTO.txt").write_text("trust me")
    status, said, _ = command(capsys, "verify", out, "--trust", trust)
    assert (status, "'HOWTO.txt' is not the file that was written" in said) == (1, True)
    status, said, _ = command(capsys, "export", region.url, tmp_path / "whole", "--json")
    assert (status, json.loads(said)["trust"]) == (0, False)


# Keys


def test_keys_are_disclosed_by_a_region_in_commands_of_500_and_only_once(tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def disclosing_region(request: BaseHTTPRequestHandler) -> bool:
        if request.command == "POST":
            body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
            asked.append((request.headers["Idempotency-Key"], body))
            return answer(request, 201, {"disclosure": f"d{len(body['players'])}"})
        return answer(request, 200, {"sealed for": request.path})

    with server_of(disclosing_region) as url:
        players = [f"{number:026}" for number in range(501)]
        for _ in range(2):
            names = disclosing.disclose(url, TOKEN, players, "age1x", "an audit", "run", tmp_path)
    assert names == ["keys.age", "keys-2.age"]
    assert [key for key, _ in asked] == ["run-1", "run-2"] * 2
    assert [len(body["players"]) for _, body in asked[:2]] == [500, 1]
    assert asked[0][1]["recipient"] == "age1x"
    assert "d500" in (tmp_path / "keys.age").read_text()


@contextmanager
def server_of(answering: Callable[[BaseHTTPRequestHandler], bool]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answering(self)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_database_discloses_no_keys(ledger: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportStopped, match="give its URL"):
        make(ledger.dsn, tmp_path / "out", disclose_to="age1x", reason="an-audit")
