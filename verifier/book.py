"""
Follows the events of a log from its opening on: which partitions it owns, which command is half told, and how far each
stream has come.

It takes events in one by one, or a stretch of them of which `Stretch` says all that matters to what follows.

Invariants:
    - a stretch is taken in only if every event of it would have been; otherwise the book is as it was before;
    - memory grows with the number of streams, and only if versions are to be checked;
    - an entry whose partition and epoch the log did not own is not counted, and it is no fault: streams continue
      elsewhere as if it were not there, so its version is compared with nothing.

Ownership is what the log was opened with, less what it has released, and what it has adopted: that is taken as stated here, and
compared with the other log's release in `verifier.terms`. Streams of an adopted partition have begun elsewhere, at any version.
"""

from collections.abc import Iterable
from itertools import repeat
from typing import Any, NamedTuple

from verifier import ijson
from verifier.body import PARTITION_OF_ENDING, PARTITIONS, Columns, Facts, check_stream
from verifier.faults import Broken, Reason, quoted
from verifier.terms import OPENED, TAGS, Terms, check_opening

KEY_ROTATED = "log.key_rotated"
_NO_TERM: set[Any] = {(None, None)}
_READ_ONE_BY_ONE = {*TAGS, KEY_ROTATED}

CommandPart = tuple[str, int, int, int | None]
"""An event's command, i and n, and its partition."""


class Open(NamedTuple):
    """A command that is half told: how many events it has, and how many of them are missing."""

    command: str
    events: int
    left: int
    partition: int | None


class Stretch(NamedTuple):
    """
    Consecutive events that are in order among themselves: of each stream the version before the first one here, and the
    last one, gapless between.

    `terms` are the partitions of its events, and the one epoch that each has in it.
    `began` are the events at its beginning that continue a command, `ends_in` is the command that it does not finish.
    """

    streams: list[str]
    befores: list[int]
    lasts: list[int]
    terms: dict[int, int]
    began: list[CommandPart]
    begins: bool  # a command begins in it
    ends_in: Open | None


class Stretcher:
    """Makes a stretch of events, in one process while another makes the next one."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._befores: dict[str, int] = {}
        self._lasts: dict[str, int] = {}
        self._terms: set[tuple[Any, Any]] = set()  # both are there, or neither
        self._began: list[CommandPart] = []
        self._begins = False
        self._open = Open("", 0, 0, None)

    def follow(self, events: Columns) -> bool:
        """Take in the next events, as `BodyReader.read_all` gives them. False: they are to be read one by one, in a Book."""
        streams, versions, tags, partitions, epochs, *command_parts = events
        if not _READ_ONE_BY_ONE.isdisjoint(tags):
            return False
        self._terms |= set(zip(partitions, epochs, strict=True)) - _NO_TERM
        if len(dict(self._terms)) < len(self._terms):
            return False
        of_streams = [PARTITION_OF_ENDING.get(stream[-2:]) for stream in streams]
        if of_streams != list(partitions) and not self._fit(events, of_streams):
            return False
        lasts, newest_of = self._lasts, self._lasts.get
        for stream, version in zip(streams, versions, strict=True):
            newest = newest_of(stream)
            if newest is None:
                self._befores[stream] = version - 1
            elif version != newest + 1:
                return False
            lasts[stream] = version
        return self._follow_commands(zip(*command_parts, partitions, strict=True))

    def finish(self) -> Stretch:
        lasts = self._lasts
        return Stretch(
            streams=list(lasts),
            befores=list(self._befores.values()),  # in the order of the others
            lasts=list(lasts.values()),
            terms=dict(self._terms),
            began=self._began,
            begins=self._begins,
            ends_in=self._open if self._open.left else None,
        )

    def _fit(self, events: Columns, of_streams: list[int | None]) -> bool:
        """Whether partitions fit, where some streams are the region's own."""
        for stream, partition, epoch, due in zip(events[0], events[3], events[4], of_streams, strict=True):
            if partition is None:
                check_stream(stream, partition, epoch, self._region)
            elif partition != due:
                return False
        return True

    def _follow_commands(self, parts: Iterable[CommandPart]) -> bool:
        current, events, left, its_partition = self._open
        for command, i, n, partition in parts:
            if i == 1:
                if left:
                    return False
                self._begins = True
                current, events, left, its_partition = command, n, n - 1, partition
            elif self._begins:
                if i != events - left + 1 or n != events or command != current:
                    return False
                if partition != its_partition:
                    if its_partition is None:
                        its_partition = partition
                    elif partition is not None:
                        return False
                left -= 1
            else:
                self._began.append((command, i, n, partition))
        self._open = Open(current, events, left, its_partition)
        return True


