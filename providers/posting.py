"""
Asking another party over HTTP: a signed POST of JSON, and a signed answer.

    POST <url>      Countroom-Signature: …      →  200, with Countroom-Signature                       (providers/signing.py)

Invariants:
    - any other status, a time-out, a lost connection is no answer;
    - nothing of an answer is read before its signature was found right, and none that is too long;
    - what it says can stand in the log: text that may be kept (domain.ijson).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

import httpx2
import msgspec

from domain.ijson import NotText, require_text
from providers import signing
from providers.port import Unanswered, Unbelievable

ANSWER_BYTES_MAX = 16_384
_OK = 200
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})

Answer = TypeVar("Answer")


class SignedPost:
    """What is posted to one party, by its URL and our common secret. `client` belongs to the caller. `clock`: seconds since 1970."""

    def __init__(
        self,
        name: str,
        url: str,
        secret: bytes,
        client: httpx2.AsyncClient,
        *,
        timeout_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._url = url
        self._secret = secret
        self._client = client
        self._timeout_s = timeout_s
        self._clock = clock

    async def ask(
        self, body: bytes, decoder: msgspec.json.Decoder[Answer], headers: Mapping[str, str] = _NO_HEADERS
    ) -> Answer:
        """What is answered, if it is signed and as `decoder` has it. Raises Unanswered, Unbelievable."""
        signature = signing.sign(self._secret, body, int(self._clock()))
        sent = {"Content-Type": "application/json", **headers, signing.HEADER: signature}
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.post(self._url, content=body, headers=sent)
        except (httpx2.HTTPError, TimeoutError, OSError) as error:
            raise Unanswered(f"{self.name}: {type(error).__name__} {error}".strip()) from error
        if response.status_code != _OK:
            raise Unanswered(f"{self.name} answers {response.status_code}")
        return self._understood(response.headers.get(signing.HEADER, ""), response.content, decoder)

    def _understood(self, header: str, raw: bytes, decoder: msgspec.json.Decoder[Answer]) -> Answer:
        """Raises Unbelievable."""
        if len(raw) > ANSWER_BYTES_MAX:
            raise Unbelievable(f"{self.name} answers with {len(raw)} bytes")
        try:
            signing.verify(self._secret, header, raw, int(self._clock()))
            require_text(raw)
            return decoder.decode(raw)
        except (signing.BadSignature, msgspec.DecodeError, RecursionError) as error:
            raise Unbelievable(f"{self.name}: {error}") from error
        except NotText as error:
            raise Unbelievable(f"{self.name}'s answer holds {error}") from error


async def patiently(ask: Callable[[], Awaitable[Answer]], *, tries: int, pause_s: float) -> Answer:
    """Ask so often, each time after twice the pause. Raises Unanswered, and Unbelievable at once: a lie does not become true by
    asking again.
    """
    for again in range(tries - 1):
        try:
            return await ask()
        except Unbelievable:
            raise
        except Unanswered:
            await asyncio.sleep(pause_s * 2**again)
    return await ask()
