"""
The sockets of the API: TLS, and a protocol that nobody can keep open by being slow.

Invariants:
    - a head that is not whole after 10 seconds, or longer than 32 KiB, and a message that is not whole after 30 are refused, and
      their connection ended; so is one whose peer takes none of its answer for 60;
    - what is refused here is a problem document like any other, with the same header fields;
    - a request costs no timer: one look a second goes through all connections.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app import problems
from app.fields import Fields
from app.guard import HEAD_BYTES
from app.lane import refusal
from domain.errors import Rejected

HEAD_SECONDS = 10.0
MESSAGE_SECONDS = 30.0
STUCK_SECONDS = 60.0
HEAD_BYTES_MAX = 32 * 1024
"""Of the house: before it is parsed. app.guard looks at what was parsed."""


def tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer, with suites that encrypt and authenticate in one and forget their keys. Raises OSError, ssl.SSLError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Distributions differ in what they hold for safe.
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL:!PSK")
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    return context


class _Unanswered:
    """The transport of a connection, for one answer: behind what uvicorn writes as its head it writes the fields of every answer."""

    __slots__ = ("_cycle", "_fields", "_transport")

    def __init__(self, cycle: RequestResponseCycle, fields: Fields) -> None:
        self._cycle, self._fields, self._transport = cycle, fields, cycle.transport

    def write(self, data: bytes) -> None:
        if not data.startswith(b"HTTP/1.1 100 "):
            self._cycle.transport = self._transport
            data = self._fields.added(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def protocol(answered: Fields) -> type[HttpToolsProtocol]:
    """The class for uvicorn's `http`."""

    class Listening(Bounded):
        fields = answered

    return Listening


class Bounded(HttpToolsProtocol):
    """One connection. Of uvicorn's it changes what is said in the invariants, and nothing else."""

    fields: Fields
    _chunk = 0
    _since: float | None
    _stuck_since: float | None = None
    _in_head = True
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        self._chunk = len(data)
        if not self._in_head:
            super().data_received(data)
            return
        before = self._head_bytes
        super().data_received(data)
        if self._in_head:
            self._head_bytes = before + self._chunk
            if self._head_bytes > HEAD_BYTES_MAX:
                self._end(problems.HeadTooLarge(bytes=HEAD_BYTES_MAX))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._since, self._in_head, self._head_bytes = self.loop.time(), True, 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head = False
        self.scope[HEAD_BYTES] = self._head_bytes + self._chunk  # type: ignore[literal-required]
        self.cycle.transport = _Unanswered(self.cycle, self.fields)  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._since = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck_since = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 — uvicorn's text; ours says the same
        self._end(problems.Malformed())

    def look(self, at: float) -> None:
        """End what has taken too long."""
        if self._stuck_since is not None and at - self._stuck_since > STUCK_SECONDS:
            self.transport.abort()
        elif self._since is not None and at - self._since > (HEAD_SECONDS if self._in_head else MESSAGE_SECONDS):
            self._end(problems.TooSlow())

    def _end(self, error: Rejected) -> None:
        if self.transport.is_closing():
            return
        cycle = self.cycle
        under_way = cycle is not None and not cycle.response_complete
        if under_way and self._in_head:
            cycle.keep_alive = False  # what was asked before is answered first, and then the connection ends
            return
        if under_way:
            cycle.disconnected = True
            cycle.message_event.set()
        answered = not self._in_head and (not under_way or cycle.response_started)
        if answered or self.pipeline or self.scope is None:
            self.transport.close()
        else:
            self.transport.write(_whole(error, self.fields))
            self.transport.close()


def _whole(error: Rejected, fields: Fields) -> bytes:
    refused = refusal(error)
    own = b"".join([b"%b: %b\r\n" % pair for pair in refused.headers])
    phrase = HTTPStatus(refused.status).phrase.encode()
    return fields.added(b"HTTP/1.1 %d %b\r\n%bconnection: close\r\n\r\n" % (refused.status, phrase, own)) + refused.body


async def look_after(connections: Iterable[Any], every_s: float = 1.0) -> None:
    """For ever: end the connections that have taken too long. `connections`: those of uvicorn's server, as they are now."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(every_s)
        for each in list(connections):
            if isinstance(each, Bounded):
                each.look(loop.time())
