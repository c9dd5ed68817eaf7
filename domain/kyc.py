"""
KYC: how well we know a player (who they are, how old, where their money comes from), and what is closed to them until we do.

Invariants:
    - a level counts only while what showed it is valid, and a deadline only until it has passed, whether or not a timer has
      noticed; each level has papers of its own, and who is not known is not known better either;
    - a verified age stays verified when a document expires, and is to be verified again when the person becomes another;
    - a provider decides only the levels that it was given, and people any;
    - what a provider or a timer says again records nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache

import msgspec

from domain.errors import Conflict, GateClosed
from domain.kernel import STREAMS_CACHED, Aggregate, Event, Intervention, PlayerId, Stream, parse_id
from domain.players import Activated, Player, ProfileRecorded
from domain.players import Status as PlayerStatus
from policies import gates
from policies.gates import Action, Level, Missing

# Events: the tags and fields are the storage format.


class Requested(Event, frozen=True, tag="kyc.requested"):
    """The player was asked for what `level` needs, until `due_at`. `provider` decides it, and without one only people do."""

    level: Level
    due_at: datetime | None = None
    provider: str = ""


class Submitted(Event, frozen=True, tag="kyc.submitted"):
    """Something to be checked has come in. `method`: how it is checked; `provider` does that, `reference` is theirs. Where none
    is named, whoever had the level keeps it.
    """

    level: Level
    method: str
    provider: str = ""
    reference: str = ""


class Approved(Event, frozen=True, tag="kyc.approved"):
    """The player is known at `level`; the document was valid up to and including `document_expires`."""

    level: Level
    method: str
    age_verified: bool
    document_expires: date | None = None
    intervention: Intervention | None = None


class Rejected(Event, frozen=True, tag="kyc.rejected"):
    """The player is not known at `level`. `reason`: a word, in the clear."""

    level: Level
    method: str
    reason: str
    intervention: Intervention | None = None


class Expired(Event, frozen=True, tag="kyc.expired"):
    """The document that showed who the player is has expired."""


class EnhancedExpired(Event, frozen=True, tag="kyc.enhanced_expired"):
    """What showed where the money comes from has expired; who the player is stays known."""


class AgeDoubted(Event, frozen=True, tag="kyc.age_doubted"):
    """The player's name, birth date or jurisdiction is another than it was when their age was verified."""


class DeadlineMissed(Event, frozen=True, tag="kyc.deadline_missed"):
    """The player has not shown in time what they were asked for."""


KycEvent = Requested | Submitted | Approved | Rejected | Expired | EnhancedExpired | AgeDoubted | DeadlineMissed


# State


class Status(StrEnum):
    NONE = "none"
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"


class Kyc(msgspec.Struct, frozen=True):
    """`level`: how well the player is known, `method`: how that was checked. `wanted`: the level that is asked for, until
    `due_at`, and `missed` once that was noticed to be over. `shown`: by level, the last day of what showed it (null: it
    lasts); what shows the enhanced level shows the identity too, unless that was shown by itself. `level` and
    `document_expires`, the first of these days, follow from it. `given`: by level, the provider that may decide it.
    """

    status: Status = Status.NONE
    level: Level = Level.NONE
    method: str = ""
    age_verified: bool = False
    document_expires: date | None = None
    wanted: Level = Level.NONE
    due_at: datetime | None = None
    missed: bool = False
    shown: Mapping[Level, date | None] = {}
    given: Mapping[Level, str] = {}

    def level_at(self, at: datetime) -> Level:
        """How well the player is known at that time."""
        return _highest(self.valid(at))

    def valid(self, at: datetime) -> Mapping[Level, date | None]:
        """What of `shown` counts at that time: above a level that has expired, nothing."""
        over = [level for level, last in self.shown.items() if last is not None and at.date() > last]
        return {level: last for level, last in self.shown.items() if not any(level.reaches(each) for each in over)}

    def is_overdue(self, at: datetime) -> bool:
        """Whether the player was to show something and the time for it is over."""
        return self.due_at is not None and at >= self.due_at and not self.level_at(at).reaches(self.wanted)

    def missing(self, player: Player, action: Action, *, deposited: int, at: datetime) -> Missing | None:
        """Why the gate is closed, if it is. `deposited`: minor units over the player's life, with the deposit that is asked for."""
        closed = gates.missing(
            action,
            jurisdiction=player.jurisdiction,
            level=self.level_at(at),
            age_verified=self.age_verified,
            deposited=deposited,
            currency=player.currency,
            registered_at=player.registered_at,
            at=at,
        )
        if closed is None and action in gates.PLAY and self.is_overdue(at):
            return Missing(self.wanted, "kyc.requested")
        return closed

    def require(self, player: Player, action: Action, *, deposited: int, at: datetime) -> None:
        """Raises GateClosed (action, level, reason, verified)."""
        if closed := self.missing(player, action, deposited=deposited, at=at):
            raise GateClosed(action=action, level=closed.level, reason=closed.reason, verified=closed.verified)


