"""
The record of a run: what the load has asked and what it was answered, a line of JSON for each of the two, in the order of one clock.

It is the judge's only witness of what was promised to a caller, so it is written by who was promised it and before anything else is
done with the answer.

Invariants:
    - a line is in the file before the load goes on: whoever is killed has told what they had been answered;
    - `at_ns` is the monotonic clock of the load's process, the only clock by which «before» is judged;
    - a command is asked once or more, under one key; each try is asked, and then answered or failed, or neither if the load was killed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import msgspec

Phase = Literal["asked", "answered", "failed"]
Answered = dict[str, Any]


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """
    `op`: one command or read, through all of its tries. `attempt`: from 1. `caller` and `key` name a command (the record format says
    how). `batch`: the request that it came in with others. `at_least`: what a read was told to include.
    `status`, `answer`, `position`: of an answer, also of a problem; for an item of a batch its own. `reason`: why a try has failed.
    """

    op: str
    client: str
    at_ns: int
    phase: Phase
    attempt: int = 1
    region: str = ""
    kind: str = ""
    player: str = ""
    caller: str = ""
    key: str = ""
    path: str = ""
    body: Any = None
    batch: str = ""
    at_least: str = ""
    status: int = 0
    answer: Answered | None = None
    position: str = ""
    replayed: bool = False
    reason: str = ""


_encoder, _decoder = msgspec.json.Encoder(), msgspec.json.Decoder(Line)


class Recorder:
    """Appends to a file. Not for two processes at once."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, *lines: Line) -> None:
        """They are with the kernel when this returns: a killed process loses none of them."""
        self._file.write(b"".join(_encoder.encode(line) + b"\n" for line in lines))


def now_ns() -> int:
    return time.monotonic_ns()


class Torn(Exception):
    """A line in the midst of the record cannot be read."""


def lines(file: Path) -> Iterator[Line]:
    """All lines but a last one that was torn by the death of its writer. Raises Torn for any other that cannot be read."""
    whole, _, _ = file.read_bytes().rpartition(b"\n")
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            yield _decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise Torn(f"line {number} of {file}: {error}") from error


class Try(NamedTuple):
    """`answered_ns` None: nothing came back, or nothing that is an answer (`reason` says what)."""

    region: str
    asked_ns: int
    answered_ns: int | None
    status: int
    answer: Answered
    position: str
    reason: str


class Op(NamedTuple):
    """A command or a read, with its tries in the order in which they were asked."""

    op: str
    client: str
    kind: str
    player: str
    caller: str
    key: str
    path: str
    body: Any
    at_least: str
    tries: list[Try]


def ops(found: Iterator[Line] | list[Line]) -> list[Op]:
    """The lines by what was asked, in the order in which each was asked first. Raises Torn for an answer that nobody asked for."""
    made: dict[str, Op] = {}
    places: dict[tuple[str, int], int] = {}
    for line in found:
        if line.phase == "asked":
            op = made.get(line.op)
            if op is None:
                op = made[line.op] = Op(
                    line.op,
                    line.client,
                    line.kind,
                    line.player,
                    line.caller,
                    line.key,
                    line.path,
                    line.body,
                    line.at_least,
                    [],
                )
            places[line.op, line.attempt] = len(op.tries)
            op.tries.append(Try(line.region, line.at_ns, None, 0, {}, "", "no answer"))
            continue
        place = places.get((line.op, line.attempt))
        if place is None:
            raise Torn(f"try {line.attempt} of {line.op} was answered, and not asked")
        tries = made[line.op].tries
        answered = line.at_ns if line.phase == "answered" else None
        tries[place] = tries[place]._replace(
            answered_ns=answered,
            status=line.status,
            answer=line.answer or {},
            position=line.position,
            reason=line.reason,
        )
    return list(made.values())
