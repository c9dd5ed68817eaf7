"""A log in memory, for unit tests and simulations: the same behaviour as PostgreSQL's, without durability."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from domain.kernel import partition_of
from eventstore.log import Appended, Command, Malformed, Outcome, Place, Reason, Refused, Snapshot, refuse_oversize
from eventstore.record import Entry, decode_body, genesis, leaf_hash


class MemoryLog:
    """eventstore.log.Log and Streams over a list. `clock` gives µs since 1970."""

    def __init__(self, origin: str, *, clock: Callable[[], int], partitions: range = range(256)) -> None:
        self.origin = origin
        self.name = origin.rpartition("/")[2]
        self.entries: list[Entry] = []
        self._clock = clock
        self._epochs = dict.fromkeys(partitions, 1)
        self._streams: dict[str, list[Entry]] = {}
        self._commands: dict[bytes, int] = {}
        self._snapshots: dict[str, Snapshot] = {}

    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        self._refuse_overlap(commands)
        for command in commands:
            refuse_oversize(command)
        return [self._append(command) for command in commands]

    def _append(self, command: Command) -> Outcome:
        if command.id in self._commands:
            return Refused(Reason.DUPLICATE, Place(self.name, self._commands[command.id]))
        bodies = [decode_body(body) for body in command.bodies]
        owned = (b.partition is None or self._epochs.get(b.partition) == b.epoch for b in bodies)
        read = (stream.startswith("region-") or partition_of(stream) in self._epochs for stream, _ in command.reads)
        if not all(owned) or not all(read):
            return Refused(Reason.NOT_OWNED)
        expected = dict(command.reads)
        for body in reversed(bodies):
            expected[body.stream] = body.version - 1
        if any(len(self._streams.get(stream, ())) != version for stream, version in expected.items()):
            return Refused(Reason.CONFLICT)

        first = len(self.entries) + 1
        recorded = max(self._clock(), self.entries[-1].recorded + 1 if self.entries else 0)
        leaf = self.entries[-1].leaf if self.entries else genesis(self.origin)
        leaves = []
        for i, (body, raw) in enumerate(zip(bodies, command.bodies, strict=True)):
            leaf = leaf_hash(leaf, first + i, recorded + i, raw)
            leaves.append(leaf)
            self.entries.append(Entry(self.name, first + i, recorded + i, leaf, raw))
            self._streams.setdefault(body.stream, []).append(self.entries[-1])
        if bodies:
            self._commands[command.id] = first
        return Appended(first, recorded, leaves)

    def _refuse_overlap(self, commands: Sequence[Command]) -> None:
        touched: dict[str, tuple[int, bool]] = {}
        for place, command in enumerate(commands):
            written = {decode_body(body).stream for body in command.bodies}
            for stream in written | {stream for stream, _ in command.reads}:
                other, other_wrote = touched.get(stream, (place, False))
                if other != place and (other_wrote or stream in written):
                    raise Malformed(f"one command of the batch writes {stream}, which another reads or writes")
                touched[stream] = (place, other_wrote or stream in written)
        if len({command.id for command in commands}) < len(commands):
            raise Malformed("a command id stands twice in the batch")

    async def load(self, after: Mapping[str, int]) -> dict[str, list[Entry]]:
        return {stream: self._streams.get(stream, [])[version:] for stream, version in after.items()}

    async def find(self, commands: Sequence[bytes]) -> dict[bytes, Place]:
        return {id_: Place(self.name, self._commands[id_]) for id_ in commands if id_ in self._commands}

    async def commands(self, places: Sequence[Place]) -> list[list[Entry]]:
        return [self._command(place.position) for place in places]

    def _command(self, position: int) -> list[Entry]:
        n = decode_body(self.entries[position - 1].body).command.n
        return self.entries[position - 1 : position - 1 + n]

    async def epochs(self, log: str) -> dict[int, int]:
        return dict(self._epochs) if log == self.name else {}

    async def snapshots(self, streams: Sequence[str]) -> list[Snapshot]:
        return [self._snapshots[stream] for stream in streams if stream in self._snapshots]

    async def keep(self, snapshots: Sequence[Snapshot]) -> None:
        self._snapshots.update((snapshot.stream, snapshot) for snapshot in snapshots)
