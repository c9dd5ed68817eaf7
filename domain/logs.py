"""
Logs: what a region's log says of itself, on its own stream `region-<name>-log`.

Invariants:
    - a log's first entry opens it, with the partitions that it owns from the beginning;
    - a partition changes hands by two events: its owner's log releases it, then the log that is named there adopts it, under the next
      epoch (domain/ownership.py);
    - a log that was closed releases nothing: the region's next log (`eu.2` after `eu`), whose opening names the last entry that
      counts, adopts what was owned there;
    - a new key for its tree heads is vouched for by the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from domain.errors import Conflict
from domain.kernel import Aggregate, Event, RegionStream

Spans = tuple[tuple[int, int, int], ...]
"""Partitions at their epochs: ranges [first, last, epoch], which rise and do not overlap."""

# Events: the tags and fields are the storage format.


class Continued(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The log of the same region that was closed, and the last of its entries that is agreed upon. `leaf` in hex."""

    log: str
    position: int
    leaf: str


class Stranded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Entries that only the closed log's own database held: kept outside, never counted. They follow the entry at `first` - 1 of that
    database, and the last of them has `leaf` (hex), which vouches for all.
    """

    first: int
    last: int
    leaf: str


class Opened(Event, frozen=True, tag="log.opened"):
    """The log begins. `partitions`: ranges [first, last] of players that it owns, at `epoch`, from here on.

    `continues`: the log of this region before, which was closed there; what it owned is adopted from it. `stranded`: what was left out.
    """

    origin: str
    epoch: int
    partitions: tuple[tuple[int, int], ...]
    continues: Continued | None = None
    stranded: Stranded | None = None


class KeyRotated(Event, frozen=True, tag="log.key_rotated"):
    """From this entry on heads may be signed with `new`; with `old` alone only until `until`.

    Both are vkeys (C2SP signed-note); both have signed `rotation_text` (Ed25519, base64).
    """

    old: str
    new: str
    until: datetime
    by_old: str
    by_new: str


class Released(Event, frozen=True, tag="log.released"):
    """The log gives partitions up to the log `to`. This entry is the cut: what follows of them in this log does not count.

    `partitions`: ranges [first, last, epoch], the epoch being that in which the log owned them.
    """

    partitions: Spans
    to: str


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The entry with which another log ends for some partitions. `leaf` in hex."""

    position: int
    leaf: str


class Adopted(Event, frozen=True, tag="log.adopted"):
    """The log owns partitions from here on: the log `of` has released them to it, or was closed and is continued by it, at `cut`.

    `partitions`: ranges [first, last, epoch], the epoch being one more than that before.
    """

    partitions: Spans
    of: str
    cut: Cut


LogEvent = Opened | KeyRotated | Released | Adopted


def spans(epochs: Mapping[int, int]) -> Spans:
    """Partitions and their epochs as the fewest ranges."""
    found: list[tuple[int, int, int]] = []
    for partition, epoch in sorted(epochs.items()):
        if found and found[-1][1:] == (partition - 1, epoch):
            found[-1] = (found[-1][0], partition, epoch)
        else:
            found.append((partition, partition, epoch))
    return tuple(found)


def epochs(partitions: Iterable[tuple[int, int, int]]) -> dict[int, int]:
    """Each partition of such ranges, and its epoch."""
    return {each: epoch for first, last, epoch in partitions for each in range(first, last + 1)}


def is_next(name: str, before: str) -> bool:
    """Whether the log is the next one of the same region: eu.2 after eu, eu.3 after eu.2."""
    (base, _, number), (old, _, last) = name.partition("."), before.partition(".")
    return base == old and number == str(int(last or 1) + 1)


def comes_before(name: str, later: str) -> bool:
    """Whether both are logs of one region, and `later` is a later one."""
    (base, _, number), (other, _, last) = name.partition("."), later.partition(".")
    return base == other and int(number or 1) < int(last or 1)


def next_name(name: str) -> str:
    """The name under which a region goes on when its log was closed."""
    base, _, number = name.partition(".")
    return f"{base}.{int(number or 1) + 1}"


def rotation_text(origin: str, old: str, new: str, until: str) -> bytes:
    """What the old and the new key sign. `until` as it stands in the event."""
    return f"countroom/key-rotation/v1\n{origin}\n{old}\n{new}\n{until}\n".encode()


# State


class Log(msgspec.Struct, frozen=True):
    """`key`: the newest that a rotation has named; empty before the first. `owned`: what the log may write, as ranges."""

    origin: str = ""
    key: str = ""
    owned: Spans = ()


def evolve(log: Log, event: LogEvent, _at: datetime) -> Log:
    match event:
        case Opened():
            owned = tuple((first, last, event.epoch) for first, last in event.partitions)
            return msgspec.structs.replace(log, origin=event.origin, owned=owned)
        case KeyRotated():
            return msgspec.structs.replace(log, key=event.new)
        case Released():
            left = epochs(log.owned).items() - epochs(event.partitions).items()
            return msgspec.structs.replace(log, owned=spans(dict(left)))
        case Adopted():
            return msgspec.structs.replace(log, owned=spans(epochs(log.owned) | epochs(event.partitions)))


LOGS = Aggregate("log", kind="log", initial=Log(), evolve=evolve, events=[Opened, KeyRotated, Released, Adopted])


def stream(name: str) -> RegionStream[Log]:
    return RegionStream(LOGS, name)


# Decisions


class NotOwned(Conflict):
    """Facts: partitions (those that the log does not own, as numbers)."""

    code = "not_owned"
    title = "This region does not own these partitions"


def release(log: Log, *, partitions: Iterable[int], to: str) -> list[Released]:
    """Give partitions up to another log. Raises NotOwned. Of no partitions nothing is recorded."""
    owned, wanted = epochs(log.owned), set(partitions)
    if foreign := sorted(wanted - owned.keys()):
        raise NotOwned(partitions=foreign)
    if not wanted:
        return []
    return [Released(spans({each: owned[each] for each in wanted}), to)]


def adopt(log: Log, *, released: Spans, of: str, cut: Cut) -> list[Adopted]:
    """Take over what another log has released to this one, each under the next epoch. What is owned already, is."""
    owned = epochs(log.owned)
    due = {each: epoch + 1 for each, epoch in epochs(released).items() if owned.get(each, 0) <= epoch}
    return [Adopted(spans(due), of, cut)] if due else []
