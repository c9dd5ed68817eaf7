"""
The contract of a log, which PostgreSQL and memory keep alike (one behaviour suite runs on both).

Invariants:
    - positions are gapless from 1, each leaf hashes its predecessor's;
    - what `append` has returned as appended is durable;
    - a command's events stand together, or not at all; its id has one effect for ever;
    - a command is appended only if every stream that it wrote or read stands where the command saw it;
    - and only while the log owns its partition, at the epoch that the command names. What changes that is appended by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import cache
from typing import Any, NamedTuple, Protocol

import msgspec

from domain.kernel import Aggregate
from domain.ownership import Owner, Release
from eventstore.record import BODY_BYTES_MAX, COMMAND_BYTES_MAX, Entry


class Command(msgspec.Struct, frozen=True):
    """What is appended together: `bodies` are the command's events; `reads` the (stream, version) that it only read.

    The streams that it writes are conditions too, by the version of their first event here. Without bodies the call only
    confirms the conditions: that is how a refusal decided from a cached state is checked.
    """

    id: bytes
    bodies: Sequence[bytes]
    reads: Sequence[tuple[str, int]] = ()
    writes: frozenset[str] = frozenset()


class Reason(IntEnum):
    """Why a command was left out; the numbers are those of ledger.append."""

    DUPLICATE = 1
    CONFLICT = 2
    NOT_OWNED = 3


class Place(NamedTuple):
    """Where a command stands: its first event, or the event of another command that claims its id."""

    log: str
    position: int


class Appended(msgspec.Struct, frozen=True):
    """The command stands at `position` … `position` + len(leaves) - 1, the first recorded at `recorded` µs, each 1 µs later.

    For a call without bodies: the conditions hold.
    """

    position: int
    recorded: int
    leaves: Sequence[bytes]


class Refused(NamedTuple):
    """Nothing was appended. `first`: where a duplicate stands already."""

    reason: Reason
    first: Place | None = None


Outcome = Appended | Refused


class Head(NamedTuple):
    """The newest entry of a log; position 0 and the genesis hash where there is none."""

    position: int
    leaf: bytes


class Malformed(Exception):
    """The caller sent what can never stand in a log. Nothing of the call was appended."""


class TooLarge(Malformed):
    """A body of more than 60 KiB, or a command of more than 256 KiB."""


class Snapshot(NamedTuple):
    """A folded state at `version` of `stream`; `leaf` and `recorded` are those of the last entry folded.

    `schema` names the state's shape.
    """

    stream: str
    version: int
    leaf: bytes
    recorded: int
    schema: str
    state: bytes


class Resumed(NamedTuple):
    """From where a stream's state is folded, None for the beginning, and by what."""

    snapshot: Snapshot | None
    entries: list[Entry]


class Log(Protocol):
    """The log that is written here."""

    name: str
    origin: str

    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        """Append independent commands in one transaction; each has its own outcome.

        Durable once it returns. Raises Malformed (nothing was appended), and whatever the connection raises: then the
        outcome is unknown, and is settled by sending the same commands again, never by looking.
        """
        ...

    async def close(self) -> None:
        """Leave it. What is under way may still be appended."""
        ...


class Streams(Protocol):
    """What a decision reads of the logs held here."""

    async def load(self, after: Mapping[str, int]) -> dict[str, list[Entry]]:
        """For each stream its entries that count, after the given version and in order."""
        ...

    async def versions(self, aggregate: str) -> dict[str, int]:
        """All streams of an aggregate of which there are few, and the version of the last entry of each that counts."""
        ...

    async def logs(self) -> list[str]:
        """The names of all logs held here."""
        ...

    async def beginning(self, prefix: str) -> dict[str, int]:
        """Streams whose names begin so, of which there are few, and the version of the last entry of each that counts."""
        ...

    async def since(self, log: str, position: int, prefix: str) -> tuple[int, dict[str, int]]:
        """Up to which position a log is held here, and, of streams whose names begin so and that have entries beyond `position`, the
        version of the last one that counts. Where that is below 0, no stream is looked for.
        """
        ...

    async def find(self, commands: Sequence[bytes]) -> dict[bytes, Place]:
        """Where the commands of these ids stand, of those that are known."""
        ...

    async def commands(self, places: Sequence[Place]) -> list[list[Entry]]:
        """All entries of each of these commands."""
        ...

    async def epochs(self, log: str) -> dict[int, int]:
        """The epochs of the partitions that `log` owns, and may write."""
        ...

    async def owners(self) -> dict[int, Owner]:
        """Who owns each partition, as far as the logs held here tell; none of those that nobody was ever seen to own."""
        ...

    async def released(self, to: str) -> list[Release]:
        """What other logs have released to that one, and what the log that it continues has owned, as far as it has not adopted it.
        Everything up to the cuts is held here.
        """
        ...

    async def resume(self, schemas: Mapping[str, str]) -> dict[str, Resumed]:
        """For each stream its snapshot, if that is of the named schema and its last entry counts still, and what follows it."""
        ...

    async def keep(self, snapshots: Sequence[Snapshot]) -> None:
        """Keep newer snapshots; older ones are ignored."""
        ...


def refuse_oversize(command: Command) -> None:
    """Raises TooLarge."""
    total = 0
    for body in command.bodies:
        total += len(body)
        if len(body) > BODY_BYTES_MAX:
            raise TooLarge(f"an event of {len(body)} bytes; {BODY_BYTES_MAX} are the most that an entry holds")
    if total > COMMAND_BYTES_MAX:
        raise TooLarge(f"a command of {total} bytes; {COMMAND_BYTES_MAX} are the most")


@cache
def state_schema(aggregate: Aggregate[Any]) -> str:
    """Names the shape of an aggregate's state; a snapshot of another shape is ignored."""
    shape = msgspec.json.encode(msgspec.json.schema(aggregate.state), order="sorted")
    return f"{aggregate.name}/{hashlib.sha256(shape).hexdigest()[:12]}"
