"""
A small payment provider over real HTTP: it pays each key once, and fails, repeats, delays and lies on demand.

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
from providers.known import Known
from tests.asking import Answer, send

SECRET = bytes(range(32))

Asked = Mapping[str, Any]
Fault = Callable[[BaseHTTPRequestHandler, "Psp", Asked], bool]
"""Answers a request in the provider's place, if it likes: then True."""


@dataclass
class Psp:
    """`paid`: every payment that it has made, in order. `before` and `after` a payment is made, a fault may take over, once each."""

    name: str = "acme"
    secret: bytes = SECRET
    url: str = ""
    paid: list[tuple[str, int, str]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    unsigned: int = 0
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    before: list[Fault] = field(default_factory=list)
    after: list[Fault] = field(default_factory=list)
    declines: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def known(self) -> Known:
        return Known(self.name, self.secret, self.url)

    def write_file(self, folder: Path) -> Path:
        """As providers.known reads it."""
        (folder / "acme.secret").write_text(self.secret.hex())
        file = folder / "providers.json"
        speaks = ["payments", "kyc"]
        file.write_text(json.dumps([{"name": self.name, "url": self.url, "secret": "acme.secret", "speaks": speaks}]))
        return file

    def pay(self, key: str, asked: Asked) -> dict[str, Any]:
        """The same answer to the same key, whatever is asked the second time."""
        if key not in self.answers:
            told = {name: asked[name] for name in ("transaction", "amount", "currency")}
            if asked["amount"] in self.declines:
                self.answers[key] = {**told, "status": "declined", "reason": "no such account"}
            else:
                self.paid.append((key, asked["amount"], asked["currency"]))
                self.answers[key] = {**told, "status": "accepted", "reference": f"psp-{len(self.paid)}"}
        return self.answers[key]

    def tell(self, api: str, *, at: float | None = None, secret: bytes | None = None, **said: Any) -> Answer:
        """Send a callback to a region's API."""
        raw = json.dumps(said).encode()
        header = signing.sign(secret or self.secret, raw, int(time.time() if at is None else at))
        return send("POST", f"{api}/v1/providers/{self.name}/callbacks", raw, {signing.HEADER: header})


def answer(request: BaseHTTPRequestHandler, status: int, body: Any, secret: bytes = SECRET) -> bool:
    raw = json.dumps(body).encode()
    request.send_response(status)
    request.send_header(signing.HEADER, signing.sign(secret, raw, int(time.time())))
    request.send_header("Content-Length", str(len(raw)))
    request.end_headers()
    request.wfile.write(raw)
    return True


def hang_up(request: BaseHTTPRequestHandler, _psp: Psp, _asked: Asked) -> bool:
    request.close_connection = True
    return True


def fail(request: BaseHTTPRequestHandler, _psp: Psp, _asked: Asked) -> bool:
    return answer(request, 503, {"status": "accepted"})


def say(**lie: Any) -> Fault:
    """Answer as if other things had been asked."""

    def fault(request: BaseHTTPRequestHandler, psp: Psp, asked: Asked) -> bool:
        truth = {**asked, "status": "accepted", "reference": "psp-1"}
        return answer(request, 200, {**truth, **lie}, psp.secret)

    return fault


def sign_wrongly(request: BaseHTTPRequestHandler, psp: Psp, asked: Asked) -> bool:
    return answer(request, 200, psp.pay(asked["transaction"], asked), b"another secret than ours")


def delay(seconds: float) -> Fault:
    def fault(_request: BaseHTTPRequestHandler, _psp: Psp, _asked: Asked) -> bool:
        time.sleep(seconds)
        return False

    return fault


@contextmanager
def open_psp() -> Iterator[Psp]:
    psp = Psp()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                signing.verify(psp.secret, self.headers.get(signing.HEADER, ""), raw, int(time.time()))
            except signing.BadSignature:
                psp.unsigned += 1
                answer(self, 401, {})
                return
            asked = json.loads(raw)
            with psp.lock:
                psp.asked.append(asked)
                before = psp.before.pop(0) if psp.before else None
                after = psp.after.pop(0) if psp.after else None
            if before and before(self, psp, asked):
                return
            with psp.lock:
                told = psp.pay(self.headers["Idempotency-Key"], asked)
            if after and after(self, psp, asked):
                return
            answer(self, 200, told)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    psp.url = f"http://127.0.0.1:{server.server_port}/payouts"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield psp
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