class Book:
    """What is known of a log after the entries that `follow` was given, in order."""

    def __init__(self, *, origin: str, region: str, streams: bool) -> None:
        self.not_counted = 0
        self._origin = origin
        self._region = region
        self._check_versions = streams
        self._versions: dict[str, int] = {}  # newest version that counts; every name in it has been checked
        self._terms = Terms()
        self._begun_elsewhere: set[str] = set()  # endings of streams on partitions that were adopted
        self._succeeds = False  # another log of this region went before, and its streams go on here
        self._opened = False
        self._command = ""
        self._command_events = 0
        self._command_events_left = 0
        self._command_partition: int | None = None

    def follow(self, facts: Facts, body: bytes) -> None:
        """Take in the next entry: its body, and the facts read from it. Raises Broken, and is of no use afterwards."""
        stream, version, tag, partition, epoch, command, i, n = facts
        newest = self._versions.get(stream)
        if newest is None or partition is None or epoch is None or partition != PARTITION_OF_ENDING[stream[-2:]]:
            check_stream(stream, partition, epoch, self._region)
        adopted: set[int] = set()
        if tag in TAGS or not self._opened:
            adopted = self._take(stream, tag, ijson.read(body)["data"])

        if i == n == 1 and not self._command_events_left:
            pass  # nearly every command: one event, and nothing to remember of it
        elif i == 1:
            self._begin_command(command, n, partition)
        else:
            self._continue_command(command, i, n, partition)

        if partition is not None and self._terms.owned.get(partition) != epoch:
            self.not_counted += 1
        elif self._check_versions:
            # Only a log that succeeds or adopts may find streams that have begun, and never its region's own.
            if version != (newest or 0) + 1 and (newest is not None or not self._may_have_begun(stream, partition)):
                raise Broken(
                    Reason.VERSION_GAP, f"{quoted(stream)} is at version {newest or 0}, and version {version} follows"
                )
            self._versions[stream] = version
        if adopted:
            self._go_on_with(adopted)

    def _may_have_begun(self, stream: str, partition: int | None) -> bool:
        return partition is not None and (self._succeeds or stream[-2:] in self._begun_elsewhere)

    def _go_on_with(self, adopted: set[int]) -> None:
        """Streams of these partitions come from another log, also where an earlier part of them stands here."""
        endings = {ending for ending, number in PARTITION_OF_ENDING.items() if number in adopted}
        self._begun_elsewhere |= endings
        kept = self._versions.items()
        self._versions = {name: v for name, v in kept if name[-2:] not in endings or name.startswith("region-")}

    def follow_stretch(self, stretch: Stretch) -> bool:
        """Take in the next events at once. False, and nothing is taken in, if one of them is to be looked at by itself."""
        if not self._opened:
            return False
        before = self._command, self._command_events, self._command_events_left, self._command_partition
        if not (self._follow_commands(stretch) and self._follow_streams(stretch)):
            self._command, self._command_events, self._command_events_left, self._command_partition = before
            return False
        return True

    def _follow_commands(self, stretch: Stretch) -> bool:
        try:
            for part in stretch.began:
                self._continue_command(*part)
        except Broken:
            return False
        if self._command_events_left and stretch.begins:
            return False
        if stretch.ends_in is not None:
            command, events, left, partition = stretch.ends_in
            self._command, self._command_events = command, events
            self._command_events_left, self._command_partition = left, partition
        return True

    def _follow_streams(self, stretch: Stretch) -> bool:
        streams, befores, lasts, terms = stretch[:4]
        counted = self._terms.owned.items() >= terms.items()
        if not counted or (self._check_versions and list(map(self._versions.get, streams, repeat(0))) != befores):
            return self._follow_each_stream(stretch)
        if self._check_versions:
            self._versions.update(zip(streams, lasts, strict=True))
        return True

    def _follow_each_stream(self, stretch: Stretch) -> bool:
        """Where some do not count, or are gone on with from another log."""
        versions: dict[str, int] = {}
        not_counted = 0
        for stream, before, last in zip(*stretch[:3], strict=True):
            partition = None if stream.startswith("region-") else PARTITION_OF_ENDING[stream[-2:]]
            if partition is not None and self._terms.owned.get(partition) != stretch.terms[partition]:
                not_counted += last - before
            elif self._check_versions:
                newest = self._versions.get(stream, 0)
                if before != newest and (newest or not self._may_have_begun(stream, partition)):
                    return False
                versions[stream] = last
        self._versions.update(versions)
        self.not_counted += not_counted
        return True

    def close(self) -> None:
        """The log ends here. Raises Broken when it ends inside a command."""
        if self._command_events_left:
            raise Broken(
                Reason.COMMAND_UNFINISHED,
                f"the log ends inside command {self._command}: {self._command_events_left} of its "
                f"{self._command_events} events are missing",
            )

    def _take(self, stream: str, tag: str, data: dict[str, Any]) -> set[int]:
        """Take in what the log says of its ownership; returns the partitions that are adopted."""
        if tag == OPENED or not self._opened:
            self._open(stream, tag, data)
            return set()
        if stream != f"region-{self._region}-log":
            raise Broken(
                Reason.OWNERSHIP_INVALID, f"{quoted(tag)} stands on {quoted(stream)}, not on the log's own stream"
            )
        return self._terms.take(tag, data)

    def _open(self, stream: str, tag: str, data: dict[str, Any]) -> None:
        if self._opened:
            raise Broken(Reason.OPENED_AGAIN, "the log is opened a second time")
        if tag != OPENED or not stream.startswith("region-"):
            raise Broken(
                Reason.NOT_OPENED, f"the log begins with {quoted(tag)} on {quoted(stream)} instead of its opening"
            )
        self._opened = True
        for name in ("origin", "epoch", "partitions"):
            if name not in data:
                raise Broken(Reason.MEMBER_MISSING, f"the opening's 'data' has no member {name!r}")
        origin, epoch, partitions = data["origin"], data["epoch"], data["partitions"]
        if origin != self._origin:
            raise Broken(Reason.ORIGIN_MISMATCH, f"the log of {self._origin!r} was opened as {quoted(origin)}")
        if type(epoch) is not int or epoch != 1:
            raise Broken(Reason.MEMBER_MALFORMED, f"the opening's member /data/epoch is {quoted(epoch)}, not 1")
        if type(partitions) is not list or not all(map(_is_range, partitions)):
            raise Broken(
                Reason.MEMBER_MALFORMED,
                f"the opening's member /data/partitions is {quoted(partitions)}, not a list of [first, last]",
            )
        check_opening(data, self._region)
        self._terms.owned = {number: epoch for first, last in partitions for number in range(first, last + 1)}
        self._succeeds = "predecessor" in data

    def _begin_command(self, command: str, n: int, partition: int | None) -> None:
        if self._command_events_left:
            raise Broken(
                Reason.COMMAND_BROKEN,
                f"command {command} begins inside command {self._command}, of which "
                f"{self._command_events_left} events are missing",
            )
        self._command = command
        self._command_events = n
        self._command_events_left = n - 1
        self._command_partition = partition

    def _continue_command(self, command: str, i: int, n: int, partition: int | None) -> None:
        if not self._command_events_left:
            raise Broken(Reason.COMMAND_BROKEN, f"event {i} of command {command} stands without the events before it")
        due = self._command_events - self._command_events_left + 1
        if (command, i, n) != (self._command, due, self._command_events):
            raise Broken(
                Reason.COMMAND_BROKEN,
                f"event {due} of the {self._command_events} of command {self._command} was due, "
                f"and event {i} of the {n} of command {command} follows",
            )
        if self._command_partition is None:
            self._command_partition = partition
        if partition is not None and partition != self._command_partition:
            raise Broken(
                Reason.COMMAND_SPANS_PARTITIONS,
                f"command {command} writes to partitions {self._command_partition} and {partition}",
            )
        self._command_events_left -= 1


def _is_range(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) == 2  # noqa: PLR2004 - first and last
        and type(value[0]) is type(value[1]) is int
        and 0 <= value[0] <= value[1] < PARTITIONS
    )
