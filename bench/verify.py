"""
Entries verified a second, from tiles on disk and from a database, with both cores; and what a proof of one entry costs.

The log is made up, but of the events of which an import consists: deposits of many players, four entries each, with signed
and witnessed heads. Rounds of tiles and database alternate; each verifies the whole log, and starts its processes anew.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.verifying import DatabaseSource
from bench import servers
from domain.kernel import partition_of, suffix
from eventstore import schema
from eventstore.record import genesis
from verifier.log import Report, verify
from verifier.merkle import Tree, verify_inclusion
from verifier.note import Kind, assemble, cosign, format_checkpoint, key_of, sign
from verifier.parallel import cores
from verifier.policy import Policy, parse_policy
from verifier.source import FolderSource
from verifier.tiles import WIDTH, Tile, TileReader, encode_bundle, fold

ORIGIN = "countroom.bench/eu"
WITNESS = "countroom.bench/us/witness"
STARTED_US = 1_763_164_800_000_000
STEP_US = 1_000
PLAYERS = 20_000
HEADS = 20
PROOFS = 200
LOG_KEY, WITNESS_KEY = (Ed25519PrivateKey.from_private_bytes(bytes(32 * [byte])) for byte in (1, 2))

_numbers = struct.Struct(">QQ").pack


def run(*, entries: int = 1_000_000, database_entries: int = 500_000, rounds: int = 9) -> dict[str, Any]:
    """{"tiles_per_s", "database_per_s", "inclusion_proof_ms", "cpu_us", "memory_mib", "spread"}; see docs/reference/benchmarks.md."""
    entries, database_entries = entries // 40 * 40 + 1, database_entries // 4 * 4 + 1  # an opening, and whole deposits
    tenth = entries // 40 * 4 + 1
    speeds: dict[str, list[Round]] = {"tiles": [], "database": []}
    with tempfile.TemporaryDirectory(prefix="countroom-bench-") as folder, servers.running() as here:
        large, small = f"{folder}/large", f"{folder}/small"
        write_tiles(Path(large), entries)
        write_tiles(Path(small), tenth)
        dsn = here.database("verify")
        fill(dsn, database_entries)
        for _ in range(rounds):
            speeds["tiles"].append(measured(verify_tiles, large))
            speeds["database"].append(measured(verify_database, dsn))
        proof_ms = _proof_ms(large)
        memory = {tenth: measured(verify_tiles, small).memory_mib, entries: measured(verify_tiles, large).memory_mib}
    return {
        "entries": {"tiles": entries, "database": database_entries},
        **{f"{name}_per_s": round(statistics.median(each.per_s for each in found)) for name, found in speeds.items()},
        "inclusion_proof_ms": round(proof_ms, 2),
        "cpu_us": {name: round(statistics.median(each.cpu_us for each in found), 1) for name, found in speeds.items()},
        "memory_mib": {str(count): round(mib) for count, mib in memory.items()},
        "spread": {
            name: [round(min(each.per_s for each in found)), round(max(each.per_s for each in found))]
            for name, found in speeds.items()
        },
    }


class Round(NamedTuple):
    """CPU is that of the verifier's own processes; memory that of the largest of them."""

    per_s: float
    cpu_us: float
    memory_mib: float


def measured(work: Callable[..., Report], *arguments: Any) -> Round:
    """In a process of its own, whose memory and CPU can be told."""
    spawn = multiprocessing.get_context("spawn")
    receive, send = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_measure, args=(send, work, arguments))
    process.start()
    found: Round = receive.recv()
    process.join()
    return found


def _measure(send: Any, work: Callable[..., Report], arguments: tuple[Any, ...]) -> None:
    before, began = _cpu_s(), time.perf_counter()
    report = work(*arguments)
    seconds, cpu_s = time.perf_counter() - began, _cpu_s() - before
    assert report.intact, report.fault
    memory = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    send.send(Round(report.entries / seconds, cpu_s / report.entries * 1e6, memory / 1024))


