"""
TCP proxies in a thread of their own, for whoever wants to come between two programs on this machine.

Invariants:
    - it listens on 127.0.0.1 only, on ports that the system chooses;
    - what has been read and may not be passed on yet waits, and so does its sender: no more than 128 KiB of it wait here;
    - after `stop` nothing listens any more, and no connection is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

READ_BYTES_MAX = 64 * 1024
_STOP_S = 10.0
_LINGER_ZERO = struct.pack("ii", 1, 0)


class Background:
    """An event loop in a thread. Its methods may be called from any other thread."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it there, and wait."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def listen(self, serve: Serve) -> int:
        """Listen for connections, each of which is `serve`d and then closed. Returns the port."""
        return self.call(self._listen(serve))

    async def _listen(self, serve: Serve) -> int:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task
            self._connections.add(task)
            try:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    await serve(reader, writer)
            except asyncio.CancelledError:
                if not self._stopped:
                    raise
            finally:
                self._connections.discard(task)
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=READ_BYTES_MAX)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def stop(self) -> None:
        """Close everything. Harmless when repeated."""
        if self._stopped:
            return
        self._stopped = True
        self.call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)
        self._loop.close()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(set(self._connections), timeout=_STOP_S)


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To whoever listens there on this machine. Raises OSError."""
    return await asyncio.open_connection("127.0.0.1", port, limit=READ_BYTES_MAX)


async def either(*works: Coroutine[Any, Any, None]) -> None:
    """Run both directions of a connection until one has ended."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, OSError):
            raise error


def reset(writer: asyncio.StreamWriter) -> None:
    """Close at once, with a RST in place of a FIN: whoever is there sees the connection broken, and not ended."""
    connected: socket.socket | None = writer.get_extra_info("socket")
    if connected is not None:
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    writer.transport.abort()