def evolve(kyc: Kyc, event: KycEvent, at: datetime) -> Kyc:  # noqa: PLR0911 — one case an event
    change = msgspec.structs.replace
    match event:
        case Requested(level, due_at, provider):
            given = {**kyc.given, level: provider} if provider else _without(kyc.given, level)
            return change(kyc, status=Status.PENDING, wanted=level, due_at=due_at, missed=False, given=given)
        case Submitted(level, provider=provider):
            given = {**kyc.given, level: provider} if provider else kyc.given
            return change(kyc, status=Status.PENDING, given=given)
        case Approved():
            known = _showing(kyc, {**kyc.valid(at), event.level: event.document_expires})
            done = known.level.reaches(kyc.wanted)
            return change(
                known,
                status=Status.APPROVED,
                method=event.method,
                age_verified=kyc.age_verified or event.age_verified,
                wanted=Level.NONE if done else kyc.wanted,
                due_at=None if done else kyc.due_at,
                missed=kyc.missed and not done,
            )
        case Rejected():
            return change(_showing(kyc, _below(kyc.shown, event.level)), status=Status.REJECTED, method=event.method)
        case Expired():
            return _showing(change(kyc, status=_expired(kyc)), {})
        case EnhancedExpired():
            return _showing(change(kyc, status=_expired(kyc)), _under(kyc.shown, Level.ENHANCED))
        case AgeDoubted():
            return change(kyc, age_verified=False)
        case DeadlineMissed():
            return change(kyc, missed=True)


def _without(given: Mapping[Level, str], level: Level) -> Mapping[Level, str]:
    return {each: provider for each, provider in given.items() if each is not level}


def _showing(kyc: Kyc, shown: Mapping[Level, date | None]) -> Kyc:
    days = [last for last in shown.values() if last is not None]
    return msgspec.structs.replace(
        kyc, shown=shown, level=_highest(shown), document_expires=min(days) if days else None
    )


def _highest(shown: Mapping[Level, date | None]) -> Level:
    return max(shown, key=lambda each: each.rank, default=Level.NONE)


def _below(shown: Mapping[Level, date | None], rejected: Level) -> Mapping[Level, date | None]:
    """What is left when `rejected` is not shown; of the enhanced level, who the player is."""
    if rejected is Level.ENHANCED and Level.ENHANCED in shown:
        return {Level.IDENTITY: shown.get(Level.IDENTITY, shown[Level.ENHANCED])}
    return _under(shown, rejected)


def _under(shown: Mapping[Level, date | None], level: Level) -> Mapping[Level, date | None]:
    return {each: last for each, last in shown.items() if each.rank < level.rank}


def _expired(kyc: Kyc) -> Status:
    """A rejection stays one: it says more."""
    return kyc.status if kyc.status is Status.REJECTED else Status.EXPIRED


