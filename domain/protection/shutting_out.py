"""Decisions: time-outs and exclusions, how they end, and what the house stops."""

from __future__ import annotations

from datetime import datetime
from operator import attrgetter

import msgspec

from domain.errors import Conflict, RuleRefused
from domain.kernel import Intervention, PlayerId
from domain.players import Player
from domain.protection.events import (
    REASONS_MAX,
    ActionBlocked,
    ActionUnblocked,
    Excluded,
    ExclusionEnded,
    Grounds,
    Lifted,
    LiftRequested,
    MatchDismissed,
    ProtectionEvent,
    Source,
    Stop,
    TimedOut,
    TimeOutDismissed,
    is_automatic,
)
from domain.protection.standing import Exclusion, Protection, evolve
from policies import protection as policy
from policies.protection import NotOffered, Term


class TermNotOffered(RuleRefused):
    """Facts: allowed (words), rule, verified."""

    code = "term_not_offered"
    title = "There is no time-out or exclusion of this length there"


class NotExcluded(Conflict):
    """Facts: source."""

    code = "not_excluded"
    title = "There is no such exclusion"


class LiftRefused(RuleRefused):
    """Facts: why (ends_by_itself, too_early, permanent, register, not_researched), until."""

    code = "lift_refused"
    title = "The exclusion does not end because somebody asks for it"


class TooManyReasons(Conflict):
    """Facts: reasons."""

    code = "too_many_reasons"
    title = f"One thing is stopped for at most {REASONS_MAX} reasons at once"


class EndNotDue(Conflict):
    """Facts: due_at."""

    code = "protection_not_due"
    title = "The time for this has not come"


def time_out(
    state: Protection,
    player: Player,
    *,
    wanted: Term,
    source: Source,
    at: datetime,
    intervention: Grounds | None = None,
) -> list[ProtectionEvent]:
    """A pause, at once. One that ends no later than another that runs records nothing. Raises NotFound, TermNotOffered."""
    player.require()
    granted = policy.time_out(wanted, player.jurisdiction, at)
    if isinstance(granted, NotOffered):
        raise _not_offered(granted)
    return pause(state, granted, source=source, intervention=intervention)


def panic(state: Protection, player: Player, *, at: datetime) -> list[ProtectionEvent]:
    """The button: a pause at once, which nobody is asked to confirm. Raises NotFound."""
    player.require()
    return pause(state, policy.panic(player.jurisdiction, at), source=Source.PLAYER)


def pause(
    state: Protection,
    granted: policy.Granted,
    *,
    source: Source,
    of: PlayerId | None = None,
    intervention: Grounds | None = None,
) -> list[ProtectionEvent]:
    """A time-out as long as what was granted. One of the account's own does not rely on one of another account's, which a person
    may dismiss.
    """
    until = granted.until
    relied_on = [each for each in state.pauses if source is Source.MATCHED or each.source is not Source.MATCHED]
    if until is None or any(each.until >= until for each in relied_on):
        return []
    return [TimedOut(until=until, source=source, rule=granted.rule, of=of, intervention=intervention)]


def exclude(
    state: Protection,
    player: Player,
    *,
    wanted: Term,
    source: Source,
    at: datetime,
    intervention: Grounds | None = None,
) -> list[ProtectionEvent]:
    """Shut the player out, at once. What already runs from the same source only becomes longer, and a lift that was asked for
    is forgotten. Only a player's own can be asked to end before its term. Raises NotFound, TermNotOffered.
    """
    player.require()
    granted = policy.exclusion(wanted, player.jurisdiction, at)
    if isinstance(granted, NotOffered):
        raise _not_offered(granted)
    excluded = Excluded(
        source=source,
        jurisdiction=player.jurisdiction,
        term=str(wanted),
        until=granted.until,
        not_before=granted.not_before if source is Source.PLAYER else granted.until or granted.not_before,
        on_request=granted.on_request,
        rule=granted.rule,
        intervention=intervention,
    )
    return _longer(state, excluded, at)


