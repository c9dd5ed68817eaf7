"""
Whose data keys other regions made, as far as the logs held here say, and what of each is still to be had (vault.copy).

The copies themselves lie in the vault, beside the keys that were made here. This is only the list, and follows from the logs: it
can be made anew by deleting it. A player who was handed over is told more of, and erased, in another log than the key was made
in: that counts as well, whichever of the logs is read first.

Invariants:
    - how far a log was read, and what it said up to there, are written together;
    - what is wanted is asked of the vault's own rows, so whatever was lost or refused is wanted again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from eventstore import packing
from eventstore.record import Entry
from eventstore.vault import KEPT

_FOLLOWED = """
    SELECT l.id, coalesce(f.position, 0), coalesce(e.position, 0)
      FROM ledger.log AS l LEFT JOIN vault.followed AS f ON f.log = l.id
           LEFT JOIN LATERAL (SELECT e.position FROM ledger.entry AS e WHERE e.log = l.id
                               ORDER BY e.position DESC LIMIT 1) AS e ON true
     WHERE l.name = %s"""
_SAID = """
    SELECT e.position, e.recorded, e.leaf, e.body FROM ledger.entry AS e
     WHERE e.log = %s::smallint AND e.position > %s AND e.position <= %s AND e.type = ANY (%b) ORDER BY e.position"""
_FOLLOW = """
    INSERT INTO vault.followed (log, position) VALUES (%s, %s)
    ON CONFLICT (log) DO UPDATE SET position = greatest(followed.position, excluded.position)"""
_NEWEST = """
    (SELECT d.jurisdiction FROM ledger.entry AS e
            CROSS JOIN LATERAL (SELECT convert_from(e.body, 'UTF8')::json -> 'data' ->> 'jurisdiction') AS d (jurisdiction)
      WHERE e.stream = 'player-' || s.subject AND e.type = 'player.profile_recorded' AND d.jurisdiction <> ''
      ORDER BY e.version DESC LIMIT 1)"""
_MADE = f"""
    INSERT INTO vault.copy (log, subject, key, commitment, jurisdiction, told)
    SELECT s.log, s.subject, s.key, s.commitment, coalesce({_NEWEST}, s.jurisdiction), s.told
      FROM (VALUES (%s::smallint, %s::text, %s::uuid, %s::text, %s::text, %s::bigint))
           AS s (log, subject, key, commitment, jurisdiction, told)
     WHERE NOT EXISTS (SELECT FROM ledger.entry AS e WHERE e.stream = 'player-' || s.subject AND e.type = 'player.erased')
    ON CONFLICT DO NOTHING"""
_TOLD = f"""
    UPDATE vault.copy AS s
       SET jurisdiction = coalesce({_NEWEST}, s.jurisdiction), again = 'epoch',
           told = CASE WHEN s.log = %s THEN greatest(s.told, %s) ELSE s.told END
     WHERE s.subject = %s"""
_GONE = "DELETE FROM vault.copy WHERE subject = %s"
_MADE_ELSEWHERE = """
    SELECT k.subject, k.id::text FROM vault.data_key AS k
     WHERE k.subject = ANY (%b) AND NOT EXISTS (SELECT FROM vault.copy AS c WHERE c.subject = k.subject AND c.log = %s)"""
_LOST = """
    UPDATE vault.copy AS c SET done = 0
     WHERE c.log = (SELECT l.id FROM ledger.log AS l WHERE l.name = %s) AND c.done > 0
           AND NOT EXISTS (SELECT FROM vault.data_key AS k WHERE k.id = c.key)"""
_WANTED = """
    SELECT c.subject, c.key::text, c.commitment, c.jurisdiction, c.told, c.done
      FROM ledger.log AS l CROSS JOIN unnest(%b) AS j (jurisdiction)
           CROSS JOIN LATERAL (
               SELECT * FROM vault.copy AS c
                WHERE c.log = l.id AND c.jurisdiction = j.jurisdiction AND c.done < c.told AND c.again <= now()
                ORDER BY c.told LIMIT %s) AS c
     WHERE l.name = %s ORDER BY c.told LIMIT %s"""
_HELD = """
    SELECT c.subject
      FROM ledger.log AS l CROSS JOIN unnest(%b) AS j (jurisdiction)
           CROSS JOIN LATERAL (
               SELECT * FROM vault.copy AS c
                WHERE c.log = l.id AND c.jurisdiction = j.jurisdiction AND c.done > 0 LIMIT %s) AS c
     WHERE l.name = %s LIMIT %s"""
_REFUSED = """
    UPDATE vault.copy AS c SET refused = r.why, again = now() + make_interval(secs => %s)
      FROM unnest(%b, %b) AS r (subject, why) WHERE c.subject = r.subject"""
_JURISDICTIONS = """
    SELECT DISTINCT c.jurisdiction FROM vault.copy AS c JOIN ledger.log AS l ON l.id = c.log WHERE l.name = %s"""
_COUNTS = """
    SELECT l.name, coalesce(c.jurisdiction, ''), count(c.subject), count(c.subject) FILTER (WHERE c.done > 0),
           count(c.refused) FILTER (WHERE c.done = 0)
      FROM ledger.log AS l LEFT JOIN vault.copy AS c ON c.log = l.id
     WHERE NOT l.own GROUP BY l.id, l.name, c.jurisdiction ORDER BY l.id"""

_LOCK = "SELECT pg_advisory_xact_lock(%s)"

LOOKED_AT_ONCE = 20_000
"""Entries."""

FOLLOWING = 0x434F464F  # 'COFO'
"""The advisory lock of whoever writes down what a log has said: of a player whom two logs tell of, the second sees what the first has."""


class Made(NamedTuple):
    """Another region has made a key. `jurisdiction`: empty for an operator's."""

    subject: str
    key: str
    commitment: str
    jurisdiction: str


