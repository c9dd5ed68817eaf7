"""
Another party over real HTTP, in the test's own process, so that it outlives whatever the test kills: it reads what is signed,
and fails, delays and lies on demand.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from providers import signing

Asked = Mapping[str, Any]


@dataclass
class Party:
    """`asked`: what came with our signature, `unsigned`: how often something came without."""

    secret: bytes
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    unsigned: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def respond(self, request: BaseHTTPRequestHandler, asked: Asked) -> None:
        """Answer what was asked."""
        raise NotImplementedError


A = TypeVar("A", bound=Party)
Fault = Callable[[BaseHTTPRequestHandler, A, Asked], bool]
"""Answers a request in the party's place, if it likes: then True."""


def answer(request: BaseHTTPRequestHandler, status: int, body: Any, secret: bytes) -> bool:
    raw = json.dumps(body).encode()
    request.send_response(status)
    request.send_header(signing.HEADER, signing.sign(secret, raw, int(time.time())))
    request.send_header("Content-Length", str(len(raw)))
    request.end_headers()
    request.wfile.write(raw)
    return True


def hang_up(request: BaseHTTPRequestHandler, _party: Party, _asked: Asked) -> bool:
    request.close_connection = True
    return True


def delay(seconds: float) -> Callable[[BaseHTTPRequestHandler, Party, Asked], bool]:
    def fault(_request: BaseHTTPRequestHandler, _party: Party, _asked: Asked) -> bool:
        time.sleep(seconds)
        return False

    return fault


@contextmanager
def serving(party: A, path: str) -> Iterator[A]:
    """The party answers at its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                signing.verify(party.secret, self.headers.get(signing.HEADER, ""), raw, int(time.time()))
            except signing.BadSignature:
                party.unsigned += 1
                answer(self, 401, {}, party.secret)
                return
            asked = json.loads(raw)
            with party.lock:
                party.asked.append(asked)
            party.respond(self, asked)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    party.url = f"http://127.0.0.1:{server.server_port}{path}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield party
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
