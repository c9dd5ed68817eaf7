"""
A log as years of commands would have left it, made at once: rows for COPY, of the same bytes and in the same chain.

Every player is registered and then cuts a limit again and again, all in turn. Bodies are encoded by the code that commands use,
and the ids of players, events and commands are time-ordered, as real ones are. The keys of the players are made up: nothing personal
is sealed under them. `countroom verify` accepts such a log (`make bench NAME=size` has it checked at its end).
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeAlias

import msgspec
import psycopg

from bench.peers import Load
from bench.peers.cuts import FIRST_LIMIT
from domain.kernel import Event, Money, instant, partition_of, suffix, uuid7, uuid7_texts
from domain.limits import Kind, LimitSet, Period
from domain.players import DataKey, Registered
from eventstore.record import Body, CommandPart, encode_body, leaf_hash

STEP_US = 1
"""Between two entries: as if written at a million a second, so that the log ends before the clock's time."""
_CHUNK = 250_000
_COLUMNS = "log, position, recorded, leaf, body, version, partition, command_id, stream, type"
_TYPES = ["int2", "int8", "int8", "bytea", "bytea", "int8", "int2", "uuid", "text", "text"]


Row: TypeAlias = tuple[object, ...]


class End(NamedTuple):
    """Where a log ends."""

    log: int
    position: int
    recorded: int
    leaf: bytes


class Made(NamedTuple):
    """An event, the id of its command, and its bytes."""

    body: Body
    command: bytes
    raw: bytes


def players(load: Load, partitions: Sequence[int], registered_us: int) -> list[str]:
    """The suffixes of the players' ids, in the order of their registration."""
    return [
        suffix(uuid7(instant(registered_us + n * STEP_US), os.urandom(10), partitions[n % len(partitions)]))
        for n in range(load.players)
    ]


def fill(dsn: str, table: str, end: End, suffixes: Sequence[str], load: Load) -> None:
    """Continue the log that ends at `end`. For the tables' owner or an administrator: services cannot COPY into a log."""
    copy_in(
        dsn, table, chained(end, lambda recorded: _facts(suffixes, load, recorded)), load.players * (load.events + 1)
    )


def copy_in(dsn: str, table: str, rows: Iterator[Row], count: int) -> None:
    """So many rows."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(0, count, _CHUNK):
            with (
                connection.cursor() as cursor,
                cursor.copy(f"COPY {table} ({_COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy,
            ):
                copy.set_types(_TYPES)
                for row in islice(rows, _CHUNK):
                    copy.write_row(row)
        connection.execute(f"VACUUM (ANALYZE) {table}")


def chained(end: End, facts: Callable[[int], Iterator[Made]]) -> Iterator[Row]:
    """The rows of what `facts(recorded)` gives, the first of which is recorded STEP_US after `recorded`, in their chain."""
    log, position, recorded, leaf = end
    for body, command, raw in facts(recorded):
        position += 1
        recorded += STEP_US
        leaf = leaf_hash(leaf, position, recorded, raw)
        yield (
            log, position, recorded, leaf, raw, body.version, body.partition, uuid.UUID(bytes=command), body.stream, body.type,
        )  # fmt: skip


def _facts(suffixes: Sequence[str], load: Load, recorded: int) -> Iterator[Made]:
    for version in range(load.events + 1):
        for each in suffixes:
            recorded += STEP_US
            yield cut(each, version, recorded) if version else registration(each, recorded)


def registration(player: str, at_us: int) -> Made:
    command = uuid7(instant(at_us), os.urandom(10))
    (key,) = uuid7_texts(instant(at_us), command[6:])
    fact = Registered(brand="main", country="DE", currency="EUR", key=DataKey(key, hashlib.sha256(command).hexdigest()))
    return made(f"player-{player}", 1, fact, command, at_us)


def cut(player: str, version: int, at_us: int) -> Made:
    """The `version`th event of a player's limits."""
    fact = LimitSet(kind=Kind.DEPOSIT, period=Period.DAY, money=Money(FIRST_LIMIT - version, "EUR"))
    return made(f"limits-{player}", version, fact, uuid7(instant(at_us), os.urandom(10)), at_us)


def made(stream: str, version: int, fact: Event, command: bytes, at_us: int) -> Made:
    (id_,) = uuid7_texts(instant(at_us), os.urandom(10))
    body = Body(
        stream=stream,
        version=version,
        type=fact.tag,
        id=id_,
        actor="operator:bench",
        command=CommandPart(id=command.hex(), fingerprint=os.urandom(16).hex(), i=1, n=1),
        data=msgspec.Raw(msgspec.json.encode(fact)),
        partition=partition_of(stream),
        epoch=1,
    )
    return Made(body, command, encode_body(body))
