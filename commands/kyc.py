"""Commands on KYC: ask for it, take it in, decide it; and what timers notice."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated

import msgspec

from access.policy import Action
from commands.edge import Edge, Endpoint, InterventionMissing, Label, Nothing, Why, Word, intervention
from commands.plan import Plan
from commands.sealing import KeyNotHeld
from domain import kyc, players
from domain.errors import Invalid, NotFound
from domain.kernel import PlayerId
from domain.kyc import DocumentExpired, NotDue, Status
from policies.gates import Level

DueAt = Annotated[
    datetime, msgspec.Meta(tz=True, description="RFC 3339; by default the law's or the house's deadline.")
]


class RequestKyc(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ask the player for what `level` needs. `provider` decides it then; without one only people do."""

    level: Level
    due_at: DueAt | None = None
    provider: Word | None = None


class SubmitKyc(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something has come in and is checked by `method`, perhaps at a provider, which decides it, and whose `reference` it has."""

    level: Level
    method: Word
    provider: Word | None = None
    reference: Label | None = None


class ApproveKyc(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`document_expires`: its last day. `intervention`: why a person decides; needed from people."""

    level: Level
    method: Word
    age_verified: bool
    document_expires: date | None = None
    intervention: Why | None = None


class RejectKyc(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`reason`: a word. `intervention`: why a person decides; needed from people."""

    level: Level
    method: Word
    reason: Word
    intervention: Why | None = None


class KycChanged(msgspec.Struct, frozen=True):
    player: str
    status: Status


class LevelMissing(Invalid):
    code = "level_missing"
    title = "A level to be shown is identity or enhanced"


def _level(level: Level) -> Level:
    """Raises LevelMissing for none."""
    if level is Level.NONE:
        raise LevelMissing(pointer="/level")
    return level


class ProviderUnknown(Invalid):
    code = "provider_unknown"
    title = "No provider that knows people is called so"


def _require_known(provider: str, edge: Edge) -> None:
    """Raises ProviderUnknown. For decisions, so that a repeat gets its first answer also when the provider is gone."""
    if provider and provider not in edge.kyc_providers:
        raise ProviderUnknown(pointer="/provider")


def _utc(due_at: datetime) -> datetime:
    """Raises Invalid for what is before or after the years that there are."""
    try:
        return due_at.astimezone(UTC)
    except OverflowError:
        raise Invalid("not an instant of the calendar", pointer="/due_at") from None


def _sealing_key(player: players.Player, **_: object) -> tuple[str, str]:
    """What a person says is sealed under the player's own key. Raises NotFound."""
    return player.sealing_key()


def request(player_id: str, command: RequestKyc, edge: Edge) -> Plan:
    """Ask a player for what a level needs, until a deadline. Answers how it stands. Raises NotFound, Invalid, ProviderUnknown."""
    level, provider = _level(command.level), command.provider or ""
    due_at = _utc(command.due_at) if command.due_at else None
    was = Status.NONE

    def decide(at: datetime, state: kyc.Kyc, player: players.Player) -> list[kyc.KycEvent]:
        nonlocal was  # for the answer, if there is nothing to record
        was = state.status
        _require_known(provider, edge)
        return kyc.request(state, player, level=level, due_at=due_at, at=at, provider=provider)

    return Plan(
        edge.context,
        require=(Action.KYC_REQUEST,),
        writes={"state": kyc.stream(PlayerId(player_id))},
        reads={"player": players.stream(PlayerId(player_id))},
        decision=decide,
        answer=lambda facts: KycChanged(player_id, Status.PENDING if facts else was),
    )


def submit(player_id: str, command: SubmitKyc, edge: Edge) -> Plan:
    """Take in something that is to be checked. Raises NotFound, ProviderUnknown."""
    submitted = kyc.Submitted(_level(command.level), command.method, command.provider or "", command.reference or "")

    def decide(_at: datetime, state: kyc.Kyc, player: players.Player) -> list[kyc.KycEvent]:
        _require_known(submitted.provider, edge)
        return kyc.submit(state, player, submitted=submitted)

    return Plan(
        edge.context,
        require=(Action.KYC_REQUEST,),
        writes={"state": kyc.stream(PlayerId(player_id))},
        reads={"player": players.stream(PlayerId(player_id))},
        decision=decide,
        answer=lambda _facts: KycChanged(player_id, Status.PENDING),
    )


def approve(player_id: str, command: ApproveKyc, edge: Edge) -> Plan:
    """Find that a player is known at a level; an account that waited for it becomes active. Raises NotFound, DocumentExpired, KeyNotHeld."""
    approved = kyc.Approved(
        _level(command.level),
        command.method,
        command.age_verified,
        command.document_expires,
        intervention(command.intervention, edge.context),
    )
    return Plan(
        edge.context,
        require=(Action.KYC_DECIDE,),
        writes={"state": kyc.stream(PlayerId(player_id)), "player": players.stream(PlayerId(player_id))},
        decision=lambda at, state, player: kyc.approve(state, player, approved=approved, at=at),
        answer=lambda _facts: KycChanged(player_id, Status.APPROVED),
        key=_sealing_key if command.intervention else None,
    )


def reject(player_id: str, command: RejectKyc, edge: Edge) -> Plan:
    """Find that a player is not known at a level, whatever was held before. Raises NotFound, KeyNotHeld."""
    rejected = kyc.Rejected(
        _level(command.level), command.method, command.reason, intervention(command.intervention, edge.context)
    )
    return Plan(
        edge.context,
        require=(Action.KYC_DECIDE,),
        writes={"state": kyc.stream(PlayerId(player_id))},
        reads={"player": players.stream(PlayerId(player_id))},
        decision=lambda _at, state, player: kyc.reject(state, player, rejected=rejected),
        answer=lambda _facts: KycChanged(player_id, Status.REJECTED),
        key=_sealing_key if command.intervention else None,
    )


def expire(player_id: str, _command: Nothing, edge: Edge) -> Plan:
    """Note that the last day of a player's document is over. For timers. Raises NotDue."""
    return Plan(
        edge.context,
        require=(Action.TIMER_FIRE,),
        writes={"state": kyc.stream(PlayerId(player_id))},
        decision=lambda at, state: kyc.expire(state, at=at),
        answer=lambda _facts: KycFired(player_id),
    )


def miss_deadline(player_id: str, _command: Nothing, edge: Edge) -> Plan:
    """Note that a player has not shown in time what they were asked for. For timers. Raises NotDue."""
    return Plan(
        edge.context,
        require=(Action.TIMER_FIRE,),
        writes={"state": kyc.stream(PlayerId(player_id))},
        decision=lambda at, state: kyc.miss_deadline(state, at=at),
        answer=lambda _facts: KycFired(player_id),
    )


class KycFired(msgspec.Struct, frozen=True):
    player: str


_ONE = "/v1/players/{player_id}/kyc"

ENDPOINTS = (
    Endpoint(f"{_ONE}/request", request, RequestKyc, KycChanged, 200, (NotFound, LevelMissing, ProviderUnknown)),
    Endpoint(f"{_ONE}/submit", submit, SubmitKyc, KycChanged, 200, (NotFound, LevelMissing, ProviderUnknown)),
    Endpoint(
        f"{_ONE}/approve",
        approve,
        ApproveKyc,
        KycChanged,
        200,
        (NotFound, DocumentExpired, InterventionMissing, LevelMissing, KeyNotHeld),
    ),
    Endpoint(
        f"{_ONE}/reject", reject, RejectKyc, KycChanged, 200, (NotFound, InterventionMissing, LevelMissing, KeyNotHeld)
    ),
    Endpoint(f"{_ONE}/expire", expire, Nothing, KycFired, 200, (NotDue,)),
    Endpoint(f"{_ONE}/miss", miss_deadline, Nothing, KycFired, 200, (NotDue,)),
)
