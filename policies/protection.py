"""
Protection: for how long players may shut themselves out, when that ends, and where a register of the excluded is asked.

What the law says comes from rules.csv alone (`time_out.*`, `self_exclusion.*`, `marketing.after_*`,
`marketing.register_check_within`). `HOUSE_*` is the house's own policy where no row tells, and no law.

Invariants:
    - a word of rules.csv that is not understood here refuses to load;
    - an exclusion is never shorter than the least that holds there, and never ends before its term, unless the law has a delay of
      lifting one;
    - a register that has not answered is never taken for one that has said «clear».
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from policies.rules import RULES, Rule, Rules, country_of


class Unreadable(ValueError):
    """A rule says what is not understood here: nobody's protection may depend on a guess."""


# Terms


class Span(NamedTuple):
    """A duration: hours of the clock (a day is 24, a week 168), then months of the calendar (a year is 12)."""

    hours: int = 0
    months: int = 0

    def after(self, at: datetime) -> datetime:
        """The end of a span that begins at `at`. A day that the month does not have is its last one: 31 August and six months
        end on 28 February, or on the 29th.
        """
        month = at.month - 1 + self.months
        year, month = at.year + month // 12, month % 12 + 1
        day = min(at.day, calendar.monthrange(year, month)[1])
        return at.replace(year=year, month=month, day=day) + timedelta(hours=self.hours)

    @property
    def longest(self) -> int:
        """In hours, as long as it can be."""
        return self.hours + self.months * 31 * 24

    def __str__(self) -> str:
        for size, unit, amount in ((12, "years", self.months), (1, "months", self.months), (24, "days", self.hours)):
            if amount and not amount % size:
                return f"{amount // size}_{unit}".removesuffix("s" if amount == size else "")
        return "1_hour" if self.hours == 1 else f"{self.hours}_hours"


class Endless(StrEnum):
    """Without an end of its own: until it is lifted on request, or for good."""

    INDEFINITE = "indefinite"
    PERMANENT = "permanent"


Term: TypeAlias = Span | Endless

_UNITS: Mapping[str, Span] = {
    "hour": Span(hours=1),
    "day": Span(hours=24),
    "week": Span(hours=168),
    "month": Span(months=1),
    "year": Span(months=12),
}
_SPAN = re.compile(r"([1-9][0-9]{0,2})_(hour|day|week|month|year)s?")
_ENDLESS = {"indefinite": Endless.INDEFINITE, "permanent": Endless.PERMANENT, "lifetime": Endless.PERMANENT}


def term(word: str) -> Term:
    """What a term is called: 24_hours, 1_week, 6_months, 5_years; indefinite, permanent (or lifetime). Raises Unreadable."""
    if (endless := _ENDLESS.get(word)) is not None:
        return endless
    if (found := _SPAN.fullmatch(word)) is None:
        raise Unreadable(f"{word!r} is no term")
    unit = _UNITS[found[2]]
    return Span(unit.hours * int(found[1]), unit.months * int(found[1]))


# What is offered: the words of the lists `…allowed_durations`


class Offer(NamedTuple):
    """Which terms a word admits. `exactly` this one; or any that is a multiple of `step`, longer than `over` and no longer than
    `up_to`. `definite`: any that ends. `least`: how long an endless one holds at least.
    """

    exactly: Term | None = None
    step: Span | None = None
    over: Span | None = None
    up_to: Span | None = None
    definite: bool = False
    least: Span | None = None

    def admits(self, wanted: Term, at: datetime) -> bool:
        if isinstance(wanted, Endless) or self.exactly is not None:
            return wanted == self.exactly
        if self.definite:
            return True
        if self.step is not None and (wanted.months or wanted.hours % self.step.hours):
            return False
        end = wanted.after(at)
        longer = self.over is None or end > self.over.after(at)
        return longer and (self.up_to is None or end <= self.up_to.after(at))


_RANGE = re.compile(r"more_than_(\w+)_up_to_(\w+)")


