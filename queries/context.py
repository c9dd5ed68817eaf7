"""What a query needs, and how lists are paged."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString, NamedTuple, TypeAlias, TypeVar

import msgspec
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis

from access.predicate import ALWAYS, Known, Predicate
from domain.errors import Invalid
from domain.kernel import OperatorId, PlayerId, Sealed
from domain.players import DataKey

LIMIT_MAX = 200
_NO_CURSOR = "not a cursor of this list"
_FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""µs since 1970 of the first and the last moment that a datetime can hold. (No position, version or amount of ours is larger.)"""

T = TypeVar("T")

OpenPersonal: TypeAlias = Callable[
    [PlayerId | OperatorId, str, DataKey, Mapping[str, Sealed]], Awaitable[Mapping[str, str]]
]
"""
(whose, event id, the key that the registration commits to, sealed fields by dotted path) → in the clear, those that this
region can open and may.
"""


MayKnow: TypeAlias = Callable[[Known], bool]
"""Whether the reader may learn of a secret case with these attributes."""


def know_nothing(_known: Known) -> bool:
    """For whoever may not."""
    return False


async def open_nothing(
    _whose: PlayerId | OperatorId, _event_id: str, _key: DataKey, _fields: Mapping[str, Sealed]
) -> Mapping[str, str]:
    """For whoever may not."""
    return {}


@dataclass(frozen=True, slots=True)
class Context:
    """`pool`: eventstore.postgres.pool of the role countroom_reader. `open_personal` is for what is sealed under players' keys,
    `open_operators` for what is under operators'. `sees`: which rows are answered (queries/seeing.py). `told`: whose personal
    data the answer tells: those of whom something was opened, and those found by something personal, which the query adds.
    `may_know`: of secret cases.
    """

    pool: AsyncConnectionPool[AsyncConnection[Any]]
    redis: Redis
    open_personal: OpenPersonal
    open_operators: OpenPersonal = open_nothing
    sees: Predicate = ALWAYS
    told: set[PlayerId | OperatorId] = field(default_factory=set)
    may_know: MayKnow = know_nothing

    async def fetch(self, query: LiteralString, *arguments: object) -> list[tuple[Any, ...]]:
        """The rows of one statement, which is one snapshot."""
        async with self.pool.connection() as connection, connection.cursor(binary=True) as cursor:
            await cursor.execute(query, arguments)
            return await cursor.fetchall()


class Made(NamedTuple):
    """
    From what an answer was made: the last entry of each log that is counted; by which code (None before the first, and until a
    release counts that tells); and when that was, None if that is not known.
    """

    positions: dict[str, int]
    code: str | None
    as_of: datetime | None = None


def page_size(limit: int) -> int:
    """Raises Invalid unless 1 ≤ limit ≤ 200."""
    if not 1 <= limit <= LIMIT_MAX:
        raise Invalid(f"limit is from 1 to {LIMIT_MAX}", limit=limit)
    return limit


def write_cursor(*place: str | int) -> str:
    """An opaque cursor from the place of a page's last item."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def read_cursor(cursor: str, kind: type[T]) -> T:
    """The place that a cursor of ours names: numbers are times, positions, versions or amounts. Raises Invalid for any other text."""
    try:
        place = msgspec.json.decode(
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True), type=kind
        )
    except (binascii.Error, ValueError, RecursionError):  # msgspec's are ValueErrors, and so is text that is not ASCII
        raise Invalid(_NO_CURSOR) from None
    for each in place if isinstance(place, tuple) else (place,):
        if (isinstance(each, int) and not _FIRST_US <= each <= LAST_US) or (isinstance(each, str) and "\0" in each):
            raise Invalid(_NO_CURSOR)  # no datetime, and no text of PostgreSQL, holds it
    return place