def exclude_matched(
    state: Protection, player: Player, *, of: PlayerId, theirs: Protection, at: datetime
) -> list[ProtectionEvent]:
    """Shut out the same person's other account as `of` is, whose protection is `theirs`: by each that runs there on its own, and
    where its end was asked for, until then. Raises NotFound.
    """
    player.require()
    made: list[ProtectionEvent] = []
    if of in state.dismissed:
        return made
    for each in theirs.running(at):
        if each.source is Source.MATCHED:
            continue
        for event in _taken_over(state, each, of, at):
            made.append(event)
            state = evolve(state, event, at)
    ends = max((each.until for each in theirs.pauses if each.source is not Source.MATCHED), default=at)
    if at < ends:
        made += pause(state, policy.Granted(ends, ends, on_request=False, rule="", verified=True), source=Source.MATCHED, of=of)  # fmt: skip
    return made


def _taken_over(state: Protection, theirs: Exclusion, of: PlayerId, at: datetime) -> list[ProtectionEvent]:
    lifts_at = theirs.lifts_at
    excluded = Excluded(
        source=Source.MATCHED,
        jurisdiction=theirs.jurisdiction,
        term=theirs.term,
        until=lifts_at or theirs.until,
        not_before=lifts_at or theirs.not_before,
        on_request=theirs.on_request and lifts_at is None,
        rule=theirs.rule,
        register=theirs.register,
        of=of,
        by=theirs.source,
    )
    if lifts_at is None:
        return _longer(state, excluded, at)
    runs = state.of(Source.MATCHED, theirs.register)
    return [] if runs is not None and _is_later(runs.ends_at, lifts_at) else [excluded]


def _longer(state: Protection, excluded: Excluded, at: datetime) -> list[ProtectionEvent]:
    """The exclusion, or what it and the one that runs come to together; nothing if that is what runs. The end may be asked for
    once that holds of each of them; of two that were taken over it is the player's only if both were.
    """
    runs = state.of(excluded.source, excluded.register)
    if runs is None or runs.is_over(at):
        return [excluded]
    until = max(runs.until, excluded.until) if runs.until and excluded.until else None
    on_request = runs.on_request or excluded.on_request
    by = attrgetter("not_before" if until is None or on_request else "until")
    lasts = runs if _is_later(by(runs), by(excluded)) else excluded
    firmest = runs if _is_later(runs.not_before, excluded.not_before) else excluded
    together = msgspec.structs.replace(
        excluded,
        term=lasts.term,
        jurisdiction=lasts.jurisdiction,
        rule=lasts.rule,
        until=until,
        not_before=firmest.not_before,
        on_request=on_request,
        by=excluded.by if runs.by is excluded.by else Source.OPERATOR,
    )
    same = ("term", "jurisdiction", "until", "not_before", "on_request", "register", "by")
    changes = runs.lifts_at is not None or any(getattr(together, name) != getattr(runs, name) for name in same)
    return [together] if changes else []


def _may_end_early(it: Exclusion | Excluded) -> bool:
    """Whether it ends by itself, but its end may be asked for before."""
    return not it.on_request and it.until is not None and it.not_before is not None and it.not_before < it.until


def _is_later(one: datetime | None, other: datetime | None) -> bool:
    """Whether the first is not earlier; never is the latest."""
    return one is None or (other is not None and one >= other)


def _not_offered(refused: NotOffered) -> TermNotOffered:
    return TermNotOffered(allowed=refused.allowed, rule=refused.rule, verified=refused.verified)


def lift(
    state: Protection, *, source: Source, at: datetime, intervention: Intervention | None = None
) -> list[ProtectionEvent]:
    """Ask for the end of an exclusion that ends on request only, or may be ended so, once its time is over. Asking again records
    nothing.

    Raises NotExcluded, LiftRefused (why, until).
    """
    running = sorted((each for each in state.running(at) if each.source is source), key=attrgetter("register"))
    if not running:
        raise NotExcluded(source=source)
    runs = running[0]  # rather than one that a register has said
    if runs.register:
        raise LiftRefused(why="register", until=None)
    if not runs.on_request and not _may_end_early(runs):
        raise LiftRefused(why="ends_by_itself", until=runs.until)
    if runs.not_before is None:
        raise LiftRefused(why="permanent", until=None)
    if at < runs.not_before:
        raise LiftRefused(why="too_early", until=runs.not_before)
    if runs.lifts_at is not None:
        return []
    is_the_players = Source.PLAYER in {source, runs.by}
    if not is_the_players and policy.lift_is_the_players(runs.jurisdiction, at):
        raise LiftRefused(why="not_researched", until=None)
    over = policy.lifted_at(policy.term(runs.term), runs.jurisdiction, at)
    if over.until is None:
        raise LiftRefused(why="permanent", until=None)
    if not runs.on_request and runs.until is not None and over.until >= runs.until:
        raise LiftRefused(why="ends_by_itself", until=runs.until)
    return [LiftRequested(source=source, effective_at=over.until, rule=over.rule, intervention=intervention)]


