"""
A register over HTTP: a signed POST of JSON for each question, and a signed answer.

    POST <url>                                                            Countroom-Signature: …
    {"question", "register", "name"?, "birth_date"?, "email"?, "phone"?, "postcode"?}
    → 200 {"question", "register", "status": "clear"}
      200 {"question", "register", "status": "excluded", "until"?: RFC 3339}           both with Countroom-Signature

`question` is 128 random bits in hex, so that no answer fits another question; signatures are those of providers/signing.py.

Invariants:
    - it is asked TRIES times, and then the register has not answered (providers/posting.py says what is no answer);
    - an answer counts only if it is signed now, and of this question and this register.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Annotated, Literal

import httpx2
import msgspec

from providers.port import Unbelievable
from providers.posting import SignedPost, patiently
from registers.known import Known
from registers.port import Answer, Clear, InRegister, Person

TIMEOUT_S = 3.0
TRIES = 2
PAUSE_S = 0.1

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
        self._post = SignedPost(known.register, known.url, known.secret, client, timeout_s=timeout_s, clock=clock)
        self._pause_s = pause_s

    async def ask(self, person: Person) -> Answer:
        """Raises Unanswered, Unbelievable."""
        return await patiently(partial(self._ask, person), tries=TRIES, pause_s=self._pause_s)

    async def _ask(self, person: Person) -> Answer:
        question = os.urandom(16).hex()
        answer = await self._post.ask(_encode(_Asked(question, self.name, **person._asdict())), _decoder)
        if (answer.question, answer.register) != (question, self.name):
            raise Unbelievable(f"{self.name} answers another question than was asked")
        return Clear() if answer.status == "clear" else InRegister(answer.until)
