"""
The log's time, as far as this process knows it: what it has appended, and how long ago by a clock that nobody sets.

A decision is made at the process's own time, within these bounds: a wait would be over, and a window would have moved on, for who
asks the one process of the house whose clock is ahead.

Invariants:
    - a decision is never earlier than what was appended here;
    - nor later than the log's time by more than the tolerance, once something was appended here, which a process does when it
      starts; how long the log has taken to say so makes it earlier.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from domain.kernel import EPOCH, instant

HOUSE_TOLERANCE: Final = timedelta(seconds=2)
"""By how much a process may be ahead of the log."""


class LogTime:
    """`elapsed`: seconds by a clock that only goes on."""

    def __init__(self, elapsed: Callable[[], float] = time.monotonic, tolerance: timedelta = HOUSE_TOLERANCE) -> None:
        self._elapsed = elapsed
        self._tolerance = tolerance
        self._newest_us = 0
        self._noted = 0.0

    def note(self, recorded_us: int) -> None:
        """Something was appended here, and recorded then (µs since 1970)."""
        if recorded_us > self._newest_us:
            self._newest_us, self._noted = recorded_us, self._elapsed()

    def bound(self, now: datetime) -> datetime:
        """When it is, where the process's own clock says `now`."""
        if not self._newest_us:
            return max(now, EPOCH)
        newest = instant(self._newest_us)
        since = timedelta(seconds=self._elapsed() - self._noted)
        return max(newest, min(now, newest + since + self._tolerance))