def dismiss_match(
    state: Protection, *, at: datetime, intervention: Intervention | None, of: PlayerId | None = None
) -> list[ProtectionEvent]:
    """The account is another person's than `of`, with which it was matched: the exclusion and the time-out that were taken over
    from there are over. Without `of`: than the one whose exclusion it has, or else whose time-out. Raises NotExcluded.
    """
    excluded = [each for each in state.running(at) if each.source is Source.MATCHED]
    paused = [each for each in state.pauses if each.source is Source.MATCHED and at < each.until]
    whose = [other for other in (*[each.of for each in excluded], *[each.of for each in paused]) if of in {None, other}]
    if not whose:
        raise NotExcluded(source=Source.MATCHED)
    return [
        *[MatchDismissed(intervention, each.of, each.register) for each in excluded if each.of == whose[0]],
        *[TimeOutDismissed(intervention, each.of) for each in paused if each.of == whose[0]],
    ]


def end(state: Protection, *, at: datetime) -> list[ProtectionEvent]:
    """Note which exclusions are over. Saying so again records nothing. Raises EndNotDue."""
    made: list[ProtectionEvent] = []
    for each in state.exclusions:
        if each.ends_at is not None and each.is_over(at):
            quiet = policy.quiet_until(each.jurisdiction, each.ends_at)
            silent = quiet if quiet > each.ends_at else None
            if each.lifts_at:  # asked for by somebody, so no register has said it
                made.append(Lifted(each.source, silent, each.ends_at))
            else:
                made.append(ExclusionEnded(each.source, silent, each.ends_at, each.register))
    if not made and (coming := [each.ends_at for each in state.exclusions if each.ends_at]):
        raise EndNotDue(due_at=min(coming))
    return made


def stop(
    state: Protection, player: Player, *, action: Stop, reason: str, intervention: Grounds | None
) -> list[ProtectionEvent]:
    """Stop one thing for the player. Asking again for the same reason records nothing. Raises NotFound, TooManyReasons."""
    player.require()
    reasons = state.stopped.get(action, ())
    if reason in reasons:
        return []
    by_itself = intervention is None and is_automatic(reason)
    if not by_itself and len(reasons) >= REASONS_MAX:
        raise TooManyReasons(reasons=reasons)
    return [ActionBlocked(action=action, reason=reason, intervention=intervention)]


def take_up(state: Protection, fact: TimedOut | Excluded | ActionBlocked, at: datetime) -> list[ProtectionEvent]:
    """What follows from a fact that another region has recorded at `at`: what runs only becomes longer. What was said of it stays
    with the fact, which is sealed for itself.
    """
    grounds = fact.intervention and Grounds(fact.intervention.kind)
    match fact:
        case TimedOut(until=until, source=source, rule=rule):
            granted = policy.Granted(until, until, on_request=False, rule=rule, verified=True)
            return pause(state, granted, source=source, intervention=grounds)
        case Excluded():
            fields = {name: getattr(fact, name) for name in Excluded.__struct_fields__}
            return _longer(state, Excluded(**{**fields, "intervention": grounds}), at)
        case ActionBlocked(action=action, reason=reason):
            known = reason in state.stopped.get(action, ())
            return [] if known else [ActionBlocked(action=action, reason=reason, intervention=grounds)]


def allow(
    state: Protection, player: Player, *, action: Stop, reason: str, intervention: Intervention | None
) -> list[ProtectionEvent]:
    """What the house has stopped for this reason is possible again, unless it is stopped for another; what excludes the player
    goes on. Raises NotFound.
    """
    player.require()
    if reason not in state.stopped.get(action, ()):
        return []
    return [ActionUnblocked(action=action, reason=reason, intervention=intervention)]