KYC = Aggregate(
    "kyc",
    initial=Kyc(),
    evolve=evolve,
    events=[Requested, Submitted, Approved, Rejected, Expired, EnhancedExpired, AgeDoubted, DeadlineMissed],
)


@lru_cache(STREAMS_CACHED)
def stream(player_id: PlayerId) -> Stream[Kyc]:
    return Stream(KYC, parse_id("player", player_id))


# Decisions


class NotDue(Conflict):
    code = "kyc_not_due"
    title = "The time for this has not come"


def request(
    kyc: Kyc, player: Player, *, level: Level, due_at: datetime | None, at: datetime, provider: str = ""
) -> list[KycEvent]:
    """Ask the player for what a level needs; by default until the law's or the house's deadline.

    Asking again records nothing, unless the deadline or the provider is another, the deadline was missed, or what came was
    rejected. Another provider alone does not move the deadline. Whoever is asked for more is not asked for less instead.
    """
    player.require()
    if kyc.level_at(at).reaches(level) or kyc.wanted.rank > level.rank:
        return []
    over = kyc.missed or kyc.is_overdue(at) or kyc.status is Status.REJECTED
    waits = kyc.wanted is level and not over
    if waits and due_at in {None, kyc.due_at} and provider == kyc.given.get(level, ""):
        return []
    usual = kyc.due_at if waits else gates.due_at(level, player.jurisdiction, player.registered_at, at)
    return [Requested(level, due_at or usual, provider)]


def submit(_kyc: Kyc, player: Player, *, submitted: Submitted) -> list[KycEvent]:
    """Something to be checked has come in; each time is one more."""
    player.require()
    return [submitted]


def approve(kyc: Kyc, player: Player, *, approved: Approved, at: datetime) -> list[KycEvent | Activated]:
    """The player is known now. An account that waited for nothing else becomes active."""
    player.require()
    if approved.document_expires is not None and at.date() > approved.document_expires:
        raise DocumentExpired(expires=approved.document_expires)
    known = kyc.status is Status.APPROVED and approved.level in kyc.valid(at)
    same = known and (kyc.method, kyc.shown[approved.level]) == (approved.method, approved.document_expires)
    if same and kyc.age_verified >= approved.age_verified:
        return []
    waits = player.status is PlayerStatus.PENDING and player.awaiting == ("kyc",)
    return [approved, Activated()] if waits else [approved]


class DocumentExpired(Conflict):
    """Facts: expires."""

    code = "document_expired"
    title = "The document has expired"


def reject(kyc: Kyc, player: Player, *, rejected: Rejected) -> list[KycEvent]:
    """The player is not known at that level, also if they were held to be. Saying so again records nothing."""
    player.require()
    if kyc.status is Status.REJECTED and kyc.method == rejected.method and not kyc.level.reaches(rejected.level):
        return []
    return [rejected]


def expire(kyc: Kyc, *, at: datetime) -> list[KycEvent]:
    """A document's last day is over. Saying so again records nothing."""
    if kyc.document_expires is None:
        return []
    match kyc.level_at(at):
        case kyc.level:
            raise NotDue(document_expires=kyc.document_expires)
        case Level.NONE:
            return [Expired()]
        case _:
            return [EnhancedExpired()]


def doubt_age(kyc: Kyc, player: Player, *, profile: ProfileRecorded) -> list[KycEvent]:
    """What a profile means for an age that was verified: of another person, or for another jurisdiction, it was not."""
    moved = profile.jurisdiction not in {"", player.jurisdiction}
    another = moved or profile.name is not None or profile.birth_date is not None
    return [AgeDoubted()] if another and kyc.age_verified else []


def miss_deadline(kyc: Kyc, *, at: datetime) -> list[KycEvent]:
    """What was asked for has not come in time. Saying so again records nothing."""
    if kyc.missed or kyc.due_at is None or kyc.level_at(at).reaches(kyc.wanted):
        return []
    if not kyc.is_overdue(at):
        raise NotDue(due_at=kyc.due_at)
    return [DeadlineMissed()]
