"""
`countroom serve ROLE…`: one process that plays one or more roles of a region until it is told to stop.

Invariant: every role may be killed at any moment and started again; what it had not committed is done anew.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from app.redacting import redact
from app.settings import Settings, wants_traces
from replication.config import Config

if TYPE_CHECKING:
    from app.tracing import Tracing

ROLES = ("api", "projector", "reactor", "relay", "applier", "checkpointer", "witness", "custodian")


def run(settings: Settings, roles: Sequence[str]) -> None:
    """Run the roles in this process. Raises SystemExit if one of them ends by itself."""
    import uvloop

    _log_as_lines(settings, roles)
    uvloop.run(_run(settings, roles))


async def _run(settings: Settings, roles: Sequence[str]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tracing = _tracing(settings, roles)
    tasks: list[asyncio.Task[Any]] = [
        asyncio.create_task(work, name=role) for role in roles for work in _work(settings, role, stop, tracing)
    ]
    spare_the_collector()
    stopping: asyncio.Task[Any] = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    _, pending = await asyncio.wait([stopping, *tasks], timeout=6)
    for task in pending:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*pending)
    if tracing:
        tracing.close()
    for task in done - {stopping}:
        task.result()


def _tracing(settings: Settings, roles: Sequence[str]) -> Tracing | None:
    if not wants_traces():
        return None
    try:
        from app.tracing import Tracing
    except ImportError:
        structlog.get_logger(__name__).warning("no traces: the packages are missing, pip install 'countroom[tracing]'")
        return None
    return Tracing(settings, roles)


def _work(  # noqa: PLR0911 — one return a role
    settings: Settings, role: str, stop: asyncio.Event, tracing: Tracing | None
) -> list[Coroutine[None, None, None]]:
    match role:
        case "api":
            from app import api

            return [api.serve(settings, stop, tracing)]
        case "projector":
            return [_until(stop, lambda: _project(settings, tracing))]
        case "reactor":
            from app import reacting

            return [_until(stop, lambda: reacting.react(settings))]
        case "relay":
            from app.heads import read_policy
            from replication.frame import tell_nobody
            from replication.relay import run_relay

            relayed = partial(tracing.moved, "relay", settings.region) if tracing else tell_nobody
            policy = read_policy(settings.policy) if settings.policy else None
            return [run_relay(_replication(settings), stop, relayed, policy)]
        case "applier":
            from app.heads import read_policy, refuse_unnamed
            from replication.applier import run_applier
            from replication.closed import run_closed
            from replication.frame import tell_nobody
            from replication.holders import Others

            policy = read_policy(settings.policy) if settings.policy else None
            others = [region for region in settings.regions if region != settings.region]
            if policy:
                refuse_unnamed(policy, [settings.origin_of(each) for each in others if "." in each])
            copied = {
                origin: partial(tracing.moved, "copy", origin) if tracing else tell_nobody
                for origin in (*others, *settings.closed)
            }
            return [
                run_applier(
                    _replication(settings),
                    origin,
                    stop,
                    copied[origin],
                    Others([each for each in others if each != origin], policy),
                )
                for origin in others
            ] + [
                run_closed(_replication(settings), log, stop, Others(others, policy), copied[log])
                for log in settings.closed
            ]
        case "checkpointer":
            from app import heads

            return [heads.checkpoint(settings, _replication(settings), stop)]
        case "witness":
            from app import heads

            return [heads.witness(settings, _replication(settings), stop)]
        case "custodian":
            from app import custody

            return [custody.hold(settings, _replication(settings), stop)]
        case _:
            raise ValueError(f"no role is called {role}; there are {', '.join(ROLES)}")


def spare_the_collector() -> None:
    """What start-up made stays, and collections are rare: they triple the 99th percentile and double decoding."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _project(settings: Settings, tracing: Tracing | None) -> None:
    from redis.asyncio import Redis

    from projections import runner

    async with Redis.from_url(settings.redis) as client:
        await runner.serve(settings.postgres, client, settings.logs, *([tracing.projected] if tracing else []))


def _replication(settings: Settings) -> Config:
    return Config(settings.region, settings.deployment, settings.postgres, settings.nats, settings.nats_seeds)


async def _until(stop: asyncio.Event, work: Callable[[], Awaitable[None]]) -> None:
    """Run endless work until told to stop."""
    working = asyncio.ensure_future(work())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
    else:
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working


def _log_as_lines(settings: Settings, roles: Sequence[str]) -> None:
    """One JSON object a line on standard error, from structlog and logging alike."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redact,
                structlog.processors.JSONRenderer(sort_keys=True),
            ],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    structlog.contextvars.bind_contextvars(region=settings.region, roles=",".join(roles))
