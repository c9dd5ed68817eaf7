"""
Gross gaming revenue: stakes less wins less what was given back of stakes, by the player's local day, provider, game, player and
currency. What was staked, won and given back as cash stands apart from what was bonus money.

A win counts on its own local day; what is given back, on the day of its bet, as if that had been for less. Prizes that are no part
of a game (bonus_win, free_win) are paid from house:bonus: they are `gifts`, and no revenue is less by them.

Invariant: in each currency the sum of it all is that of the postings on house:ggr. What was booked there without a game has no
provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import msgspec

from domain.wallets import CASH, Moved, Movement, RolledBack, Staked, Won
from domain.windows import day_of
from projections import times
from projections.columns import as_shown, bigint, shown, text
from projections.folded import suffix_of
from projections.memory import Tables
from projections.postgres import Cursor
from projections.projection import Events
from projections.state import Table

GGR = "house:ggr"
_PLAYER = "player_"


class Revenue(msgspec.Struct, gc=False):
    """Minor units, none of them negative. `gifts`: prizes at the cost of bonuses."""

    bets: int = 0
    stakes_cash: int = 0
    stakes_bonus: int = 0
    wins_cash: int = 0
    wins_bonus: int = 0
    returned_cash: int = 0
    returned_bonus: int = 0
    gifts: int = 0


SUMS = Revenue.__struct_fields__
Key = tuple[str, str, str, str, str]
"""(day as YYYY-MM-DD, provider, game, player, currency)."""
_KEY = ("day", "provider", "game", "player", "currency")

Changes = dict[Key, Revenue]


class Ggr:
    name = "ggr"
    tables: ClassVar[Sequence[Table]] = (Table("ggr", (*_KEY, *SUMS), key=len(_KEY), player="player"),)

    def changes(self, events: Events) -> Changes:
        changes: Changes = {}

        def of(day: str, provider: str, game: str, suffix: str, currency: str) -> Revenue:
            return changes.setdefault((day, provider, game, _PLAYER + suffix, currency), Revenue())

        for recorded, staked in events.of(Staked):
            day = day_of(staked.day, staked.utc_offset, recorded.at).isoformat()
            where, currency = staked.played, staked.money.currency
            found = of(day, where.provider, where.game, suffix_of(recorded), currency)
            found.bets += 1
            _stake(found, staked.movements)
        for recorded, won in events.of(Won):
            day = day_of(won.day, won.utc_offset, recorded.at).isoformat()
            _win(of(day, won.played.provider, won.played.game, suffix_of(recorded), won.money.currency), won.movements)
        for recorded, back in events.of(RolledBack):
            if back.day is not None and back.movements:
                where, currency = back.played, back.money.currency
                _return(
                    of(back.day.isoformat(), where.provider, where.game, suffix_of(recorded), currency), back.movements
                )
        for recorded, moved in events.of(Moved):
            booked = [each for each in moved.movements if GGR in (each.source, each.target)]
            if booked:
                day = times.day_of(times.occurred_us(recorded))
                found = of(day, "", "", suffix_of(recorded), booked[0].money.currency)
                _stake(found, [each for each in booked if each.target == GGR])
                _win(found, [each for each in booked if each.source == GGR])
        return changes

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        if not changes:
            return
        keys, found = list(changes), list(changes.values())
        await cursor.execute(
            f"""
            INSERT INTO {schema}.ggr AS old ({", ".join((*_KEY, *SUMS))})
            SELECT * FROM unnest({", ".join(["%b"] * len((*_KEY, *SUMS)))})
            ON CONFLICT ({", ".join(_KEY)}) DO UPDATE
               SET {", ".join(f"{name} = old.{name} + excluded.{name}" for name in SUMS)}""",
            (
                *(text([key[place] for key in keys]) for place in range(len(_KEY))),
                *(bigint([getattr(each, name) for each in found]) for name in SUMS),
            ),
        )

    def fold(self, tables: Tables, changes: Changes) -> None:
        rows = tables["ggr"]
        for parts, found in changes.items():
            key = tuple(map(shown, parts))
            before = rows.get(key, ())[len(_KEY) :] or (0,) * len(SUMS)
            after = (old + new for old, new in zip(before, msgspec.structs.astuple(found), strict=True))
            rows[key] = as_shown(*key, *after)


def _stake(found: Revenue, movements: Iterable[Movement]) -> None:
    for each in movements:
        if each.source == CASH:
            found.stakes_cash += each.money.amount
        else:
            found.stakes_bonus += each.money.amount


def _win(found: Revenue, movements: Iterable[Movement]) -> None:
    for each in movements:
        if each.source != GGR:
            found.gifts += each.money.amount
        elif each.target == CASH:
            found.wins_cash += each.money.amount
        else:
            found.wins_bonus += each.money.amount


def _return(found: Revenue, movements: Iterable[Movement]) -> None:
    """What does not come back as cash was not staked as such, be it that the bonus is forfeited by now."""
    for each in movements:
        if each.target == CASH:
            found.returned_cash += each.money.amount
        else:
            found.returned_bonus += each.money.amount
