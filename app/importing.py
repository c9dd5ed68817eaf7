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

import csv
import hashlib
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import msgspec

from app.cdnow import Progress, Silent
from commands.players import RegisterPlayer

BATCH_ROWS = 250
PATIENCE_S = 60.0
_PAUSE_S = 0.5
_ANSWER_S = 60.0
_OK, _TOO_MANY, _REFUSED, _FAILED = 200, 429, 400, 500
COLUMNS = frozenset(RegisterPlayer.__struct_fields__)
NEEDED = frozenset({"country", "currency"})

_encode = msgspec.json.Encoder().encode


class PlayersNotImported(Exception):
    """The file cannot be read, or the region cannot be asked."""


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


class _Result(msgspec.Struct, frozen=True):
    status: int
    body: dict[str, Any]
    repeated: bool = False


class _Answer(msgspec.Struct, frozen=True):
    items: list[_Result]


def import_players(
    file: Path,
    url: str,
    token: str,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
    patience_s: float = PATIENCE_S,
) -> Imported:
    """A batch that is not answered is sent again for `patience_s`. Raises PlayersNotImported."""
    began = time.monotonic()
    try:
        raw = file.read_bytes()
        rows = parse(raw)
    except (OSError, ValueError, csv.Error) as error:
        raise PlayersNotImported(f"{file}: {error}") from error
    told = progress or Silent()
    told.start(len(rows))
    digest = hashlib.sha256(raw).hexdigest()[:32]
    results: list[tuple[Row, _Result]] = []
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        with httpx2.Client(base_url=url, headers=headers, timeout=_ANSWER_S, trust_env=False) as client:
            for part in _parts(rows):
                items = [{"key": f"{digest}:{row.line}", "path": "/v1/players", "body": row.body} for row in part]
                results += zip(part, _sent(client, items, told, patience_s, dry_run=dry_run), strict=True)
                told.advance(len(part))
    finally:
        told.stop()
    taken = [result for _, result in results if result.status < _REFUSED]
    return Imported(
        dry_run=dry_run,
        players=len(taken),
        pending=sum(result.body.get("status") == "pending" for result in taken),
        repeated=sum(result.repeated for result in taken),
        refused=[_refused(row, result) for row, result in results if result.status >= _REFUSED],
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


def _sent(
    client: httpx2.Client, items: Sequence[dict[str, Any]], progress: Progress, patience_s: float, *, dry_run: bool
) -> list[_Result]:
    """A result for each, sent until there is one: the keys make that harmless. Raises PlayersNotImported."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            response = client.post("/v1/batch", content=_encode({"items": items, "dry_run": dry_run}))
        except httpx2.UnsupportedProtocol as error:
            raise PlayersNotImported(str(error)) from error
        except httpx2.HTTPError as error:
            reason = str(error) or type(error).__name__
        else:
            reason, results = _read(response, len(items))
            if results is not None:
                return results
        if time.monotonic() + _PAUSE_S > deadline:
            raise PlayersNotImported(f"{client.base_url} has not taken a batch for {patience_s:g} s ({reason})")
        progress.waiting(reason)
        time.sleep(_PAUSE_S)


def _read(response: httpx2.Response, count: int) -> tuple[str, list[_Result] | None]:
    """The results; none, and why, if the batch should be sent again. Raises PlayersNotImported."""
    if response.status_code != _OK:
        reason = f"status {response.status_code}: {response.text[:200]}"
        if _passes(response.status_code):
            return reason, None
        raise PlayersNotImported(f"{response.url}: {reason}")
    try:
        results = msgspec.json.decode(response.content, type=_Answer).items
    except msgspec.DecodeError:
        results = []
    if len(results) != count:
        raise PlayersNotImported(f"{response.url} does not answer as the API of a region does")
    passing = [result.status for result in results if _passes(result.status)]
    return (f"status {passing[0]} of an item", None) if passing else ("", results)


def _passes(status: int) -> bool:
    return status >= _FAILED or status == _TOO_MANY


def _refused(row: Row, result: _Result) -> Refused:
    body = result.body
    return Refused(row.line, str(body.get("code")), str(body.get("detail")), body.get("pointer"))


def in_words(done: Imported) -> str:
    """For people: the sums, and each row that was refused."""
    what = "would be registered" if done.dry_run else "are registered"
    taken = f"{done.players} players {what}, {done.pending} of them pending, {done.repeated} were there already"
    said = [f"{taken}; {len(done.refused)} rows refused; {done.seconds:.1f} s"]
    for each in done.refused:
        where = f" at {each.pointer}" if each.pointer else ""
        said.append(f"line {each.line}: {each.detail} [{each.code}]{where}")
    return "\n".join(said)
