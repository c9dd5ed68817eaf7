"""
What the house asks of a payment provider: pay somebody out, once.

Invariants:
    - a payout's key is the transaction's id: asking again with it never pays again, it gives the first answer;
    - an answer is believed only as far as it speaks of this very payout;
    - no answer is no refusal: whoever does not know asks again.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from domain.kernel import Money, TransactionId


class Payout(NamedTuple):
    """`transaction` is the idempotency key. `instrument`: where the money goes, as the player named it, if they did."""

    transaction: TransactionId
    money: Money
    instrument: str | None = None


class Accepted(NamedTuple):
    """The provider will pay, and calls it `reference`. Whether the money arrives, it says later, by a callback."""

    reference: str


class Declined(NamedTuple):
    """The provider will never pay this. `reason`: a few words."""

    reason: str


Answer = Accepted | Declined


class Unanswered(Exception):
    """The other party has not answered: it is not known what it knows or has done. Of a payout, ask again with the same key."""


class Unbelievable(Unanswered):
    """The answer is not signed, or speaks of something else. It is no answer, and somebody should look at it."""


class Provider(Protocol):
    """A provider's payouts."""

    name: str

    async def pay(self, payout: Payout) -> Answer:
        """Have a payout made. Raises Unanswered."""
