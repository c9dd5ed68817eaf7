"""
How each kind of rule looks at a sign: (rule, what it remembers, sign, where and when) → (what it remembers then, perhaps a hit).

Invariants:
    - what is remembered does not grow with what happens: at most the parts of a span, and NAMED_MAX events by name;
    - a part of a rolling span counts until all of it has left the span: never too little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from domain.findings.signs import Sign
from policies.findings import (
    NAMED_MAX,
    Chase,
    Count,
    Figure,
    Jump,
    Nights,
    One,
    Raised,
    Shared,
    Signal,
    Span,
    Total,
    Unplayed,
    Weeks,
    threshold,
)
from policies.limits import zone
from policies.rules import Rules, country_of

Facts: TypeAlias = dict[str, int | str | bool | tuple[int, ...]]

MICROSECOND: Final = timedelta(microseconds=1)
_MINUTE_US: Final = 60_000_000
_ROLLING: Final = {
    span: (span.grain // MICROSECOND, span.length // span.grain) for span in Span if span is not Span.MONTH
}
"""How long a part is (µs), and how many of them a span has."""

# What is remembered


class Part(NamedTuple):
    """Of a span, or of a day or week: what came in it, how often, and the event that was the first. `place`: how many parts
    after 1970 (of days and weeks: after the year 1).
    """

    place: int
    amount: int
    number: int
    first: str


Parts: TypeAlias = tuple[Part, ...]


class Memory(msgspec.Struct, frozen=True, array_like=True):
    """What one rule remembers of a player. `named`: the newest events that it counts, with the place of their part. `quiet_until`: µs
    since 1970, before which it says nothing more; `last`: by the kind of rule, the µs of the last stake or the month last found.
    """

    parts: Parts = ()
    others: Parts = ()
    named: tuple[tuple[int, str], ...] = ()
    quiet_until: int = 0
    last: int = 0


class Here(NamedTuple):
    """Where and when a sign is looked at."""

    id: str
    at: datetime
    us: int
    jurisdiction: str
    birth_year: int
    currency: str
    law: Rules

    def figure(self, figure: Figure) -> tuple[int, Facts] | None:
        """The figure in minor units, and what a finding says of it; None where no row has it."""
        return _figure(figure, self.jurisdiction, self.birth_year, self.currency, self.at.date(), self.law)


@lru_cache(10_000)
def _figure(
    figure: Figure, jurisdiction: str, birth_year: int, currency: str, day: date, law: Rules
) -> tuple[int, Facts] | None:
    """A row holds for whole days in UTC, so a figure does. (Every bet asks for some.)"""
    at = datetime.combine(day, time(), UTC)
    found = threshold(figure, jurisdiction=jurisdiction, birth_year=birth_year, currency=currency, at=at, rules=law)
    if found is None:
        return None
    said: Facts = {"at_least": found.amount, "currency": currency, "source": found.source}
    return found.amount, said if found.verified else {**said, "verified": False}


class Hit(NamedTuple):
    events: tuple[str, ...]
    facts: Facts


Looked: TypeAlias = tuple[Memory, Hit | None]


# The parts of a span


def _index(span: Span, here: Here) -> int:
    if span is Span.MONTH:
        local = here.at.astimezone(zone(here.jurisdiction))
        return local.year * 12 + local.month
    return here.us // _ROLLING[span][0]


def _oldest(span: Span, index: int) -> int:
    """The oldest part that counts together with the one at `index`."""
    return index if span is Span.MONTH else index - _ROLLING[span][1]


def _added(parts: Parts, index: int, oldest: int, amount: int, id_: str, count: int = 1) -> Parts:
    if parts and index <= parts[-1].place:
        newest = parts[-1]
        return (*parts[:-1], Part(newest.place, newest.amount + amount, newest.number + count, newest.first or id_))
    kept = parts if not parts or parts[0].place >= oldest else tuple(each for each in parts if each.place >= oldest)
    return (*kept, Part(index, amount, count, id_))


def _within(parts: Parts, oldest: int) -> Part:
    """All parts that count as one; its `first` is the first event that counts."""
    amount = count = 0
    first = ""
    for part in parts:
        if part.place >= oldest:
            amount += part.amount
            count += part.number
            first = first or part.first
    return Part(oldest, amount, count, first)


def _naming(memory: Memory, index: int, id_: str) -> tuple[tuple[int, str], ...]:
    return (*memory.named, (index, id_))[-NAMED_MAX:]


def _names(named: Iterable[tuple[int, str]], oldest: int) -> tuple[str, ...]:
    return tuple(id_ for index, id_ in named if index >= oldest)


# How each kind of rule looks


def _count(test: Count, memory: Memory, _sign: Sign, here: Here) -> Looked:
    index = _index(test.span, here)
    oldest = _oldest(test.span, index)
    parts = _added(memory.parts, index, oldest, 0, here.id)
    named = _naming(memory, index, here.id)
    memory = Memory(parts, (), named, memory.quiet_until)
    if len(found := _names(named, oldest)) < test.at_least:
        return memory, None
    counted = _within(parts, oldest).number
    return memory, Hit(found, {"count": counted, "at_least": test.at_least, "span": test.span.value})


def _total(test: Total, memory: Memory, sign: Sign, here: Here) -> Looked:
    index = _index(test.span, here)
    oldest = _oldest(test.span, index)
    added = sign.amount > 0 and sign.signal is test.signal
    amount = -sign.amount if sign.signal is test.minus else sign.amount
    parts = _added(memory.parts, index, oldest, amount, here.id if added else "", int(added))
    named = _naming(memory, index, here.id) if added else memory.named
    memory = Memory(parts, (), named, memory.quiet_until, memory.last)
    if not added or (test.span is Span.MONTH and memory.last == index):
        return memory, None
    figure = here.figure(test.at_least)
    total = _within(parts, oldest)
    if figure is None or total.amount < figure[0]:
        return memory, None
    facts: Facts = {
        "amount": total.amount,
        **figure[1],
        "span": test.span.value,
        "count": total.number,
        "first": total.first,
    }
    return Memory(parts, (), named, memory.quiet_until, index), Hit(_names(named, oldest), facts)


def _one(test: One, memory: Memory, sign: Sign, here: Here) -> Looked:
    figure = here.figure(test.at_least)
    if figure is None or sign.amount < figure[0] + test.above:
        return memory, None
    return memory, Hit((here.id,), {"amount": sign.amount, **figure[1]})


def _raised(test: Raised, memory: Memory, sign: Sign, here: Here) -> Looked:
    figure = here.figure(test.up_to) if country_of(here.jurisdiction) in test.where else None
    if figure is None or sign.amount > figure[0]:
        return memory, None
    return memory, Hit((here.id,), {name: said for name, said in figure[1].items() if name in {"source", "verified"}})


def _instrument(test: Shared, memory: Memory, sign: Sign, here: Here) -> Looked:
    found = Hit((here.id,), {"players": sign.amount, "at_least": test.players})
    return memory, found if sign.amount >= test.players else None


def _unplayed(test: Unplayed, memory: Memory, sign: Sign, here: Here) -> Looked:
    index = _index(test.span, here)
    oldest = _oldest(test.span, index)
    if sign.signal is Signal.STAKE:
        staked = _added(memory.others, index, oldest, sign.amount, here.id)
        return Memory(memory.parts, staked, memory.named, memory.quiet_until), None
    if sign.signal is Signal.DEPOSIT:
        parts = _added(memory.parts, index, oldest, sign.amount, here.id)
        return Memory(parts, memory.others, _naming(memory, index, here.id), memory.quiet_until), None
    deposited, played = _within(memory.parts, oldest).amount, _within(memory.others, oldest).amount
    figure = here.figure(test.at_least)
    if figure is None or deposited < figure[0] or played * 100 >= deposited * test.percent:
        return memory, None
    facts: Facts = {
        "deposited": deposited, "staked": played, "withdrawn": sign.amount, **figure[1],
        "percent": test.percent, "span": test.span.value,
    }  # fmt: skip
    return memory, Hit((*_names(memory.named, oldest)[1 - NAMED_MAX :], here.id), facts)


def _jump(test: Jump, memory: Memory, sign: Sign, here: Here) -> Looked:
    """`others` are the last stakes, one by one; the one that drops out belongs to what was before."""
    if sign.amount <= 0:
        return memory, None
    index = _index(test.span, here)
    oldest = _oldest(test.span, index)
    recent, parts = (*memory.others, Part(index, sign.amount, 1, here.id)), memory.parts
    if len(recent) > test.recent:
        gone, *rest = recent
        recent, parts = tuple(rest), _added(parts, gone.place, _oldest(test.span, gone.place), gone.amount, gone.first)
    memory = Memory(parts, recent, (), memory.quiet_until)
    before = _within(parts, oldest)
    figure = here.figure(test.at_least)
    if figure is None or len(recent) < test.recent or before.number < test.before:
        return memory, None
    newly = sum(each.amount for each in recent)
    if newly < figure[0] * test.recent or newly * before.number < test.times * before.amount * test.recent:
        return memory, None
    facts: Facts = {
        "average": newly // test.recent, "before": before.amount // before.number, **figure[1],
        "times": test.times, "span": test.span.value, "count": before.number,
    }  # fmt: skip
    return memory, Hit(tuple(each.first for each in recent), facts)


def _nights(test: Nights, memory: Memory, sign: Sign, here: Here) -> Looked:
    local = here.at.astimezone(zone(here.jurisdiction))
    if sign.amount <= 0 or not test.begins <= local.hour < test.ends:
        return memory, None
    day = local.date().toordinal()
    parts = _added(memory.parts, day, day - test.of + 1, sign.amount, here.id)
    memory = Memory(parts, (), (), memory.quiet_until)
    nights = tuple(each for each in parts if each.place > day - test.of)
    if len(nights) < test.nights:
        return memory, None
    facts: Facts = {
        "nights": len(nights), "at_least": test.nights, "of": test.of, "from_hour": test.begins, "to_hour": test.ends,
        "staked": sum(each.amount for each in nights), "currency": here.currency,
    }  # fmt: skip
    return memory, Hit(tuple(each.first for each in nights), facts)


def _weeks(test: Weeks, memory: Memory, sign: Sign, here: Here) -> Looked:
    local = here.at.astimezone(zone(here.jurisdiction))
    week = (local.date().toordinal() - 1) // 7  # 1 January of the year 1 was a Monday
    first = week - test.in_a_row + 1
    parts = _added(memory.parts, week, first, sign.amount, here.id)
    named = _naming(memory, week, here.id) if sign.amount > 0 else memory.named
    memory = Memory(parts, (), named, memory.quiet_until)
    lost = [each.amount for each in parts if each.place >= first]
    figure = here.figure(test.at_least)
    if figure is None or sign.amount <= 0 or len(lost) < test.in_a_row or min(lost) < figure[0]:
        return memory, None
    return memory, Hit(_names(named, first), {"weeks": tuple(lost), **figure[1]})


def _chase(test: Chase, memory: Memory, sign: Sign, here: Here) -> Looked:
    """`parts`: deposits that chase, `others`: what was lost."""
    index = _index(Span.HOURS_24, here)
    oldest = _oldest(Span.HOURS_24, index)
    if sign.signal is Signal.STAKE:
        return msgspec.structs.replace(memory, last=here.us if sign.amount > 0 else memory.last), None
    if sign.signal is Signal.LOSS:
        return msgspec.structs.replace(memory, others=_added(memory.others, index, oldest, sign.amount, here.id)), None
    figure = here.figure(test.lost)
    lost = _within(memory.others, oldest).amount
    if figure is None or lost < figure[0] or here.us - memory.last > test.minutes * _MINUTE_US:
        return memory, None
    parts = _added(memory.parts, index, oldest, sign.amount, here.id)
    named = _naming(memory, index, here.id)
    memory = Memory(parts, memory.others, named, memory.quiet_until, memory.last)
    if len(found := _names(named, oldest)) < test.at_least:
        return memory, None
    chasing = _within(parts, oldest)
    facts: Facts = {
        "count": chasing.number, "amount": chasing.amount, "lost": lost, **figure[1],
        "at_least_deposits": test.at_least, "minutes": test.minutes,
    }  # fmt: skip
    return memory, Hit(found, facts)


class Way(NamedTuple):
    """How a kind of rule looks, and at which signals."""

    look: Callable[[Any, Memory, Sign, Here], Looked]
    signals: Callable[[Any], tuple[Signal | None, ...]]


WAYS: Mapping[type, Way] = {
    Count: Way(_count, lambda test: (test.signal,)),
    Total: Way(_total, lambda test: (test.signal, test.minus)),
    One: Way(_one, lambda test: (test.signal,)),
    Raised: Way(_raised, lambda _: (Signal.DEPOSIT_LIMIT_RAISED,)),
    Shared: Way(_instrument, lambda _: (Signal.INSTRUMENT_SHARED,)),
    Unplayed: Way(_unplayed, lambda _: (Signal.DEPOSIT, Signal.STAKE, Signal.WITHDRAWAL)),
    Jump: Way(_jump, lambda _: (Signal.STAKE,)),
    Nights: Way(_nights, lambda _: (Signal.STAKE,)),
    Weeks: Way(_weeks, lambda _: (Signal.LOSS,)),
    Chase: Way(_chase, lambda _: (Signal.STAKE, Signal.LOSS, Signal.DEPOSIT)),
}
