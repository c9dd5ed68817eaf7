"""
Opening personal fields for an answer, and remembering whose they were.

Invariant: what opens goes with one answer: once it is recorded whom that tells of, nothing more opens.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from app import problems
from domain.kernel import OperatorId, PlayerId, Sealed
from domain.players import DataKey
from eventstore.vault import CannotOpen, Vault

_log = structlog.get_logger(__name__)


class Opener:
    """Opens what this region's vault has keys for (queries.context.OpenPersonal), and adds whose it was to `told`."""

    def __init__(self, vault: Vault, told: set[PlayerId | OperatorId]) -> None:
        self._vault = vault
        self._told = told
        self._is_open = True

    async def __call__(
        self, whose: PlayerId | OperatorId, event_id: str, key: DataKey, fields: Mapping[str, Sealed]
    ) -> Mapping[str, str]:
        if not self._is_open:
            raise RuntimeError("personal fields are opened after it was recorded who is told of")
        try:
            keys = await self._vault.keys({key.id: key.commitment})
            clear = {
                path: keys[sealed.key].open(sealed, event_id=event_id, path=path)
                for path, sealed in fields.items()
                if sealed.key in keys
            }
        except CannotOpen as error:
            _log.error("personal fields do not open", reason=str(error))
            raise problems.Unopenable(str(error)) from error
        if clear:
            self._told.add(whose)
        return clear

    def close(self) -> None:
        self._is_open = False
