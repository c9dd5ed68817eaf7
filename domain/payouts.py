"""
Payouts: what we have asked a provider to pay, and what it said. One for each withdrawal that we have sent ourselves; its stream
has the withdrawal's suffix. (A withdrawal that a person has sent by hand has none, so nobody is asked to pay it again.)

Invariants:
    - an order stands in the log, and in another region's copy, before the provider is asked for the first time;
    - what was ordered is never ordered otherwise: the provider hears the same key and the same money each time;
    - the provider's answer is recorded once; another one later is a conflict, which a person resolves;
    - until it has answered nobody gives the payout up by hand;
    - once the withdrawal has ended, nobody is asked to pay it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

import msgspec

from domain.errors import Conflict, NotFound
from domain.kernel import STREAMS_CACHED, Aggregate, Event, Money, PlayerId, Remark, Stream, TransactionId, parse_id

# Events: the tags and fields are the storage format.


class PayoutOrdered(Event, frozen=True, tag="payout.ordered"):
    """The provider is asked to pay `player`, until it has answered. The withdrawal was sent by the same command."""

    player: PlayerId
    provider: str
    money: Money


class PayoutAccepted(Event, frozen=True, tag="payout.accepted"):
    """The provider will pay, and calls it `reference`."""

    reference: str


class PayoutDeclined(Event, frozen=True, tag="payout.declined"):
    """The provider will not pay; the withdrawal was returned by the same command. `reason`: in its words."""

    reason: Remark | None = None


class PayoutDropped(Event, frozen=True, tag="payout.dropped"):
    """The withdrawal had ended before the provider has answered; it is asked no more, and a person finds out what it did."""


class PayoutDisputed(Event, frozen=True, tag="payout.disputed"):
    """The provider will pay, and calls it `reference`, but the withdrawal had ended without; a person resolves it."""

    reference: str


PayoutEvent = PayoutOrdered | PayoutAccepted | PayoutDeclined | PayoutDropped | PayoutDisputed


# State


class Status(StrEnum):
    UNKNOWN = "unknown"
    ORDERED = "ordered"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    DROPPED = "dropped"
    DISPUTED = "disputed"


STATUS_AFTER: Mapping[type[Event], Status] = {
    PayoutOrdered: Status.ORDERED,
    PayoutAccepted: Status.ACCEPTED,
    PayoutDeclined: Status.DECLINED,
    PayoutDropped: Status.DROPPED,
    PayoutDisputed: Status.DISPUTED,
}
"""Where each of its events leaves a payout."""


class Payout(msgspec.Struct, frozen=True):
    """`answer`: the provider's reference."""

    status: Status = Status.UNKNOWN
    provider: str = ""
    money: Money = Money(0, "")
    answer: str = ""


def evolve(payout: Payout, event: PayoutEvent, _at: datetime) -> Payout:
    status = STATUS_AFTER[type(event)]
    match event:
        case PayoutOrdered():
            return Payout(status, event.provider, event.money)
        case PayoutAccepted() | PayoutDisputed():
            return msgspec.structs.replace(payout, status=status, answer=event.reference)
        case PayoutDeclined() | PayoutDropped():
            return msgspec.structs.replace(payout, status=status)


PAYOUTS = Aggregate(
    "payout",
    initial=Payout(),
    evolve=evolve,
    events=list(STATUS_AFTER),
)


@lru_cache(STREAMS_CACHED)
def stream(transaction_id: TransactionId) -> Stream[Payout]:
    return Stream(PAYOUTS, parse_id("transaction", transaction_id))


class AnsweredOtherwise(Conflict):
    """Facts: provider, answer."""

    code = "payout_answered_otherwise"
    title = "The provider has answered otherwise before"


class UnderWay(Conflict):
    """Facts: provider."""

    code = "payout_under_way"
    title = "The provider is being asked to pay this; wait for its answer"


# Decisions


def order(payout: Payout, *, player: PlayerId, provider: str, money: Money) -> list[PayoutOrdered]:
    """Have a provider asked to pay. Once: asking again records nothing."""
    return [PayoutOrdered(player, provider, money)] if payout.status is Status.UNKNOWN else []


def require_answered(payout: Payout) -> None:
    """Raises UnderWay while a provider is asked and has not answered."""
    if payout.status is Status.ORDERED:
        raise UnderWay(
            f"{payout.provider} is asked to pay this until it has answered. If the region that owns the player cannot ask it, let that "
            "region know the provider, or hand the player back to one that does. If it has paid, two people settle the withdrawal",
            provider=payout.provider,
        )


def accept(payout: Payout, *, reference: str, is_wanted: bool = True) -> list[PayoutAccepted | PayoutDisputed]:
    """The provider will pay. `is_wanted`: the withdrawal has not ended without. Raises NotFound, AnsweredOtherwise."""
    if payout.status is Status.DISPUTED and payout.answer == reference:
        return []
    if not _is_open(payout, Status.ACCEPTED, reference):
        return []
    return [PayoutAccepted(reference) if is_wanted else PayoutDisputed(reference)]


def decline(payout: Payout, *, reason: str) -> list[PayoutDeclined]:
    """The provider will not pay. Raises NotFound, AnsweredOtherwise."""
    return [PayoutDeclined(reason)] if _is_open(payout, Status.DECLINED, None) else []


def drop(payout: Payout) -> list[PayoutDropped]:
    """Ask no more. An answer that is there stands. Raises NotFound."""
    if payout.status is Status.UNKNOWN:
        raise NotFound("no such payout")
    return [PayoutDropped()] if payout.status is Status.ORDERED else []


def _is_open(payout: Payout, wanted: Status, answer: str | None) -> bool:
    """Whether the answer is still missing; False if it is the one that is there. `answer`: None if any will do."""
    if payout.status is Status.UNKNOWN:
        raise NotFound("no such payout")
    if payout.status is Status.ORDERED:
        return True
    if payout.status is not wanted or answer not in (None, payout.answer):
        raise AnsweredOtherwise(provider=payout.provider, answer=payout.answer)
    return False
