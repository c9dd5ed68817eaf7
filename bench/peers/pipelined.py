"""
A connection to PostgreSQL on which several tasks have statements under way, each of them a transaction of its own.

libpq's pipeline mode with a Sync after every statement (PostgreSQL's documentation, 32.5): the server commits at each Sync,
in order. psycopg's own pipelines wait at a Sync, hence this.

Invariant: a call returns only when its Sync was answered, which is after its commit; its result comes earlier and proves nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import psycopg
from psycopg import pq


class Failed(Exception):
    """The server's message."""


class Pipelined:
    """One connection. `close` it when nothing is under way."""

    def __init__(self, dsn: str) -> None:
        """Connects, and blocks while it does."""
        connection = pq.PGconn.connect(dsn.encode())
        if connection.status != pq.ConnStatus.OK:
            raise Failed(connection.get_error_message())
        self._connection = connection
        self._socket = connection.socket  # its number is not to be had once the connection is lost
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[list[bytes | None]]] = deque()
        self._found: list[bytes | None] = []
        self._error: Failed | None = None
        self._flushing = False

    def start(self, statements: dict[bytes, bytes]) -> None:
        """Prepare these statements, by name, and begin to take calls."""
        for name, text in statements.items():
            done = self._connection.prepare(name, text)
            if done.status != pq.ExecStatus.COMMAND_OK:
                raise Failed(done.get_error_message())
        self._connection.nonblocking = 1
        self._connection.enter_pipeline_mode()
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._connection.finish()

    async def call(self, statement: bytes, parameters: Sequence[bytes]) -> list[bytes | None]:
        """Run a prepared statement as one transaction. Its first row, nothing if it has none. Raises Failed."""
        self._connection.send_query_prepared(statement, parameters)
        self._connection.pipeline_sync()
        answer: asyncio.Future[list[bytes | None]] = self._loop.create_future()
        self._waiting.append(answer)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)  # once for all calls of this turn of the loop
        return await answer

    def _flush(self) -> None:
        if self._connection.flush():
            self._loop.add_writer(self._socket, self._flush)
        else:
            self._loop.remove_writer(self._socket)
            self._flushing = False

    def _read(self) -> None:
        try:
            self._connection.consume_input()
        except psycopg.Error as error:
            self._lose(str(error))
        while self._waiting and not self._connection.is_busy():
            result = self._connection.get_result()
            if result is None:
                continue  # the end of one statement's results; its Sync follows
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                self._settle(self._waiting.popleft())
            elif result.status == pq.ExecStatus.TUPLES_OK:
                self._found = (
                    [result.get_value(0, column) for column in range(result.nfields)] if result.ntuples else []
                )
            else:
                self._error = Failed(result.get_error_message())

    def _lose(self, why: str) -> None:
        """The connection has gone: nobody knows what was committed of that which is under way."""
        self._loop.remove_reader(self._socket)
        while self._waiting:
            self._error = Failed(why)
            self._settle(self._waiting.popleft())

    def _settle(self, answer: asyncio.Future[list[bytes | None]]) -> None:
        if not answer.done():
            if self._error:
                answer.set_exception(self._error)
            else:
                answer.set_result(self._found)
        self._found, self._error = [], None
