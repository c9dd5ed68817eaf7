"""What follows for a player from what has happened to their protection, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

import msgspec

from domain.errors import Conflict, Rejected
from domain.kernel import STREAMS_CACHED, Aggregate, PlayerId, Stream, parse_id
from domain.players import Verdict
from domain.protection.events import (
    ActionBlocked,
    ActionUnblocked,
    Excluded,
    ExclusionEnded,
    Lifted,
    LiftRequested,
    MatchDismissed,
    MatchesShutOut,
    PlayRefused,
    ProtectionEvent,
    RegisterAsked,
    SafeguardsTakenUp,
    Said,
    Source,
    Stop,
    TimedOut,
    TimeOutDismissed,
)
from policies import protection as policy
from policies.protection import Moment, Silence

DISMISSED_MAX = 50
"""Of how many other accounts it is remembered that they are somebody else's."""


# Refusals


class PlayerExcluded(Conflict):
    """Facts: until (null: it has no end of its own)."""

    code = "excluded"
    title = "The player is excluded from gambling"


class PlayerTimedOut(Conflict):
    """Facts: until."""

    code = "timed_out"
    title = "The player has taken a time-out"


class ActionIsBlocked(Conflict):
    """Facts: action."""

    code = "action_blocked"
    title = "The house has stopped this for the player"


class RegisterUnanswered(Conflict):
    code = "register_unanswered"
    title = "The register of the excluded has not answered; the player waits for it"


# State


class Exclusion(msgspec.Struct, frozen=True):
    """As in the event; `lifts_at`: when it is over, as was asked for. One that was taken over from another account stands by itself
    for each register, since the word of each ends its own, and for all that no register says.
    """

    source: Source
    jurisdiction: str
    term: str = ""
    until: datetime | None = None
    not_before: datetime | None = None
    on_request: bool = False
    rule: str = ""
    register: str = ""
    of: PlayerId | None = None
    by: Source | None = None
    lifts_at: datetime | None = None

    @property
    def place(self) -> tuple[Source, str]:
        """There is at most one of each."""
        return _place(self.source, self.register)

    @property
    def ends_at(self) -> datetime | None:
        """When it is over, as far as that is settled."""
        if self.lifts_at is not None:
            return self.lifts_at
        return None if self.on_request else self.until

    def is_over(self, at: datetime) -> bool:
        return self.ends_at is not None and at >= self.ends_at


class Pause(msgspec.Struct, frozen=True):
    """A time-out. `of`: the account with which this one was matched."""

    source: Source
    until: datetime
    of: PlayerId | None = None


class Asked(msgspec.Struct, frozen=True):
    """What a register said last. `clear_at`: when it last said that the player is not in it; `silent_since`: no answer since.
    `excluded`: it has said that the player is in it, and not the contrary since.
    """

    answer: Said
    silence: Silence | None = None
    holds: bool = False
    clear_at: datetime | None = None
    silent_since: datetime | None = None
    excluded: bool = False