def offer(word: str) -> Offer:
    """What a word of a list of durations admits. Raises Unreadable."""
    if word in {"any_hours", "any_days"}:
        return Offer(step=_UNITS[word.removeprefix("any_").removesuffix("s")])
    if word == "definite":
        return Offer(definite=True)
    if word.startswith("other_up_to_"):
        return Offer(up_to=_span(word.removeprefix("other_up_to_")))
    if (found := _RANGE.fullmatch(word)) is not None:
        return Offer(over=_span(found[1]), up_to=_span(found[2]))
    if word.startswith("indefinite_min_"):
        return Offer(Endless.INDEFINITE, least=_span(word.removeprefix("indefinite_min_")))
    return Offer(term(word))


def _span(word: str) -> Span:
    found = term(word)
    if not isinstance(found, Span):
        raise Unreadable(f"{word!r} is no duration")
    return found


# The house's own policy

HOUSE_TIME_OUTS: Final = ("any_hours", "any_days", "other_up_to_6_weeks")
HOUSE_TIME_OUT_MAXIMUM: Final = Span(hours=6 * 168)
"""Of time-outs, where no row tells which there are: hours, days and months up to this."""

LEAST_OF_REGISTER: Final = frozenset({"ES", "PT"})
"""Where `self_exclusion.minimum` is of the entry in the national register, which keeps it itself («ES, PT minimum is in the national
register», rules.md): that is no minimum of an exclusion from this house."""

HOUSE_PANIC: Final = Span(hours=24)
HOUSE_EXCLUSION_MINIMUM: Final = Span(months=6)
HOUSE_EXCLUSION_MAXIMUM: Final = Span(months=99 * 12)
HOUSE_LIFT_DELAY: Final = Span(hours=24)
"""How long after the request an endless exclusion, or one that ends on request only, is over."""


class Moment(StrEnum):
    """When a register is asked."""

    REGISTRATION = "registration"
    LOGIN = "login"
    MARKETING = "marketing"
    PRIZE_PAYMENT = "prize_payment"


class Silence(StrEnum):
    """Why a register has not answered: it was asked in vain; this house was told of registers and not how to ask this one; this
    house was told of none at all; nobody asked in time; nobody has found out whether there is one.
    """

    DOWN = "down"
    NO_ADAPTER = "no_adapter"
    NOT_CONFIGURED = "not_configured"
    NOT_ASKED = "not_asked"
    NOT_RESEARCHED = "not_researched"


HOUSE_MOMENTS: Final = (Moment.REGISTRATION, Moment.LOGIN, Moment.MARKETING)
"""Where there is a register, or nobody knows whether there is one: besides what the law says."""

HOUSE_HOLDS: Final = frozenset({Silence.DOWN, Silence.NO_ADAPTER, Silence.NOT_ASKED})
"""Silences during which nobody new plays: deposits, games and bonuses wait, and log-ins are refused. A register of which the
house was told nothing holds up nobody, but stands in the log as unanswered; marketing is refused in any case."""

HOUSE_CLEAR_COUNTS: Final = timedelta(hours=24)
"""How long a «clear» still counts while the register does not answer, and (where no row tells) before marketing."""

HOUSE_ASKED_AGAIN: Final = frozenset({Silence.DOWN, Silence.NOT_ASKED})
"""Silences that asking again may end; the others end when somebody tells this house of a register."""

HOUSE_ASK_AGAIN: Final = timedelta(minutes=5)
HOUSE_ASK_AGAIN_LONGEST: Final = timedelta(hours=24)
"""A register that holds up players is asked again after as long as it has been silent, but at least and at most after these."""

