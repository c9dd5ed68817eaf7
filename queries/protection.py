"""
How a player is protected: what shuts them out and until when, what the house has stopped, what registers have said.

Invariant: answered from the log itself, as decisions are: an exclusion of a moment ago stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from domain import players, protection
from domain.kernel import PlayerId
from domain.protection import Asked, Protection, Said, Source, Stop
from policies.protection import Silence
from queries import secrecy
from queries.context import Context
from queries.states import folded

_ACTIONS = (Stop.DEPOSIT, Stop.FREE_PLAY, Stop.BET, Stop.BONUS, Stop.WITHDRAW, Stop.LOGIN)


class Excluded(msgspec.Struct, frozen=True):
    """An exclusion that runs. `ends_at`: when, as far as that is settled; `may_ask_from`: from when on its end may be asked for.
    `rule`: what it follows from, `of`: the account with which this one was matched.
    """

    source: Source
    term: str
    ends_at: datetime | None
    may_ask_from: datetime | None
    jurisdiction: str
    rule: str
    register: str
    of: PlayerId | None


class TimedOut(msgspec.Struct, frozen=True):
    """A time-out that runs. `of`: the account with which this one was matched."""

    source: Source
    until: datetime
    of: PlayerId | None


class RegisterSaid(msgspec.Struct, frozen=True):
    """What a register said last. `register` is empty where nobody knows of one; `waits`: the player waits for it."""

    register: str
    answer: Said
    silence: Silence | None
    waits: bool
    clear_at: datetime | None


class PlayerProtection(msgspec.Struct, frozen=True):
    """`closed`: by action, the code of the refusal. `stopped`: what the house has stopped, and the words that say why."""

    player: PlayerId
    exclusions: list[Excluded]
    timed_out_until: datetime | None
    time_outs: list[TimedOut]
    closed: Mapping[str, str]
    stopped: Mapping[str, list[str]]
    registers: list[RegisterSaid]


async def card(context: Context, player_id: PlayerId, at: datetime) -> PlayerProtection:
    """How a player is protected. Raises InvalidId, NotFound."""
    player = await folded(context, players.stream(player_id))
    player.require()
    state = await folded(context, protection.stream(player_id))
    found = shown(player_id, state, at)
    stopped = {
        action: [secrecy.told(context, each, player.brand, player.country) or each for each in reasons]
        for action, reasons in found.stopped.items()
    }
    return msgspec.structs.replace(found, stopped=stopped)


def shown(player_id: PlayerId, state: Protection, at: datetime) -> PlayerProtection:
    refusals = {action.value: state.refusal(action, at) for action in _ACTIONS}
    return PlayerProtection(
        player_id,
        [
            Excluded(e.source, e.term, e.ends_at, e.not_before, e.jurisdiction, e.rule, e.register, e.of)
            for e in state.running(at)
        ],
        state.timed_out_until if state.is_timed_out(at) else None,
        [TimedOut(each.source, each.until, each.of) for each in state.pauses if at < each.until],
        {action: refused.code for action, refused in refusals.items() if refused},
        {action.value: list(reasons) for action, reasons in sorted(state.stopped.items())},
        [_said(name, asked) for name, asked in sorted(state.registers.items())],
    )


def _said(name: str, asked: Asked) -> RegisterSaid:
    return RegisterSaid(name, asked.answer, asked.silence, asked.holds, asked.clear_at)
