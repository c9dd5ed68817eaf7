"""
A verified stream: logs at a target, checked by the code behind `countroom verify`, and read again to be replayed.

Invariants:
    - a reader gets the entries that were verified: every leaf is computed again from its bytes, each entry names the leaf
      before, and the last one is the leaf at which the check ended; otherwise nothing of it is believed;
    - all of a log is read, also where only a part is wanted: only its end proves the rest;
    - reading goes on in a thread of its own while entries are folded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain, dropwhile, islice, takewhile
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import NoReturn, TypeVar

import msgspec

from app import checking
from domain.catalog import AGGREGATES
from domain.logs import LOGS
from domain.ownership import Contradiction
from eventstore.record import Codec, Entry, UnknownEvent, genesis
from replay import moment
from replay.moment import Moment, NoMoment
from replay.ownership import Ownership
from verifier.export import ExportSource
from verifier.faults import CouldNotCheck, Found
from verifier.log import Report
from verifier.merkle import ProofError, verify_inclusion
from verifier.note import NoteError, parse_checkpoint, verify_note
from verifier.policy import Policy
from verifier.sheet import Pages
from verifier.source import Head, Keeper, UrlSource

PARTS_AHEAD = 8
_PART = 1_024
_header = struct.Struct(">32sQQ")

T = TypeVar("T")
Raw = tuple[int, bytes]
"""A position and the entry there, as it was hashed."""


class NotIntact(Exception):
    """The check has found a fault; the message says where."""


@dataclass
class VerifiedLog:
    """A log as far as it was found in order: up to `report.position`, whose leaf is `report.leaf`."""

    head: Head
    report: Report
    keeper: Keeper
    noted: dict[int, bytes] = field(default_factory=dict)  # leaves of entries that were read out of turn

    @property
    def name(self) -> str:
        return self.report.log

    @property
    def first(self) -> int:
        """Of the entries that are here; an export may begin later than its log."""
        return self.report.taken.first if self.report.taken else 1

    @property
    def kind(self) -> str:
        return self.report.taken.kind if self.report.taken else "whole"

    def raw(self, after: int, last: int) -> Iterator[Sequence[Raw]]:
        """The entries behind `after` up to `last` as somebody keeps them, in parts. Raises CouldNotCheck, Found."""
        if isinstance(self.keeper, ExportSource) and self.kind != "whole":
            entries = takewhile(lambda raw: raw[0] <= last, self.keeper.export.logs[self.name].entries())
            some = dropwhile(lambda raw: raw[0] <= after, entries)
            while part := list(islice(some, _PART)):
                yield part
            return
        if isinstance(self.keeper, UrlSource) and self.head.leaf is not None:  # a region: one stream, no tiles
            yield from _parts(self.keeper, self.head, after, last)
            return
        for shown in self.pages().entries(after + 1, last):
            yield list(zip(shown.positions, shown.entries, strict=True))

    def pages(self) -> Pages:
        return self.keeper.pages(self.head)


class Verified:
    """The logs at a target, all of them intact."""

    def __init__(self, target: str, logs: Sequence[VerifiedLog], trust: Policy | None) -> None:
        self.target = target
        self.shown = next((log.keeper.url for log in logs), target)  # a DSN without its password
        self.trust = trust
        self.logs = {log.name: log for log in logs}
        self.codec = Codec(AGGREGATES)
        self.ownership = self._ownership()
        self.others = [name for name in self.logs if not self.ownership.owns(name)]
        for name in self.others:  # what else keeps a log beside ours speaks of its own
            del self.logs[name]

    def entries(self, log: str) -> Iterator[Entry]:
        """All entries of a log, in order. Raises CouldNotCheck when they are not those that were verified."""
        return chain.from_iterable(self.parts(log))

    def parts(self, log: str) -> Iterator[Sequence[Entry]]:
        """The same, some at a time."""
        checked = self.logs[log]
        for part in _selected(checked) if checked.kind == "selection" else _chained(checked):
            for position, leaf in checked.noted.items():
                if part[0].position <= position <= part[-1].position and leaf not in {e.leaf for e in part}:
                    raise CouldNotCheck(f"{log}/{position} has changed while it was read")
            yield part

    def moment(self, text: str) -> Moment:
        """What a text names: `eu/1234`, or a time. Raises NoMoment, CouldNotCheck."""
        named = moment.parse_position(text)
        if named is None:
            return moment.at_time(moment.parse_time(text)).closed(self.ownership.adoptions())
        log, position = named
        if log not in self.logs:
            raise NoMoment(f"there is no log {log} at {self.shown}; there are {', '.join(self.logs)}")
        if position > self.logs[log].report.position:
            raise NoMoment(f"log {log} was verified up to position {self.logs[log].report.position}, not {position}")
        try:
            recorded_us = self._entry(self.logs[log], position).recorded
        except LookupError as error:
            raise NoMoment(f"{error}; name a time") from None
        return moment.at_position(log, position, recorded_us).closed(self.ownership.adoptions())

    def known_to(self, region: str, text: str) -> Moment:
        """How far a region provably knew each log at a time: by what its witness had cosigned. Raises NoMoment, CouldNotCheck."""
        until_us = moment.parse_time(text)
        own = [log for log in self.logs if log.partition(".")[0] == region]
        if not own:
            raise NoMoment(f"there is no log of a region {region} at {self.shown}")
        if self.trust is None:
            raise CouldNotCheck("what a region knew is told by its signatures: give --trust")
        names = {f"{self.logs[log].report.origin}/witness" for log in own}
        keys = [witness.key for witness in self.trust.witnesses if witness.key.name in names]
        if not keys:
            raise CouldNotCheck(f"the policy lists no witness of region {region} ({', '.join(sorted(names))})")
        cosigned = {}
        for name, log in self.logs.items():
            if name not in own:
                sizes = [0]
                for size, note in log.pages().heads():
                    if size > log.report.position:
                        break
                    try:
                        signatures = verify_note(note, keys).signatures
                    except NoteError:
                        continue  # the others signed it, but not this region
                    if any((s.timestamp_s or 0) * 1_000_000 <= until_us for s in signatures):
                        sizes.append(parse_checkpoint(note.decode().rpartition("\n\n")[0] + "\n").size)
                cosigned[name] = max(sizes)
        return moment.known_to(region, until_us, cosigned).closed(self.ownership.adoptions())

    def _ownership(self) -> Ownership:
        """From what the logs say of it. A part of a log need not hold its opening: then all that it holds is taken to count."""
        owned = Ownership()
        codec = Codec([LOGS])
        for log in self.logs.values():
            if log.kind == "selection" or not any(said.position == 1 for said in log.report.said):
                owned.take_for_granted(log.name)
            for said in log.report.said:
                try:
                    owned.fold(codec.decode(self._entry(log, said.position)))
                except (UnknownEvent, msgspec.MsgspecError, Contradiction) as error:
                    raise CouldNotCheck(f"{log.name}/{said.position} of {self.shown}: {error}") from None
        return owned

    def _entry(self, log: VerifiedLog, position: int) -> Entry:
        """An entry out of turn, which `entries` compares when it comes by. Raises LookupError where it is not in an export."""
        for part in log.raw(position - 1, position):
            for given, entry in part:
                if given == position:
                    log.noted[position] = sha256(b"\0" + entry).digest()
                    return entry_of(log.name, entry, log.noted[position])
        if log.kind == "whole":
            raise CouldNotCheck(f"there is no entry {log.name}/{position} at {self.shown}")
        raise LookupError(f"the export does not hold {log.name}/{position}")


class Chain:
    """A log from some entry on. `leaf`: of the entry before; None for whatever the first one names."""

    def __init__(self, log: str, position: int, leaf: bytes | None) -> None:
        self.log = log
        self.position = position
        self.leaf = leaf

    def follow(self, part: Sequence[Raw]) -> list[Entry]:
        """Raises CouldNotCheck at the first entry that does not continue the chain."""
        entries = []
        log, due, last_leaf, header = self.log, self.position + 1, self.leaf, _header.unpack_from
        for given, entry in part:
            prev_leaf, position, recorded = header(entry) if len(entry) >= _header.size else (b"", 0, 0)
            if prev_leaf != (last_leaf or prev_leaf) or not given == position == due:
                raise CouldNotCheck(f"{log}/{due} does not continue the chain of what was read before it")
            last_leaf = sha256(b"\0" + entry).digest()
            entries.append(Entry(log, due, recorded, last_leaf, entry[_header.size :]))
            due += 1
        self.position, self.leaf = due - 1, last_leaf
        return entries


def _chained(log: VerifiedLog) -> Iterator[Sequence[Entry]]:
    """A log, or a range of one, whose end proves all that stands before it."""
    report = log.report
    read = Chain(log.name, log.first - 1, genesis(report.origin) if log.first == 1 else None)
    for part in ahead(log.raw(log.first - 1, report.position)):
        yield read.follow(part)
    if (read.position, (read.leaf or b"").hex()) != (report.position, report.leaf):
        raise CouldNotCheck(f"log {log.name} ends otherwise than when it was verified")


def _selected(log: VerifiedLog) -> Iterator[Sequence[Entry]]:
    """Chosen entries, each of which hashes lead to the verified root: its own proof, or the next entry's."""
    assert isinstance(log.keeper, ExportSource)  # noqa: S101 — nobody else keeps selections
    exported = log.keeper.export.logs[log.name]
    run: list[Entry] = []
    for line in exported.lines():
        found = entry_of(log.name, line.entry, sha256(b"\0" + line.entry).digest())
        if run and (line.position, line.entry[: len(found.leaf)]) != (run[-1].position + 1, run[-1].leaf):
            raise CouldNotCheck(f"{log.name}/{run[-1].position} is not proved")
        run.append(found)
        if line.proof is not None:
            try:
                verify_inclusion(line.position - 1, exported.size, found.leaf, list(line.proof), exported.root)
            except ProofError as error:
                raise CouldNotCheck(f"{log.name}/{line.position} is not proved: {error}") from None
            yield run
            run = []
    if run:
        raise CouldNotCheck(f"{log.name}/{run[-1].position} is not proved")


