"""A small payment provider over real HTTP: it pays each key once, and fails, repeats, delays and lies on demand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from providers import signing
from providers.known import Known
from tests.asking import Answer, send
from tests.providers import party
from tests.providers.party import Asked, Party, answer, delay, hang_up, serving

SECRET = bytes(range(32))
Fault = party.Fault["Psp"]

__all__ = ["SECRET", "Asked", "Fault", "Psp", "answer", "delay", "fail", "hang_up", "open_psp", "say", "sign_wrongly"]


@dataclass
class Psp(Party):
    """`paid`: every payment that it has made, in order. `before` and `after` a payment is made, a fault may take over, once each."""

    secret: bytes = SECRET
    name: str = "acme"
    paid: list[tuple[str, int, str]] = field(default_factory=list)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    before: list[Fault] = field(default_factory=list)
    after: list[Fault] = field(default_factory=list)
    declines: set[int] = field(default_factory=set)

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

    def respond(self, request: BaseHTTPRequestHandler, asked: Asked) -> None:
        with self.lock:
            before = self.before.pop(0) if self.before else None
            after = self.after.pop(0) if self.after else None
        if before and before(request, self, asked):
            return
        with self.lock:
            told = self.pay(request.headers["Idempotency-Key"], asked)
        if not (after and after(request, self, asked)):
            answer(request, 200, told, self.secret)


def fail(request: BaseHTTPRequestHandler, psp: Psp, _asked: Asked) -> bool:
    return answer(request, 503, {"status": "accepted"}, psp.secret)


def say(**lie: Any) -> Fault:
    """Answer as if other things had been asked."""

    def fault(request: BaseHTTPRequestHandler, psp: Psp, asked: Asked) -> bool:
        truth = {**asked, "status": "accepted", "reference": "psp-1"}
        return answer(request, 200, {**truth, **lie}, psp.secret)

    return fault


def sign_wrongly(request: BaseHTTPRequestHandler, psp: Psp, asked: Asked) -> bool:
    return answer(request, 200, psp.pay(asked["transaction"], asked), b"another secret than ours")


@contextmanager
def open_psp() -> Iterator[Psp]:
    with serving(Psp(), "/payouts") as psp:
        yield psp
