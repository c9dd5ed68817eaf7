"""
Message DB (npm `@eventide/message-db`): message_store.write_message with an expected version, one call a message.

Its function takes an advisory lock on the stream's category until the commit, so messages of one category are made durable one
after another, and several connections help only with several categories. The best of several arrangements is what counts.

Ours to choose, in its favour: calls are pipelined, each with a Sync and so a commit of its own; a category's calls go through one
connection, so nobody waits for the lock; states are kept in memory, and a stream is read only if its state is not there.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from bench.peers import CLIENTS, Clock, Load, Round, cuts, packages
from bench.peers.pipelined import Pipelined
from bench.servers import Servers

VERSION = "1.3.1"
SHA512 = "n3hdE5YAZNXTr2HK9gG0GJ6dusgdE544LTvS+21/yOEHBvNuUzNmXXw5vS05vpe6RSuhzTRy5Wg0q7c1VfJg+A=="
# What its install.sh runs. Left out: the extension pgcrypto, since gen_random_uuid() is PostgreSQL's own since 13.
FILES = (
    "roles/message-store",
    "schema/message-store",
    "tables/messages",
    "types/message",
    *(
        f"functions/{name}"
        for name in (
            "message-store-version",
            "hash-64",
            "acquire-lock",
            "category",
            "is-category",
            "id",
            "cardinal-id",
            "stream-version",
            "write-message",
            "get-stream-messages",
            "get-category-messages",
            "get-last-stream-message",
        )
    ),
    "indexes/messages-id",
    "indexes/messages-stream",
    "indexes/messages-category",
)
_STATEMENTS = {
    b"write": b"SELECT write_message($1, $2, 'LimitSet', $3, $4, $5)",
    b"last": b"SELECT position, data FROM get_last_stream_message($1)",
}


def _some(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


class MessageDb:
    """So many connections, and categories shared out among them."""

    def __init__(self, connections: int, categories: int) -> None:
        self.name = f"message_db, {_some(connections, 'connection')}, {_some(categories, 'category', 'categories')}"
        self._connections = connections
        self._categories = categories

    @asynccontextmanager
    async def open(self, servers: Servers, load: Load) -> AsyncIterator[Clock]:
        name = f"message_db_{self._connections}_{self._categories}"
        dsn, streams = await asyncio.to_thread(message_store, servers, name, self._categories, load)
        application = _Application(dsn, self._connections, streams)
        try:
            yield application.round
        finally:
            application.close()


def message_store(servers: Servers, name: str, categories: int, load: Load) -> tuple[str, list[str]]:
    """A filled store of that name: its DSN and its streams, each in the category of its number modulo `categories`."""
    package = packages.from_npm("@eventide/message-db", VERSION, SHA512)
    dsn = make_conninfo(servers.database(name), options="-c search_path=message_store,public")
    _install(dsn, package)
    streams = [f"limits{n % categories}-{uuid.uuid4()}" for n in range(load.players)]
    _fill(dsn, streams, load.events)
    return dsn, streams


def _install(dsn: str, package: Path) -> None:
    with psycopg.connect(dsn) as connection:
        for file in FILES:
            connection.execute((package / "database" / f"{file}.sql").read_bytes())


def _fill(dsn: str, streams: list[str], events: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        with (
            connection.cursor() as cursor,
            cursor.copy("COPY messages (position, stream_name, type, data, metadata, id) FROM STDIN") as copy,
        ):
            for row in _rows(streams, events):
                copy.write_row(row)
        connection.execute("VACUUM (ANALYZE) messages")


def _rows(streams: list[str], events: int) -> Iterator[tuple[object, ...]]:
    for event in range(1, events + 1):
        data = cuts.data(cuts.nth(event)).decode()
        for stream in streams:
            yield event - 1, stream, "LimitSet", data, cuts.metadata().decode(), uuid.uuid4()


class _Application:
    """What serves the clients."""

    def __init__(self, dsn: str, connections: int, streams: list[str]) -> None:
        self._streams = [stream.encode() for stream in streams]
        self._states = cuts.States()
        self._connections = [Pipelined(dsn) for _ in range(connections)]
        for connection in self._connections:
            connection.start(_STATEMENTS)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    async def command(self, player: int, asked: bytes) -> bytes:
        """The task. A player's category is their number modulo the categories, hence the choice of the connection."""
        connection = self._connections[player % len(self._connections)]
        stream = self._streams[player]
        state = self._states.get(player)
        if state is None:
            position, stored = await connection.call(b"last", [stream])
            state = cuts.State(cuts.limit_in(stored or b""), int(position or b""))
        event = cuts.decide(state, asked)
        answer = cuts.data(event)
        id_ = str(uuid.uuid4()).encode()
        (written,) = await connection.call(b"write", [id_, stream, answer, cuts.metadata(), b"%d" % state.version])
        self._states.keep(player, cuts.State(event.limit.amount, int(written or b"")))
        return answer

    async def round(self, seconds: float) -> Round:
        latencies: list[float] = []
        began = time.perf_counter()
        end = began + seconds

        async def client(n: int) -> None:
            mine = range(n, len(self._streams), CLIENTS)
            while (asked := time.perf_counter()) < end:
                await self.command(random.choice(mine), cuts.request())
                latencies.append(time.perf_counter() - asked)

        await asyncio.gather(*(client(n) for n in range(CLIENTS)))
        return Round(len(latencies), time.perf_counter() - began, latencies)
