"""
A live log, entry by entry as it grows, behind what was verified.

Invariants:
    - every entry continues the chain of what was verified, or following ends with CouldNotCheck;
    - what follows the newest signed head is only as safe as its region, as everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from app.replaying.verified import Chain, Verified, VerifiedLog
from eventstore.record import Entry
from verifier.faults import CouldNotCheck

POLL_S = 1.0


class Following:
    """The logs at a target from where they were verified to on."""

    def __init__(self, logs: Verified) -> None:
        """Raises CouldNotCheck for an export, which does not grow."""
        if any(log.report.taken is not None for log in logs.logs.values()):
            raise CouldNotCheck("an export does not grow: follow a region, its database, or a directory of tiles")
        self._logs = logs.logs
        self._chains = {
            name: Chain(name, log.report.position, bytes.fromhex(log.report.leaf)) for name, log in logs.logs.items()
        }

    def new(self) -> Iterator[Entry]:
        """What the logs hold now behind what was given before, log by log. Raises CouldNotCheck."""
        heads = {head.log: head for log in self._logs.values() for head in log.keeper.heads()}
        for name, log in self._logs.items():
            chain, head = self._chains[name], heads.get(name)
            if head is None or head.position < chain.position:
                raise CouldNotCheck(f"log {name} is gone, or shorter than it was")
            if head.position > chain.position:
                grown = VerifiedLog(head, log.report, log.keeper)
                for part in grown.raw(chain.position, head.position):
                    yield from chain.follow(part)
                if chain.position != head.position or head.leaf not in (None, chain.leaf):
                    raise CouldNotCheck(f"log {name} does not end at position {head.position} as it was announced")

    def for_ever(self) -> Iterator[Entry]:
        """New entries as they come; a poll each second. Raises CouldNotCheck."""
        while True:
            yield from self.new()
            time.sleep(POLL_S)
