"""
The task as an application of a plain event store would do it: request, state, decision, event, answer.

Nothing here is slower than it must be: msgspec, one dictionary, no classes between. What a stored event says beside the new
limit (actor, command, fingerprint) is what ours says.
"""

from __future__ import annotations

import itertools
import os
from collections import OrderedDict
from typing import NamedTuple

import msgspec

from bench.peers import CACHED_STATES

FIRST_LIMIT = 10**12
_next = itertools.count(FIRST_LIMIT // 2, -1)
_encode = msgspec.json.Encoder().encode


class Money(msgspec.Struct, frozen=True):
    amount: int
    currency: str


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    limit: Money


class LimitSet(msgspec.Struct, frozen=True):
    """What happened. Also the answer."""

    period: str
    limit: Money


class Command(msgspec.Struct, frozen=True):
    id: str
    fingerprint: str
    i: int = 1
    n: int = 1


class Envelope(msgspec.Struct, frozen=True):
    """Who, and on whose command."""

    actor: str
    command: Command


class State(NamedTuple):
    """A stream's limit, and where the stream stands, in the store's own terms."""

    limit: int
    version: int


_request = msgspec.json.Decoder(Request)
_event = msgspec.json.Decoder(LimitSet)


def request() -> bytes:
    """The next request; each asks for less than all before."""
    return b'{"limit":{"amount":%d,"currency":"EUR"}}' % next(_next)


def limit_asked(asked: bytes) -> Money:
    return _request.decode(asked).limit


def decide(state: State, asked: bytes) -> LimitSet:
    """Raises ValueError if the limit would rise."""
    limit = limit_asked(asked)
    if limit.amount >= state.limit:
        raise ValueError("a limit may be cut at once, but not raised")
    return LimitSet("day", limit)


def nth(event: int) -> LimitSet:
    """The `event`th event of a stream that was filled, counted from 1."""
    return LimitSet("day", Money(FIRST_LIMIT - event, "EUR"))


def data(event: LimitSet) -> bytes:
    return _encode(event)


def envelope() -> Envelope:
    return Envelope("operator:bench", Command(os.urandom(16).hex(), os.urandom(16).hex()))


def metadata() -> bytes:
    return _encode(envelope())


def limit_in(stored: bytes | str) -> int:
    return _event.decode(stored).limit.amount


class States:
    """The states used last, by player."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, State] = OrderedDict()

    def get(self, player: int) -> State | None:
        state = self._kept.get(player)
        if state is not None:
            self._kept.move_to_end(player)
        return state

    def keep(self, player: int, state: State) -> None:
        self._kept[player] = state
        if len(self._kept) > CACHED_STATES:
            self._kept.popitem(last=False)
