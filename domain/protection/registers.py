"""Decisions: what a register of the excluded has said of a player, or that it has said nothing."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec

from domain.protection.events import Excluded, ExclusionEnded, ProtectionEvent, RegisterAsked, Said, Source
from domain.protection.standing import Protection, exclusion_of
from policies import protection as policy
from policies.protection import Moment, Silence


class Answer(NamedTuple):
    """What a register has said, or why it has not. `until`: of the exclusion, if it tells."""

    register: str
    moment: Moment
    said: Said
    until: datetime | None = None
    silence: Silence | None = None


def hear(state: Protection, jurisdiction: str, answer: Answer, *, at: datetime) -> list[ProtectionEvent]:
    """Record a register's answer and what follows from it. A silence that nobody could have ended, and is known, records nothing."""
    known = state.registers.get(answer.register)
    asked = RegisterAsked(register=answer.register, moment=answer.moment, answer=answer.said)
    runs = state.of(Source.REGISTER)
    match answer.said:
        case Said.EXCLUDED:
            excluded = Excluded(
                source=Source.REGISTER,
                jurisdiction=jurisdiction,
                until=answer.until,
                on_request=True,
                rule="self_exclusion.register",
                register=answer.register,
            )
            return [asked] if runs == exclusion_of(excluded) else [asked, excluded]
        case Said.CLEAR:
            return [asked, *_ends(state, answer.register, at)]
        case Said.UNANSWERED:
            silence = answer.silence or Silence.NOT_ASKED
            holds = policy.holds(silence, known.clear_at if known else None, at)
            waits = silence in policy.HOUSE_ASKED_AGAIN
            if not waits and known and (known.silence, known.holds) == (silence, holds):
                return []
            since = known.silent_since if known and known.silent_since else at
            again = policy.ask_again_at(since, at) if waits else None
            return [msgspec.structs.replace(asked, silence=silence, holds=holds, ask_again_at=again)]


def _ends(state: Protection, register: str, at: datetime) -> list[ExclusionEnded]:
    """What is over if the register does not know the player any more: what it has said itself, of this account or of another one
    of the same person. What another register has said is not.
    """
    known, ended = state.registers.get(register), []
    runs, matched = state.of(Source.REGISTER), state.of(Source.MATCHED, register)
    others = any(each.excluded for name, each in state.registers.items() if name != register)
    if runs is not None and not others and (runs.register == register or (known is not None and known.excluded)):
        ended.append(runs)
    if matched is not None and matched.register:
        ended.append(matched)
    quiet = [(each.source, policy.quiet_until(each.jurisdiction, at)) for each in ended]
    return [ExclusionEnded(source, until if until > at else None, register=register) for source, until in quiet]