POLICY: Final[Mapping[str, object]] = {
    "time_outs": HOUSE_TIME_OUTS,
    "time_out_maximum": str(HOUSE_TIME_OUT_MAXIMUM),
    "panic": str(HOUSE_PANIC),
    "exclusion_minimum": str(HOUSE_EXCLUSION_MINIMUM),
    "exclusion_maximum": str(HOUSE_EXCLUSION_MAXIMUM),
    "lift_delay": str(HOUSE_LIFT_DELAY),
    "least_of_register": sorted(LEAST_OF_REGISTER),
    "moments": HOUSE_MOMENTS,
    "holds": sorted(HOUSE_HOLDS),
    "clear_counts_hours": HOUSE_CLEAR_COUNTS // timedelta(hours=1),
    "ask_again_minutes": [each // timedelta(minutes=1) for each in (HOUSE_ASK_AGAIN, HOUSE_ASK_AGAIN_LONGEST)],
}
"""All of it, for the hash in `service.started`."""

IMPLEMENTED: Final = frozenset(
    {
        "time_out.allowed_durations",
        "time_out.panic_button_hours",
        "time_out.panic_button_confirmation_allowed",
        "self_exclusion.allowed_durations",
        "self_exclusion.minimum",
        "self_exclusion.maximum",
        "self_exclusion.ends_only_on_request",
        "self_exclusion.lift_delay",
        "self_exclusion.lift_delay_definite",
        "self_exclusion.lift_delay_indefinite",
        "self_exclusion.lifetime_petition_after",
        "self_exclusion.reopen_after_permanent",
        "self_exclusion.logout",
        "self_exclusion.operator_effective_within",
        "self_exclusion.register",
        "self_exclusion.register_checked_at",
        "marketing.after_exclusion",
        "marketing.after_time_out",
        "marketing.register_check_within",
    }
)
"""The rules of rules.csv that are applied here."""


# How long, and how it ends


class Granted(NamedTuple):
    """A time-out or an exclusion. `until`: its end (None: it has none of its own). `on_request`: it does not end by itself.
    `not_before`: from when on its end may be asked for (None: never). Where the law has a delay of lifting a definite exclusion,
    which would mean nothing otherwise, that is once the least is over. `rule`: what allows it.
    """

    until: datetime | None
    not_before: datetime | None
    on_request: bool
    rule: str
    verified: bool


class NotOffered(NamedTuple):
    """The term is none that the rule allows. `allowed`: its words."""

    allowed: tuple[str, ...]
    rule: str
    verified: bool


def time_out(wanted: Term, jurisdiction: str, at: datetime, rules: Rules = RULES) -> Granted | NotOffered:
    """A time-out that begins at `at`."""
    rule = rules.of(jurisdiction, at).get("time_out.allowed_durations")
    if rule is None:
        if isinstance(wanted, Span) and wanted.after(at) <= HOUSE_TIME_OUT_MAXIMUM.after(at):
            return _ending(wanted.after(at), "house.time_out", verified=True)
        return NotOffered(HOUSE_TIME_OUTS, "house.time_out", verified=True)
    if isinstance(wanted, Span) and any(each.admits(wanted, at) for each in _offers(rule)):
        return _ending(wanted.after(at), rule.name, rule.verified)
    return NotOffered(_words(rule), rule.name, rule.verified)


def panic(jurisdiction: str, at: datetime, rules: Rules = RULES) -> Granted:
    """What the button does that nobody is asked to confirm."""
    rule = rules.of(jurisdiction, at).get("time_out.panic_button_hours")
    if rule is None:
        return _ending(HOUSE_PANIC.after(at), "house.panic", verified=True)
    return _ending(at + _time(rule), rule.name, rule.verified)


def exclusion(wanted: Term, jurisdiction: str, at: datetime, rules: Rules = RULES) -> Granted | NotOffered:
    """A self-exclusion that begins at `at`. One of months that a short month makes shorter than the least ends with that."""
    law = rules.of(jurisdiction, at)
    allowed = law.get("self_exclusion.allowed_durations")
    admitted = None if allowed is None else [each for each in _offers(allowed) if each.admits(wanted, at)]
    if allowed is not None and not admitted:
        return NotOffered(_words(allowed), allowed.name, allowed.verified)
    least = _least(law)
    rule = allowed or least
    if isinstance(wanted, Endless):
        waits = admitted[0].least if admitted and admitted[0].least else least.span
        first = waits.after(at) if wanted is Endless.INDEFINITE else _permanent_until(law, at)
        return Granted(None, first, on_request=True, rule=rule.name, verified=rule.verified)
    until = wanted.after(at)
    if until < (shortest := least.span.after(at)):
        if not wanted.months or wanted.longest < least.span.hours + least.span.months * 28 * 24:
            return NotOffered((f"at_least_{least.span}",), least.name, least.verified)
        until = shortest
    if until > (most := _most(law)).span.after(at):
        return NotOffered((f"at_most_{most.span}",), most.name, most.verified)
    first = min(until, shortest) if "self_exclusion.lift_delay_definite" in law else until
    return Granted(until, first, _on_request(law), rule.name, rule.verified)


def lifted_at(wanted: Term, jurisdiction: str, at: datetime, rules: Rules = RULES) -> Granted:
    """When an exclusion is over whose end was asked for at `at`; whether it may be asked for yet is another question."""
    law = rules.of(jurisdiction, at)
    own = (
        "self_exclusion.lift_delay_indefinite" if isinstance(wanted, Endless) else "self_exclusion.lift_delay_definite"
    )
    rule = law.get(own) or law.get("self_exclusion.lift_delay")
    if rule is None:
        return _ending(HOUSE_LIFT_DELAY.after(at), "house.lift_delay", verified=True)
    return _ending(_after(rule, at), rule.name, rule.verified)


def lift_is_the_players(jurisdiction: str, at: datetime, rules: Rules = RULES) -> bool:
    """Whether the wait of `self_exclusion.lift_delay` is that of an exclusion by the player alone, as its quotation says; of one by
    somebody else it names another, for which there is no row.
    """
    return country_of(jurisdiction) in _LIFT_OF_PLAYERS and "self_exclusion.lift_delay" in rules.of(jurisdiction, at)


_LIFT_OF_PLAYERS: Final = frozenset({"DE"})


def quiet_until(jurisdiction: str, ended: datetime, rules: Rules = RULES) -> datetime:
    """Until when marketing is silent after an exclusion that has ended: for the time that the law names, if it names one."""
    rule = rules.of(jurisdiction, ended).get("marketing.after_exclusion")
    return ended if rule is None or isinstance(rule.value, str) else _after(rule, ended)


class _Bound(NamedTuple):
    span: Span
    name: str
    verified: bool


def _least(law: Mapping[str, Rule]) -> _Bound:
    """The shortest exclusion from this house. Where the law has a list of exact terms and no minimum, the list says it."""
    rule = law.get("self_exclusion.minimum")
    if rule is not None and rule.jurisdiction not in LEAST_OF_REGISTER:
        return _Bound(_span_of(rule), rule.name, rule.verified)
    allowed = law.get("self_exclusion.allowed_durations")
    if allowed is not None and any(isinstance(each.exactly, Span) for each in _offers(allowed)):
        return _Bound(Span(), allowed.name, allowed.verified)
    return _Bound(HOUSE_EXCLUSION_MINIMUM, "house.exclusion_minimum", verified=True)


def _most(law: Mapping[str, Rule]) -> _Bound:
    if (rule := law.get("self_exclusion.maximum")) is not None:
        return _Bound(_span_of(rule), rule.name, rule.verified)
    return _Bound(HOUSE_EXCLUSION_MAXIMUM, "house.exclusion_maximum", verified=True)


def _permanent_until(law: Mapping[str, Rule], at: datetime) -> datetime | None:
    """From when on the end of a permanent exclusion may be asked for; without a rule it has none."""
    rule = law.get("self_exclusion.lifetime_petition_after") or law.get("self_exclusion.reopen_after_permanent")
    return None if rule is None else _after(rule, at)


def _on_request(law: Mapping[str, Rule]) -> bool:
    rule = law.get("self_exclusion.ends_only_on_request")
    return rule is not None and rule.value is True


def _ending(until: datetime, rule: str, verified: bool) -> Granted:
    return Granted(until, until, on_request=False, rule=rule, verified=verified)


# Registers


class Register(NamedTuple):
    """Whom to ask. `name`: as rules.csv has it, empty where nobody has found out whether there is one. `rule`: what says when."""

    name: str
    rule: str
    verified: bool


def register(jurisdiction: str, moment: Moment, at: datetime, rules: Rules = RULES) -> Register | None:
    """The register that is to be asked there at this moment, if one is.

    «No row for a register means the product must ask, not skip the check» (rules.md): where no row names one, one without a
    name is to be asked, and the answer is whatever the house knows of that jurisdiction.
    """
    law = rules.of(jurisdiction, at)
    moments = law.get("self_exclusion.register_checked_at")
    by_law = () if moments is None else _moments(moments)
    if moment not in (*by_law, *HOUSE_MOMENTS):
        return None
    named = law.get("self_exclusion.register")
    if named is None:
        return Register("", "house.register", verified=True)
    rule = moments if moments is not None and moment in by_law else named
    return Register(str(named.value), rule.name, rule.verified)


def holds(reason: Silence, clear_at: datetime | None, at: datetime) -> bool:
    """Whether a player waits for a register that has not answered. `clear_at`: when it last said «clear» of them."""
    return reason in HOUSE_HOLDS and (clear_at is None or at - clear_at > HOUSE_CLEAR_COUNTS)


def ask_again_at(since: datetime, at: datetime) -> datetime:
    """When a register is asked again that has held somebody up since then."""
    return at + min(max(at - since, HOUSE_ASK_AGAIN), HOUSE_ASK_AGAIN_LONGEST)


def clear_counts(jurisdiction: str, at: datetime, rules: Rules = RULES) -> timedelta:
    """How old a «clear» may be before marketing."""
    rule = rules.of(jurisdiction, at).get("marketing.register_check_within")
    return HOUSE_CLEAR_COUNTS if rule is None else _time(rule)


# What the words of rules.csv mean here

_MOMENTS: Mapping[str, Moment] = {
    "registration": Moment.REGISTRATION,
    "before_account_activation": Moment.REGISTRATION,
    "login": Moment.LOGIN,
    "every_login": Moment.LOGIN,
    "before_marketing": Moment.MARKETING,
    "prize_payment": Moment.PRIZE_PAYMENT,
}
_AT_ONCE = frozenset({"forbidden", "as_soon_as_practicable"})


def _words(rule: Rule) -> tuple[str, ...]:
    if not isinstance(rule.value, tuple):
        raise Unreadable(f"{rule.jurisdiction} {rule.name}: {rule.value}")
    return rule.value


@lru_cache(1_000)
def _offers(rule: Rule) -> tuple[Offer, ...]:
    try:
        return tuple(offer(word) for word in _words(rule))
    except Unreadable as error:
        raise Unreadable(f"{rule.jurisdiction} {rule.name}: {error}") from error


def _moments(rule: Rule) -> tuple[Moment, ...]:
    if not _MOMENTS.keys() >= set(_words(rule)):
        raise Unreadable(f"{rule.jurisdiction} {rule.name}: {rule.value}")
    return tuple(_MOMENTS[word] for word in _words(rule))


def _time(rule: Rule) -> timedelta:
    if isinstance(rule.value, timedelta):
        return rule.value
    raise Unreadable(f"{rule.jurisdiction} {rule.name}: {rule.value}")


def _span_of(rule: Rule) -> Span:
    if isinstance(rule.value, timedelta) and not rule.value % timedelta(hours=1):
        return Span(hours=rule.value // timedelta(hours=1))
    if isinstance(rule.value, int) and rule.unit in {"months", "years"}:
        return Span(months=rule.value * (12 if rule.unit == "years" else 1))
    raise Unreadable(f"{rule.jurisdiction} {rule.name}: {rule.value} {rule.unit}")


def _after(rule: Rule, at: datetime) -> datetime:
    return _span_of(rule).after(at)


def require_readable(rules: Rules, names: Collection[str] = IMPLEMENTED) -> None:
    """Read every word of every rule that is applied here, of whatever day. Raises Unreadable."""
    for rule in rules.all:
        if rule.name not in names:
            continue
        match rule.name.rpartition(".")[2]:
            case "allowed_durations":
                _offers(rule)
            case "register_checked_at":
                _moments(rule)
            case "ends_only_on_request" | "panic_button_confirmation_allowed":
                _require(rule, isinstance(rule.value, bool))
            case "logout":
                _require(rule, rule.value == "immediate")
            case "register":
                _require(rule, rule.unit == "name")
            case "after_exclusion" | "after_time_out":
                _require(rule, rule.value in _AT_ONCE if isinstance(rule.value, str) else bool(_span_of(rule)))
            case _:
                _span_of(rule)


def _require(rule: Rule, is_understood: object) -> None:
    if not is_understood:
        raise Unreadable(f"{rule.jurisdiction} {rule.name}: {rule.value}")


require_readable(RULES)
