"""
Approvals: a second person's consent to a command, before it runs (four eyes).

Who asks for something that needs consent leaves a record of what exactly was asked: the path, the body, and a hash of both.
Another person approves that hash, and the command runs with the approval, decided anew; or rejects it; or nobody does in time.

The body may hold words of people, so it is sealed. The hash is salted with what is sealed beside it: whoever cannot open the
body cannot try guesses of it either, and when the player's key is destroyed the hash tells nothing any more.

Invariants:
    - nobody approves what they have asked for themselves, by whichever of their accounts;
    - what is approved is what was asked: the approver names its hash;
    - an approval ends once; being told the same end again records nothing;
    - from `expires_at` on nothing is approved, whether or not the timer has said so.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

import msgspec

from domain.errors import Conflict, Forbidden, NotFound
from domain.kernel import (
    EPOCH,
    STREAMS_CACHED,
    Aggregate,
    ApprovalId,
    Event,
    OperatorId,
    Personal,
    PlayerId,
    Remark,
    Stream,
    parse_id,
)

# Events: the tags and fields are the storage format.


class Requested(Event, frozen=True, kw_only=True, tag="approval.requested"):
    """Somebody asked for a command that needs a second person.

    `action`: the right that it needs. `body`: the JSON text as it was sent; `salt`: 32 random hex digits; `hash`: the `digest`
    of path, salt and body. `requester`: whose command it is, when another one's approval runs it. `reasons`: words of
    policies.approvals. It concerns a player or an operator, under whose key it is sealed. `person`: who is behind the requester,
    if that does not speak for itself. `roles`: those by which they asked beside the ones that were granted to them, of the groups of
    a provider of identities.
    """

    action: str
    path: str
    body: Personal
    salt: Personal
    hash: str
    player: PlayerId = PlayerId("")
    operator: OperatorId = OperatorId("")
    requester: str
    person: str = ""
    expires_at: datetime
    reasons: tuple[str, ...]
    roles: tuple[str, ...] = ()


class Approved(Event, frozen=True, tag="approval.approved"):
    """A second person agreed; what the command recorded follows in the same command. `person`: who is behind the account, if that
    does not speak for itself.
    """

    hash: str
    person: str = ""


class Declined(Event, frozen=True, tag="approval.rejected"):
    """A second person did not agree. `reason`: their own words."""

    reason: Remark | None = None


class Expired(Event, frozen=True, tag="approval.expired"):
    """Nobody has decided in time."""


ApprovalEvent = Requested | Approved | Declined | Expired


# State


class Status(StrEnum):
    UNKNOWN = "unknown"
    AWAITING = "awaiting_approval"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"


class Approval(msgspec.Struct, frozen=True):
    """What exactly was asked stands in the log alone."""

    status: Status = Status.UNKNOWN
    hash: str = ""
    player: PlayerId = PlayerId("")
    requester: str = ""
    expires_at: datetime = EPOCH
    operator: OperatorId = OperatorId("")
    person: str = ""


def evolve(approval: Approval, event: ApprovalEvent, _at: datetime) -> Approval:
    match event:
        case Requested():
            return Approval(
                Status.AWAITING,
                event.hash,
                event.player,
                event.requester,
                event.expires_at,
                event.operator,
                event.person,
            )
        case Approved():
            return msgspec.structs.replace(approval, status=Status.APPROVED)
        case Declined():
            return msgspec.structs.replace(approval, status=Status.REJECTED)
        case Expired():
            return msgspec.structs.replace(approval, status=Status.EXPIRED)


APPROVALS = Aggregate("approval", initial=Approval(), evolve=evolve, events=[Requested, Approved, Declined, Expired])


@lru_cache(STREAMS_CACHED)
def stream(approval_id: ApprovalId) -> Stream[Approval]:
    return Stream(APPROVALS, parse_id("approval", approval_id))


def digest(path: str, salt: str, body: str) -> str:
    """What an approver names: SHA-256, in hex, of path ‖ LF ‖ salt ‖ LF ‖ body."""
    return hashlib.sha256(f"{path}\n{salt}\n{body}".encode()).hexdigest()


# Decisions


class SamePerson(Forbidden):
    code = "same_person"
    title = "Nobody approves what they have asked for themselves"


class HashDiffers(Conflict):
    code = "hash_differs"
    title = "This is not the hash of what was asked; read the approval again"


class ApprovalClosed(Conflict):
    """Facts: ended."""

    code = "approval_closed"
    title = "The approval has ended otherwise"


class ApprovalNotDue(Conflict):
    """Facts: expires_at."""

    code = "approval_not_due"
    title = "The approval has not expired yet"


def request(approval: Approval, *, requested: Requested) -> list[ApprovalEvent]:
    """Ask a second person."""
    if approval.status is not Status.UNKNOWN:
        raise Conflict("the approval exists already")
    return [requested]


def approve(
    approval: Approval,
    *,
    asked: Requested | None,
    hash: str,  # noqa: A002 — its name
    by: str,
    at: datetime,
    person: str = "",
    requester: str = "",
) -> list[ApprovalEvent]:
    """Agree to what has this hash. `asked`: what will run, in the clear; nothing does of an approval that has ended.

    `person`: who is behind `by`, and `requester` behind whoever asked, as is known now; "": the accounts speak for themselves.

    Raises NotFound, SamePerson, HashDiffers, ApprovalClosed.
    """
    _refuse_unknown(approval)
    if {by, person or by} & {approval.requester, approval.person, requester}:
        raise SamePerson
    if hash != approval.hash:
        raise HashDiffers
    _refuse_late(approval, at)
    if _ended(approval, Status.APPROVED):
        return []
    if asked is None or hash != digest(asked.path, str(asked.salt), str(asked.body)):
        raise HashDiffers
    return [Approved(hash, person)]


def reject(approval: Approval, *, reason: str, at: datetime) -> list[ApprovalEvent]:
    """Do not agree; who asked may take it back so, too. Raises NotFound, ApprovalClosed."""
    _refuse_unknown(approval)
    _refuse_late(approval, at)
    return [] if _ended(approval, Status.REJECTED) else [Declined(reason)]


def expire(approval: Approval, *, at: datetime) -> list[ApprovalEvent]:
    """Its time is over. Raises NotFound, ApprovalNotDue, ApprovalClosed."""
    _refuse_unknown(approval)
    if approval.status is Status.AWAITING and at < approval.expires_at:
        raise ApprovalNotDue(expires_at=approval.expires_at)
    return [] if _ended(approval, Status.EXPIRED) else [Expired()]


def _refuse_unknown(approval: Approval) -> None:
    if approval.status is Status.UNKNOWN:
        raise NotFound("no such approval")


def _refuse_late(approval: Approval, at: datetime) -> None:
    if approval.status is Status.AWAITING and at >= approval.expires_at:
        raise ApprovalClosed(ended=Status.EXPIRED)


def _ended(approval: Approval, wanted: Status) -> bool:
    """Whether it has ended as wanted. Raises ApprovalClosed if it has otherwise."""
    if approval.status is Status.AWAITING:
        return False
    if approval.status is not wanted:
        raise ApprovalClosed(ended=approval.status)
    return True
