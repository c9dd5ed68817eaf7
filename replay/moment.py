"""
How far logs are looked at: as of a position, of a time, or as far as a region provably knew them at a time.

Logs have no common order; what joins them is `recorded`, the time at which each entry was appended. As of `eu/1234` is
therefore: log eu up to position 1234, and every other log up to the time at which that entry was recorded.

Invariant: every moment says in words from what it was made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta

import msgspec

from domain.kernel import EPOCH, instant, parse_instant

END_US = 2**63 - 1
_POSITION = re.compile(r"([a-z][a-z0-9]*(?:\.[1-9][0-9]*)?)/([1-9][0-9]{0,18})")
_MICROSECOND = timedelta(microseconds=1)


class NoMoment(Exception):
    """A text names no moment, or one that these logs do not have."""


class Moment(msgspec.Struct, frozen=True):
    """`positions`: the last entry of logs that are looked at by position; of the others, `until_us` is the last time."""

    said: str
    positions: Mapping[str, int] = {}
    until_us: int = END_US

    def covers(self, log: str, position: int, recorded_us: int) -> bool:
        last = self.positions.get(log)
        return recorded_us <= self.until_us if last is None else position <= last


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
