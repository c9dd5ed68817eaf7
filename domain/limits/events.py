"""What happens to limits, and to what is used of them."""

from __future__ import annotations

from datetime import date, datetime

import msgspec

from domain.kernel import Event, Intervention, Money, TransactionId
from policies.limits import Kind, Period, Source

# Events: the tags and fields are the storage format.


class LimitSet(Event, frozen=True, kw_only=True, tag="limits.limit_set"):
    """From now on the player may use no more than `money`, or `seconds`, in each `period`. A raise that was asked for is void.

    `reason`: a word, of the house's own limits.
    """

    kind: Kind
    period: Period
    source: Source = Source.PLAYER
    money: Money | None = None
    seconds: int | None = None
    reason: str = ""


class LimitLifted(Event, frozen=True, tag="limits.limit_lifted"):
    """The house has taken its own limit away. `reason`: a word."""

    kind: Kind
    period: Period
    reason: str


class RaiseRequested(Event, frozen=True, kw_only=True, tag="limits.raise_requested"):
    """The player is to have a higher limit, or none (neither `money` nor `seconds`). It may be confirmed from `effective_at` until
    `lapses_at`, once the house has seen what it `needs`. `rule`: what says so, in `jurisdiction`. `source`: who asks; the house
    says why by an `intervention`.
    """

    kind: Kind
    period: Period
    money: Money | None = None
    seconds: int | None = None
    effective_at: datetime
    lapses_at: datetime
    needs: tuple[str, ...] = ()
    rule: str
    jurisdiction: str
    source: Source
    intervention: Intervention | None = None


class RaiseAttested(Event, frozen=True, tag="limits.raise_attested"):
    """Somebody of the house has seen what a raise needs: test, no_risk_behaviour, contact."""

    kind: Kind
    period: Period
    need: str


class RaiseConfirmed(Event, frozen=True, kw_only=True, tag="limits.raise_confirmed"):
    """The player has asked a second time: the higher limit holds, or none any more. `above`: the jurisdiction above whose preset it
    is, seen as its law asks.

    Whether `effective_at` has come is for the log to say: recorded before, by a process whose clock was ahead, this changes nothing.
    """

    kind: Kind
    period: Period
    effective_at: datetime
    money: Money | None = None
    seconds: int | None = None
    above: str = ""

    def holds(self, recorded: datetime) -> bool:
        """Whether it counts, if it was recorded then."""
        return recorded >= self.effective_at


class RaiseWithdrawn(Event, frozen=True, tag="limits.raise_withdrawn"):
    """The player has thought better of it."""

    kind: Kind
    period: Period


class SafeguardsTakenUp(Event, frozen=True, tag="limits.safeguards_taken_up"):
    """As `protection.safeguards_taken_up`, of limits."""

    log: str
    upto: int


class HeadroomConsumed(Event, frozen=True, tag="limits.headroom_consumed"):
    """A deposit was requested, or has arrived after all, and counts on the local `day`, `utc_offset` minutes ahead of UTC, and from
    when this was recorded.
    """

    transaction: TransactionId
    money: Money
    day: date
    utc_offset: int = 0


class HeadroomReleased(Event, frozen=True, tag="limits.headroom_released"):
    """A deposit that was requested has failed, and counts no more. `day`, `at`: with which it had been counted."""

    transaction: TransactionId
    money: Money
    day: date
    at: datetime


class WithdrawalCounted(Event, frozen=True, tag="limits.withdrawal_counted"):
    """A withdrawal was paid: less net deposits on the local `day`."""

    transaction: TransactionId
    money: Money
    day: date
    utc_offset: int = 0


class WithdrawalUncounted(Event, frozen=True, tag="limits.withdrawal_uncounted"):
    """A withdrawal that was paid has come back: more net deposits on the local `day`."""

    transaction: TransactionId
    money: Money
    day: date
    utc_offset: int = 0


class Exceeded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which limit refuses, in minor units of `currency`, or in seconds where there is none. `rule`: a row of rules.csv, or
    `<source>.<kind>.<period>`; `verified`: whether that row was read where the rule is made. `frees_at`: when some of it is
    free again.
    """

    kind: Kind
    period: Period
    source: Source
    rule: str
    limit: int
    used: int
    frees_at: datetime
    currency: str = ""
    verified: bool = True

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)


class RequiredFirst(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit has to be set before: of `each` of the periods, or of one of them. `verified`: whether the rule was read."""

    rule: str
    verified: bool
    periods: tuple[Period, ...]
    each: bool


class DepositRefused(Event, frozen=True, kw_only=True, tag="limits.deposit_refused"):
    """A deposit was refused. `code`: why; what is looked into for money laundering has no figures."""

    money: Money
    code: str
    exceeded: Exceeded | None = None
    required: RequiredFirst | None = None


LimitsEvent = (
    LimitSet
    | LimitLifted
    | RaiseRequested
    | RaiseAttested
    | RaiseConfirmed
    | RaiseWithdrawn
    | SafeguardsTakenUp
    | HeadroomConsumed
    | HeadroomReleased
    | WithdrawalCounted
    | WithdrawalUncounted
    | DepositRefused
)
KINDS: tuple[type[LimitsEvent], ...] = (
    LimitSet,
    LimitLifted,
    RaiseRequested,
    RaiseAttested,
    RaiseConfirmed,
    RaiseWithdrawn,
    SafeguardsTakenUp,
    HeadroomConsumed,
    HeadroomReleased,
    WithdrawalCounted,
    WithdrawalUncounted,
    DepositRefused,
)
