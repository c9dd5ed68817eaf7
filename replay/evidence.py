"""
From what a state was made: which logs, how far, and what was found when they were checked.

Invariant: whoever is shown a state is shown its evidence.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class LogEvidence(msgspec.Struct, frozen=True):
    """
    A log that was verified up to `position`, whose leaf is `leaf` (hex), and replayed up to `upto`.

    `found`: what the check says of entries and signatures.
    """

    log: str
    origin: str
    position: int
    leaf: str
    upto: int
    found: str


class Evidence(msgspec.Struct, frozen=True):
    """`moment` in words; `stranded`: entries shown here that do not count; `others`: logs that hold no casino's facts."""

    target: str
    moment: str
    logs: Sequence[LogEvidence]
    program: str
    stranded: int = 0
    others: Sequence[str] = ()
