"""
Making an export: plan, logs, what lies beside them, sums.

Invariants:
    - no entry is written that does not hash, through the tiles above it, to the root of the pinned head;
    - a run that goes on reads again what an earlier one wrote, and believes it no more than the source.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from app.exporting import copying, disclosing, enclosed, plan, selection, target
from app.exporting.plan import Asked, Pinned, Plan, Reached
from app.exporting.selecting import select
from app.exporting.stopped import ExportStopped, NotIntact
from app.exporting.target import Exportable
from replay.moment import NoMoment, parse_position, parse_time
from verifier.body import region_of
from verifier.export import Kind
from verifier.faults import CouldNotCheck
from verifier.parallel import in_order
from verifier.policy import PolicyError, parse_policy
from verifier.tiles import NOTHING_THERE, TileError, TileReader

PROGRESS_EVERY = 4096  # entries
_WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
RESERVED = frozenset({"events"})  # names beside those of logs

Progress = Callable[[str, int, int], None]
"""(log, position, last position)"""


def export(asked: Asked, out: Path, token: str, progress: Progress, workers: int = 1) -> dict[str, Any]:
    """
    Make an export, or go on with one: {"export", "logs", "beyond", "skipped", "trust", "keys"}.

    `asked.target` may hold a password, which is written nowhere. Raises ExportStopped, NotIntact, CouldNotCheck.
    """
    selection.check(asked.player, asked.jurisdiction, asked.types)
    if asked.disclose_to is not None and not _WORD.fullmatch(asked.reason or ""):
        raise ExportStopped("keys are disclosed for a reason: give --reason, a word such as order-17-26")
    with target.opened(asked.target, token) as source, _told(asked.target), plan.locked(out):
        if asked.disclose_to is not None and not source.is_url:
            raise ExportStopped("keys are disclosed by a region: give its URL instead of a DSN")
        at, asked = asked.target, msgspec.structs.replace(asked, target=source.url)
        logs = {log.name: log for log in source.logs}
        skipped: dict[str, str] = {}
        going = plan.found(out, asked)
        if going is None:
            going = plan.new(asked, _pin(asked, logs, skipped))
            plan.save(out, going)
        for log in going.logs:
            if log.name not in logs:
                raise ExportStopped(f"log {log.name} is no longer there")
        return _Run(going, logs, at, out, token, workers, progress).finish(skipped)


class _Run:
    """One run of a plan."""

    def __init__(
        self,
        going: Plan,
        logs: Mapping[str, Exportable],
        at: str,
        out: Path,
        token: str,
        workers: int,
        progress: Progress,
    ) -> None:
        self._plan = going
        self._logs = logs
        self._at = at
        self._workers = workers
        self._out = out
        self._token = token
        self._progress = progress
        self._discloses = going.asked.disclose_to is not None
        self._tags = set(going.tags)
        self._persons = set(going.persons)

    def finish(self, skipped: dict[str, str]) -> dict[str, Any]:
        going, out, asked = self._plan, self._out, self._plan.asked
        if asked.jurisdiction is not None and going.players is None:
            going.players = sorted(self._registered(asked.jurisdiction))
            self._save()
        for log in going.logs:
            if log.name not in going.done:
                going.done[log.name] = self._select(log) if asked.chooses else self._copy(log)
                self._save()
        logs = [log for log in going.logs if going.done[log.name].entries]
        skipped |= {log.name: "nothing of it is chosen" for log in going.logs if log not in logs}
        if not logs:
            enclosed.clear(out)
            raise ExportStopped("nothing is chosen by this")
        keys = []
        if asked.disclose_to is not None and asked.reason is not None:
            keys = disclosing.disclose(
                asked.target, self._token, self._persons, asked.disclose_to, asked.reason, going.disclosure, out
            )
        enclosed.write(out, going, logs, sorted(self._tags))
        return {
            "export": str(out),
            "logs": enclosed.logs_of(going, logs),
            "beyond": {log.name: log.beyond for log in logs},
            "skipped": skipped,
            "trust": asked.trust is not None,
            "keys": keys,
        }

    def _copy(self, log: Pinned) -> Reached:
        """All entries of a range, as tiles and bundles, and what proves them; of a whole log, every head, too."""
        folder = self._out / log.name
        enclosed.write_file(folder / "checkpoint", log.note.encode())
        tasks = list(copying.stretches(log.first, log.last))
        copier = copying.Copier(self._at, self._token, log, folder, persons=self._discloses)
        workers = self._workers if len(tasks) > copying.STRETCHES_FOR_WORKERS else 1
        with closing(copier), closing(in_order(copier, tasks, workers)) as copies:
            for copied in copies:
                self._tags |= copied.tags
                self._persons |= copied.persons
                self._progress(log.name, copied.last, log.last)
        if log.kind == Kind.WHOLE:
            for size, note in self._logs[log.name].heads(log.size):
                enclosed.write_file(folder / "heads" / str(size), note)
        return Reached(log.name, log.last, entries=log.last - log.first + 1)

    def _select(self, log: Pinned) -> Reached:
        """The chosen entries, a line each."""
        going, asked = self._plan, self._plan.asked
        players = going.players
        if asked.player is not None:
            suffix = asked.player.removeprefix("player_")
            players = [suffix] if players is None or suffix in players else []
        enclosed.write_file(self._out / log.name / "checkpoint", log.note.encode())
        reached = going.reached if going.reached and going.reached.log == log.name else Reached(log.name)
        choice = selection.Choice(players, asked.types, reached.transactions)
        reader = TileReader(self._logs[log.name].fetch, log.size, bytes.fromhex(log.root))

        def save(reached: Reached) -> None:
            going.reached = reached
            self._save()

        done = select(log, reader, choice, reached, self._out / log.name, self._note, save, self._progress)
        going.reached = None
        return done

    def _registered(self, country: str) -> Iterator[str]:
        """The players of a country, whichever log they registered in: events of one log may name players of another."""
        for log in self._plan.logs:
            reader = TileReader(self._logs[log.name].fetch, log.size, bytes.fromhex(log.root))
            for position, entry in enumerate(reader.entries(0, log.last), 1):
                if b"player.registered" in entry:
                    found = selection.registered_in(event_in(entry, position, log.name), country)
                    if found:
                        yield found
                if not position % PROGRESS_EVERY:
                    self._progress(log.name, position, log.last)

    def _note(self, event: selection.Event) -> None:
        """An event that is exported."""
        self._tags.add(event.type)
        if self._discloses and (found := selection.person(event.stream)):
            self._persons.add(found)

    def _save(self) -> None:
        self._plan.tags, self._plan.persons = sorted(self._tags), sorted(self._persons)
        plan.save(self._out, self._plan)


def event_in(entry: bytes, position: int, log: str) -> selection.Event:
    try:
        return selection.read_event(entry[selection.HEADER_BYTES :])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotIntact(f"the entry {log}/{position} is no event: {error}") from None


def _pin(asked: Asked, logs: Mapping[str, Exportable], skipped: dict[str, str]) -> list[Pinned]:
    """The newest published heads of the logs that are wanted, and the positions that are. Raises ExportStopped."""
    named = {found[0] for each in (asked.first, asked.last) if each and (found := parse_position(each))}
    named |= {asked.log} if asked.log else set()
    if unknown := named - logs.keys():
        raise ExportStopped(f"there is no log {', '.join(unknown)} at {asked.target}; there are {', '.join(logs)}")
    if len(named) > 1:
        raise ExportStopped(f"from, to and --log name different logs: {', '.join(sorted(named))}")
    pinned = []
    for log in (logs[name] for name in (named or logs)):
        if region_of(log.origin) != log.name or log.name in RESERVED:
            raise ExportStopped(f"the log {log.name!r} cannot be exported under this name")
        if log.note is None:
            skipped[log.name] = "no head of it is published yet"
            continue
        size, root = target.checkpoint_of(log.note, log.origin)
        first, last = _positions(asked, log, size, root)
        if first > last:
            skipped[log.name] = "nothing of it lies between these moments"
            continue
        kind = Kind.SELECTION if asked.chooses else Kind.RANGE if asked.first or asked.last else Kind.WHOLE
        pinned.append(
            Pinned(
                log.name, log.origin, kind, log.note.decode(), size, root.hex(), first, last, max(log.length - size, 0)
            )
        )
    if not pinned:
        raise ExportStopped("; ".join(f"{name}: {why}" for name, why in skipped.items()) or "there is no log")
    _check_trust(asked.trust, pinned)
    return pinned


def _positions(asked: Asked, log: Exportable, size: int, root: bytes) -> tuple[int, int]:
    """The first and the last position between two moments, both included. Raises ExportStopped."""
    reader = TileReader(log.fetch, size, root)

    def recorded(index: int) -> int:
        return int.from_bytes(next(reader.entries(index, index + 1))[40:48])

    def position(text: str, bisect: Callable[..., int]) -> int:
        named = parse_position(text)
        if named is None:
            return bisect(range(size), parse_time(text), key=recorded)
        if named[1] > size:
            raise ExportStopped(f"the newest published head of log {log.name} has {size} entries: there is no {text}")
        return named[1] - (bisect is bisect_left)

    first = position(asked.first, bisect_left) + 1 if asked.first else 1
    return first, position(asked.last, bisect_right) if asked.last else size


def _check_trust(trust: str | None, logs: list[Pinned]) -> None:
    """Raises ExportStopped for a policy that says nothing of a log."""
    if trust is None:
        return
    try:
        known = {log.key.name for log in parse_policy(trust.encode()).logs}
    except PolicyError as error:
        raise ExportStopped(f"the policy cannot be read: {error}") from None
    for log in logs:
        if log.origin not in known:
            raise ExportStopped(f"the policy lists no key of the log {log.origin}")


@contextmanager
def _told(at: str) -> Iterator[None]:
    """What readers and disks raise, as what the caller can understand."""
    try:
        yield
    except TileError as error:
        raise NotIntact(f"what is kept there does not lead to the head that was signed: {error}") from None
    except NoMoment as error:
        raise ExportStopped(str(error)) from None
    except NOTHING_THERE as missing:
        if isinstance(missing, CouldNotCheck):
            raise
        raise ExportStopped(f"entries or tiles below the published head are missing: {missing}") from None
    except OSError as error:
        raise ExportStopped(f"{error.filename or at}: {error.strerror}; the same command goes on") from None
