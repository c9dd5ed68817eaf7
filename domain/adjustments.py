"""
Adjustments: money that a person gives to a player or takes from one by hand, with the reason why.

The money moves as a new transfer on the wallet, from or to the contra account house:adjustments; what stands here is why, and
how much one person has moved by now, which policies.approvals asks.

Invariants:
    - an adjustment stands in one command with the transfer that it explains;
    - sums are gross (a credit and a debit do not cancel out) and are those of one day (UTC), by the time of recording;
    - they count for the person who asked, by whatever account, also where another person's approval has run the command.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from typing import NewType

import msgspec

from domain.errors import Conflict, CurrencyMismatch, NotFound
from domain.kernel import (
    STREAMS_CACHED,
    Aggregate,
    Event,
    Intervention,
    Money,
    PlayerId,
    Stream,
    TicketId,
    parse_id,
)
from domain.players import Player, Status
from domain.tickets import Ticket
from domain.wallets import Direction

AdjustmentId = NewType("AdjustmentId", str)

# Events: the tags and fields are the storage format.


class Account(StrEnum):
    """Of the player's. `receivable`: what the player owes; a credit waives it."""

    CASH = "cash"
    BONUS = "bonus"
    RECEIVABLE = "receivable"


class ReasonCode(StrEnum):
    BALANCE_CORRECTION = "balance_correction"
    PAYMENT_ERROR = "payment_error"
    GAME_ERROR = "game_error"
    GOODWILL = "goodwill"
    FEE = "fee"
    DEBT_WAIVED = "debt_waived"
    OTHER = "other"


class Made(Event, frozen=True, kw_only=True, tag="adjustment.made"):
    """Money was moved by hand. `operator`: who asked for it, who need not be the one whose command ran it; `person`: who is
    behind that account, if it does not speak for itself.
    """

    adjustment: AdjustmentId
    operator: str
    money: Money
    direction: Direction
    account: Account
    reason_code: ReasonCode
    ticket: TicketId | None = None
    intervention: Intervention | None = None
    person: str = ""

    @property
    def behind(self) -> str:
        return self.person or self.operator


# State


class Adjustments(msgspec.Struct, frozen=True):
    """Minor units that were moved on `day`, of the player's one currency, by person."""

    day: date = date.min
    sums: dict[str, int] = {}

    def on(self, day: date) -> int:
        """What all have moved on a day."""
        return sum(self.sums.values()) if day == self.day else 0

    def by(self, person: str, day: date) -> int:
        """What one has moved on a day."""
        return self.sums.get(person, 0) if day == self.day else 0

    def moved(self, person: str, amount: int, at: datetime) -> Adjustments:
        """With what one has moved now. A day does not come back."""
        day = max(at.date(), self.day)
        sums = self.sums if day == self.day else {}
        return Adjustments(day, {**sums, person: sums.get(person, 0) + amount})


def evolve(adjustments: Adjustments, event: Made, at: datetime) -> Adjustments:
    return adjustments.moved(event.behind, event.money.amount, at)


ADJUSTMENTS = Aggregate("adjustment", initial=Adjustments(), evolve=evolve, events=[Made])


@lru_cache(STREAMS_CACHED)
def stream(player_id: PlayerId) -> Stream[Adjustments]:
    return Stream(ADJUSTMENTS, parse_id("player", player_id))


# Decisions


class NotTheirTicket(Conflict):
    """Facts: ticket."""

    code = "not_their_ticket"
    title = "The player has no such ticket"


def adjust(player: Player, ticket: Ticket | None, *, player_id: PlayerId, made: Made) -> list[Made]:
    """Say why money moves; the wallet says whether it can. Also for a player who may not play.

    Raises NotFound, CurrencyMismatch, NotTheirTicket.
    """
    if player.status is Status.UNKNOWN:
        raise NotFound("no such player")
    if made.money.currency != player.currency:
        raise CurrencyMismatch(expected=player.currency, got=made.money.currency)
    if ticket is not None and ticket.player != player_id:
        raise NotTheirTicket(ticket=made.ticket)
    return [made]
