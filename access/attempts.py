"""
How often somebody may try: back-off for each account and for each address, whoever is behind them.

Invariants:
    - a try counts before it is looked at, so many at once are not one;
    - an account that nobody has is counted like one that somebody has;
    - an address that has to wait counts for no account: it locks nobody out any longer;
    - only what was counted is taken off: no address is ever owed a try;
    - whoever has to wait is told nothing of it: the caller answers as to a wrong password.

Counters are kept in Redis under digests. Forgotten with it, they begin anew; what was refused stands in the log (domain.signins).
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from redis.asyncio import Redis


class Rule(NamedTuple):
    """After `free` tries in vain each further one waits, twice as long as the one before, from `first` to `most` seconds.

    What nobody tried for `forgotten` seconds is forgotten.
    """

    free: int
    first: int
    most: int
    forgotten: int


ACCOUNT = Rule(free=5, first=30, most=900, forgotten=86_400)
ADDRESS = Rule(free=30, first=30, most=900, forgotten=3_600)
"""Figures of the house. Behind one address there may be an office."""

_TRY = """
local n, wait = tonumber(redis.call('HGET', KEYS[1], 'n') or '0'), tonumber(redis.call('HGET', KEYS[1], 'wait') or '0')
local now, free, first, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if now < wait then return 0 end
n = n + 1
if n >= free then wait = now + math.min(most, first * 2 ^ math.min(n - free, 20)) end
redis.call('HSET', KEYS[1], 'n', n, 'wait', wait)
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
"""
_TAKE_OFF = """
local n = tonumber(redis.call('HGET', KEYS[1], 'n') or '0')
if n < 1 then return 0 end
redis.call('HSET', KEYS[1], 'n', n - 1)
if n - 1 < tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 'wait', 0) end
return 1
"""


class Attempts:
    """The tries of one region."""

    def __init__(self, redis: Redis, account: Rule = ACCOUNT, address: Rule = ADDRESS) -> None:
        self._script = redis.register_script(_TRY)
        self._off = redis.register_script(_TAKE_OFF)
        self._redis = redis
        self._account, self._address = account, address

    async def may_try(self, account: str, address: str, at: datetime) -> bool:
        """Whether this try is looked at; it counts until `succeeded`."""
        return await self.address_may_try(address, at) and await self.account_may_try(account, at)

    async def address_may_try(self, address: str, at: datetime) -> bool:
        """The same for what no account is guessed by, or before an account is asked for."""
        return await self._try(_address_key(address), self._address, at)

    async def account_may_try(self, account: str, at: datetime) -> bool:
        """The second half of `may_try`, once the address may."""
        return await self._try(_key(account), self._account, at)

    async def succeeded(self, account: str | None, address: str) -> None:
        """They are who they say: the account's tries are forgotten, if it was one, and this one is taken off those of the address."""
        if account is not None:
            await self._redis.delete(_key(account))
        await self._off(keys=[_address_key(address)], args=[self._address.free])

    async def _try(self, key: str, rule: Rule, at: datetime) -> bool:
        given = [at.timestamp(), rule.free, rule.first, rule.most, rule.forgotten]
        return bool(await self._script(keys=[key], args=given))


def network(address: str) -> str:
    """Whom an address belongs to: an IPv6 address stands for its /64, within which everybody chooses freely."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)


def _address_key(address: str) -> str:
    return f"tries:address:{_digest(network(address))}"


def _key(account: str) -> str:
    return f"tries:account:{_digest(account)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
