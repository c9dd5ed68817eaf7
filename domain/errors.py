"""
Why a command was refused. The domain knows stable codes and facts; only app/problems.py knows HTTP.

    Rejected
    ├── Invalid            the request itself cannot be meant
    │   ├── InvalidId
    │   └── UnknownCurrency · InvalidAmount
    ├── NotFound           nothing is there
    ├── Forbidden          the caller may not
    ├── Conflict           it does not fit what has happened
    │   ├── PlayerBlocked · PlayerNotActive · AlreadyRegistered · TransactionClosed · KeyReused
    │   └── CurrencyMismatch
    └── Refused by a rule
        └── LimitExceeded · LimitRequired · LimitRaise · GateClosed · UnderReview
"""

from __future__ import annotations

from typing import ClassVar, Self


class Rejected(Exception):
    """A command changed nothing. `facts` are for the caller and never hold personal data. `position`: where the refusal itself was
    recorded, if it was.
    """

    code: ClassVar[str] = "rejected"
    title: ClassVar[str] = "The command was refused"

    def __init__(self, detail: str = "", **facts: object) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.facts = facts
        self.position: str | None = None

    def recorded(self, position: str | None) -> Self:
        """The same, as it stands in a log."""
        self.position = position
        return self


class Invalid(Rejected):
    code = "invalid"
    title = "The request is not valid"


class InvalidId(Invalid):
    code = "invalid_id"
    title = "Not an identifier of this kind"


class UnknownCurrency(Invalid):
    code = "unknown_currency"
    title = "Not a currency of ISO 4217"


class InvalidAmount(Invalid):
    code = "invalid_amount"
    title = "Not an amount that can be booked"


class NotFound(Rejected):
    code = "not_found"
    title = "There is nothing here"


class Forbidden(Rejected):
    code = "forbidden"
    title = "The caller may not do this"


class Conflict(Rejected):
    code = "conflict"
    title = "This does not fit what has happened"


class AlreadyRegistered(Conflict):
    code = "already_registered"
    title = "The player is registered already"


class PlayerBlocked(Conflict):
    code = "player_blocked"
    title = "The player is blocked"


class PlayerNotActive(Conflict):
    """Facts: status."""

    code = "player_not_active"
    title = "The player's account is not active"


class CurrencyMismatch(Conflict):
    code = "currency_mismatch"
    title = "The player's account is in another currency"


class TransactionClosed(Conflict):
    code = "transaction_closed"
    title = "The transaction has ended otherwise"


class KeyReused(Conflict):
    code = "idempotency_key_reused"
    title = "The Idempotency-Key was used for another request"


class RuleRefused(Rejected):
    code = "refused"
    title = "A rule refuses this"


class LimitExceeded(RuleRefused):
    """Facts: rule, verified, kind, period, source; limit, used, remaining (Money, or seconds) and frees_at."""

    code = "limit_exceeded"
    title = "This exceeds a limit"


class LimitRequired(RuleRefused):
    """Facts: rule, verified; periods (for which none is set), each: whether all of them need one."""

    code = "limit_required"
    title = "The player has to set a limit first"


class UnderReview(RuleRefused):
    """Without facts: of what is looked into for money laundering its player may not learn."""

    code = "under_review"
    title = "The account is being looked at"


class LimitRaise(RuleRefused):
    code = "limit_raise"
    title = "A limit is raised only after a cooling-off period and a second confirmation"


class GateClosed(RuleRefused):
    """Facts: action, level (what would open it), reason (the rule that says so), verified: whether it was read where it is made."""

    code = "kyc_required"
    title = "The player must be known better before this"
