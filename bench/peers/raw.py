"""
The limit: the same rows into the same indexes by bare INSERTs of 64, from unnest and one after another, with no application.

The table is like that of our log, without its function, its triggers and its chain. Only the time between sending a batch and
hearing of its commit is counted: what prepares the rows costs nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from bench.peers import Clock, Load, Round, history, ours
from bench.servers import Servers
from eventstore import packing

BATCH = 64
_TABLE = "public.raw_entry"
_INSERT = f"""
    INSERT INTO {_TABLE} (log, position, recorded, leaf, body, version, partition, command_id, stream, type)
    SELECT %s::smallint, position, recorded, leaf, body, version, partition::smallint, command_id, stream, type
      FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b)
               AS e (position, recorded, leaf, body, version, partition, command_id, stream, type)"""


class Raw:
    name = "raw INSERT of 64, same indexes"

    @asynccontextmanager
    async def open(self, servers: Servers, load: Load) -> AsyncIterator[Clock]:
        opened = await ours.open_log(ours.region(servers, "raw"), load)
        with psycopg.connect(opened.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE TABLE {_TABLE} (LIKE ledger.entry_{opened.end.log} INCLUDING ALL)")
        await asyncio.to_thread(opened.fill, _TABLE)
        async with await psycopg.AsyncConnection.connect(opened.dsn, autocommit=True) as connection:
            packing.register(connection)
            yield _Inserts(connection, opened).round


class _Inserts:
    def __init__(self, connection: psycopg.AsyncConnection[Any], opened: ours.Opened) -> None:
        self._cursor = connection.cursor(binary=True)
        self._suffixes = opened.suffixes
        self._versions = [opened.load.events] * opened.load.players
        self._log = opened.end.log
        self._position = opened.end.position + opened.load.players * (opened.load.events + 1)

    async def round(self, seconds: float) -> Round:
        spent: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            batch = self._batch()
            sent = time.perf_counter()
            await self._cursor.execute(_INSERT, batch, prepare=True)
            spent.append(time.perf_counter() - sent)
        return Round(BATCH * len(spent), sum(spent), [])

    def _batch(self) -> Sequence[object]:
        """Rows that hash nothing: a leaf here is 32 random bytes, in a table that claims to be no log."""
        now = time.time_ns() // 1000
        rows = []
        for player in random.sample(range(len(self._suffixes)), BATCH):
            self._versions[player] += 1
            rows.append(history.cut(self._suffixes[player], self._versions[player], now))
        bodies, commands, encoded = zip(*rows, strict=True)
        first, self._position = self._position + 1, self._position + BATCH
        return (
            self._log,
            packing.int8_array(range(first, first + BATCH)),
            packing.int8_array(range(now, now + BATCH)),
            packing.bytea_array([random.randbytes(32) for _ in rows]),
            packing.bytea_array(encoded),
            packing.int8_array([body.version for body in bodies]),
            packing.int4_array([body.partition for body in bodies]),
            packing.uuid_array(commands),
            packing.text_array([body.stream for body in bodies]),
            packing.text_array([body.type for body in bodies]),
        )
