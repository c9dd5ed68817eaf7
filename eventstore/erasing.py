"""
Tells a process's vault which keys were destroyed, so that it forgets what it had opened.

Invariant: as long as nobody can tell, nothing that was opened before is used.
"""

from __future__ import annotations

import asyncio

import psycopg
import structlog

from eventstore.postgres import connect
from eventstore.vault import Vault

CHANNEL = "vault"
_RETRY_S = 1.0
_log = structlog.get_logger(__name__)


async def follow(vault: Vault, dsn: str) -> None:
    """Run until cancelled, with a new connection whenever one is lost."""
    vault.hears(False)
    while True:
        try:
            async with await connect(dsn, "countroom_writer") as connection:
                await connection.execute(f"LISTEN {CHANNEL}".encode())
                vault.hears(True)
                async for told in connection.notifies():
                    vault.forget([told.payload])
        except psycopg.OperationalError as error:
            _log.warning("opened keys are not kept: nobody can say which were destroyed", error=str(error).strip())
        finally:
            vault.hears(False)
        await asyncio.sleep(_RETRY_S)
