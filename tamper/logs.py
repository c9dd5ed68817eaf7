"""
Clean logs to tamper with: appended by ledger.append, signed by a log's signer, cosigned by two witnesses.

A log's newest entries are never witnessed yet: those behind its last head, and those behind the last one that the witnesses
were asked about.

Invariant: what stands here was made by the product's own code (writer, signer, witness), and never repaired afterwards.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domain.catalog import AGGREGATES, aggregate_of
from eventstore import signer
from eventstore.log import Command, Snapshot, state_schema
from eventstore.note import with_signatures
from eventstore.record import Codec, Entry, decode_body
from eventstore.tree import consistency
from tamper.history import History
from verifier import merkle
from verifier.note import Kind, key_of, parse_vkey
from verifier.witness import Acceptable, Witness, format_request

_COMMANDS_AT_ONCE = 50
_OK = 200
PARTITIONS = 256
WIDTH = 256  # hashes of a tile
WITNESSES = ("regulator", "us")
CODEC = Codec(AGGREGATES)
_APPEND = "SELECT outcomes FROM ledger.append(%s::smallint, %s::uuid[], %s::int[], %s::bytea[], '{}', '{}', '{}')"
_KEEP = "SELECT ledger.keep_checkpoint(%s::smallint, %s::bigint, %s, %s, %s)"


class CleanLog(NamedTuple):
    """
    A log with its heads (size and signed note), of which those up to `witnessed` are cosigned. `key` is the log's private
    key, `known` the newest note that the regulator's own witness keeps. `snapshots` only a database has.
    """

    name: str
    origin: str
    entries: tuple[Entry, ...]
    heads: tuple[tuple[int, bytes], ...]
    witnessed: int
    key: str
    vkey: str
    known: bytes
    snapshots: tuple[Snapshot, ...] = ()


class Record:
    """A witness's record that lasts as long as the process (verifier.witness.Store)."""

    def __init__(self) -> None:
        self._notes: dict[str, bytes] = {}

    def load(self, origin: str) -> bytes | None:
        return self._notes.get(origin)

    def swap(self, origin: str, expected: bytes | None, note: bytes) -> bool:
        if self._notes.get(origin) != expected:
            return False
        self._notes[origin] = note
        return True


