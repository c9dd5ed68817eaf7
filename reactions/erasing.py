"""
Erasure, carried out: as soon as a log held here says that a player was erased, this region's keys and index words of them go, and
the region says so in its own log.

    erased, in any log held here ──▶ keys and words destroyed ──▶ [keys destroyed]

Invariants:
    - nothing is destroyed but for whom a log held here says so (the database's own door looks, `vault.destroy_erased`);
    - that keys are destroyed is said only where the tables hold none, and for each erasure in the end;
    - a key that was kept for a registration which never came goes after a day, and no key that any log held here may need;
    - who was erased stays so, also in a vault that was restored alone beside a running log: all of it is looked at anew each quarter
      of an hour.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from access.policy import service
from commands.erasures import note_destroyed
from commands.identity import command_id
from commands.plan import Context, Plan, Receipt
from domain.kernel import PlayerId
from domain.players import Erased
from eventstore.record import Codec, Entry
from eventstore.vault import Vault
from reactions.pending import Pool
from reactions.runner import Clock

ACTOR = "reaction:erasing"
ANEW_S = 900.0
"""Seconds."""
_PAGE = 100
SWEEP_EVERY_S = 86_400.0
"""Seconds, from the end of one look at all keys to the next."""
_SWEPT_AT_ONCE = 1_000

_NOTED_NEXT = """
    SELECT l.name, e.position, e.recorded, e.leaf, e.body,
           EXISTS (SELECT FROM vault.data_key AS k WHERE k.subject = s.suffix)
               OR EXISTS (SELECT FROM vault.blind_index AS i WHERE i.subject = s.suffix)
      FROM ledger.log AS l
           LEFT JOIN unnest(%s::text[], %s::bigint[]) AS a (log, position) ON a.log = l.name
           JOIN ledger.entry AS e ON e.log = l.id AND e.type = 'player.erased' AND e.position > coalesce(a.position, 0)
           CROSS JOIN LATERAL (SELECT substr(e.stream, length('player-') + 1)) AS s (suffix)
     WHERE e.stream LIKE 'player-%%'
           AND NOT EXISTS (SELECT FROM ledger.entry AS d
                            WHERE d.stream = 'region-' || %s || '-vault_' || s.suffix AND d.type = 'vault.keys_destroyed')
     ORDER BY e.log, e.position LIMIT %s"""

_log = structlog.get_logger(__name__)

Decide = Callable[[Sequence[Plan]], Awaitable[Sequence[Receipt | Exception]]]


class _Erasure(NamedTuple):
    """Of whom nothing is left here, which nobody has said yet. `event`: of the erasure."""

    log: str
    position: int
    event: str
    player: PlayerId
    key: str


class Erasing:
    """Destroys in one region's vault. `log`: the region's own."""

    def __init__(
        self,
        log: str,
        pool: Pool,
        codec: Codec,
        vault: Vault,
        decide: Decide,
        *,
        clock: Clock = lambda: datetime.now(UTC),
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._pool = pool
        self._codec = codec
        self._vault = vault
        self._decide = decide
        self._clock = clock
        self._elapsed = elapsed
        self._anew_at = elapsed()
        self._noted: dict[str, int] = {}

    async def step(self) -> None:
        """Do once what is due. Raises Unavailable while entries may be missing from the own log."""
        anew = self._elapsed() >= self._anew_at
        destroyed = await self._vault.apply_erasures(anew=anew)
        if anew:
            self._anew_at = self._elapsed() + ANEW_S
            self._noted = {}
        if destroyed:
            _log.info("data keys of players who were erased are destroyed", count=destroyed)
        while due := await self._due():
            if not await self._note(due):
                return

    async def _due(self) -> list[_Erasure]:
        """The next erasures of which this region has not said that it has carried them out, and has."""
        place = (list(self._noted), list(self._noted.values()), self._log, _PAGE)
        async with self._pool.connection() as connection:
            rows = await (await connection.cursor(binary=True).execute(_NOTED_NEXT, place)).fetchall()
        found = []
        for *entry, is_left in rows:
            if is_left:  # it has come since the keys were destroyed: the next step does that first
                break
            read = self._codec.decode(Entry(*entry))
            if isinstance(read.event, Erased):
                player = PlayerId("player_" + read.body.stream.removeprefix("player-"))
                found.append(_Erasure(entry[0], entry[1], read.body.id, player, read.event.key))
        return found

    async def _note(self, due: Sequence[_Erasure]) -> bool:
        """Say so; whether all of it is said."""
        plans = [note_destroyed(self._log, each.player, each.key, self._context(each)) for each in due]
        for each, result in zip(due, await self._decide(plans), strict=True):
            if not isinstance(result, Receipt):
                _log.error(
                    "that a player's keys are destroyed could not be recorded", player=each.player, exc_info=result
                )
                return False
            self._noted[each.log] = each.position
        return True

    def _context(self, each: _Erasure) -> Context:
        """Who says so, and as which command."""
        id_ = command_id(ACTOR, f"{self._log}\n{each.event}")
        return Context(service(ACTOR, "reaction"), self._clock(), id_, fingerprint=None, cause=each.event)


class Sweeping:
    """Destroys what was kept for registrations that never came: a page of the region's keys in each step, and all of them once a day."""

    def __init__(
        self, vault: Vault, *, elapsed: Callable[[], float] = time.monotonic, page: int = _SWEPT_AT_ONCE
    ) -> None:
        self._vault = vault
        self._elapsed = elapsed
        self._page = page
        self._after: str | None = None
        self._again_at = elapsed()

    async def step(self) -> None:
        if self._elapsed() < self._again_at:
            return
        self._after, destroyed = await self._vault.destroy_unused(self._after, self._page)
        if self._after is None:
            self._again_at = self._elapsed() + SWEEP_EVERY_S
        if destroyed:
            _log.info("data keys of registrations that never came are destroyed", count=destroyed)