class Protection(msgspec.Struct, frozen=True):
    """`exclusions`: at most one of each `place`. `pauses`: of each source the time-out that ends last. `stopped`: the house's reasons, by
    what it has stopped. `registers`: by name. `quiet_until`: marketing is silent after an exclusion. `shut_outs`: how many of
    this account's own there have been, each of which also concerns the person's other accounts. `dismissed`: accounts of which
    a person has found that they are somebody else's, the newest last. `taken_up`: by log, up to which version its safeguards
    count here by events of this stream (domain/anywhere.py).
    """

    exclusions: tuple[Exclusion, ...] = ()
    pauses: tuple[Pause, ...] = ()
    stopped: Mapping[Stop, tuple[str, ...]] = {}
    registers: Mapping[str, Asked] = {}
    quiet_until: datetime | None = None
    shut_outs: int = 0
    dismissed: tuple[PlayerId, ...] = ()
    taken_up: Mapping[str, int] = {}

    def of(self, source: Source, register: str = "") -> Exclusion | None:
        """`register`: of those that were taken over, the one that it has said; the one that none has, without."""
        place = _place(source, register)
        return next((each for each in self.exclusions if each.place == place), None)

    @property
    def timed_out_until(self) -> datetime | None:
        """The end of the time-out that ends last."""
        return max((each.until for each in self.pauses), default=None)

    def running(self, at: datetime) -> tuple[Exclusion, ...]:
        return tuple(each for each in self.exclusions if not each.is_over(at))

    def is_timed_out(self, at: datetime) -> bool:
        return self.timed_out_until is not None and at < self.timed_out_until

    def shut_out_until(self, at: datetime) -> datetime | None:
        """The end of all that shuts the player out at that time; None if something has none (or nothing does)."""
        ends = [each.ends_at for each in self.running(at)]
        if self.is_timed_out(at):
            ends.append(self.timed_out_until)
        return None if None in ends else max((end for end in ends if end), default=None)

    def refusal(self, action: StrEnum, at: datetime) -> Rejected | None:
        """Why the action (a word of Stop, or of policies.gates.Action) is closed to the player, if it is."""
        stop = Stop(action.value)
        if stop is not Stop.WITHDRAW:
            if self.running(at):
                return PlayerExcluded(until=self.shut_out_until(at))
            if self.is_timed_out(at):
                return PlayerTimedOut(until=self.shut_out_until(at))
        if stop in self.stopped:
            return ActionIsBlocked(action=stop)
        if stop is not Stop.WITHDRAW and any(each.holds for each in self.registers.values()):
            return RegisterUnanswered()
        return None

    def require(self, action: StrEnum, at: datetime) -> None:
        """What deposits, bets, bonuses, log-ins and withdrawals need.

        Raises PlayerExcluded (until), PlayerTimedOut (until), ActionIsBlocked (action), RegisterUnanswered.
        """
        if refused := self.refusal(action, at):
            raise refused

    def may_contact(self, jurisdiction: str, at: datetime) -> Verdict:
        """Whether marketing may write to the player at all. Where there is a register, only soon after it has said «clear»."""
        if self.running(at):
            return Verdict(allowed=False, reason="excluded")
        ended = [each for each in self.exclusions if each.ends_at is not None]  # over, and nobody has noticed yet
        silent = [policy.quiet_until(each.jurisdiction, each.ends_at) for each in ended if each.ends_at]
        if any(until > at for until in (*silent, self.quiet_until) if until):
            return Verdict(allowed=False, reason="excluded_lately")
        if self.is_timed_out(at):
            return Verdict(allowed=False, reason="timed_out")
        if Stop.MARKETING in self.stopped:
            return Verdict(allowed=False, reason="stopped")
        register = policy.register(jurisdiction, Moment.MARKETING, at)
        if register is not None and register.name:
            clear_at = self.registers[register.name].clear_at if register.name in self.registers else None
            if clear_at is None or at - clear_at > policy.clear_counts(jurisdiction, at):
                return Verdict(allowed=False, reason="register_not_asked")
        return Verdict(allowed=True)


def evolve(state: Protection, event: ProtectionEvent, at: datetime) -> Protection:  # noqa: C901, PLR0911 — one case an event
    change = msgspec.structs.replace
    match event:
        case TimedOut(until=until, source=source, of=of):
            own = state.shut_outs + (source is not Source.MATCHED)
            runs = next((each for each in state.pauses if each.source is source), None)
            lasts = runs if runs and runs.until > until else Pause(source, until, of)
            return change(state, pauses=(*_pauses_without(state, source), lasts), shut_outs=own)
        case Excluded(source=source):
            own = state.shut_outs + (source is not Source.MATCHED)
            made = exclusion_of(event)
            return change(state, exclusions=(*_without(state, *made.place), made), shut_outs=own)
        case LiftRequested(source=source, effective_at=lifts_at):
            lifting = [change(each, lifts_at=lifts_at) for each in state.exclusions if each.place == _place(source, "")]
            return change(state, exclusions=(*_without(state, source), *lifting))
        case Lifted(source=source, over_at=over_at) | ExclusionEnded(source=source, over_at=over_at):
            if over_at is not None and at < over_at:
                return state
            register = event.register if isinstance(event, ExclusionEnded) else ""
            quiet = _later(state.quiet_until, event.quiet_until) if event.quiet_until else state.quiet_until
            return change(state, exclusions=_without(state, source, register), quiet_until=quiet)
        case MatchDismissed(of=of, register=register):
            others = _without(state, Source.MATCHED, register)
            return change(state, exclusions=others, dismissed=_dismissed(state, of))
        case TimeOutDismissed(of=of):
            return change(state, pauses=_pauses_without(state, Source.MATCHED), dismissed=_dismissed(state, of))
        case ActionBlocked(action=action, reason=reason):
            reasons = tuple(dict.fromkeys((*state.stopped.get(action, ()), reason)))
            return change(state, stopped={**state.stopped, action: reasons})
        case ActionUnblocked(action=action, reason=reason):
            left = tuple(each for each in state.stopped.get(action, ()) if each != reason)
            remains = {each: why for each, why in state.stopped.items() if each is not action}
            return change(state, stopped={**remains, action: left} if left else remains)
        case RegisterAsked():
            known = state.registers.get(event.register)
            free = {name: change(each, holds=False) for name, each in state.registers.items()}  # not asked any more
            return change(state, registers={**free, event.register: _asked(known, event, at)})
        case SafeguardsTakenUp(log=log, upto=upto):
            return change(state, taken_up={**state.taken_up, log: upto})
        case MatchesShutOut() | PlayRefused():
            return state


