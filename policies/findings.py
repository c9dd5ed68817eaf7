"""
What a rule is that looks at what players do: its name and version, what it counts over which time, from where on that is worth
a notice, and how much it matters. The rules themselves are rows of policies.notices (operations) and policies.harm (markers
of harm); domain.findings reads them.

A figure is the house's own, or a row of rules.csv; a rule that stands on a row holds only where that row is in force.

Invariants:
    - a rule that is changed is another version, with a first day (UTC) of its own, so what was raised when can be told again;
    - of a rule's versions one is in force at a time, the newest that has begun;
    - a count is never larger than the events that a notice can name, so a notice names every event that was counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from policies.currencies import EXPONENTS
from policies.gates import HOUSE_FACTOR
from policies.limits import is_young
from policies.rules import RULES, Rule, Rules

NAMED_MAX: Final = 12
"""How many events a finding names: of what adds up to an amount, the newest."""


class Kind(StrEnum):
    """For whom a notice is."""

    OPERATIONS = "operations"
    HARM = "harm"


class Severity(StrEnum):
    """In rising order. A high marker of harm is a strong one, as rules.csv speaks of `harm_indicator.…`."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Signal(StrEnum):
    """What an event says of its player, with an amount in minor units where it is about money.

    `stake`: what was staked, from any account; `loss`: cash staked less cash won, so it may be negative; `payout`: a withdrawal
    that was paid; `instrument_shared`: the amount is how many players have named the instrument; `month_limit`: the deposit
    limit of a month that was set or asked for; `deposit_limit_raised`: a higher deposit limit was asked for, the amount is that
    of a month's, and 0 of another.
    """

    DEPOSIT = "deposit"
    DEPOSIT_FAILED = "deposit_failed"
    WITHDRAWAL = "withdrawal"
    WITHDRAWAL_CANCELLED = "withdrawal_cancelled"
    PAYOUT = "payout"
    STAKE = "stake"
    WIN = "win"
    LOSS = "loss"
    LOGIN_FAILED = "login_failed"
    INSTRUMENT_SHARED = "instrument_shared"
    LIMIT_RAISED = "limit_raised"
    MONTH_LIMIT = "month_limit"
    DEPOSIT_LIMIT_RAISED = "deposit_limit_raised"
    ERASURE_DUE = "erasure_due"


class Span(StrEnum):
    """How far a rule looks back. Rolling ones count in parts (`grain`), and a part counts until all of it has left the span."""

    HOUR = "1_hour"
    HOURS_24 = "24_hours"
    DAYS_7 = "7_days"
    DAYS_30 = "30_days"
    MONTH = "calendar_month"

    @property
    def length(self) -> timedelta:
        """Of a rolling one. Raises KeyError for a calendar month."""
        return _ROLLING[self][0]

    @property
    def grain(self) -> timedelta:
        return _ROLLING[self][1]


_ROLLING: Mapping[Span, tuple[timedelta, timedelta]] = {
    Span.HOUR: (timedelta(hours=1), timedelta(minutes=5)),
    Span.HOURS_24: (timedelta(hours=24), timedelta(hours=1)),
    Span.DAYS_7: (timedelta(days=7), timedelta(hours=6)),
    Span.DAYS_30: (timedelta(days=30), timedelta(days=1)),
}


class Step(StrEnum):
    """What is stopped by itself with a notice. `deposit_this_month`: deposits, for the rest of the calendar month."""

    BONUS = "bonus"
    MARKETING = "marketing"
    DEPOSIT_THIS_MONTH = "deposit_this_month"


# Figures


class House(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="house"):
    """The house's own figure, and no law: whole euros, dollars, …; times policies.gates.HOUSE_FACTOR where the unit is small."""

    major: int


class Law(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="law"):
    """A row of rules.csv. `young`: the row that holds for young adults instead; whose age is not known is held to be young."""

    row: str
    young: str = ""


Figure = House | Law


class Threshold(NamedTuple):
    """Minor units of the player's currency; `source`: house, or the row of rules.csv; `verified`: that was read where it is made."""

    amount: int
    source: str
    verified: bool


def threshold(
    figure: Figure, *, jurisdiction: str, birth_year: int, currency: str, at: datetime, rules: Rules = RULES
) -> Threshold | None:
    """What a figure comes to; None where no row says it. A row in another currency is converted as the house's figures are.

    `birth_year`: 0 if it is not known.
    """
    if isinstance(figure, House):
        return Threshold(_minor(figure.major, currency), "house", verified=True)
    law = rules.of(jurisdiction, at)
    young = bool(figure.young) and is_young(jurisdiction, birth_year, at, rules)
    row = (law.get(figure.young) if young else None) or law.get(figure.row)
    return None if row is None else Threshold(_converted(row, currency), row.name, row.verified)


def _minor(major: int, currency: str) -> int:
    return int(major * HOUSE_FACTOR.get(currency, 1) * 10 ** EXPONENTS.get(currency, 0))


