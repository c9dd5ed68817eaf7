"""
What was asked for, and how far it has come: one file in the directory, `.unfinished`, until all is written.

Invariants:
    - the head up to which a log is exported is chosen once: a run that goes on takes the same;
    - two runs never write into one directory, and none into a directory that holds anything else.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from app.exporting.stopped import ExportStopped
from verifier.export import SUMS

UNFINISHED = ".unfinished"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments that decide what is exported. `trust`: the policy itself."""

    target: str
    log: str | None = None
    player: str | None = None
    jurisdiction: str | None = None
    types: tuple[str, ...] = ()
    first: str | None = None
    last: str | None = None
    disclose_to: str | None = None
    reason: str | None = None
    trust: str | None = None

    @property
    def chooses(self) -> bool:
        return bool(self.player or self.jurisdiction or self.types)


class Pinned(msgspec.Struct):
    """A log up to a head, of which the positions `first` to `last` are wanted. `note` is the head."""

    name: str
    origin: str
    kind: str
    note: str
    size: int
    root: str
    first: int
    last: int
    beyond: int


class Reached(msgspec.Struct):
    """How far the entries of one log were looked through: `position`; `written` are the bytes and lines kept so far."""

    log: str
    position: int = 0
    written: int = 0
    entries: int = 0
    transactions: list[str] = []
    streams: dict[str, int] = {}


class Plan(msgspec.Struct):
    """`players`: suffixes of those who were registered in the jurisdiction. `done`: what the manifest says of a log."""

    asked: Asked
    logs: list[Pinned]
    made_at: str
    disclosure: str
    players: list[str] | None = None
    reached: Reached | None = None
    done: dict[str, Reached] = {}
    tags: list[str] = []
    persons: list[str] = []


def new(asked: Asked, logs: list[Pinned]) -> Plan:
    return Plan(asked, logs, datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"), str(uuid.uuid4()))


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """The directory, made if need be, for this run alone. Raises ExportStopped."""
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportStopped(f"another run is writing into {out}") from None
        yield
    finally:
        os.close(handle)


def found(out: Path, asked: Asked) -> Plan | None:
    """The plan of an earlier run; None in an empty directory. Raises ExportStopped."""
    try:
        plan = msgspec.json.decode((out / UNFINISHED).read_bytes(), type=Plan)
    except FileNotFoundError:
        if (out / SUMS).exists():
            raise ExportStopped(f"{out} holds an export that is finished; name another directory") from None
        if any(out.iterdir()):
            raise ExportStopped(f"{out} is not empty; name a directory that is, or does not exist") from None
        return None
    except msgspec.MsgspecError as error:
        raise ExportStopped(f"the plan in {out} cannot be read ({error}); begin in an empty directory") from None
    if plan.asked != asked:
        raise ExportStopped(
            f"an export with other arguments was begun in {out}; repeat these, or name another directory"
        )
    return plan


def save(out: Path, plan: Plan) -> None:
    """Keep it, in one step."""
    new_file = out / f"{UNFINISHED}.new"
    new_file.write_bytes(msgspec.json.encode(plan))
    new_file.replace(out / UNFINISHED)
