"""
A register over HTTP: a signed POST of JSON for each question, and a signed answer.

    POST <url>                                                            Countroom-Signature: …
    {"question", "register", "name"?, "birth_date"?, "email"?, "phone"?, "postcode"?}
    → 200 {"question", "register", "status": "clear"}
      200 {"question", "register", "status": "excluded", "until"?: RFC 3339}           both with Countroom-Signature

`question` is 128 random bits in hex, so that no answer fits another question; signatures are those of providers/signing.py.

Invariants:
    - any other status, a time-out, a lost connection is no answer; it is asked TRIES times, and then the register is unavailable;
    - an answer counts only if it is signed now, and of this question and this register.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal

import httpx2
import msgspec

from providers import signing
from registers.known import Known
from registers.port import Answer, Clear, InRegister, Person, Unavailable, Unbelievable

TIMEOUT_S = 3.0
TRIES = 2
PAUSE_S = 0.1
ANSWER_BYTES_MAX = 4096
_OK = 200

_encode = msgspec.json.Encoder().encode


class _Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    question: str
    register: str
    name: str | None = None
    birth_date: str | None = None
    email: str | None = None
    phone: str | None = None
    postcode: str | None = None


class _Answered(msgspec.Struct, frozen=True):
    question: str
    register: str
    status: Literal["clear", "excluded"]
    until: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


_decoder = msgspec.json.Decoder(_Answered)


class HttpRegister:
    """A register that is known by its URL. `client` belongs to the caller. `clock`: seconds since 1970."""

    def __init__(
        self,
        known: Known,
        client: httpx2.AsyncClient,
        *,
        timeout_s: float = TIMEOUT_S,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = known.register
        self._url = known.url
        self._secret = known.secret
        self._client = client
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._clock = clock

    async def ask(self, person: Person) -> Answer:
        """Raises Unavailable, and Unbelievable at once: a lie does not become true by asking again."""
        for _ in range(TRIES - 1):
            try:
                return await self._ask(person)
            except Unbelievable:
                raise
            except Unavailable:
                await asyncio.sleep(self._pause_s)
        return await self._ask(person)

    async def _ask(self, person: Person) -> Answer:
        question = os.urandom(16).hex()
        body = _encode(_Asked(question, self.name, **person._asdict()))
        headers = {
            "Content-Type": "application/json",
            signing.HEADER: signing.sign(self._secret, body, int(self._clock())),
        }
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.post(self._url, content=body, headers=headers)
        except (httpx2.HTTPError, TimeoutError, OSError) as error:
            raise Unavailable(f"{self.name}: {type(error).__name__}") from error
        if response.status_code != _OK:
            raise Unavailable(f"{self.name} answers {response.status_code}")
        return self._understood(question, response.headers.get(signing.HEADER, ""), response.content)

    def _understood(self, question: str, header: str, raw: bytes) -> Answer:
        """Raises Unbelievable."""
        if len(raw) > ANSWER_BYTES_MAX:
            raise Unbelievable(f"{self.name} answers with {len(raw)} bytes")
        try:
            signing.verify(self._secret, header, raw, int(self._clock()))
            answer = _decoder.decode(raw)
        except (signing.BadSignature, msgspec.DecodeError, RecursionError) as error:
            raise Unbelievable(f"{self.name}: {error}") from error
        if (answer.question, answer.register) != (question, self.name):
            raise Unbelievable(f"{self.name} answers another question than was asked")
        return Clear() if answer.status == "clear" else InRegister(answer.until)
