"""
Denials: what somebody was refused because they may not do it. Each of them has a stream of the region that refused,
`region-<region>-access_<suffix>`, as for reads.

Invariants:
    - an event holds at most DENIALS_MAX kinds of refusals with their numbers, so it always fits into an entry;
    - it names what was asked for and which policy refused it, and nothing of the matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

import msgspec

from domain.kernel import EPOCH, Aggregate, Event, RegionStream, suffix

DENIALS_MAX = 50

# Events: the tags and fields are the storage format.


class Denial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`what`: the route. `action`: the right that it needs; `policy`: which one refused; either is "" where the answer did not
    tell. `times`: how often since the last event.
    """

    what: str
    action: str
    policy: str
    times: int


class AccessDenied(Event, frozen=True, tag="access.denied"):
    """The actor was refused this. `more`: further refusals, of kinds that are not named."""

    denials: tuple[Denial, ...]
    more: int = 0


# State


class Denials(msgspec.Struct, frozen=True):
    """How many refusals there were, and when the last were recorded."""

    count: int = 0
    at: datetime = EPOCH


def evolve(denials: Denials, event: AccessDenied, at: datetime) -> Denials:
    return Denials(denials.count + sum(each.times for each in event.denials) + event.more, at)


DENIALS = Aggregate("access", kind="access", initial=Denials(), evolve=evolve, events=[AccessDenied])


def stream(region: str, actor: str) -> RegionStream[Denials]:
    """The stream of who was refused. Its suffix is the beginning of SHA-256(actor), as a UUID is written (that of their reads)."""
    return RegionStream(DENIALS, region, suffix(hashlib.sha256(actor.encode()).digest()[:16]))


# Decisions


def record(_denials: Denials, *, denied: Sequence[Denial], more: int) -> list[AccessDenied]:
    return [AccessDenied(tuple(denied), more)] if denied or more else []