def entry_of(log: str, entry: bytes, leaf: bytes) -> Entry:
    """An entry from the bytes that were hashed. Raises CouldNotCheck."""
    if len(entry) < _header.size:
        raise CouldNotCheck(f"an entry of log {log} has only {len(entry)} bytes")
    _, position, recorded = _header.unpack_from(entry)
    return Entry(log, position, recorded, leaf, entry[_header.size :])


def verified(
    target: str, token: str, trust: Path | None, progress: checking.Progress = checking.say_progress, workers: int = 0
) -> Verified:
    """
    Check every log at a target: a region's URL, a DSN, a directory of tiles, an export.

    Raises NotIntact, and CouldNotCheck when anything could not be checked.
    """
    how = checking.how(trust, merkle_only=False, workers=workers)
    seen = checking.examine([target], token, None, progress, how)
    said = checking.told(seen)
    if said.status == checking.NOT_INTACT:
        raise NotIntact(said.to_text())
    if said.status != checking.INTACT:
        raise CouldNotCheck("; ".join(said.errors) or f"there is no log at {target}")
    logs = [VerifiedLog(copy.head, copy.report, copy.source) for copy in seen.copies if copy.report is not None]
    return Verified(target, logs, how.trust)


def ahead(parts: Iterator[T]) -> Iterator[T]:
    """The same, read by a thread a few parts ahead. What reading raises is raised here."""
    queue: Queue[Callable[[], T] | None] = Queue(PARTS_AHEAD)
    stopped = False

    def read() -> None:
        try:
            for part in parts:
                queue.put(lambda part=part: part)  # type: ignore[misc]
                if stopped:
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised where the parts are taken
            queue.put(_raiser(error))
        finally:
            if not stopped:
                queue.put(None)

    thread = Thread(target=read, daemon=True)
    thread.start()
    try:
        while (step := queue.get()) is not None:
            yield step()
    finally:
        stopped = True
        while not queue.empty():
            queue.get_nowait()


def _raiser(error: BaseException) -> Callable[[], NoReturn]:
    def raise_() -> NoReturn:
        if isinstance(error, Found):
            raise CouldNotCheck(f"the log has changed while it was read: {error.fault.detail}") from None
        raise error

    return raise_


class _Line(msgspec.Struct, gc=False):
    """As a region writes an entry. What it says of the leaf is left alone: the leaf is computed."""

    position: int
    entry: bytes


_read_line = msgspec.json.Decoder(_Line).decode


def _parts(source: UrlSource, head: Head, after: int, last: int) -> Iterator[Sequence[Raw]]:
    entries = source.entries(Head(head.log, head.origin, last, None), after=after, read=_line)
    with closing(entries):
        while part := [(position, entry) for position, entry, _ in islice(entries, _PART)]:
            yield part


def _line(line: bytes) -> tuple[int, bytes, bytes]:
    """Raises CouldNotCheck."""
    try:
        read = _read_line(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise CouldNotCheck("the region answers something else than entries") from None
    return read.position, read.entry, b""
