"""
Logs: what a region's log says of itself, on its own stream `region-<name>-log`.

Invariants:
    - a log's first entry opens it, with the partitions that it owns from the beginning;
    - a new key for its tree heads is vouched for by the one before.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from domain.kernel import Aggregate, Event

# Events: the tags and fields are the storage format.


class Opened(Event, frozen=True, tag="log.opened"):
    """The log begins. `partitions`: ranges [first, last] of players that it owns, at `epoch`, from here on."""

    origin: str
    epoch: int
    partitions: tuple[tuple[int, int], ...]


class KeyRotated(Event, frozen=True, tag="log.key_rotated"):
    """From this entry on heads may be signed with `new`; with `old` alone only until `until`.

    Both are vkeys (C2SP signed-note); both have signed `rotation_text` (Ed25519, base64).
    """

    old: str
    new: str
    until: datetime
    by_old: str
    by_new: str


LogEvent = Opened | KeyRotated


def rotation_text(origin: str, old: str, new: str, until: str) -> bytes:
    """What the old and the new key sign. `until` as it stands in the event."""
    return f"countroom/key-rotation/v1\n{origin}\n{old}\n{new}\n{until}\n".encode()


# State


class Log(msgspec.Struct, frozen=True):
    """`key`: the newest that a rotation has named; empty before the first."""

    origin: str = ""
    key: str = ""


def evolve(log: Log, event: LogEvent, _at: datetime) -> Log:
    match event:
        case Opened():
            return Log(origin=event.origin, key=log.key)
        case KeyRotated():
            return Log(origin=log.origin, key=event.new)


LOGS = Aggregate("log", kind="log", initial=Log(), evolve=evolve, events=[Opened, KeyRotated])