class Maker:
    """Makes the logs of one deployment. `folder` is for its signers' keys."""

    def __init__(self, folder: Path, random: Random) -> None:
        self._folder = folder
        self._random = random
        self._witness_keys = {name: Ed25519PrivateKey.from_private_bytes(random.randbytes(32)) for name in WITNESSES}

    def policy(self, logs: Sequence[CleanLog]) -> bytes:
        """Trust in these logs' keys where both witnesses have signed too."""
        lines = [f"log {log.vkey}" for log in logs]
        for name, key in self._witness_keys.items():
            lines.append(f"witness {name} {key_of(_witness_name(name), Kind.COSIGNATURE, key)}")
        return "\n".join([*lines, f"group both all {' '.join(WITNESSES)}", "quorum both", ""]).encode()

    def make(
        self, connection: psycopg.Connection[Any], name: str, partitions: Sequence[int], entries: int, unsigned: int
    ) -> CleanLog:
        """
        Write a log into a database. Its last `unsigned` entries stand behind its newest head.

        `connection` is the administrator's, in autocommit: one transaction writes it all.
        """
        with connection.transaction():
            return self._make(connection, name, partitions, entries, unsigned)

    def _make(
        self, connection: psycopg.Connection[Any], name: str, partitions: Sequence[int], entries: int, unsigned: int
    ) -> CleanLog:
        origin = f"countroom.tamper/{name}"
        ((log,),) = connection.execute("SELECT ledger.register_log(%s, %s, true)", (name, origin)).fetchall()
        for commands in independent(History(self._random, origin, partitions).commands(entries)):
            append(connection, log, commands)
        stored = entries_of(connection, log, name)
        sizes = self._sizes(stored, entries - unsigned)
        witnessed = sizes[-2] if len(sizes) > 1 else sizes[-1]
        made = self._sign(origin, stored, sizes, witnessed)
        for size, note in made.heads:
            root = merkle.root(entry.leaf for entry in stored[:size])
            connection.execute(_KEEP, (log, size, root, note, size <= witnessed))
        keep_subtrees(connection, log, stored)
        snapshots = tuple(snapshots_of(stored, 5))
        for each in snapshots:
            row = (each.stream, each.version, each.leaf, each.schema, each.state)
            connection.execute("INSERT INTO ledger.snapshot VALUES (%s, %s, %s, %s, %s)", row)
        return made._replace(name=name, entries=tuple(stored), snapshots=snapshots)

    def _sizes(self, entries: Sequence[Entry], last: int) -> list[int]:
        """
        Of heads: a few as chance has it, one near the end, which is to be the last witnessed, and one at the end. A head is
        signed of what was committed, so it ends with a command.
        """
        commands = (decode_body(entry.body).command for entry in entries[:last])
        ends = [size for size, command in enumerate(commands, 1) if command.i == command.n]
        return sorted({*self._random.sample(ends, min(5, len(ends))), *ends[-1 - len(ends) // 50 :][:1], ends[-1]})

    def _sign(self, origin: str, entries: Sequence[Entry], sizes: Sequence[int], witnessed: int) -> CleanLog:
        """A head at each size, by the log's signer; up to `witnessed` the witnesses cosign, a second after its last entry."""
        leaves = [entry.leaf for entry in entries]
        now_s = 0
        folder = self._folder / origin.rpartition("/")[2]
        vkey = signer.create(folder, origin)
        record = Record()
        witnesses = [
            Witness(
                _witness_name(name),
                key,
                [parse_vkey(vkey)],
                record if name == WITNESSES[0] else Record(),
                now_s=lambda: now_s,
                evidence=_must_not_happen,
            )
            for name, key in self._witness_keys.items()
        ]
        heads, before = [], 0
        with signer.Signer.open(folder, origin) as signing:
            for size in sizes:
                signing.extend(leaves[signing.size : size])
                note = signing.sign()
                if size <= witnessed:
                    now_s = entries[size - 1].recorded // 1_000_000 + 1
                    proof = [merkle.root(leaves[start:end]) for start, end in consistency(before, size)]
                    lines = [_cosigned(witness, format_request(before, proof, note)) for witness in witnesses]
                    note, before = with_signatures(note, lines), size
                heads.append((size, note))
            (key,) = signer.active(folder, origin)
        known = record.load(origin) or b""
        return CleanLog("", origin, (), tuple(heads), witnessed, key.skey, vkey, known)


def _witness_name(name: str) -> str:
    return f"countroom.tamper/{name}/witness"


def _cosigned(witness: Witness, request: bytes) -> str:
    """The line that the witness gives out. Raises RuntimeError if it does not."""
    judged = witness.judge(request)
    answer = witness.cosign(judged) if isinstance(judged, Acceptable) else judged
    if answer.status != _OK:
        raise RuntimeError(f"a witness refused a clean head: {answer.body!r}")
    return answer.body.decode()


def _must_not_happen(evidence: object) -> None:
    raise RuntimeError(f"a witness saw a clean log lie: {evidence}")


def independent(commands: Iterable[Command]) -> Iterator[list[Command]]:
    """The commands in their order, in batches within which no stream is written twice. The opening comes alone."""
    commands = iter(commands)
    yield [next(commands)]
    batch: list[Command] = []
    written: set[str] = set()
    for command in commands:
        if len(batch) == _COMMANDS_AT_ONCE or not written.isdisjoint(command.writes):
            yield batch
            batch, written = [], set()
        batch.append(command)
        written |= command.writes
    if batch:
        yield batch


def append(connection: psycopg.Connection[Any], log: int, commands: Sequence[Command]) -> None:
    """Raises RuntimeError when one of them is refused."""
    bodies = [body for command in commands for body in command.bodies]
    ids = [uuid.UUID(bytes=command.id) for command in commands]
    row = connection.execute(_APPEND, (log, ids, [len(command.bodies) for command in commands], bodies)).fetchone()
    if row is None or any(row[0]):
        raise RuntimeError(f"the log refused a command: {row}")


def entries_of(connection: psycopg.Connection[Any], log: int, name: str) -> list[Entry]:
    rows = connection.execute(
        "SELECT position, recorded, leaf, body FROM ledger.entry WHERE log = %s::smallint ORDER BY position", (log,)
    ).fetchall()
    return [Entry(name, position, recorded, bytes(leaf), bytes(body)) for position, recorded, leaf, body in rows]


def keep_subtrees(connection: psycopg.Connection[Any], log: int, entries: Sequence[Entry]) -> None:
    """As the checkpointer does."""
    for index, hash_ in subtrees_of([entry.leaf for entry in entries]).items():
        connection.execute("INSERT INTO ledger.subtree VALUES (%s, %s, %s, %s)", (log, *index, hash_))


def subtrees_of(leaves: Sequence[bytes]) -> dict[tuple[int, int], bytes]:
    """The hashes of level 1, by level and index; logs to tamper with are too short for higher ones."""
    return {(1, nth): merkle.root(leaves[nth * WIDTH : (nth + 1) * WIDTH]) for nth in range(len(leaves) // WIDTH)}


def snapshots_of(entries: Sequence[Entry], count: int) -> Iterator[Snapshot]:
    """Of the longest streams, as the decider makes them."""
    streams: dict[str, list[Entry]] = {}
    for entry in entries:
        streams.setdefault(CODEC.decode(entry).body.stream, []).append(entry)
    for stream, of_stream in sorted(streams.items(), key=lambda each: (-len(each[1]), each[0]))[:count]:
        aggregate = aggregate_of(stream)
        if aggregate is None:
            raise ValueError(f"no aggregate of this release has the stream {stream}")
        state, last = aggregate.initial, of_stream[-1]
        for entry in of_stream:
            read = CODEC.decode(entry)
            state = aggregate.evolve(state, read.event, read.at)
        encoded = msgspec.json.encode(state, order="sorted")
        yield Snapshot(stream, len(of_stream), last.leaf, last.recorded, state_schema(aggregate), encoded)
