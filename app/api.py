"""
A region's API: commands, queries, health, and the live page, as one ASGI application.

Invariants:
    - every error a client sees is a problem document; a fault of ours is 500 with no insides;
    - open event streams do not hold up a shutdown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from typing import TYPE_CHECKING, Any

import psycopg
import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from app import auditing, callbacks, commanding, disclosing, gaming, metrics, problems, querying, registering, tiling
from app.bootstrap import stop_if_dead, write_side
from app.commanding import Services
from app.lane import Lane
from app.metrics import Metrics, Timed
from app.openapi import Schemas
from app.settings import Settings
from app.starting import Start
from domain.catalog import AGGREGATES
from domain.errors import Invalid, NotFound, Rejected
from eventstore.log import Command, TooLarge
from eventstore.postgres import PostgresStreams
from eventstore.record import Codec, UnknownEvent
from eventstore.writer import Unavailable
from providers import known as providers

if TYPE_CHECKING:
    from app.tracing import Tracing

_log = structlog.get_logger(__name__)


async def build(
    settings: Settings, stack: AsyncExitStack, stop: asyncio.Event, tracing: Tracing | None = None
) -> ASGIApp:
    """Put the application together; `stack` closes what it opened, `stop` ends open event streams."""
    counted = Metrics()

    def appended(commands: Sequence[Command], seconds: float) -> None:
        counted.appended(commands, seconds)
        if tracing:
            tracing.appended(commands, seconds)

    write = await stack.enter_async_context(write_side(settings, appended))
    start = Start(registering.digest(settings))
    read = await stack.enter_async_context(querying.read_side(settings, write, start, stop))
    starting = asyncio.create_task(start.record(write.decider, read.pool), name="start")
    starting.add_done_callback(stop_if_dead)
    stack.callback(starting.cancel)

    app = FastAPI(
        title="Countroom",
        version="0.1.0",
        description="The back office of an online casino, on a ledger that its regulator can check.",
        # FastAPI's own would tell query strings, and look-ups have names and e-mail addresses there.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        docs_url=None,
        redoc_url=None,
    )
    schemas = Schemas()
    known = providers.load(settings.providers)
    streams = PostgresStreams(read.pool)
    asking = await registering.asking(settings, stack, streams, Codec(AGGREGATES), write.vault, counted.watch_registers)
    services = Services(
        write.decider,
        write.vault,
        write.tokens,
        write.group,
        write.fingerprint_key,
        providers.speaking(known, of="kyc"),
        asking,
    )
    door = gaming.Door(services, start, counted.commands, known)
    games = gaming.router(door, schemas)
    commands = commanding.router(services, start, schemas, counted.commands, door.relay)
    app.include_router(commands)
    app.include_router(games)
    app.include_router(callbacks.router(services, start, schemas, counted.commands, known))
    app.include_router(querying.router(read, schemas))
    app.include_router(tiling.router(read, schemas))
    app.include_router(disclosing.router(read, schemas))
    app.include_router(auditing.router(read, schemas))
    app.include_router(metrics.router(counted, read, settings))
    schemas.install(app)
    explain_errors(app)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[f"http://{settings.api_host}:{settings.api_port}", *settings.peers.values()],
        allow_methods=["GET"],
        allow_headers=["Authorization", "Last-Event-ID"],
    )
    outermost: ASGIApp = Lane(app, [*commands.routes, *games.routes])
    if tracing:
        from app.tracing import TracedCommands

        outermost = TracedCommands(outermost, tracing=tracing)
    return Timed(outermost, metrics=counted)


def explain_errors(app: FastAPI) -> None:
    """Answer every error with a problem document."""

    async def refused(_request: Request, error: Exception) -> Response:
        shown = problems.rejected(error)
        return Response(
            problems.document(shown), problems.status_of(type(shown)), problems.headers(shown), problems.MEDIA_TYPE
        )

    async def not_served(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 — registered for this class only
        shown: Rejected = (
            NotFound("no resource has this path") if error.status_code == NOT_FOUND else problems.MethodRefused()
        )
        return Response(problems.document(shown), error.status_code, error.headers, problems.MEDIA_TYPE)

    async def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 — registered for this class only
        first: dict[str, Any] = error.errors()[0]
        shown = Invalid(str(first["msg"]), parameter=str(first["loc"][-1]))
        return Response(problems.document(shown), problems.status_of(Invalid), media_type=problems.MEDIA_TYPE)

    async def failed(request: Request, error: Exception) -> Response:
        _log.error("a request failed", method=request.method, path=request.url.path, exc_info=error)
        shown = problems.Fault()
        return Response(problems.document(shown), 500, media_type=problems.MEDIA_TYPE)

    async def away(_request: Request, error: Exception) -> Response:
        _log.warning("the database does not answer", error=str(error).strip())
        shown = problems.Busy("the database does not answer")
        return Response(
            problems.document(shown), problems.status_of(type(shown)), problems.headers(shown), problems.MEDIA_TYPE
        )

    app.add_exception_handler(psycopg.OperationalError, away)
    for kind in (Rejected, Unavailable, TooLarge, UnknownEvent):
        app.add_exception_handler(kind, refused)
    app.add_exception_handler(HTTPException, not_served)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, failed)


NOT_FOUND = 404


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs the process."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


async def serve(settings: Settings, stop: asyncio.Event, tracing: Tracing | None = None) -> None:
    """Serve until told to stop."""
    async with AsyncExitStack() as stack:
        app = await build(settings, stack, stop, tracing)
        config = uvicorn.Config(
            app,
            host=settings.api_host,
            port=settings.api_port,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=3,
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        stopping.cancel()
        await serving
