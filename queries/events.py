"""
The events of all logs held here, chosen and merged, for whoever looks into what was done.

Logs have no common order. Several are merged by (recorded, log, position), which is for reading only: nothing that is
counted or decided may depend on it.

What is a player's is found in the logs: their own streams by name, payments by the commands that wrote to these. A ticket, a
request for approval, a notice and a contact may write to their own stream only, and a log has no index of whom they name: those
are found in the read models `tickets`, `approvals` and `notices` as far as these have come, and behind that by looking at each
entry. So the events are the log's own, and none is missing while a read model lags or has stopped; but a read model that was
falsified could hide a ticket (`countroom replay` asks none).

Invariants:
    - no statement looks at more than SCAN_ENTRIES entries, whatever is searched for;
    - the vector (log → position) says how far each log was looked at: whoever goes on from it misses nothing and sees nothing
      twice;
    - a log is read to the head that it had at the start, so a reader never chases the record of its own reading.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString, NamedTuple

from domain.catalog import NAMING
from domain.errors import Invalid, NotFound
from domain.kernel import PlayerId, parse_id
from queries.context import Context
from queries.history import LISTED, elsewhere_of, streams_of

SCAN_ENTRIES = 1_000
END_US = 2**63 - 1

_VECTOR = re.compile(r"([a-z][a-z0-9]*(?:\.[1-9][0-9]*)?)/(0|[1-9][0-9]{0,17})(?:/[0-9a-f]{16})?")
_ACTOR = re.compile(r"[^\s\x00-\x1f]{1,100}")  # what is asked for stands in the log, so it cannot be any text
_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*(\.\*)?")
_HEADS = """
    SELECT l.id, l.name, coalesce((SELECT e.position FROM ledger.entry AS e WHERE e.log = l.id ORDER BY e.position DESC LIMIT 1), 0)
      FROM ledger.log AS l ORDER BY l.name"""
_BODY = "convert_from(e.body, 'UTF8')::json"
_CHOSEN = f"""
    SELECT e.position, e.recorded, e.leaf, e.stream IS NOT NULL, e.body FROM ledger.entry AS e
     WHERE e.log = %s::smallint AND e.position > %s AND e.position <= %s
           AND (%s::text IS NULL OR coalesce(e.type, {_BODY} ->> 'type') = %s)
           AND (%s::text IS NULL OR starts_with(coalesce(e.type, {_BODY} ->> 'type'), %s))
           AND (%s::text IS NULL OR {_BODY} ->> 'actor' = %s)"""
_SCANNED = f"{_CHOSEN} ORDER BY e.position"
_PLACED = f"{_CHOSEN} AND e.position = ANY (%s) ORDER BY e.position"
_COMMANDS = f"""
    SELECT e.version, e.log, e.position - c.i + 1, c.n
      FROM ledger.entry AS e CROSS JOIN LATERAL json_to_record({_BODY} -> 'command') AS c (i int, n int)
     WHERE e.stream = %s AND e.version > %s ORDER BY e.version LIMIT %s"""
_PAYMENTS = """
    SELECT DISTINCT e.stream FROM ledger.entry AS e
     WHERE e.log = %s::smallint AND e.position = ANY (%s) AND starts_with(e.stream, 'transaction-')"""
_READ_MODELS = sorted(set(LISTED.values()))
_OPENING_TAGS = sorted(tag for aggregate, tags in NAMING.items() if aggregate.name in LISTED for tag in tags)
_OPENINGS = """
    SELECT p.log, CASE count(*) WHEN %s THEN min(p.position) ELSE 0 END
      FROM read.position AS p JOIN read.generation AS g USING (projection, generation)
     WHERE g.live AND p.projection = ANY (%s) GROUP BY p.log"""
_EACH: LiteralString = " UNION ALL ".join(
    [f"SELECT id FROM read.{name} WHERE player = %s AND id > %s" for name in LISTED]
)
_OPENED: LiteralString = f"SELECT id FROM ({_EACH}) AS few ORDER BY id LIMIT %s"
_OPENED_SINCE = f"""
    SELECT e.stream FROM ledger.entry AS e
     WHERE e.log = %s::smallint AND e.position > %s AND e.position <= %s
           AND e.type = ANY (%s) AND {_BODY} -> 'data' ->> 'player' = %s"""
_OF_STREAMS = f"""
    SELECT e.stream, e.version, e.log, e.position - c.i + 1, c.n
      FROM ledger.entry AS e CROSS JOIN LATERAL json_to_record({_BODY} -> 'command') AS c (i int, n int)
     WHERE e.stream = ANY (%s) AND (e.stream, e.version) > (%s, %s) ORDER BY e.stream, e.version LIMIT %s"""
_STREAMS_AT_ONCE = 50
_RECORDED = "SELECT e.recorded FROM ledger.entry AS e WHERE e.log = %s::smallint AND e.position = %s"

Vector = Mapping[str, int]


class Selection(NamedTuple):
    """What is wanted. `type`: a tag, or the beginning of tags with `.*` at its end. `since` ≤ recorded < `until`, in µs.

    `player`: all events of the commands that wrote to the player's own streams, payments, tickets, approvals, notices or
    contacts, as far as they count.
    """

    player: PlayerId | None = None
    actor: str | None = None
    type: str | None = None
    log: str | None = None
    since: int = 0
    until: int = END_US


class Row(NamedTuple):
    """An entry; `recorded` in µs."""

    log: str
    position: int
    recorded: int
    leaf: bytes
    counts: bool
    body: bytes

    @property
    def order(self) -> tuple[int, str, int]:
        return self.recorded, self.log, self.position


class Log(NamedTuple):
    """A log held here, up to its newest entry."""

    number: int
    name: str
    head: int


def parse_vector(text: str) -> dict[str, int]:
    """`eu/12,us/3`, or with leaves, as queries/causal.py writes it. Raises Invalid."""
    found: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        match = _VECTOR.fullmatch(part)
        if match is None or match[1] in found:
            raise Invalid("positions are written eu/12,us/3, each log once", parameter="after")
        found[match[1]] = int(match[2])
    return found


def write_vector(vector: Vector) -> str:
    return ",".join(f"{log}/{position}" for log, position in sorted(vector.items()))


def check(selection: Selection) -> Selection:
    """Raises Invalid, InvalidId for what can select nothing."""
    if selection.player is not None:
        parse_id("player", selection.player)
    if selection.type is not None and not _TYPE.fullmatch(selection.type):
        raise Invalid("a type is a tag, such as wallet.credited, or wallet.*", parameter="type")
    if selection.actor is not None and not _ACTOR.fullmatch(selection.actor):
        raise Invalid("an actor is a name without blanks, such as operator:ann", parameter="operator")
    return selection


async def logs(context: Context, only: str | None = None) -> list[Log]:
    """Those held here, as far as they go now; or the one called `only`. Raises NotFound."""
    found = [Log(*row) for row in await context.fetch(_HEADS)]
    if only is None:
        return found
    if chosen := [log for log in found if log.name == only]:
        return chosen
    raise NotFound("no such log is held here", log=only)


async def last_before(context: Context, log: Log, recorded: int) -> int:
    """The last position of the log that was recorded before this time (µs); 0 if there is none. By bisection."""
    low, high = 0, log.head
    if recorded in {0, END_US}:
        return high if recorded else low
    while low < high:
        middle = (low + high + 1) // 2
        ((at,),) = await context.fetch(_RECORDED, log.number, middle)
        low, high = (middle, high) if at < recorded else (low, middle - 1)
    return low


async def places_of(context: Context, player_id: PlayerId) -> dict[int, list[int]]:
    """By the number of the log, the positions of all events of commands that wrote to what is the player's.

    Whatever requests a payment writes to one of the player's own streams too, which is how payments are found.
    """
    places: dict[int, set[int]] = {}
    held = [log.name for log in await logs(context)]
    for stream in (*streams_of(player_id), *elsewhere_of(player_id, held)):
        version = 0
        while rows := await context.fetch(_COMMANDS, stream, version, SCAN_ENTRIES):
            version = rows[-1][0]
            for _, log, first, count in rows:
                places.setdefault(log, set()).update(range(first, first + count))
    others = sorted(await _payments_among(context, places) | await _opened(context, player_id))
    for start in range(0, len(others), _STREAMS_AT_ONCE):
        some, last = others[start : start + _STREAMS_AT_ONCE], ("", 0)
        while rows := await context.fetch(_OF_STREAMS, some, *last, SCAN_ENTRIES):
            last = rows[-1][0], rows[-1][1]
            for _, _, log, first, count in rows:
                places.setdefault(log, set()).update(range(first, first + count))
    return {log: sorted(found) for log, found in places.items()}


async def _payments_among(context: Context, places: Mapping[int, set[int]]) -> set[str]:
    """The streams of the payments that have events at these places, and those of their payouts."""
    found: set[str] = set()
    for log, positions in places.items():
        looked_at = sorted(positions)
        for start in range(0, len(looked_at), SCAN_ENTRIES):
            rows = await context.fetch(_PAYMENTS, log, looked_at[start : start + SCAN_ENTRIES])
            found.update(stream for (stream,) in rows)
    return found | {stream.replace("transaction-", "payout-", 1) for stream in found}


async def _opened(context: Context, player_id: PlayerId) -> set[str]:
    """The streams of the player's tickets, approvals, notices and contacts."""
    # before what was read, which may be further by then
    read = dict(await context.fetch(_OPENINGS, len(_READ_MODELS), _READ_MODELS))
    found: set[str] = set()
    last = ""
    while rows := await context.fetch(_OPENED, *(player_id, last) * len(LISTED), SCAN_ENTRIES):
        found.update(id_.replace("_", "-", 1) for (id_,) in rows)
        last = rows[-1][0]
    for log in await logs(context):
        for after in range(read.get(log.name, 0), log.head, SCAN_ENTRIES):
            upto = min(after + SCAN_ENTRIES, log.head)
            rows = await context.fetch(_OPENED_SINCE, log.number, after, upto, _OPENING_TAGS, player_id)
            found.update(stream for (stream,) in rows)
    return found


