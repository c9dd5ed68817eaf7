"""
How far logs are looked at: as of a position, of a time, or as far as a region provably knew them at a time.

Logs have no common order; what joins them is `recorded`, the time at which each entry was appended. As of `eu/1234` is
therefore: log eu up to position 1234, and every other log up to the time at which that entry was recorded.

Clocks of regions differ, and what one log has adopted goes on from where another one ends. So a moment is closed under adoptions: where
it holds one, it holds the other log up to that cut, also if a clock there was ahead; and where that log is looked at by position and
ends before, the adoption and what follows it in its log is not part of the moment.

Invariants:
    - every moment says in words from what it was made;
    - a moment holds the beginning of each log, without a gap.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import NamedTuple

import msgspec

from domain.kernel import EPOCH, instant, parse_instant

END_US = END_POSITION = 2**63 - 1
_POSITION = re.compile(r"([a-z][a-z0-9]*(?:\.[1-9][0-9]*)?)/([1-9][0-9]{0,18})")
_MICROSECOND = timedelta(microseconds=1)


class NoMoment(Exception):
    """A text names no moment, or one that these logs do not have."""


class Adoption(NamedTuple):
    """`log` goes on, from the entry at `position`, with what the log `of` has kept up to `cut`. `cut_us`: when that was recorded, if
    it is known.
    """

    log: str
    position: int
    recorded_us: int
    of: str
    cut: int
    cut_us: int = END_US


class Moment(msgspec.Struct, frozen=True):
    """`positions`: the last entry of logs that are looked at by position; of the others, `until_us` is the last time. `least`: up to
    where logs are looked at in any case, and `most`: at most.
    """

    said: str
    positions: Mapping[str, int] = {}
    until_us: int = END_US
    least: Mapping[str, int] = {}
    most: Mapping[str, int] = {}

    def covers(self, log: str, position: int, recorded_us: int) -> bool:
        if position > self.most.get(log, END_POSITION):
            return False
        last = self.positions.get(log)
        by_itself = recorded_us <= self.until_us if last is None else position <= last
        return by_itself or position <= self.least.get(log, 0)

    def closed(self, adoptions: Collection[Adoption]) -> Moment:
        """The same with what it holds of adoptions: the other logs up to their cuts, or else not the adoption."""
        most = dict(self.most)
        while True:
            held = _extended(msgspec.structs.replace(self, most=most), adoptions)
            broken = next((each for each in _of(held, adoptions) if each.cut > most.get(each.of, END_POSITION)), None)
            if broken is None:
                break
            most[broken.log] = broken.position - 1
        further = [
            f"{log} up to {position} in any case, since another log goes on from there"
            for log, position in sorted(held.least.items())
        ]
        less = [
            f"{log} up to {position} only, since what follows goes on from what is not part of this"
            for log, position in sorted(most.items())
            if log not in self.most
        ]
        return msgspec.structs.replace(held, said="; ".join([self.said, *further, *less]))


def _of(moment: Moment, adoptions: Collection[Adoption]) -> list[Adoption]:
    """Those that it holds."""
    return [each for each in adoptions if moment.covers(each.log, each.position, each.recorded_us)]


def _extended(moment: Moment, adoptions: Collection[Adoption]) -> Moment:
    """With the other logs up to the cuts of all adoptions that it holds then."""
    by_itself = moment
    while True:
        least = dict(moment.least)
        for each in _of(moment, adoptions):
            if not by_itself.covers(each.of, each.cut, each.cut_us):
                least[each.of] = max(each.cut, least.get(each.of, 0))
        if least == moment.least:
            return moment
        moment = msgspec.structs.replace(moment, least=least)


END = Moment("everything that was verified")


def parse_position(text: str) -> tuple[str, int] | None:
    """Log and position of `eu/1234`; None for any other text."""
    found = _POSITION.fullmatch(text)
    return (found[1], int(found[2])) if found else None


def parse_time(text: str) -> int:
    """µs since 1970 UTC from RFC 3339. Raises NoMoment; a time without its zone is refused."""
    try:
        return (parse_instant(text) - EPOCH) // _MICROSECOND
    except ValueError as error:
        raise NoMoment(f"{text!r} is neither a position, such as eu/1234, nor a time: {error}") from None


def at_time(until_us: int) -> Moment:
    return Moment(f"as recorded by {rfc3339(until_us)}", {}, until_us)


def at_position(log: str, position: int, recorded_us: int) -> Moment:
    return Moment(
        f"as of {log}/{position}, and of other logs what was recorded by then, {rfc3339(recorded_us)}",
        {log: position},
        recorded_us,
        most={log: position},
    )


def known_to(region: str, until_us: int, cosigned: Mapping[str, int]) -> Moment:
    """`cosigned`: up to which position the region's witness had signed each foreign log; 0 where it had not."""
    seen = ", ".join(f"{log} up to {position}" for log, position in sorted(cosigned.items())) or "no other log"
    return Moment(
        f"as {region} knew it at {rfc3339(until_us)}: its own log as recorded by then; of others what its witness had "
        f"signed by then ({seen}), so at least that much",
        dict(cosigned),
        until_us,
    )


def rfc3339(at_us: int) -> str:
    return instant(at_us).isoformat().replace("+00:00", "Z")