def _place(source: Source, register: str) -> tuple[Source, str]:
    return (source, register if source is Source.MATCHED else "")


def _without(state: Protection, source: Source, register: str = "") -> tuple[Exclusion, ...]:
    place = _place(source, register)
    return tuple(each for each in state.exclusions if each.place != place)


def _pauses_without(state: Protection, source: Source) -> tuple[Pause, ...]:
    return tuple(each for each in state.pauses if each.source is not source)


def _dismissed(state: Protection, of: PlayerId | None) -> tuple[PlayerId, ...]:
    known = [each for each in state.dismissed if each != of]
    return (*known, *([] if of is None else [of]))[-DISMISSED_MAX:]


def exclusion_of(event: Excluded) -> Exclusion:
    return Exclusion(
        event.source,
        event.jurisdiction,
        event.term,
        event.until,
        event.not_before,
        event.on_request,
        event.rule,
        event.register,
        event.of,
        event.by,
    )


def _asked(known: Asked | None, event: RegisterAsked, at: datetime) -> Asked:
    clear_at = known.clear_at if known else None
    if event.answer is Said.UNANSWERED:
        since = known.silent_since if known and known.silent_since else at
        return Asked(event.answer, event.silence, event.holds, clear_at, since, known.excluded if known else False)
    is_clear = event.answer is Said.CLEAR
    return Asked(event.answer, clear_at=at if is_clear else clear_at, excluded=not is_clear)


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)


PROTECTION = Aggregate(
    "protection",
    initial=Protection(),
    evolve=evolve,
    events=[
        TimedOut,
        Excluded,
        LiftRequested,
        Lifted,
        ExclusionEnded,
        MatchDismissed,
        TimeOutDismissed,
        MatchesShutOut,
        ActionBlocked,
        ActionUnblocked,
        SafeguardsTakenUp,
        RegisterAsked,
        PlayRefused,
    ],
)


@lru_cache(STREAMS_CACHED)
def stream(player_id: PlayerId) -> Stream[Protection]:
    return Stream(PROTECTION, parse_id("player", player_id))


def fold(state: Protection, events: Sequence[ProtectionEvent], at: datetime) -> Protection:
    """The state after events of the same decision."""
    for event in events:
        state = evolve(state, event, at)
    return state


# Refusals as facts


def refused(action: StrEnum, error: Rejected) -> PlayRefused:
    """What stands in the log of a refusal by `Protection.refusal`."""
    until = error.facts.get("until")
    return PlayRefused(action=Stop(action.value), code=error.code, until=until if isinstance(until, datetime) else None)


REFUSALS: Mapping[str, type[Rejected]] = {
    each.code: each for each in (PlayerExcluded, PlayerTimedOut, ActionIsBlocked, RegisterUnanswered)
}


def refusal_of(event: PlayRefused) -> Rejected:
    """The refusal that was recorded, as it was answered then. Raises KeyError for a code that is none of these."""
    match event.code:
        case PlayerExcluded.code | PlayerTimedOut.code:
            return REFUSALS[event.code](until=event.until)
        case ActionIsBlocked.code:
            return ActionIsBlocked(action=event.action)
        case _:
            return REFUSALS[event.code]()
