"""
A small register of the excluded over real HTTP: it knows whom it was told of, by name and birth date, and fails, delays, repeats
and lies on demand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from registers.known import Known
from tests.providers import party
from tests.providers.party import Asked, Party, answer, delay, hang_up, serving

SECRET = bytes(range(32, 64))
Fault = party.Fault["Register"]

__all__ = ["SECRET", "Fault", "Register", "delay", "fail", "hang_up", "open_register", "repeat", "say", "sign_wrongly"]


@dataclass
class Register(Party):
    """`excluded`: until when (RFC 3339, or None), by (name, birth date). `faults` take over, once each; `down`: all the time."""

    secret: bytes = SECRET
    name: str = "CRUKS"
    excluded: dict[tuple[str | None, str | None], str | None] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    down: bool = False

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

    def respond(self, request: BaseHTTPRequestHandler, asked: Asked) -> None:
        with self.lock:
            fault = self.faults.pop(0) if self.faults else None
        if self.down:
            fail(request, self, asked)
        elif not (fault and fault(request, self, asked)):
            answer(request, 200, self.says(asked), self.secret)


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


@contextmanager
def open_register(name: str = "CRUKS") -> Iterator[Register]:
    with serving(Register(name=name), "/ask") as register:
        yield register
