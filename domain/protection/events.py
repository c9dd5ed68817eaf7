"""What happens to a player's protection."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from domain.kernel import Event, Intervention, PlayerId, Remark
from policies.protection import Moment, Silence

MATCHES_MAX = 20
"""How many other accounts an event names."""

HARM_MARKER: Final = "harm_marker"
NO_REPLY: Final = "no_reply"
AUTOMATIC: Final = frozenset({HARM_MARKER, NO_REPLY})
"""Reasons, as they stand in the events, for which something is stopped by itself: there is always room for them."""
REASONS_MAX = 10
"""For how many reasons one thing is stopped at once, before people are refused a further one."""


def is_automatic(reason: str) -> bool:
    """One of these, or the id of the notice that has stopped something for a time."""
    return reason in AUTOMATIC or reason.startswith("notice_")


class Stop(StrEnum):
    """What may be stopped for one player."""

    DEPOSIT = "deposit"
    FREE_PLAY = "free_play"
    BET = "bet"
    BONUS = "bonus"
    WITHDRAW = "withdraw"
    LOGIN = "login"
    MARKETING = "marketing"
    REGISTER = "register"


class Source(StrEnum):
    """Whose word it is: the player's, the house's, a register's; or that of the same person's other account."""

    PLAYER = "player"
    OPERATOR = "operator"
    REGISTER = "register"
    MATCHED = "matched"


class Said(StrEnum):
    CLEAR = "clear"
    EXCLUDED = "excluded"
    UNANSWERED = "unanswered"


# Events: the tags and fields are the storage format.


class Grounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Why a person protects a player. `kind`: a word of policies.interventions; `reason`: their own words, left out where there is
    no key to seal them under: the player is protected all the same.
    """

    kind: str
    reason: Remark | None = None


class TimedOut(Event, frozen=True, kw_only=True, tag="protection.timed_out"):
    """The player does not gamble until then. `rule`: what allows so long; `of`: the other account with which this one was matched."""

    until: datetime
    source: Source
    rule: str = ""
    of: PlayerId | None = None
    intervention: Grounds | None = None


class Excluded(Event, frozen=True, kw_only=True, tag="protection.excluded"):
    """
    The player does not gamble any more. `until`: the end of the term, null for one without an end; `on_request`: it does not
    end by itself then; `not_before`: from when on its end may be asked for, null for never. `jurisdiction`, `rule`: what that
    follows from. `register`: which one says so. `of`: the other account with which this one was matched; `by`: whose word it is there.
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
    intervention: Grounds | None = None


class LiftRequested(Event, frozen=True, kw_only=True, tag="protection.lift_requested"):
    """Somebody has asked for the end of an exclusion that may be asked for; it is over at `effective_at`, as `rule` says."""

    source: Source
    effective_at: datetime
    rule: str = ""
    intervention: Intervention | None = None


class Lifted(Event, frozen=True, tag="protection.lifted"):
    """An exclusion is over since `over_at`, as was asked for. Marketing is silent until `quiet_until`.

    Whether that time has come is for the log to say: recorded before, by a process whose clock was ahead, this changes nothing.
    """

    source: Source
    quiet_until: datetime | None = None
    over_at: datetime | None = None


class ExclusionEnded(Event, frozen=True, tag="protection.exclusion_ended"):
    """An exclusion is over by itself since `over_at`, which counts as of `Lifted`; or (null) because its `register` says so.
    Marketing is silent until `quiet_until`.
    """

    source: Source
    quiet_until: datetime | None = None
    over_at: datetime | None = None
    register: str = ""


class MatchDismissed(Event, frozen=True, tag="protection.match_dismissed"):
    """A person has found that the account is another person's than `of`, which is excluded; `register`: by which, if by one."""

    intervention: Intervention | None = None
    of: PlayerId | None = None
    register: str = ""


class TimeOutDismissed(Event, frozen=True, tag="protection.time_out_dismissed"):
    """A person has found that the account is another person's than `of`, which has the time-out."""

    intervention: Intervention | None = None
    of: PlayerId | None = None


class MatchesShutOut(Event, frozen=True, tag="protection.matches_shut_out"):
    """The same person's other accounts, as far as found, have been shut out like this one. `players`: which."""

    players: tuple[PlayerId, ...] = ()


class ActionBlocked(Event, frozen=True, kw_only=True, tag="protection.action_blocked"):
    """The house has stopped something for the player. `reason`: a word, in the clear."""

    action: Stop
    reason: str
    intervention: Grounds | None = None


class ActionUnblocked(Event, frozen=True, kw_only=True, tag="protection.action_unblocked"):
    """What the house had stopped for the player is no longer stopped for this reason; if that was the last one, it is possible."""

    action: Stop
    reason: str
    intervention: Intervention | None = None


class SafeguardsTakenUp(Event, frozen=True, tag="protection.safeguards_taken_up"):
    """What `log` has recorded of the player's protection while this region could not be reached counts by this stream from now on,
    up to version `upto` of what stands there.
    """

    log: str
    upto: int


class RegisterAsked(Event, frozen=True, kw_only=True, tag="protection.register_asked"):
    """
    A register was asked about the player. `register` is empty where nobody knows of one. `silence`: why it has not answered;
    `holds`: the player waits for it; `ask_again_at`: when it is asked again.
    """

    register: str
    moment: Moment
    answer: Said
    silence: Silence | None = None
    holds: bool = False
    ask_again_at: datetime | None = None


class PlayRefused(Event, frozen=True, kw_only=True, tag="protection.play_refused"):
    """Something was refused because the player is protected from it. `code`: of the refusal; `until`: its end, if it has one."""

    action: Stop
    code: str
    until: datetime | None = None


ProtectionEvent = (
    TimedOut
    | Excluded
    | LiftRequested
    | Lifted
    | ExclusionEnded
    | MatchDismissed
    | TimeOutDismissed
    | MatchesShutOut
    | ActionBlocked
    | ActionUnblocked
    | SafeguardsTakenUp
    | RegisterAsked
    | PlayRefused
)