def _converted(row: Rule, currency: str) -> int:
    if not isinstance(row.value, int) or row.unit not in EXPONENTS:
        raise Unreadable(f"{row.jurisdiction} {row.name}: {row.value} {row.unit} is no amount")
    if row.unit == currency:
        return row.value
    return row.value * _minor(1, currency) // _minor(1, row.unit)


# What a rule tests


class Count(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="count"):
    """At least so many of them within the span."""

    signal: Signal
    span: Span
    at_least: int


class Total(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="total"):
    """They add up to the figure within the span, less what `minus` adds up to."""

    signal: Signal
    span: Span
    at_least: Figure
    minus: Signal | None = None


class One(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="one"):
    """One of them reaches the figure, or exceeds it if `above`."""

    signal: Signal
    at_least: Figure
    above: bool = False


class Raised(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="raised"):
    """A higher deposit limit was asked for in one of the jurisdictions `where` the row asks for something each time. (A month's above
    its figure is for the rule that compares with it.)
    """

    up_to: Law
    where: tuple[str, ...]


class Shared(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="shared"):
    """An instrument that at least so many players have named."""

    players: int


class Unplayed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="unplayed"):
    """A withdrawal after deposits of at least the figure within the span, of which less than `percent` was staked."""

    span: Span
    at_least: Figure
    percent: int


class Jump(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="jump"):
    """The last `recent` stakes are on average `times` those of the span before them, of which there are at least `before`;
    each counts from the figure on.
    """

    span: Span
    recent: int
    before: int
    times: int
    at_least: Figure


class Nights(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="nights"):
    """Stakes between these hours, in the player's jurisdiction, on at least `nights` of the last `of` days."""

    begins: int
    ends: int
    nights: int
    of: int


class Weeks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="weeks"):
    """A net loss of the figure or more in each of so many calendar weeks (Monday to Sunday) in a row, the running one included."""

    at_least: Figure
    in_a_row: int


class Chase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="chase"):
    """At least so many deposits in 24 hours that came within `minutes` of a stake, while 24 hours had cost the figure or more."""

    minutes: int
    lost: Figure
    at_least: int


Test = Count | Total | One | Raised | Shared | Unplayed | Jump | Nights | Weeks | Chase


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rule. `since`: its first day (UTC). `quiet_hours`: for so long the same rule says nothing more of the same player."""

    name: str
    version: int
    since: date
    kind: Kind
    severity: Severity
    says: str
    test: Test
    quiet_hours: int
    steps: tuple[Step, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Those that it compares with."""
        return tuple(
            each for field in self.test.__struct_fields__ if isinstance(each := getattr(self.test, field), Figure)
        )

    @property
    def of_law(self) -> bool:
        """Whether it stands on a row of rules.csv."""
        return any(isinstance(each, Law) for each in self.figures)


class Unusable(ValueError):
    """Rules that cannot be applied."""


class Unreadable(ValueError):
    """A row of rules.csv says what is not understood here."""


class InForce(NamedTuple):
    """A rule, and when it is in force: from `since` until `until`, both days in UTC."""

    rule: Watch
    since: date
    until: date

    def on(self, day: date) -> bool:
        return self.since <= day < self.until


def in_force(rules: Sequence[Watch]) -> list[InForce]:
    """Each rule with its time. Raises Unusable for what cannot be applied."""
    for rule in rules:
        _refuse(rule)
    versions: dict[str, list[Watch]] = {}
    for rule in sorted(rules, key=lambda rule: rule.version):
        versions.setdefault(rule.name, []).append(rule)
    found = []
    for name, each in versions.items():
        ends = [*(rule.since for rule in each[1:]), date.max]
        if any(rule.since >= end for rule, end in zip(each, ends, strict=True)):
            raise Unusable(f"{name}: a later version begins on a later day, and there is one of each")
        found += [InForce(rule, rule.since, end) for rule, end in zip(each, ends, strict=True)]
    return found


def _refuse(rule: Watch) -> None:
    """Raises Unusable."""
    least, most = _counted(rule.test)
    if not 1 <= least <= most:
        raise Unusable(f"{rule.key}: from 1 to {most} can be counted and named, not {least}")
    if isinstance(rule.test, Jump | Unplayed) and rule.test.span is Span.MONTH:
        raise Unusable(f"{rule.key}: this looks back over a rolling span")


def _counted(test: Test) -> tuple[int, int]:
    """How many events or days the rule needs, and how many it may."""
    match test:
        case Count(at_least=least) | Chase(at_least=least) | Jump(recent=least) | Weeks(in_a_row=least):
            return least, NAMED_MAX
        case Nights(nights=nights, of=of):
            return nights, min(of, NAMED_MAX)
        case _:
            return 1, 1


def read(document: bytes) -> tuple[Watch, ...]:
    """Rules from a file: a JSON list, each as docs/reference/notices.md shows it. Raises Unusable."""
    try:
        rules = msgspec.json.decode(document, type=tuple[Watch, ...])
    except msgspec.DecodeError as error:
        raise Unusable(f"these are no rules: {error}") from None
    in_force(rules)
    return rules


def as_data(rules: Iterable[Watch]) -> object:
    """All of it as plain data, for its hash."""
    return msgspec.to_builtins(list(rules))
