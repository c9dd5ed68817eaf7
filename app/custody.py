"""
The role `custodian`: data keys of other regions are asked for and kept, and those made here are given, where residency allows.

It is a process of its own. It holds the region key and is spoken to by other regions, so it holds nothing else: no key of the
log, no secrets of providers; and the processes that replicate hold no region key.

Invariant: it never stops for a region that is silent, wrong or hostile; it says so, and asks again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from structlog.typing import FilteringBoundLogger

from app.heads import read_policy
from app.settings import Settings, SettingsError
from domain.catalog import AGGREGATES
from domain.logs import comes_before
from eventstore import erasing, postgres
from eventstore.keyring import Keyring
from eventstore.note import NoteError
from eventstore.record import Codec
from eventstore.vault import Vault
from eventstore.writer import Unavailable
from reactions.custody import Gives, Wants
from replication import keys
from replication.asking import peer, serve
from replication.config import Config
from replication.errors import Interrupted
from replication.keys import Custody, Found, Unready
from replication.link import link
from replication.tasks import again_and_again, together, until_stopped
from verifier.note import VerifierKey

POLL_S = 0.5
SILENT_FIRST_S, SILENT_MAX_S = 1.0, 30.0
_POOL = 4


async def hold(settings: Settings, config: Config, stop: asyncio.Event, *, poll_s: float = POLL_S) -> None:
    """Play the custodian until `stop`. Raises SettingsError."""
    folder, policy = settings.needed("custodian", "COUNTROOM_CUSTODY", "COUNTROOM_POLICY")
    try:
        custody = Custody.from_folder(folder)
    except (OSError, NoteError) as error:
        raise SettingsError(f"{folder}: {error}; `countroom region keys` makes what is missing") from error
    logs = [log.key for log in read_policy(policy).logs]
    others = [region for region in settings.regions if region != settings.region]
    async with postgres.pool(settings.postgres, "countroom_writer", size=_POOL) as pool:
        vault = Vault(pool, Keyring(settings.region_key))
        custodian = Custodian(settings, config, custody, logs, pool, vault, poll_s)

        async def stopped() -> None:
            await stop.wait()

        works = [work for other in others for work in custodian.works(other, stop)]
        await together(stopped(), erasing.follow(vault, settings.postgres), *custodian.own_works(), *works)


class Custodian:
    def __init__(
        self,
        settings: Settings,
        config: Config,
        custody: Custody,
        logs: Sequence[VerifierKey],
        pool: AsyncConnectionPool[AsyncConnection[Any]],
        vault: Vault,
        poll_s: float,
    ) -> None:
        self._own = settings.region
        self._config = config
        self._custody = custody
        self._logs = logs
        self._poll_s = poll_s
        codec, held = Codec(AGGREGATES), settings.who_may_hold()
        self._closed = settings.closed
        self._gives = Gives(self._own, pool, vault, codec, held, self._before(self._own))
        seen: set[str] = set()
        self._wants: Callable[[str, bool], Wants] = lambda log, told_only: Wants(
            self._own, log, pool, vault, codec, held, seen, told_only=told_only
        )

    def _before(self, log: str) -> list[str]:
        """The closed logs of the same region: what was made there, it gives and asks for now."""
        return [each for each in self._closed if comes_before(each, log)]

    def works(self, other: str, stop: asyncio.Event) -> list[Any]:
        """What is to be run about one other region."""
        logger = structlog.get_logger("custodian").bind(other=other)
        works: list[Any] = [until_stopped(stop, partial(self._answer, other, logger), logger)]
        for log in (other, *self._before(other)):
            wants = self._wants(log, False)
            works.append(self._follow(wants, logger))
            works.append(until_stopped(stop, partial(self._ask, wants, other, logger), logger))
        return works

    def own_works(self) -> list[Any]:
        """What is to be run about the region's own logs."""
        logger = structlog.get_logger("custodian")
        return [self._follow(self._wants(log, True), logger) for log in (self._own, *self._before(self._own))]

    async def _follow(self, wants: Wants, logger: FilteringBoundLogger) -> None:
        async def session() -> None:
            while True:
                with _waiting():
                    await wants.follow()
                await asyncio.sleep(self._poll_s)

        await again_and_again(session, logger)

    async def _ask(self, wants: Wants, origin: str, logger: FilteringBoundLogger) -> None:
        """Ask one region for what is missing, over one connection. Whoever is silent is asked more and more rarely."""
        silent_s = 0.0
        async with (
            link(self._config, self._own, f"custodian-{self._own}", logger) as own,
            peer(own, origin) as asked,
        ):

            async def ask(key_ids: Sequence[str]) -> Found:
                asker, full = self._config.origin(self._own), self._config.origin(origin)
                return await keys.ask(asked, self._custody, asker=asker, origin=full, keys=key_ids)

            async def work() -> None:
                nonlocal silent_s
                while True:
                    kept = 0
                    try:
                        with _waiting():
                            kept = await wants.step(ask, keys.KEYS_MAX)
                        silent_s = 0.0
                    except Interrupted as error:
                        silent_s = min(max(2 * silent_s, SILENT_FIRST_S), SILENT_MAX_S)
                        logger.warning("no keys came", reason=str(error), again_in_s=silent_s)
                    if kept:
                        logger.info("data keys of another region are held here now", count=kept)
                    else:
                        await asyncio.sleep(max(silent_s, self._poll_s))

            await together(own.until_closed(), work())

    async def _answer(self, asker: str, logger: FilteringBoundLogger) -> None:
        """Answer what one region asks, in its realm."""

        async def give(key_ids: Sequence[str]) -> Found:
            try:
                given = await self._gives.give(key_ids, asker)
            except (Unavailable, PoolTimeout) as error:
                raise Unready(str(error)) from error
            for why in sorted(set(given.refused.values())):
                count = sum(each == why for each in given.refused.values())
                logger.info("data keys were not given", reason=why, count=count)
            return Found(given.keys, given.refused)

        verb = keys.answering(
            give,
            origin=self._config.origin(self._own),
            asker=self._config.origin(asker),
            logs=self._logs,
            refused=lambda why: logger.warning("a question for data keys was refused", reason=why),
        )
        async with link(self._config, asker, f"custodian-{self._own}", logger) as realm:
            await together(realm.until_closed(), serve(realm, self._own, {keys.VERB: verb}))


def _waiting() -> suppress:
    """For what the next look will find: the log is not compared yet, or PostgreSQL is busy."""
    return suppress(Unavailable, PoolTimeout)