def _cpu_s() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def verify_tiles(folder: str) -> Report:
    source = FolderSource(folder)
    (head,) = source.heads()
    return verify(source.pages(head), policy(), origin=ORIGIN, head=(head.position, None), workers=cores())


def verify_database(dsn: str) -> Report:
    with closing(DatabaseSource(dsn)) as source:
        (head,) = source.heads()
        return verify(source.pages(head), origin=head.origin, head=(head.position, head.leaf), workers=cores())


def _proof_ms(folder: str) -> float:
    """To compute a proof from the tiles of a log and check it, once the checkpoint is known: the median."""
    checkpoint = policy().check(Path(folder, "checkpoint").read_bytes()).checkpoint
    taken = []
    for number in range(PROOFS):
        index = checkpoint.size * number // PROOFS
        began = time.perf_counter()
        reader = TileReader(lambda path: Path(folder, path).read_bytes(), checkpoint.size, checkpoint.root)
        proof = reader.inclusion_proof(index)
        (leaf,) = reader.leaf_hashes(index, index + 1)
        verify_inclusion(index, checkpoint.size, leaf, proof, checkpoint.root)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e3


# The log.


class Made(NamedTuple):
    position: int
    recorded: int
    leaf: bytes
    body: bytes
    stream: str
    version: int
    type: str
    partition: int | None
    command: str | None


def made(entries: int) -> Iterator[tuple[bytes, Made]]:
    """Each entry as it is hashed, and what a database keeps of it."""
    leaf = genesis(ORIGIN)
    for position, (body, *columns) in enumerate(_bodies(entries), start=1):
        recorded = STARTED_US + STEP_US * position
        entry = leaf + _numbers(position, recorded) + body
        leaf = sha256(b"\0" + entry).digest()
        yield entry, Made(position, recorded, leaf, body, *columns)


