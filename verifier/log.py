"""
Checks a log: every entry since its opening, the chain that ties each to the one before, what the entries say, the tree
over them, and every head that was signed.

It is an independent reading of docs/reference/record-format.md: it recomputes everything from the stored bytes and takes over
no figure from whoever keeps the log.

Invariants:
    - entries are checked in the order of `verifier.faults.Reason`, one by one, and the first fault found is the one named.
      Several processes only ever say that a page is in order; whatever else there is, is found by reading one by one;
    - memory does not grow with the log, apart from one number for each stream (none with streams=False), and some ten for
      each signed head.

What this check cannot know of entries behind the newest witnessed head: whether the keeper of a single source rewrote them,
for then the whole chain is recomputed and fits; and whether entries are missing after the last one shown. Compare with
another region's copy, and keep the leaf of every report: a later one must still hold it. Neither does it know whether a
command id stands twice.
"""

import struct
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from verifier import ijson
from verifier.body import region_of
from verifier.book import KEY_ROTATED, Book
from verifier.faults import Broken, CouldNotCheck, Fault, Found, Reason
from verifier.growth import Growth
from verifier.merkle import HASH_BYTES
from verifier.parallel import in_order
from verifier.quick import BodyReader
from verifier.sheet import HEADER_BYTES as HEADER_BYTES  # noqa: PLC0414 - public here since the first release
from verifier.sheet import PAGE, PageReader, Pages, Sheet, Task
from verifier.terms import OPENED, TAGS, Closed, Said

if TYPE_CHECKING:  # they need cryptography, which checking a chain does not
    from verifier.policy import Policy
    from verifier.signed import Signed

Source = Iterable[tuple[int, bytes, bytes]]
"""Position, entry and leaf of each entry from position 1 on, as the keeper of a log gives them."""

PAGES_FOR_WORKERS = 4  # a shorter log is read before further processes would have begun

_numbers: Callable[[int, int], bytes] = struct.Struct(">QQ").pack
_header = struct.Struct(">32sQQ").unpack_from


@dataclass(frozen=True, slots=True)
class Taken:
    """
    What an export holds of a log of `size` entries: "whole", a "range" or a "selection" of those from `first` to `last`.

    `keys` is where the keys come from by which signatures were checked: "given", or "enclosed" in the export; None where
    none was checked.
    """

    kind: str
    first: int
    last: int
    size: int
    keys: str | None

    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind, "first": self.first, "last": self.last, "size": self.size, "keys": self.keys}


@dataclass(frozen=True, slots=True)
class Report:
    """
    What a check found. Up to `position`, whose leaf is `leaf`, the log is in order; times are µs since 1970 UTC.

    `signed` is None when the source shows no heads, as a mere sequence of entries does; `trusted` says that signatures
    were verified. `said` is what the log says of its ownership, `stated` those adoptions among it that were compared with no release
    (verifier.terms). `closed` is where another log goes on with this one. `leaves` are those of the positions that were asked for, as far as the log is in order. `taken` is None
    unless the log stands in an export.
    """

    log: str
    origin: str
    position: int
    leaf: str
    entries: int
    intact: bool
    fault: Fault | None
    not_counted: int
    recorded_first_us: int | None
    recorded_last_us: int | None
    signed: "Signed | None" = None
    trusted: bool = False
    leaves: dict[int, bytes] = field(default_factory=dict)
    taken: Taken | None = None
    said: tuple[Said, ...] = field(default=(), compare=False, repr=False)
    stated: tuple[Said, ...] = ()
    closed: Closed | None = None

    @property
    def opening(self) -> dict[str, object]:
        """What the log's opening says, as far as it was read."""
        return next((said.data for said in self.said if said.tag == OPENED), {})

    @property
    def unwitnessed_entries(self) -> int:
        """How many entries no quorum of witnesses has vouched for: all, where no signature was verified."""
        witnessed = self.signed.witnessed_size if self.signed else None
        return self.entries - min(witnessed or 0, self.entries)

    def to_json(self) -> dict[str, object]:
        return {
            "log": self.log,
            "origin": self.origin,
            "position": self.position,
            "leaf": self.leaf,
            "entries": self.entries,
            "intact": self.intact,
            "fault": None if self.fault is None else self.fault.to_json(),
            "not_counted": self.not_counted,
            "recorded_first_us": self.recorded_first_us,
            "recorded_last_us": self.recorded_last_us,
            "trusted": self.trusted,
            "signed": None if self.signed is None else self.signed.to_json(),
            "witnessed": None if self.signed is None else self.signed.witnessed_to_json(),
            "unwitnessed_entries": self.unwitnessed_entries,
            **({"adopted_as_stated": [said.to_json() for said in self.stated]} if self.stated else {}),
            **({} if self.closed is None else {"closed": self.closed.to_json()}),
            **{name: self.opening[name] for name in ("continues", "stranded") if name in self.opening},
            **({} if self.taken is None else {"export": self.taken.to_json()}),
        }


