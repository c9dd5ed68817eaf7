"""
A provider over HTTP: a signed POST of JSON for each payout, and a signed answer.

    POST <url>                                               Idempotency-Key: <transaction>, Countroom-Signature: …
    {"transaction", "amount", "currency", "instrument"?}
    → 200 {"transaction", "amount", "currency", "status": "accepted", "reference"}
      200 {"transaction", "amount", "currency", "status": "declined", "reason"}          both with Countroom-Signature

Invariants:
    - any other status, a time-out, a lost connection is no answer: it is asked again, with the same key;
    - an answer counts only if it is signed now and speaks of this transaction and this money;
    - what it says can stand in the log: text that may be kept (domain.ijson), and not too long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Literal

import httpx2
import msgspec

from domain.ijson import NotText, require_text
from domain.kernel import Money
from providers import signing
from providers.known import Known
from providers.port import Accepted, Answer, Declined, Payout, Unanswered, Unbelievable

TIMEOUT_S = 10.0
TRIES = 3
PAUSE_S = 0.2
REFERENCE_CHARACTERS_MAX = 200
REASON_CHARACTERS_MAX = 500
_OK = 200

_encode = msgspec.json.Encoder().encode


class _Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    transaction: str
    amount: int
    currency: str
    instrument: str | None = None


class _Answered(msgspec.Struct, frozen=True):
    transaction: str
    amount: int
    currency: str
    status: Literal["accepted", "declined"]
    reference: Annotated[str, msgspec.Meta(max_length=REFERENCE_CHARACTERS_MAX)] = ""
    reason: Annotated[str, msgspec.Meta(max_length=REASON_CHARACTERS_MAX)] = ""


_decoder = msgspec.json.Decoder(_Answered)


class HttpProvider:
    """A provider that is known by its URL. `client` belongs to the caller. `clock`: seconds since 1970."""

    def __init__(
        self,
        known: Known,
        client: httpx2.AsyncClient,
        *,
        timeout_s: float = TIMEOUT_S,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if known.url is None or known.secret is None:
            raise ValueError(f"{known.name} has no URL to post payouts to, or no secret to sign them with")
        self.name = known.name
        self._url = known.url
        self._secret = known.secret
        self._client = client
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._clock = clock

    async def pay(self, payout: Payout) -> Answer:
        """Ask up to three times. Raises Unanswered, and Unbelievable at once: a lie does not become true by asking again."""
        for again in range(TRIES - 1):
            try:
                return await self._ask(payout)
            except Unbelievable:
                raise
            except Unanswered:
                await asyncio.sleep(self._pause_s * 2**again)
        return await self._ask(payout)

    async def _ask(self, payout: Payout) -> Answer:
        money = payout.money
        body = _encode(_Asked(payout.transaction, money.amount, money.currency, payout.instrument))
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": payout.transaction,
            signing.HEADER: signing.sign(self._secret, body, int(self._clock())),
        }
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.post(self._url, content=body, headers=headers)
        except (httpx2.HTTPError, TimeoutError, OSError) as error:
            raise Unanswered(f"{self.name}: {type(error).__name__} {error}".strip()) from error
        if response.status_code != _OK:
            raise Unanswered(f"{self.name} answers {response.status_code}")
        return self._understood(payout, response.headers.get(signing.HEADER, ""), response.content)

    def _understood(self, payout: Payout, header: str, raw: bytes) -> Answer:
        """Raises Unbelievable."""
        try:
            signing.verify(self._secret, header, raw, int(self._clock()))
            require_text(raw)
            answer = _decoder.decode(raw)
        except (signing.BadSignature, msgspec.DecodeError, RecursionError) as error:
            raise Unbelievable(f"{self.name}: {error}") from error
        except NotText as error:
            raise Unbelievable(f"{self.name}'s answer holds {error}") from error
        if (answer.transaction, Money(answer.amount, answer.currency)) != (payout.transaction, payout.money):
            raise Unbelievable(f"{self.name} answers about another payout than {payout.transaction}")
        if answer.status == "declined":
            return Declined(answer.reason)
        if not answer.reference:
            raise Unbelievable(f"{self.name} accepts {payout.transaction} without a reference")
        return Accepted(answer.reference)
