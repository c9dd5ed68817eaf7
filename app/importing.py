"""
`countroom import players FILE.csv`: a table of players through the public REST API, each row a registration.

The file is CSV (RFC 4180) with a header line. Its columns are members of the body of POST /v1/players (docs/reference/api.md),
`country` and `currency` among them; an empty cell is a member that is not there; `consents` are words with blanks between.

A row's key is made of the file's digest and the line's number, so sending a file again records nothing twice, and an import
that was stopped goes on by being run again.

Invariants:
    - nothing is sent before the whole file has been read without a fault;
    - a row that is refused holds up no other, and is told with its line;
    - a dry run records nothing.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from app import sending
from app.sending import PATIENCE_S, ImportStopped, Problem, Progress, Result, Silent
from commands.players import RegisterPlayer

BATCH_ROWS = 250
COLUMNS = frozenset(RegisterPlayer.__struct_fields__)
NEEDED = frozenset({"country", "currency"})

_encode = msgspec.json.Encoder().encode


class Row(NamedTuple):
    line: int
    body: dict[str, Any]


class Refused(msgspec.Struct, frozen=True):
    """A row that was not taken. `pointer`: which member is wrong, if it is one."""

    line: int
    code: str
    detail: str
    pointer: str | None = None


class Imported(msgspec.Struct, frozen=True):
    """`pending`: of the players, those who wait for something; `repeated`: those who were there from an earlier run.

    In a dry run: what it would come to.
    """

    dry_run: bool
    players: int
    pending: int
    repeated: int
    refused: list[Refused]
    seconds: float

    @property
    def status(self) -> int:
        """0 every row is taken, 1 some were refused."""
        return int(bool(self.refused))


async def import_players(
    file: Path,
    url: str,
    token: str,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
    patience_s: float = PATIENCE_S,
) -> Imported:
    """A batch that is not answered is sent again for `patience_s`. Raises ImportStopped."""
    began = time.monotonic()
    try:
        raw = await asyncio.to_thread(file.read_bytes)
        rows = parse(raw)
    except (OSError, ValueError, csv.Error) as error:
        raise ImportStopped(f"{file}: {error}") from error
    told = progress or Silent()
    told.start(len(rows))
    digest = hashlib.sha256(raw).hexdigest()[:32]
    results: list[tuple[Row, Result]] = []
    try:
        async with sending.to(url, token, told, patience_s) as sender:
            for part in _parts(rows):
                items = [{"key": f"{digest}:{row.line}", "path": "/v1/players", "body": row.body} for row in part]
                body = _encode({"items": items, "dry_run": dry_run})
                results += zip(part, await sender.send(body, len(part)), strict=True)
                told.advance(len(part))
    finally:
        told.stop()
    taken = [result for _, result in results if not result.refused]
    return Imported(
        dry_run=dry_run,
        players=len(taken),
        pending=sum(msgspec.json.decode(result.body)["status"] == "pending" for result in taken),
        repeated=sum(result.repeated for result in taken),
        refused=[_refused(row, result.problem()) for row, result in results if result.refused],
        seconds=round(time.monotonic() - began, 3),
    )


def parse(raw: bytes) -> list[Row]:
    """The rows of a file. Raises ValueError, naming the line."""
    table = csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
    columns = table.fieldnames or ()
    if unknown := sorted(set(columns) - COLUMNS):
        raise ValueError(f"no player has {', '.join(unknown)}; the columns are some of {', '.join(sorted(COLUMNS))}")
    if missing := sorted(NEEDED - set(columns)):
        raise ValueError(f"the header does not name {', '.join(missing)}")
    if len(set(columns)) != len(columns):
        raise ValueError("the header names a column twice")
    return [_row(table.line_num, cells) for cells in table]


def _row(line: int, cells: dict[str, Any]) -> Row:
    if None in cells or None in cells.values():
        raise ValueError(f"line {line} does not have the columns of the header")
    body: dict[str, Any] = {name: cell for name, cell in cells.items() if cell}
    if "consents" in body:
        body["consents"] = body["consents"].split()
    return Row(line, body)


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for first in range(0, len(rows), BATCH_ROWS):
        yield rows[first : first + BATCH_ROWS]


def _refused(row: Row, problem: Problem) -> Refused:
    return Refused(row.line, problem.code, problem.detail or problem.title, problem.pointer)


def in_words(done: Imported) -> str:
    """For people: the sums, and each row that was refused."""
    what = "would be registered" if done.dry_run else "are registered"
    taken = f"{done.players} players {what}, {done.pending} of them pending, {done.repeated} were there already"
    said = [f"{taken}; {len(done.refused)} rows refused; {done.seconds:.1f} s"]
    for each in done.refused:
        where = f" at {each.pointer}" if each.pointer else ""
        said.append(f"line {each.line}: {each.detail} [{each.code}]{where}")
    return "\n".join(said)