def genesis(origin: str) -> bytes:
    """The leaf that stands before position 1: it ties a log to its name."""
    return sha256(b"countroom/log/v1\n" + origin.encode()).digest()


def entry_bytes(prev_leaf: bytes, position: int, recorded: int, body: bytes) -> bytes:
    """
    What the log hashes. Raises ValueError for a previous leaf that is not 32 bytes, struct.error for a number that does
    not fit into 8 bytes.
    """
    if len(prev_leaf) != HASH_BYTES:
        raise ValueError(f"a leaf has {HASH_BYTES} bytes, not {len(prev_leaf)}")
    return prev_leaf + _numbers(position, recorded) + body


def leaf(prev_leaf: bytes, position: int, recorded: int, body: bytes) -> bytes:
    """`merkle.leaf_hash(entry_bytes(...))` with one copy of the body instead of two. Raises as `entry_bytes` does."""
    if len(prev_leaf) != HASH_BYTES:
        raise ValueError(f"a leaf has {HASH_BYTES} bytes, not {len(prev_leaf)}")
    return sha256(b"\x00" + prev_leaf + _numbers(position, recorded) + body).digest()


def split_entry(entry: bytes) -> tuple[bytes, int, int, bytes]:
    """Previous leaf, position, recorded and body. Raises ValueError when the entry is too short to hold them."""
    if len(entry) < HEADER_BYTES:
        raise ValueError(f"an entry has at least {HEADER_BYTES} bytes, not {len(entry)}")
    prev_leaf, position, recorded = _header(entry)
    return prev_leaf, position, recorded, entry[HEADER_BYTES:]


