"""
Operators and tokens: who may come in, as lists show it. What lets somebody in is read from the log itself (access/directory.py).

Invariant: nothing is counted here that the domain does not count: `state` is folded by the aggregate; the columns beside it are
read off it, and names stay sealed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

import msgspec

from domain.kernel import Aggregate, Event
from domain.operators import OPERATORS, Invited
from domain.tokens import TOKENS, Issued
from projections.columns import as_shown, bigint, text, times
from projections.folded import in_order
from projections.memory import Tables
from projections.postgres import Cursor
from projections.projection import Events, OutOfOrder
from projections.sealed import words
from projections.state import Row, Table

_encode = msgspec.json.Encoder(order="deterministic").encode
_COLUMNS = ("id", "version", "status", "since", "words", "state")


class Since(msgspec.Struct):
    """What happened on a stream, in order, up to `version`. `began_us` and `words`: of its first event, if that is among it."""

    version: int = 0
    began_us: int | None = None
    words: str | None = None
    events: list[tuple[Event, datetime]] = []


class Changes(msgspec.Struct):
    """By id."""

    operator: dict[str, Since] = {}
    token: dict[str, Since] = {}


class Operators:
    name = "operators"
    tables: ClassVar[Sequence[Table]] = (Table("operator", _COLUMNS), Table("token", _COLUMNS))

    def changes(self, events: Events) -> Changes:
        return Changes(_since(events, OPERATORS, Invited), _since(events, TOKENS, Issued))

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        for aggregate, happened in ((OPERATORS, changes.operator), (TOKENS, changes.token)):
            if not happened:
                continue
            await cursor.execute(
                f"SELECT id, status, (extract(epoch FROM since) * 1000000)::bigint, words, state::text"
                f" FROM {schema}.{aggregate.name} WHERE id = ANY (%b)",
                (text(list(happened)),),
            )
            before = {row[0]: (row[0], 0, *row[1:]) for row in await cursor.fetchall()}
            ids, versions, statuses, since, sealed, states = zip(*_rows(aggregate, before, happened), strict=True)
            await cursor.execute(
                f"""
                INSERT INTO {schema}.{aggregate.name} ({", ".join(_COLUMNS)})
                SELECT id, version, status, since, words, state::json
                  FROM unnest(%b, %b, %b, %b, %b, %b) AS f ({", ".join(_COLUMNS)})
                ON CONFLICT (id) DO UPDATE
                   SET version = excluded.version, status = excluded.status, state = excluded.state""",
                (text(ids), bigint(versions), text(statuses), times(since), text(sealed), text(states)),
            )

    def fold(self, tables: Tables, changes: Changes) -> None:
        renewed = [
            (tables[aggregate.name], _rows(aggregate, tables[aggregate.name], happened))
            for aggregate, happened in ((OPERATORS, changes.operator), (TOKENS, changes.token))
        ]
        for table, rows in renewed:
            table.update({row[0]: as_shown(*row) for row in rows})


def _since(events: Events, aggregate: Aggregate[Any], first: type[Event]) -> dict[str, Since]:
    found: dict[str, Since] = {}
    for recorded in in_order(events, aggregate.events.values()):
        since = found.setdefault(recorded.body.stream.replace("-", "_", 1), Since())
        since.version = recorded.body.version
        since.events.append((recorded.event, recorded.at))
        if isinstance(recorded.event, first):
            since.began_us, since.words = recorded.recorded, words(recorded)
    return found


def _rows(aggregate: Aggregate[Any], before: Mapping[str, Row], happened: Mapping[str, Since]) -> list[Row]:
    """The rows that follow from those before and from what happened since. Raises OutOfOrder."""
    rows: list[Row] = []
    for id_, since in happened.items():
        if (id_ in before) is (since.began_us is not None):
            raise OutOfOrder(f"{id_} goes on before it began, or began twice")
        _, _, _, began_us, sealed, stored = before.get(id_, (id_, 0, "", since.began_us, since.words, None))
        state = aggregate.initial if stored is None else msgspec.json.decode(stored, type=aggregate.state)
        for event, at in since.events:
            state = aggregate.evolve(state, event, at)
        rows.append((id_, since.version, str(state.status), began_us, sealed, _encode(state).decode()))
    return rows
