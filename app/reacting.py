"""
The role `reactor`: timers, payouts, notices, protection, registers, safeguards and adoptions of one region, in one process.

Invariant: it runs no command before its start stands in the log, and asks no provider outside what the log has ordered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

import httpx2
import structlog

from app import registering
from app.bootstrap import READERS_MAX, WriteSide, told_of, write_side
from app.settings import Settings
from app.starting import Start
from commands.edge import Edge
from commands.plan import Context
from domain.catalog import AGGREGATES
from eventstore import postgres
from eventstore.postgres import PostgresStreams
from eventstore.record import Codec
from providers import known
from providers.http import HttpProvider
from providers.port import Provider
from reactions import runner
from reactions.adopting import PAUSE_S, Adopting
from reactions.erasing import Erasing, Sweeping
from reactions.notices import Notices
from reactions.payouts import Payouts
from reactions.protection import Protecting
from reactions.registers import Registers
from reactions.runner import Reaction
from reactions.safeguards import PAUSE_S as SAFEGUARDS_PAUSE_S
from reactions.safeguards import TakingUp
from reactions.timers import Timers

_log = structlog.get_logger(__name__)


async def react(settings: Settings) -> None:
    """Run until cancelled."""
    async with AsyncExitStack() as stack:
        write = await stack.enter_async_context(write_side(settings))
        pool = await stack.enter_async_context(postgres.pool(settings.postgres, "countroom_reader", size=READERS_MAX))
        client = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, limits=httpx2.Limits()))
        edge = partial(_edge, write)
        streams = PostgresStreams(pool)
        codec = Codec(AGGREGATES)
        payouts = Payouts(
            settings.region,
            pool,
            streams,
            codec,
            write.vault,
            write.decider.decide,
            edge,
            _providers(settings, client),
            is_alone=len(settings.regions) == 1,
        )
        stack.push_async_callback(payouts.close)
        decide = write.decider.decide
        asking = await registering.asking(settings, stack, streams, codec, write.vault)
        registers = Registers(settings.region, pool, streams, codec, decide, edge, asking)
        stack.push_async_callback(registers.close)
        reactions: Mapping[str, Reaction] = {
            "timers": Timers(settings.region, pool, streams, write.decider.run, edge),
            "payouts": payouts,
            "erasing": Erasing(settings.region, pool, codec, write.vault, write.decider.run),
            "sweeping": Sweeping(write.vault),
            "notices": Notices(settings.region, pool, streams, write.decider.run, edge),
            "protection": Protecting(
                settings.region, pool, streams, codec, write.vault, decide, write.decider.look, edge
            ),
            "registers": registers,
        }
        await Start(told_of(settings), adopted_only=settings.adopted_only).record(write.decider, pool, "reactor")
        _log.info("reacting", reactions=list(reactions))
        adopting = Adopting(settings.region, streams, decide)
        taking_up = TakingUp(settings.region, streams, codec, decide, write.decider.look, edge)
        async with asyncio.TaskGroup() as group:
            group.create_task(runner.run(reactions))
            group.create_task(runner.run({"adopting": adopting}, poll_s=PAUSE_S))
            group.create_task(runner.run({"safeguards": taking_up}, poll_s=SAFEGUARDS_PAUSE_S))


def _edge(write: WriteSide, context: Context) -> Edge:
    return Edge(
        context,
        write.vault,
        write.decider.owners.own,
        write.decider.log,
        known=write.authentication.known,
        residency=write.residency,
    )


def _providers(settings: Settings, client: httpx2.AsyncClient) -> Mapping[str, Provider]:
    """Those that can be asked."""
    return {name: HttpProvider(each, client) for name, each in known.load(settings.providers).items() if each.url}