class _Tail:
    """What is chosen of one log, a page ahead. Everything up to `at` was looked at; `rows` wait to be taken."""

    def __init__(self, log: Log, after: int, last: int, places: Sequence[int] | None) -> None:
        self.log = log
        self.at = after
        self.last = last
        self.rows: deque[Row] = deque()
        self._places = None if places is None else deque(place for place in places if self.at < place <= last)

    @property
    def waits(self) -> bool:
        """Whether nothing can be said of its next entry before more is read."""
        return not self.rows and self.at < self.last

    @property
    def place(self) -> int:
        return self.rows[0].position - 1 if self.rows else self.at

    async def read(self, context: Context, selection: Selection) -> None:
        tag = selection.type
        exact, prefix = (None, tag[:-1]) if tag is not None and tag.endswith("*") else (tag, None)
        chosen = (exact, exact, prefix, prefix, selection.actor, selection.actor)
        if (places := self._places) is None:
            upto = min(self.at + SCAN_ENTRIES, self.last)
            rows = await context.fetch(_SCANNED, self.log.number, self.at, upto, *chosen)
        else:
            part = [places.popleft() for _ in range(min(SCAN_ENTRIES, len(places)))]
            upto = part[-1] if places else self.last
            rows = await context.fetch(_PLACED, self.log.number, self.at, upto, *chosen, part) if part else []
        self.rows.extend(Row(self.log.name, *row) for row in rows)
        self.at = upto


