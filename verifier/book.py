"""
Follows the events of a log from its opening on: which partitions it owns, which command is half told, and how far each
stream has come.

Invariants:
    - memory grows with the number of streams, and only if versions are to be checked;
    - an entry whose partition and epoch the log did not own is not counted, and it is no fault: streams continue
      elsewhere as if it were not there, so its version is compared with nothing.

Ownership is what the log was opened with. Partitions gained by a takeover are not yet followed: their entries are
among those not counted.
"""

from typing import Any

from verifier import ijson
from verifier.body import PARTITION_OF_ENDING, PARTITIONS, Facts, check_stream
from verifier.faults import Broken, Reason, quoted

OPENED = "log.opened"


class Book:
    """What is known of a log after the entries that `follow` was given, in order."""

    def __init__(self, *, origin: str, region: str, streams: bool) -> None:
        self.not_counted = 0
        self._origin = origin
        self._region = region
        self._check_versions = streams
        self._versions: dict[str, int] = {}  # newest version that counts; every name in it has been checked
        self._owned: frozenset[int] = frozenset()
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
        if tag == OPENED or not self._opened:
            self._open(stream, tag, ijson.read(body)["data"])

        if i == n == 1 and not self._command_events_left:
            pass  # nearly every command: one event, and nothing to remember of it
        elif i == 1:
            self._begin_command(command, n, partition)
        else:
            self._continue_command(command, i, n, partition)

        if partition is not None and not (epoch == 1 and partition in self._owned):
            self.not_counted += 1
        elif self._check_versions:
            # Only a log that succeeds another may find streams that have begun, and never its region's own.
            if version != (newest or 0) + 1 and (newest is not None or not self._succeeds or partition is None):
                raise Broken(
                    Reason.VERSION_GAP, f"{quoted(stream)} is at version {newest or 0}, and version {version} follows"
                )
            self._versions[stream] = version

    def close(self) -> None:
        """The log ends here. Raises Broken when it ends inside a command."""
        if self._command_events_left:
            raise Broken(
                Reason.COMMAND_UNFINISHED,
                f"the log ends inside command {self._command}: {self._command_events_left} of its "
                f"{self._command_events} events are missing",
            )

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
        self._owned = frozenset(number for first, last in partitions for number in range(first, last + 1))
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