def verify(
    source: Source | Pages,
    trust: "Policy | None" = None,
    *,
    origin: str,
    head: tuple[int, bytes | None] | None = None,
    streams: bool = True,
    merkle_only: bool = False,
    ends: Iterable[int] = (),
    workers: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """
    Read a log from its opening to the end of `source`, or to the first fault.

    A source of single entries is read as they come, and has no heads. `Pages` are read by as many processes as `workers`
    says, and their heads are checked: with `trust` the signatures, too.

    `head` is the position and leaf at which the log's keeper said that it ends; None if nothing was said of it.
    `streams=False` leaves out the check that versions of a stream have no gaps, which needs memory for each stream.
    `merkle_only` takes entries for opaque, as they are in other people's logs. `ends` are positions of which the report is
    to give the leaf. `progress` is told up to which position the log was read.

    Raises ValueError when `origin` is no origin, CouldNotCheck when `trust` lists no key of the log, and whatever
    `source` raises when it cannot be read.
    """
    region = region_of(origin)
    if region is None and not merkle_only:
        raise ValueError(f"{origin!r} is not an origin, countroom.<deployment>/<region>")
    if isinstance(source, Pages):
        return _Check(source, trust, origin, None if merkle_only else region, streams, workers).run(
            head, ends, progress
        )
    if trust is not None or region is None or merkle_only:
        raise ValueError("a sequence of entries has no heads, which could be trusted, and no tiles")
    reading = _Reading(origin, region, streams=streams)
    fault: Fault | None = None
    try:
        reading.read(source)
        reading.close(head)
    except Found as found:
        fault = found.fault
    return reading.report(fault)


class _Reading:
    """A log as far as it was found in order."""

    def __init__(self, origin: str, region: str, *, streams: bool) -> None:
        self.origin = origin
        self.region = region
        self.position, self.leaf, self.recorded = 0, genesis(origin), -1
        self.recorded_first: int | None = None
        self.rotations: list[tuple[int, str, dict[str, object]]] = []
        self.said: list[Said] = []
        self._book = Book(origin=origin, region=region, streams=streams)
        self._bodies = BodyReader()

    def read(self, entries: Source) -> None:
        """Take in the next entries one by one. Raises Found."""
        read_body, follow = self._bodies.read, self._book.follow
        position, last_leaf, last_recorded = self.position, self.leaf, self.recorded
        due = position + 1
        try:
            for given, entry, claimed in entries:
                this_leaf = sha256(b"\x00" + entry).digest()
                try:
                    prev_leaf, stated, recorded = _header(entry)
                except struct.error:
                    prev_leaf, stated, recorded = b"", 0, 0
                if not (
                    given == due == stated
                    and prev_leaf == last_leaf
                    and this_leaf == claimed
                    and recorded > last_recorded
                ):
                    raise _broken_link(due, last_leaf, last_recorded, given, entry, claimed)
                body = entry[HEADER_BYTES:]
                facts = read_body(body)
                follow(facts, body)
                if facts[2] == KEY_ROTATED:
                    self.rotations.append((due, facts[0], ijson.read(body)["data"]))
                elif facts[2] in TAGS:
                    self.said.append(Said(due, this_leaf.hex(), facts[2], ijson.read(body)["data"]))
                if self.recorded_first is None:
                    self.recorded_first = recorded
                position, last_leaf, last_recorded = due, this_leaf, recorded
                due += 1
        except Broken as broken:
            raise Found(Fault(due, broken.reason, broken.detail)) from None
        finally:
            self.position, self.leaf, self.recorded = position, last_leaf, last_recorded

    def follow(self, sheet: Sheet, task: Task) -> bool:
        """Take in the next page at once. False when it is to be read one by one, from the next position on. Raises Found."""
        if sheet.stretch is None or task.first != self.position + 1:
            return False
        if sheet.opening is not None:
            self.read([(1, sheet.opening, sha256(b"\x00" + sheet.opening).digest())])
        elif sheet.prev_leaf != self.leaf or sheet.recorded_first <= self.recorded:
            return False
        if not self._book.follow_stretch(sheet.stretch):
            return False
        self.position, self.leaf, self.recorded = task.last, sheet.last_leaf, sheet.recorded_last
        return True

    def close(self, head: tuple[int, bytes | None] | None) -> None:
        """The log ends here. Raises Found; what is wrong with the end is said of the last entry."""
        try:
            self._book.close()
            _check_head(self.position, self.leaf, head)
        except Broken as broken:
            raise Found(Fault(max(self.position, 1), broken.reason, broken.detail)) from None

    def report(
        self,
        fault: Fault | None,
        signed: "Signed | None" = None,
        *,
        trusted: bool = False,
        leaves: dict[int, bytes] | None = None,
    ) -> Report:
        return Report(
            log=self.region,
            origin=self.origin,
            position=self.position,
            leaf=self.leaf.hex(),
            entries=self.position,
            intact=fault is None,
            fault=fault,
            not_counted=self._book.not_counted,
            recorded_first_us=self.recorded_first,
            recorded_last_us=self.recorded if self.position else None,
            signed=signed,
            trusted=trusted,
            leaves=leaves or {},
            said=tuple(self.said),
        )


class _Opaque(_Reading):
    """A log of entries that only their hashes are known of."""

    def __init__(self, origin: str) -> None:
        super().__init__(origin, origin, streams=False)
        self.leaf = b""

    def read(self, entries: Source) -> None:
        for given, entry, claimed in entries:
            due = self.position + 1
            this_leaf = sha256(b"\x00" + entry).digest()
            if given != due or this_leaf != claimed:
                broken = _broken_opaque(due, given, this_leaf, claimed)
                raise Found(Fault(due, broken.reason, broken.detail))
            self.position, self.leaf = due, this_leaf

    def follow(self, sheet: Sheet, task: Task) -> bool:
        if not sheet.sound or task.first != self.position + 1:
            return False
        self.position, self.leaf = task.last, sheet.last_leaf
        return True

    def close(self, head: tuple[int, bytes | None] | None) -> None:
        if head is not None and head != (self.position, self.leaf):
            raise Found(Fault(max(self.position, 1), Reason.HEAD_MISMATCH, f"the log ends at position {self.position}"))

    def report(
        self,
        fault: Fault | None,
        signed: "Signed | None" = None,
        *,
        trusted: bool = False,
        leaves: dict[int, bytes] | None = None,
    ) -> Report:
        report = super().report(fault, signed, trusted=trusted, leaves=leaves)
        return replace(report, recorded_last_us=None)


class _Check:
    """One check of a log that is read page by page."""

    def __init__(
        self,
        pages: Pages,
        policy: "Policy | None",
        origin: str,
        region: str | None,
        streams: bool,
        workers: int,
    ) -> None:
        self._pages = pages
        self._policy = policy
        self._origin = origin
        self._region = region
        self._workers = workers
        self._reading = _Opaque(origin) if region is None else _Reading(origin, region, streams=streams)
        self._beside: Fault | None = None

    def run(
        self, head: tuple[int, bytes | None] | None, ends: Iterable[int], progress: Callable[[int], None]
    ) -> Report:
        from verifier import signed  # noqa: PLC0415 - needs cryptography, which checking a chain does not

        growth = Growth(self._pages, signed.sizes_of(self._pages), ends)
        length = self._pages.length() if head is None else head[0]
        faults: list[Fault] = []
        try:
            self._read(growth, length, progress)
            self._reading.close(head)
            faults += self._missing(growth, length)
            growth.finish()
        except Found as found:
            faults.append(found.fault)
        reading, marks = self._reading, growth.marks
        trust = None
        if self._policy is not None:
            rotations = [signed.Rotation(*rotation) for rotation in reading.rotations]
            trust = signed.Trust(self._policy, self._origin, self._region, rotations)
        seen, times = signed.check(self._pages, marks, self._origin, trust, self._workers)
        faults += seen.faults
        if self._region is not None:
            late = signed.implausible(self._pages, marks, times, reading.position, reading.recorded)
            faults += [late] if late else []
        faults += [fault for fault in (growth.differing, self._beside) if fault is not None]
        first = min(faults, key=lambda fault: fault.order, default=None)
        return reading.report(first, seen, trusted=trust is not None, leaves=growth.leaves)

    def _read(self, growth: Growth, length: int, progress: Callable[[int], None]) -> None:
        """Raises Found, and whatever the pages raise."""
        reading, pages = self._reading, self._pages
        workers = self._workers if length > PAGES_FOR_WORKERS * PAGE else 1
        reader = PageReader(pages, self._region)
        with closing(in_order(reader, growth.tasks(length), workers)) as sheets:
            for task, sheet in zip(growth.tasks(length), sheets, strict=True):
                if not reading.follow(sheet, task):
                    for part in pages.entries(reading.position + 1, task.last):
                        reading.read(part.one_by_one())
                    if sheet.sound and reading.position != task.last:
                        raise CouldNotCheck("the log has changed while it was read")
                    if reading.position < task.last < length:  # do not look for the end of a gap of any size
                        raise Found(_gap(reading.position + 1, length))
                if sheet.sound:
                    growth.add(task, sheet)
                if sheet.beside is not None and self._beside is None:
                    self._beside = Fault(sheet.beside[0], Reason.INDEX_DIFFERS, sheet.beside[1])
                progress(task.last)

    def _missing(self, growth: Growth, length: int) -> list[Fault]:
        """A head beyond the end: nobody keeps heads of entries that are not there, unless these are gone."""
        if growth.size != length:
            raise CouldNotCheck("the log has changed while it was read")
        marks = growth.marks
        if marks.covered == len(marks.sizes):
            return []
        beyond = marks.sizes[marks.covered]
        if self._pages.length() >= beyond:  # it has grown while it was read
            return []
        return [
            Fault(
                max(length, 1),
                Reason.HEAD_BEYOND_LOG,
                f"a head of {beyond} entries was signed, but the log ends at position {length}",
            )
        ]


def _gap(position: int, length: int) -> Fault:
    said = f"there is no entry at position {position}, but the log is shown to go on to {length}"
    return Fault(position, Reason.POSITION_GAP, said)


def _broken_opaque(due: int, given: int, this_leaf: bytes, claimed: bytes) -> Broken:
    if given != due:
        return Broken(Reason.POSITION_GAP, f"position {due} was due, and the source gave {given}")
    return Broken(Reason.LEAF_MISMATCH, f"the stored bytes hash to {this_leaf.hex()}, but the leaf is {claimed.hex()}")


def _broken_link(due: int, last_leaf: bytes, last_recorded: int, given: int, entry: bytes, claimed: bytes) -> Broken:
    """Why the entry does not continue the chain."""
    if given != due:
        return Broken(Reason.POSITION_GAP, f"position {due} was due, and the source gave {given}")
    if len(entry) < HEADER_BYTES:
        return Broken(Reason.ENTRY_TOO_SHORT, f"the entry has {len(entry)} bytes, of at least {HEADER_BYTES}")
    prev_leaf, stated, recorded, _ = split_entry(entry)
    if stated != due:
        return Broken(Reason.POSITION_MISMATCH, f"the entry was made for position {stated}")
    if prev_leaf != last_leaf:
        return Broken(
            Reason.PREV_LEAF_MISMATCH,
            f"the entry was made to follow leaf {prev_leaf.hex()}, but follows {last_leaf.hex()}",
        )
    this_leaf = sha256(b"\x00" + entry).digest()
    if this_leaf != claimed:
        return Broken(
            Reason.LEAF_MISMATCH, f"the stored bytes hash to {this_leaf.hex()}, but the leaf is {claimed.hex()}"
        )
    return Broken(
        Reason.RECORDED_NOT_INCREASING,
        f"the entry was recorded at {recorded} microseconds, but the one before at {last_recorded}",
    )


def _check_head(position: int, last_leaf: bytes, head: tuple[int, bytes | None] | None) -> None:
    if position == 0:
        raise Broken(Reason.NOT_OPENED, "the log is empty: not even its opening is there")
    if head is not None and head not in ((position, last_leaf), (position, None)):
        said = "" if head[1] is None else f" with leaf {head[1].hex()}"
        raise Broken(
            Reason.HEAD_MISMATCH,
            f"the log ends at position {position} with leaf {last_leaf.hex()}, "
            f"but was announced to end at {head[0]}{said}",
        )
