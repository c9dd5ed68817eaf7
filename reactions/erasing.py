"""
Erasure, carried out: as soon as a log held here says that a player was erased, this region's keys and index words of them go.

Invariant: nothing is destroyed but for whom a log held here says so (the database's own door looks, `vault.destroy_erased`).
"""

from __future__ import annotations

import structlog

from eventstore.vault import Vault

_log = structlog.get_logger(__name__)


class Erasing:
    """Destroys in one region's vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def step(self) -> None:
        """Do once what is due. Raises Unavailable while entries may be missing from the own log."""
        if destroyed := await self._vault.apply_erasures():
            _log.info("data keys of players who were erased are destroyed", count=destroyed)
