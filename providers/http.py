"""
A provider over HTTP: a signed POST of JSON for each payout, and a signed answer.

    POST <url>                                               Idempotency-Key: <transaction>, Countroom-Signature: …
    {"transaction", "amount", "currency", "instrument"?}
    → 200 {"transaction", "amount", "currency", "status": "accepted", "reference"}
      200 {"transaction", "amount", "currency", "status": "declined", "reason"}          both with Countroom-Signature

Invariants:
    - what is no answer (providers/posting.py) is asked for again, with the same key;
    - an answer counts only if it is signed now and speaks of this transaction and this money;
    - what it says can stand in the log, and is not too long.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import httpx2
import msgspec

from domain.kernel import Money
from providers.known import Known
from providers.port import Accepted, Answer, Declined, Payout, Unbelievable
from providers.posting import SignedPost, patiently

TIMEOUT_S = 10.0
TRIES = 3
PAUSE_S = 0.2
REFERENCE_CHARACTERS_MAX = 200
REASON_CHARACTERS_MAX = 500

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
        self._post = SignedPost(known.name, known.url, known.secret, client, timeout_s=timeout_s, clock=clock)
        self._pause_s = pause_s

    async def pay(self, payout: Payout) -> Answer:
        """Ask up to three times. Raises Unanswered, Unbelievable."""
        return await patiently(partial(self._ask, payout), tries=TRIES, pause_s=self._pause_s)

    async def _ask(self, payout: Payout) -> Answer:
        money = payout.money
        body = _encode(_Asked(payout.transaction, money.amount, money.currency, payout.instrument))
        return self._believed(payout, await self._post.ask(body, _decoder, {"Idempotency-Key": payout.transaction}))

    def _believed(self, payout: Payout, answer: _Answered) -> Answer:
        """Raises Unbelievable."""
        if (answer.transaction, Money(answer.amount, answer.currency)) != (payout.transaction, payout.money):
            raise Unbelievable(f"{self.name} answers about another payout than {payout.transaction}")
        if answer.status == "declined":
            return Declined(answer.reason)
        if not answer.reference:
            raise Unbelievable(f"{self.name} accepts {payout.transaction} without a reference")
        return Accepted(answer.reference)