class Told(NamedTuple):
    """What is known of a subject has changed. `words`: whether there are more to find it by."""

    subject: str
    words: bool


class Gone(NamedTuple):
    """A subject was erased."""

    subject: str


Change: TypeAlias = Made | Told | Gone


class Wanted(NamedTuple):
    """What is to be had: the key, if `done` is 0, and words up to the entry `told`."""

    subject: str
    key: str
    commitment: str
    jurisdiction: str
    told: int
    done: int


class Counts(NamedTuple):
    """Keys that a region made. `refused`: of those missing, how many it was asked for and has not given."""

    held: int = 0
    missing: int = 0
    not_allowed: int = 0
    refused: int = 0


class Copies:
    """The list, for one log of another region."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]], log: str) -> None:
        self._pool = pool
        self._log = log

    async def follow(
        self,
        types: Sequence[str],
        read: Callable[[Entry], Change | None],
        retold: Callable[[Mapping[str, set[str]]], Awaitable[None]] | None,
    ) -> bool:
        """Read on in the log, of whose entries only these types matter; whether more is left. `retold` gets, before that counts as
        read, the subjects with more to be found by whose keys are held here and were made in another log: the ids of keys by subject.
        """
        async with self._pool.connection() as connection:
            log, after, head = await (await connection.execute(_FOLLOWED, (self._log,))).fetchone() or (0, 0, 0)
            if after >= head:
                return False
            upto = min(after + LOOKED_AT_ONCE, head)
            cursor = connection.cursor(binary=True)
            await cursor.execute(_SAID, (log, after, upto, packing.text_array(types)))
            changes = [(row[0], read(Entry(self._log, *row))) for row in await cursor.fetchall()]
        made = {each.subject for _, each in changes if isinstance(each, Made)}
        more = {each.subject for _, each in changes if isinstance(each, Told) and each.words} - made
        if retold and more and (held := await self._made_elsewhere(log, sorted(more))):
            await retold(held)
        async with self._pool.connection() as connection, connection.transaction(), connection.pipeline():
            await connection.execute(_LOCK, (FOLLOWING,))
            for position, change in changes:
                match change:
                    case Made(subject, key, commitment, jurisdiction):
                        await connection.execute(_MADE, (log, subject, key, commitment, jurisdiction, position))
                    case Told(subject, words):
                        await connection.execute(_TOLD, (log, position if words else 0, subject))
                    case Gone(subject):
                        await connection.execute(_GONE, (subject,))
            await connection.execute(_FOLLOW, (log, upto))
        return upto < head

    async def _made_elsewhere(self, log: int, subjects: Sequence[str]) -> dict[str, set[str]]:
        """Of these subjects the keys that are held here and were made in another log, by id."""
        # Whoever keeps a copy without what was told has done so when this is over, and whoever begins later sees it in the log.
        async with self._pool.connection() as connection:
            await connection.execute(_LOCK, (KEPT,))
        found: dict[str, set[str]] = {}
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_MADE_ELSEWHERE, (packing.text_array(subjects), log))).fetchall()
        for subject, key in rows:
            found.setdefault(subject, set()).add(key)
        return found

    async def jurisdictions(self) -> set[str]:
        """All that occur."""
        async with self._pool.connection() as connection:
            return {row[0] for row in await (await connection.execute(_JURISDICTIONS, (self._log,))).fetchall()}

    async def mend(self) -> None:
        """Want again what is not in the vault any more, for whatever reason."""
        async with self._pool.connection() as connection:
            await connection.execute(_LOST, (self._log,))

    async def wanted(self, jurisdictions: Iterable[str], limit: int) -> list[Wanted]:
        """Of subjects under these jurisdictions, the longest known first."""
        asked = (packing.text_array(list(jurisdictions)), limit, self._log, limit)
        async with self._pool.connection() as connection:
            return [Wanted(*row) for row in await (await connection.execute(_WANTED, asked)).fetchall()]

    async def held(self, jurisdictions: Iterable[str], limit: int) -> list[str]:
        """Subjects under these jurisdictions whose key is here."""
        asked = (packing.text_array(list(jurisdictions)), limit, self._log, limit)
        async with self._pool.connection() as connection:
            return [row[0] for row in await (await connection.execute(_HELD, asked)).fetchall()]

    async def refused(self, why: Sequence[tuple[str, str]], again_in_s: float) -> None:
        """These subjects' keys were not given; ask again later."""
        subjects, reasons = zip(*why, strict=True)
        asked = (again_in_s, packing.text_array(subjects), packing.text_array(reasons))
        async with self._pool.connection() as connection:
            await connection.execute(_REFUSED, asked)


async def counts(connection: AsyncConnection[Any], may: Callable[[str], bool]) -> dict[str, Counts]:
    """By log of another region, how many of its keys are here. `may`: whether that is allowed, by jurisdiction."""
    found: dict[str, Counts] = {}
    for log, jurisdiction, total, held, refused in await (await connection.execute(_COUNTS)).fetchall():
        before = found.get(log, Counts())
        left = total - held
        missing, not_allowed = (left, 0) if may(jurisdiction) else (0, left)
        found[log] = Counts(
            before.held + held, before.missing + missing, before.not_allowed + not_allowed, before.refused + refused
        )
    return found
