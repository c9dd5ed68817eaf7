"""Pages of lists of what is to be done, by when it is due: tickets, notices, contacts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Generic, LiteralString, NamedTuple, TypeVar

from domain.errors import Invalid
from domain.kernel import instant, parse_id
from queries import listing
from queries.asof import microseconds
from queries.context import Context, page_size, read_cursor
from queries.listing import Listing, Wanted

T = TypeVar("T")


class ByDue(NamedTuple, Generic[T]):
    """A list of what is due, by when. `what`: a word for what is listed; `make`: an item of a row.

    `words`: of filters by column, those that there are; `ids`: of others, the prefix of the identifiers that they are.
    """

    what: str
    listing: Listing
    make: Callable[..., T]
    words: Mapping[LiteralString, Collection[str]] = {}
    ids: Mapping[LiteralString, str] = {}

    async def page(
        self,
        context: Context,
        given: Mapping[LiteralString, str | None],
        due_before: str | None,
        cursor: str | None,
        limit: int,
    ) -> tuple[list[T], str | None]:
        """Those due first first, and where the next page begins. `given`: filters by column. Raises Invalid, InvalidId, UnknownMoment."""
        page_size(limit)
        equal = {name: value for name, value in given.items() if value is not None}
        for name, known in self.words.items():
            if name in equal and equal[name] not in known:
                raise Invalid(f"not a {name} of a {self.what}", parameter=name)
        for name, prefix in self.ids.items():
            if name in equal:
                parse_id(prefix, equal[name])
        wanted = Wanted(equal)
        if due_before is not None:
            wanted = wanted._replace(until=instant(microseconds(due_before, "due_before")))
        if cursor is not None:
            due_us, id_ = read_cursor(cursor, tuple[int, str])
            wanted = wanted._replace(after=(instant(due_us), id_))
        if any("\0" in value for value in equal.values()):
            return [], None  # no text of PostgreSQL holds it
        columns: LiteralString = f"{self.listing.at}, id, {self.listing.columns}"
        found = await listing.rows(context, self.listing._replace(columns=columns), wanted, limit)
        items = [self.make(*row[2:]) for row in found[:limit]]
        return items, listing.cursor(*found[limit - 1][:2]) if len(found) > limit else None
