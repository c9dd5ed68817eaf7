"""
A player's limits: the law's, the house's and their own, what is used of each, and which raises wait.

Invariants:
    - answered from the log itself, as decisions are: a limit of a moment ago stands here;
    - a hold for money laundering does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime

import msgspec

from domain import limits, play, players, wallets
from domain.kernel import Money, PlayerId
from domain.limits import Kind, Limits, Period, Source
from domain.play import Play
from domain.players import Player
from domain.wallets import Wallet
from domain.windows import Usage
from policies import limits as policy
from policies.rules import RULES
from queries.context import Context
from queries.states import together


class Limit(msgspec.Struct, frozen=True):
    """
    A limit that holds: `limit`, `used` and `remaining` in money, or those of time in seconds. `frees_at`: when some of what is
    used is free again, null if nothing is. `rule`: the law's, `verified`: whether it was read where it is made; `preset`: it
    holds until the player has a limit of this kind and period. A `stake` is one game round's; the law's is of slots.
    """

    kind: Kind
    period: Period
    source: Source
    rule: str | None
    verified: bool
    preset: bool
    limit: Money | None
    used: Money | None
    remaining: Money | None
    limit_seconds: int | None
    used_seconds: int | None
    remaining_seconds: int | None
    frees_at: datetime | None


class Raise(msgspec.Struct, frozen=True):
    """A raise that waits, to `limit` or `seconds`, or to no limit (both null): from when until when it may be confirmed, once the
    house has seen what it `needs`, by the stricter of the rules of where it was asked for and those of where the player lives now.
    `source`: who asked for it.
    """

    kind: Kind
    period: Period
    limit: Money | None
    seconds: int | None
    effective_at: datetime
    lapses_at: datetime
    needs: tuple[str, ...]
    source: Source


class Required(msgspec.Struct, frozen=True):
    """Deposit limits that have to be set before money is paid in: of `each` of the periods, or of one of them."""

    periods: tuple[Period, ...]
    each: bool
    rule: str
    verified: bool


class PlayerLimits(msgspec.Struct, frozen=True):
    """`day`: the player's local one in `zone`, by which calendar windows count. `required`: null if nothing is missing.
    `prompt_at`: when the law wants the player to be asked for a limit, which is for the site to do.
    """

    player: PlayerId
    jurisdiction: str
    zone: str
    day: date
    limits: list[Limit]
    raises: list[Raise]
    required: Required | None
    prompt_at: tuple[str, ...]


async def card(context: Context, player_id: PlayerId, at: datetime) -> PlayerLimits:
    """A player's limits. Raises InvalidId, NotFound."""
    streams = (players, limits, wallets, play)
    player, state, wallet, played = await together(context, *(each.stream(player_id) for each in streams))
    player.require()
    return shown(player_id, player, state, wallet, played, at)


def shown(
    player_id: PlayerId, player: Player, state: Limits, wallet: Wallet, played: Play, at: datetime
) -> PlayerLimits:
    zone = policy.zone(player.jurisdiction)
    used: Mapping[Kind, Usage] = {
        Kind.DEPOSIT: state.deposited,
        Kind.NET_DEPOSIT: state.net,
        Kind.LOSS: wallet.lost,
        Kind.WAGER: wallet.wagered,
        Kind.STAKE: Usage(),
        Kind.TIME: played.time_used(at, zone),
    }
    day = policy.local_day(player.jurisdiction, at)
    held = [
        _limit(each, used[each.kind], player, day, at)
        for each in state.in_force(player.system_limits(at), player.currency)
        if each.reason not in policy.MONEY_LAUNDERING
    ]
    missing = state.missing(player, at)
    prompt = RULES.of(player.jurisdiction, at).get("deposit_limit.prompt_at")
    return PlayerLimits(
        player_id,
        player.jurisdiction,
        zone.key,
        day,
        sorted(held, key=lambda each: (each.kind, each.period, each.source)),
        [_raise(each, limits.due(state, player, each, at)) for each in state.raises if at < each.lapses_at],
        Required(missing.periods, missing.each, missing.rule, missing.verified) if missing else None,
        prompt.value if prompt is not None and isinstance(prompt.value, tuple) else (),
    )


def _limit(limit: limits.Limit, usage: Usage, player: Player, day: date, at: datetime) -> Limit:
    so_far = usage.within(limit.period, day=day, at=at)
    frees_at = usage.frees_at(limit.period, day=day, at=at, zone=policy.zone(player.jurisdiction)) if so_far else None
    of = (limit.kind, limit.period, limit.source, limit.rule or None, limit.verified, limit.preset)
    figures = (limit.amount, so_far, max(0, limit.amount - so_far))
    if limit.kind is Kind.TIME:
        return Limit(*of, None, None, None, *figures, frees_at)
    most, used, left = (Money(figure, player.currency) for figure in figures)
    return Limit(*of, most, used, left, None, None, None, frees_at)


def _raise(wanted: limits.Raise, waits: limits.Terms) -> Raise:
    amount, is_time = wanted.amount, wanted.kind is Kind.TIME
    return Raise(
        wanted.kind,
        wanted.period,
        Money(amount, wanted.currency) if amount is not None and not is_time else None,
        amount if is_time else None,
        max(waits.effective_at, waits.earliest),
        wanted.lapses_at,
        waits.needs,
        wanted.source,
    )