def _bodies(count: int) -> Iterator[tuple[Any, ...]]:
    opening = {"origin": ORIGIN, "epoch": 1, "partitions": [[0, 255]]}
    yield _body("region-eu-log", 1, "log.opened", opening, 0, 1, 1)
    deposits = [0] * PLAYERS
    for number in range(1, count // 4 + 1):
        player = number * 7919 % PLAYERS
        deposits[player] += 1
        for nth, (stream, version, tag, data) in enumerate(_deposit(number, player, deposits[player])):
            yield _body(stream, version, tag, data, 2 * number + nth // 2, nth % 2 + 1, 2)


def _deposit(number: int, player: int, nth: int) -> list[tuple[str, int, str, dict[str, Any]]]:
    of_player, of_transaction = _suffix(player, player), _suffix(PLAYERS + number, player)
    amount = 1_000 + number % 9_000
    money = {"amount": amount, "currency": "EUR"}
    requested = {
        "player": f"player_{of_player}",
        "money": money,
        "provider": "acme",
        "reference": f"ACME-2026-{number:06d}",
    }
    transfer = {"from": "psp:acme", "to": f"cash:{of_player}", "money": money, "code": "deposit"}
    return [
        (f"transaction-{of_transaction}", 1, "transaction.deposit_requested", requested),
        (f"limits-{of_player}", nth, "limits.headroom_consumed", {"money": money, "day": "2026-11-22"}),
        (f"transaction-{of_transaction}", 2, "transaction.deposit_settled", {"reference": f"ACME-2026-{number:06d}"}),
        (
            f"wallet-{of_player}",
            nth,
            "wallet.credited",
            {"transfer": transfer, "balance": {"cash": amount * nth}},
        ),
    ]


def _suffix(number: int, player: int) -> str:
    return suffix((0x019A8F00_0000_7000_8000_000000000000 | number << 8 | player % 256).to_bytes(16, "big"))


def _body(stream: str, version: int, tag: str, data: object, command: int, i: int, n: int) -> tuple[Any, ...]:
    id_ = f"{command:032x}"
    partition = None if stream.startswith("region-") else partition_of(stream)
    members: dict[str, Any] = {
        "stream": stream,
        "version": version,
        "type": tag,
        "id": f"019a8f00-0001-7000-8000-{2 * command + i:012x}",
        **({} if partition is None else {"partition": partition, "epoch": 1}),
        "actor": "service:import",
        "command": {"id": id_, "fingerprint": f"{command * 2654435761 % 2**128:032x}", "i": i, "n": n},
        "data": data,
    }
    body = json.dumps(members, separators=(",", ":")).encode()
    return body, stream, version, tag, partition, id_ if i == 1 else None


def policy() -> Policy:
    log, witness = key_of(ORIGIN, Kind.ED25519, LOG_KEY), key_of(WITNESS, Kind.COSIGNATURE, WITNESS_KEY)
    return parse_policy(f"log {log}\nwitness us {witness}\nquorum us\n".encode())


def signed(size: int, root: bytes) -> bytes:
    text = format_checkpoint(ORIGIN, size, root)
    at = (STARTED_US + STEP_US * size) // 1_000_000 + 1
    lines = [sign(text, name=ORIGIN, key=LOG_KEY), cosign(text, name=WITNESS, key=WITNESS_KEY, timestamp_s=at)]
    return assemble(text, lines)


def write_tiles(folder: Path, entries: int) -> None:
    """The log as a directory of tiles, with heads."""
    tree = Tree()
    bundle: list[bytes] = []
    hashes: list[list[bytes]] = [[]]
    counts = [0]
    (folder / "heads").mkdir(parents=True, exist_ok=True)
    for entry, (position, _, leaf, *_) in made(entries):
        bundle.append(entry)
        tree.append(leaf)
        if len(bundle) == WIDTH or position == entries:
            _write(folder, Tile(None, (position - 1) // WIDTH, len(bundle)), encode_bundle(bundle))
            bundle = []
        _add_hash(folder, hashes, counts, 0, leaf)
        if position % -(-entries // HEADS) == 0 or position == entries:
            (folder / "heads" / str(position)).write_bytes(signed(position, tree.root()))
    for level, tile in enumerate(hashes):
        if tile:
            _write(folder, Tile(level, counts[level], len(tile)), b"".join(tile))
    (folder / "checkpoint").write_bytes(signed(entries, tree.root()))


def _add_hash(folder: Path, hashes: list[list[bytes]], counts: list[int], level: int, added: bytes) -> None:
    hashes[level].append(added)
    if len(hashes[level]) == WIDTH:
        tile = hashes[level]
        _write(folder, Tile(level, counts[level]), b"".join(tile))
        hashes[level] = []
        counts[level] += 1
        if level + 1 == len(hashes):
            hashes.append([])
            counts.append(0)
        _add_hash(folder, hashes, counts, level + 1, fold(tile))


def _write(folder: Path, tile: Tile, data: bytes) -> None:
    path = folder / tile.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def fill(dsn: str, entries: int) -> None:
    """The log in a database, past the doors, as only an administrator can; its tree stands beside it."""
    schema.migrate(dsn, [("ledger", schema.HERE)])
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT ledger.register_log('eu', %s, true)", (ORIGIN,))
        columns = "log, position, recorded, leaf, body, stream, version, type, partition, command_id"
        with connection.cursor() as cursor, cursor.copy(f"COPY ledger.entry ({columns}) FROM STDIN") as copy:
            for _, row in made(entries):
                copy.write_row((1, *row))
        connection.execute("VACUUM ANALYZE ledger.entry")


def show(found: dict[str, Any]) -> str:
    lines = [
        f"{name:<9}{found[f'{name}_per_s']:>9,}/s   {low:,} to {high:,}   {found['cpu_us'][name]} µs of CPU an entry"
        for name, (low, high) in found["spread"].items()
    ]
    memory = ", ".join(f"{mib} MiB for {int(count):,} entries" for count, mib in found["memory_mib"].items())
    return "\n".join([*lines, f"a proof  {found['inclusion_proof_ms']} ms", f"memory   {memory}"])
