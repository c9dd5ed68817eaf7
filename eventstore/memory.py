"""
A log in memory, for unit tests and simulations: the same behaviour as PostgreSQL's, without durability.

Invariant: one behaviour suite and one state machine (tests/eventstore) find no difference to ledger.append. Only the opening
is given here as `partitions`; whether it stands in the log, too, is left to the user.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from domain.kernel import partition_of
from domain.logs import Adopted, LogEvent, Opened, Released, epochs
from domain.ownership import Contradiction, Owner, Ownership, Release
from eventstore.log import (
    Appended,
    Command,
    Malformed,
    Outcome,
    Place,
    Reason,
    Refused,
    Resumed,
    Snapshot,
    refuse_oversize,
)
from eventstore.record import Body, Entry, decode_body, genesis, leaf_hash

_SUFFIX = "[0-7][0-9a-hjkmnp-tv-z]{25}"
_AGGREGATE = re.compile(rf"[a-z][a-z_]*-{_SUFFIX}")
_OF_OWNERSHIP: dict[str, type[LogEvent]] = {kind.tag: kind for kind in (Opened, Released, Adopted)}
_TAG = re.compile(r".+\..+", re.DOTALL)


class MemoryLog:
    """eventstore.log.Log and Streams over a list. `clock` gives µs since 1970."""

    def __init__(self, origin: str, *, clock: Callable[[], int], partitions: range = range(256)) -> None:
        self.origin = origin
        self.name = origin.rpartition("/")[2]
        self.entries: list[Entry] = []
        self._clock = clock
        self.ownership = Ownership()
        if partitions:
            opened = Opened(origin, 1, ((partitions.start, partitions.stop - 1),))
            self.ownership.fold(self.name, 0, "", opened)
        self._copies: dict[str, list[Entry]] = {}
        self._copied: dict[bytes, Place] = {}
        self._early: dict[
            tuple[str, int], Entry
        ] = {}  # of copies, by stream and version: what stands before is missing yet
        self._own_stream = re.compile(rf"region-{re.escape(self.name)}-[a-z]+(_{_SUFFIX})?")
        self._streams: dict[str, list[Entry]] = {}
        self._commands: dict[bytes, int] = {}
        self._snapshots: dict[str, Snapshot] = {}

    async def close(self) -> None:
        """There is nothing to leave."""

    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        bodies = []
        for command in commands:
            refuse_oversize(command)
            bodies.append(self._read(command))
        _refuse_overlap(commands, bodies)
        if len(commands) > 1 and any(body.type in _OF_OWNERSHIP for read in bodies for body in read):
            raise Malformed("what changes ownership is appended by itself")
        ids = {command.id for command in commands}
        return [self._append(command, read, ids) for command, read in zip(commands, bodies, strict=True)]

    def _read(self, command: Command) -> list[Body]:
        """The envelopes of a command. Raises Malformed for what can never stand in this log."""
        try:
            for raw in command.bodies:
                json.loads(raw.decode(), object_pairs_hook=_unique)
            bodies = [decode_body(raw) for raw in command.bodies]
        except ValueError as error:  # UnicodeDecodeError, JSONDecodeError and msgspec.DecodeError are kinds of it
            raise Malformed(f"a body is not one: {error}") from error
        versions: dict[str, int] = {}
        for i, body in enumerate(bodies, 1):
            part = body.command
            fits = (part.id, part.i, part.n) == (command.id.hex(), i, len(bodies))
            if not fits or body.version < 1 or not _TAG.fullmatch(body.type) or not self._is_home(body):
                raise Malformed(f"event {i} of command {command.id.hex()} on {body.stream} is malformed")
            if body.partition != bodies[0].partition:
                raise Malformed("a command has one partition")
            if body.version != versions.setdefault(body.stream, body.version):
                raise Malformed("the versions of a stream do not follow one another")
            versions[body.stream] += 1
        return bodies

    def _is_home(self, body: Body) -> bool:
        if body.stream.startswith("region-"):
            return bool(self._own_stream.fullmatch(body.stream)) and body.partition is None and body.epoch is None
        return (
            bool(_AGGREGATE.fullmatch(body.stream))
            and body.partition == partition_of(body.stream)
            and body.epoch is not None
            and body.epoch > 0
        )

    def _append(self, command: Command, bodies: Sequence[Body], ids: Collection[bytes]) -> Outcome:
        if command.id in self._commands:
            return Refused(Reason.DUPLICATE, Place(self.name, self._commands[command.id]))
        if command.id in self._copied:
            return Refused(Reason.DUPLICATE, self._copied[command.id])
        owned = (b.partition is None or self._owns(b.partition, b.epoch) for b in bodies)
        read = (stream.startswith("region-") or self._owns(partition_of(stream)) for stream, _ in command.reads)
        if not all(owned) or not all(read):
            return Refused(Reason.NOT_OWNED)
        first_versions = {body.stream: body.version - 1 for body in reversed(bodies)}
        expected = (*command.reads, *first_versions.items())
        if any(len(self._streams.get(stream, ())) != version for stream, version in expected):
            return Refused(Reason.CONFLICT)
        taken = (*self._commands, *self._copied, *ids) if any(body.claims for body in bodies) else ()
        if any(_claimed(body) in taken for body in bodies if body.claims):
            return Refused(Reason.CONFLICT)

        # From here on it succeeds.
        first = len(self.entries) + 1
        recorded = max(self._clock(), self.entries[-1].recorded + 1 if self.entries else 0)
        leaf = self.entries[-1].leaf if self.entries else genesis(self.origin)
        leaves = []
        for i, (body, raw) in enumerate(zip(bodies, command.bodies, strict=True)):
            leaf = leaf_hash(leaf, first + i, recorded + i, raw)
            if body.type in _OF_OWNERSHIP:
                self._own(body, first + i, leaf)
            leaves.append(leaf)
            self.entries.append(Entry(self.name, first + i, recorded + i, leaf, raw))
            self._streams.setdefault(body.stream, []).append(self.entries[-1])
            if body.claims:
                self._commands[_claimed(body)] = first + i
            elif i == 0:
                self._commands[command.id] = first
        return Appended(first, recorded, leaves)

    def _owns(self, partition: int, epoch: int | None = None) -> bool:
        owner = self.ownership.owner(partition)
        return owner is not None and owner == Owner(self.name, epoch or owner.epoch)

    def _own(self, body: Body, position: int, leaf: bytes) -> None:
        """Follow what this log says of ownership. Raises Malformed for what it may not say."""
        if body.stream != f"region-{self.name}-log" or (body.type == Opened.tag and position > 1):
            raise Malformed("a log speaks of ownership on its own stream only, and is opened once")
        event = msgspec.json.decode(body.data, type=_OF_OWNERSHIP[body.type])
        if isinstance(event, Opened) and not event.continues:
            return  # as it was given
        if isinstance(event, Adopted) and not (
            self._holds_what_it_continues() and self.ownership.may_adopt(self.name, event)
        ):
            raise Malformed(f"log {self.name} adopts what was not released to it")
        try:
            self.ownership.fold(self.name, position, leaf.hex(), event)
        except Contradiction as error:
            raise Malformed(str(error)) from error

    def _holds_what_it_continues(self) -> bool:
        """Whether the copy of the closed log goes up to the entry with which it ends; so it is if there is none."""
        if (found := self.ownership.continued(self.name)) is None:
            return True
        held = self._copies.get(found[0], [])
        return len(held) >= found[1].position and held[found[1].position - 1].leaf.hex() == found[1].leaf

    def copy(self, entries: Sequence[Entry]) -> None:
        """Take the next entries of another region's log: whole commands. Raises Contradiction."""
        for entry in entries:
            body = decode_body(entry.body)
            held = self._copies.setdefault(entry.log, [])
            if body.stream == f"region-{entry.log}-log" and body.type in _OF_OWNERSHIP:
                event = msgspec.json.decode(body.data, type=_OF_OWNERSHIP[body.type])
                self._refuse_robbery(event)
                self.ownership.fold(entry.log, entry.position, entry.leaf.hex(), event)
            held.append(entry)
            if self._counted(entry, body):
                if body.command.i == 1:
                    self._copied[bytes.fromhex(body.command.id)] = Place(entry.log, entry.position)
                self._early[body.stream, body.version] = entry
                self._catch_up(body.stream)

    def _refuse_robbery(self, event: LogEvent) -> None:
        """What this log owns, no other one takes from it by saying so. Raises Contradiction."""
        match event:
            case Opened():
                begun = epochs([(first, last, event.epoch) for first, last in event.partitions])
                if any(epoch != 1 for epoch in begun.values()):
                    raise Contradiction(f"a log opens with partitions at epoch {event.epoch}")
            case Adopted():
                begun = epochs(event.partitions)
            case _:
                return
        owned = self.ownership.owned(self.name)
        if ours := [each for each, epoch in begun.items() if owned.get(each, epoch) < epoch]:
            raise Contradiction(f"partition {ours[0]} is ours, and was released to nobody")

    def _counted(self, entry: Entry, body: Body) -> bool:
        if body.partition is None or body.epoch is None:
            return body.stream.startswith(f"region-{entry.log}-")
        return self.ownership.counts(entry.log, body.partition, body.epoch, entry.position)

    def _catch_up(self, stream: str) -> None:
        known = self._streams.setdefault(stream, [])
        while entry := self._early.pop((stream, len(known) + 1), None):
            known.append(entry)

    async def load(self, after: Mapping[str, int]) -> dict[str, list[Entry]]:
        return {stream: self._streams.get(stream, [])[version:] for stream, version in after.items()}

    async def versions(self, aggregate: str) -> dict[str, int]:
        return {name: len(entries) for name, entries in self._streams.items() if name.startswith(f"{aggregate}-")}

    async def logs(self) -> list[str]:
        return [self.name, *self._copies]

    async def beginning(self, prefix: str) -> dict[str, int]:
        return {name: len(entries) for name, entries in self._streams.items() if entries and name.startswith(prefix)}

    async def since(self, log: str, position: int, prefix: str) -> tuple[int, dict[str, int]]:
        held = self.entries if log == self.name else self._copies.get(log, [])
        streams = await self.beginning(prefix) if position >= 0 else {}
        return len(held), {
            name: version
            for name, version in streams.items()
            if any(entry.log == log and entry.position > position for entry in self._streams[name])
        }

    async def find(self, commands: Sequence[bytes]) -> dict[bytes, Place]:
        own = {id_: Place(self.name, self._commands[id_]) for id_ in commands if id_ in self._commands}
        return own | {id_: self._copied[id_] for id_ in commands if id_ in self._copied}

    async def commands(self, places: Sequence[Place]) -> list[list[Entry]]:
        return [self._command(place) for place in places]

    def _command(self, place: Place) -> list[Entry]:
        entries = self.entries if place.log == self.name else self._copies[place.log]
        part = decode_body(entries[place.position - 1].body).command
        return entries[place.position - part.i : place.position - part.i + part.n]

    async def epochs(self, log: str) -> dict[int, int]:
        return self.ownership.owned(log)

    async def owners(self) -> dict[int, Owner]:
        return {each: owner for each in range(256) if (owner := self.ownership.owner(each))}

    async def released(self, to: str) -> list[Release]:
        return [
            *self.ownership.released(to),
            *(self.ownership.inherited(to) if self._holds_what_it_continues() else ()),
        ]

    async def resume(self, schemas: Mapping[str, str]) -> dict[str, Resumed]:
        return {stream: self._resumed(stream, schema) for stream, schema in schemas.items()}

    def _resumed(self, stream: str, schema: str) -> Resumed:
        kept, entries = self._snapshots.get(stream), self._streams.get(stream, [])
        if kept is None or kept.schema != schema or not self._counts(kept):
            return Resumed(None, entries[:])
        return Resumed(self._with_time(kept), entries[kept.version :])

    async def keep(self, snapshots: Sequence[Snapshot]) -> None:
        for new in snapshots:
            old = self._snapshots.get(new.stream)
            if not old or new.version > old.version or new.schema != old.schema or not self._counts(old):
                self._snapshots[new.stream] = new

    def _counts(self, snapshot: Snapshot) -> bool:
        entries = self._streams.get(snapshot.stream, [])
        return 0 < snapshot.version <= len(entries) and entries[snapshot.version - 1].leaf == snapshot.leaf

    def _with_time(self, snapshot: Snapshot) -> Snapshot:
        return snapshot._replace(recorded=self._streams[snapshot.stream][snapshot.version - 1].recorded)


def _refuse_overlap(commands: Sequence[Command], bodies: Sequence[Sequence[Body]]) -> None:
    touched: dict[str, tuple[int, bool]] = {}
    for place, command in enumerate(commands):
        written = {body.stream for body in bodies[place]}
        for stream in written | {stream for stream, _ in command.reads}:
            other, other_wrote = touched.get(stream, (place, False))
            if other != place and (other_wrote or stream in written):
                raise Malformed(f"one command of the batch writes {stream}, which another reads or writes")
            touched[stream] = (place, other_wrote or stream in written)
    claims = [_claimed(body) for read in bodies for body in read if body.claims]
    if len({command.id for command in commands}) < len(commands) or len(set(claims)) < len(claims):
        raise Malformed("a command id stands twice in the batch")


def _unique(members: list[tuple[str, object]]) -> None:
    if len({name for name, _ in members}) < len(members):
        raise ValueError("a name stands twice")


def _claimed(body: Body) -> bytes:
    """The command id that an event claims."""
    return bytes.fromhex((body.claims or "").replace("-", ""))
