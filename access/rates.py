"""
Who asks too often is told to wait: a bucket for each address, person, machine and provider, in the memory of one process.

Invariants:
    - in any stretch of time nobody gets more than the burst and what has flown in since;
    - who keeps to the rate is never refused;
    - memory is bounded: beyond `most` buckets those that owe least are forgotten.

A region with several processes at its door counts in each by itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from access.policy import Principal
from domain.errors import Rejected
from policies import rates
from policies.rates import Rate

MOST = 10_000
ADMITTED = "countroom.admitted"
"""The key in an ASGI scope that says: it is known who asks, and the address does not pay."""


class TooManyRequests(Rejected):
    """Facts: wait_s, whole seconds, at least 1."""

    code = "too_many_requests"
    title = "That is more than may be asked in this time; ask again a little later"


class Buckets:
    """Token buckets of one rate, as the generic cell rate algorithm keeps them (ITU-T I.371): one number each, the time at which the
    bucket is full again. Times are seconds of one clock that never goes back.
    """

    def __init__(self, rate: Rate, most: int = MOST) -> None:
        self._interval = 1 / rate.per_second
        self._slack = self._interval * (rate.burst - 1)
        self._most = most
        self._full: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._full)

    def __contains__(self, key: str) -> bool:
        return key in self._full

    def wait(self, key: str, at: float) -> float:
        """For how many seconds there is nothing in the bucket; 0: something is."""
        full = self._full.get(key)
        return 0.0 if full is None else max(0.0, full - at - self._slack)

    def take(self, key: str, at: float) -> float:
        """Take one out, and 0; or, if there is none, for how many seconds."""
        if wait := self.wait(key, at):
            return wait
        self._full[key] = max(self._full.get(key, at), at) + self._interval
        if len(self._full) > self._most:
            self._forget()
        return 0.0

    def _forget(self) -> None:
        """Half of them, so that forgetting costs little per request."""
        kept = sorted(self._full.items(), key=lambda item: item[1])[-self._most // 2 :]
        self._full = dict(kept)


class Limits:
    """What one process has seen. `clock`: seconds, never going back."""

    def __init__(
        self, of: Mapping[str, Rate | None] = rates.HOUSE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        made = {name: Buckets(rate) if rate else None for name, rate in {**rates.HOUSE, **of}.items()}
        self._address, self._person = made[rates.ADDRESS], made[rates.PERSON]
        self._machine, self._provider = made[rates.MACHINE], made[rates.PROVIDER]
        self._clock = clock

    def let_in(self, address: str) -> None:
        """Before anything of a request is looked at. Raises TooManyRequests."""
        buckets = self._address
        if buckets is not None and address in buckets and (wait := buckets.wait(address, self._clock())):
            raise _too_many(wait)

    def nobody(self, address: str) -> None:
        """A request was answered, and nobody was found behind it: its address pays."""
        if self._address is not None:
            self._address.take(address, self._clock())

    def admit(self, scope: MutableMapping[str, Any], principal: Principal) -> None:
        """It is the principal who asks. Raises TooManyRequests."""
        scope[ADMITTED] = True
        buckets = self._machine if principal.machine else self._person
        if buckets is not None and (wait := buckets.take(principal.actor, self._clock())):
            raise _too_many(wait)

    def admit_provider(self, provider: str) -> None:
        """A message has the provider's signature. Raises TooManyRequests."""
        if self._provider is not None and (wait := self._provider.take(provider, self._clock())):
            raise _too_many(wait)


def _too_many(wait_s: float) -> TooManyRequests:
    return TooManyRequests(wait_s=max(1, math.ceil(wait_s)))
