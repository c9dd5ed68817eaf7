"""
A small register of the excluded over real HTTP: it knows whom it was told of, by name and birth date, and fails, delays, repeats
and lies on demand.

Run it in the test's own process, so that it outlives whatever the test kills.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from providers import signing
from registers.known import Known
from tests.providers.psp import answer

SECRET = bytes(range(32, 64))

Asked = Mapping[str, Any]
Fault = Callable[[BaseHTTPRequestHandler, "Register", Asked], bool]
"""Answers a request in the register's place, if it likes: then True."""


@dataclass
class Register:
    """`excluded`: until when (RFC 3339, or None), by (name, birth date). `faults` take over, once each; `down`: all the time."""

    name: str = "CRUKS"
    secret: bytes = SECRET
    url: str = ""
    excluded: dict[tuple[str | None, str | None], str | None] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    unsigned: int = 0
    faults: list[Fault] = field(default_factory=list)
    down: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def known(self) -> Known:
        return Known(self.name, self.secret, self.url)

    def write_file(self, folder: Path, **more: Any) -> Path:
        """As registers.known reads it."""
        (folder / "register.secret").write_text(self.secret.hex())
        file = folder / "registers.json"
        file.write_text(json.dumps([{"register": self.name, "url": self.url, "secret": "register.secret", **more}]))
        return file

    def says(self, asked: Asked) -> dict[str, Any]:
        told = {"question": asked["question"], "register": self.name}
        person = (asked.get("name"), asked.get("birth_date"))
        if person not in self.excluded:
            return {**told, "status": "clear"}
        until = self.excluded[person]
        return {**told, "status": "excluded", **({"until": until} if until else {})}


def hang_up(request: BaseHTTPRequestHandler, _register: Register, _asked: Asked) -> bool:
    request.close_connection = True
    return True


def fail(request: BaseHTTPRequestHandler, register: Register, asked: Asked) -> bool:
    return answer(request, 503, register.says(asked), register.secret)


def sign_wrongly(request: BaseHTTPRequestHandler, register: Register, asked: Asked) -> bool:
    return answer(request, 200, register.says(asked), b"another secret than ours")


def say(**lie: Any) -> Fault:
    """Answer as if other things had been asked, or nothing understandable."""

    def fault(request: BaseHTTPRequestHandler, register: Register, asked: Asked) -> bool:
        return answer(request, 200, {**register.says(asked), **lie}, register.secret)

    return fault


def repeat() -> Fault:
    """The answer to an earlier question, once more: replayed with its signature."""
    kept: list[dict[str, Any]] = []

    def fault(request: BaseHTTPRequestHandler, register: Register, asked: Asked) -> bool:
        kept.append(register.says(asked))
        return answer(request, 200, kept[0], register.secret)

    return fault


def delay(seconds: float) -> Fault:
    def fault(_request: BaseHTTPRequestHandler, _register: Register, _asked: Asked) -> bool:
        time.sleep(seconds)
        return False

    return fault


@contextmanager
def open_register(name: str = "CRUKS") -> Iterator[Register]:
    register = Register(name)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                signing.verify(register.secret, self.headers.get(signing.HEADER, ""), raw, int(time.time()))
            except signing.BadSignature:
                register.unsigned += 1
                answer(self, 401, {})
                return
            asked = json.loads(raw)
            with register.lock:
                register.asked.append(asked)
                fault = register.faults.pop(0) if register.faults else None
            if register.down:
                fail(self, register, asked)
            elif not (fault and fault(self, register, asked)):
                answer(self, 200, register.says(asked), register.secret)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    register.url = f"http://127.0.0.1:{server.server_port}/ask"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield register
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