class Merged:
    """The chosen events of several logs, from a vector on to the heads of the moment."""

    def __init__(self, context: Context, selection: Selection, tails: Sequence[_Tail]) -> None:
        self._context = context
        self._selection = selection
        self._tails = tails

    @classmethod
    async def begin(cls, context: Context, selection: Selection, after: Vector) -> Merged:
        """Raises Invalid, InvalidId, NotFound."""
        check(selection)
        held = await logs(context, selection.log)
        if unknown := after.keys() - {log.name for log in held}:
            raise Invalid(f"no log {min(unknown)} is read here", parameter="after")
        return await cls.of(context, selection, held, after)

    @classmethod
    async def of(cls, context: Context, selection: Selection, held: Sequence[Log], after: Vector) -> Merged:
        """The same of these logs, each up to its `head`."""
        places = await places_of(context, selection.player) if selection.player else None
        tails = []
        for log in held:
            first = await last_before(context, log, selection.since)
            last = await last_before(context, log, selection.until)
            start = max(after.get(log.name, 0), min(first, last))
            tails.append(_Tail(log, start, last, None if places is None else places.get(log.number, [])))
        return cls(context, selection, tails)

    @property
    def vector(self) -> dict[str, int]:
        """How far each log was looked at and given out."""
        return {tail.log.name: tail.place for tail in self._tails}

    @property
    def done(self) -> bool:
        return not any(tail.rows or tail.waits for tail in self._tails)

    async def step(self, limit: int = SCAN_ENTRIES) -> list[Row]:
        """The next events, at most `limit`, perhaps none: each call reads at most one page of each log."""
        for tail in self._tails:
            if tail.waits:
                await tail.read(self._context, self._selection)
        taken: list[Row] = []
        while len(taken) < limit and not any(tail.waits for tail in self._tails):
            full = [tail for tail in self._tails if tail.rows]
            if not full:
                break
            taken.append(min(full, key=_next).rows.popleft())
        return taken


def _next(tail: Any) -> tuple[int, str, int]:
    order: tuple[int, str, int] = tail.rows[0].order
    return order
