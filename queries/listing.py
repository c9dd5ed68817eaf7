"""
Pages of long lists: rows in the order of a time and an id, those alone that fit.

A filter can *lead* where an index has its columns before the time and the id. A page is then one stretch of that index: bounds
and order are rows (columns, time, id), which no other index gives. (Written as an equality the columns would drop out of the
order, and a plan made without the values might walk the whole table along another index, to find the few that fit.)

Invariants:
    - what leads does not change the order, so a cursor of one page holds for the next;
    - where one filter is given and can lead, a page reads the rows that it shows;
    - of several the one with the fewest rows leads, as far as counting a thousand tells;
    - what is not seen is left out where rows are read: no page, count or cursor tells of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, NamedTuple

from domain.kernel import EPOCH
from queries.context import Context, write_cursor
from queries.seeing import where

COUNTED_ROWS = 1_000
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Lead = tuple[LiteralString, ...]
Condition = tuple[LiteralString, object]
"""SQL with one placeholder, and the value for it."""


class Listing(NamedTuple):
    """`table`: what stands behind FROM, with the values for its placeholders. `at`: the column of the time.

    `leads`: columns of which an index (…, at, id) begins with all. `attributes`: what policies may ask of a row; rows of a listing
    that says nothing of them are shown only to whom they are shown whatever they hold.
    """

    table: LiteralString
    columns: LiteralString
    at: LiteralString
    leads: Sequence[Lead]
    newest_first: bool = False
    values: Sequence[object] = ()
    attributes: Mapping[str, LiteralString | None] = {}


class Wanted(NamedTuple):
    """Rows whose columns are `equal` to these values, whose time is since ≤ … < until, and of which the conditions hold.

    `after`: the time and the id of the last row of the page before.
    """

    equal: Mapping[LiteralString, object] = {}
    since: datetime = _FIRST
    until: datetime = _LAST
    conditions: Sequence[Condition] = ()
    after: tuple[datetime, str] | None = None


class _Part(NamedTuple):
    sql: LiteralString
    values: Sequence[object]


async def rows(context: Context, listing: Listing, wanted: Wanted, limit: int) -> list[tuple[Any, ...]]:
    """The next rows of those that are seen, and one more if there are more than `limit`. Raises Untranslatable."""
    seen = where(context.sees, listing.attributes)
    lead = await _leading(context, listing, wanted)
    stretch = _stretch(listing, wanted, lead)
    others = [(f"{name} = %s", value) for name, value in wanted.equal.items() if name not in lead]
    rest = [*others, *wanted.conditions]
    found: LiteralString = " AND ".join([stretch.sql, *(condition for condition, _ in rest), seen.text])
    return await context.fetch(
        f"SELECT {listing.columns} FROM {listing.table} WHERE {found} {_order(listing, lead)} LIMIT %s",
        *listing.values,
        *stretch.values,
        *(value for _, value in rest),
        *seen.values,
        limit + 1,
    )


def cursor(at: datetime, id_: str) -> str:
    """Where a page has ended."""
    return write_cursor((at - EPOCH) // _MICROSECOND, id_)


async def _leading(context: Context, listing: Listing, wanted: Wanted) -> Lead:
    """The columns that lead: those which leave the fewest rows."""
    given = [lead for lead in listing.leads if wanted.equal.keys() >= set(lead)]
    able = [lead for lead in given if not any(set(lead) < set(more) for more in given)]
    if len(able) <= 1:
        return able[0] if able else ()
    stretches = [_stretch(listing, wanted, lead) for lead in able]
    counts: LiteralString = ", ".join(
        [
            f"(SELECT count(*) FROM (SELECT FROM {listing.table} WHERE {stretch.sql} {_order(listing, lead)} LIMIT %s) AS few)"
            for lead, stretch in zip(able, stretches, strict=True)
        ]
    )
    values = [value for stretch in stretches for value in (*stretch.values, COUNTED_ROWS)]
    [found] = await context.fetch(f"SELECT {counts}", *values)
    return able[found.index(min(found))]


def _stretch(listing: Listing, wanted: Wanted, lead: Lead) -> _Part:
    """The rows between the bounds, of these values in the columns that lead."""
    low, high = (wanted.since, ""), (wanted.until, "")
    if wanted.after is not None and listing.newest_first:
        high = min(high, wanted.after)
    elif wanted.after is not None:
        low = max(low, wanted.after)
    led = [wanted.equal[name] for name in lead]
    columns: LiteralString = ", ".join([*lead, listing.at, "id"])
    places: LiteralString = ", ".join(["%s"] * (len(lead) + 2))
    return _Part(f"({columns}) > ({places}) AND ({columns}) < ({places})", [*led, *low, *led, *high])


def _order(listing: Listing, lead: Lead) -> LiteralString:
    direction: LiteralString = " DESC" if listing.newest_first else ""
    return "ORDER BY " + ", ".join([column + direction for column in (*lead, listing.at, "id")])
