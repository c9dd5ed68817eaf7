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
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx2
import psycopg
import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from access import common_passwords, identity_providers
from access.attempts import Attempts
from access.credentials import CredentialsReader
from access.oidc import Oidc
from access.passkeys import Site
from access.passwords import Passwords
from access.pending import Pending
from app import (
    auditing,
    callbacks,
    commanding,
    compartments,
    denying,
    disclosing,
    explaining,
    fates,
    gaming,
    listening,
    metrics,
    problems,
    querying,
    registering,
    signin,
    tiling,
)
from app.bootstrap import WriteSide, stop_if_dead, told_of, write_side
from app.durability import Durable
from app.fields import Fields
from app.forwarding import Forwarding
from app.guard import Guard
from app.lane import Lane
from app.metrics import Metrics, Timed
from app.openapi import Schemas
from app.planning import Services
from app.settings import Settings
from app.signing_in import SignIn
from app.starting import Start
from commands.denials import Denials
from domain.catalog import AGGREGATES
from domain.errors import Invalid, NotFound, Rejected
from eventstore.log import Command, TooLarge
from eventstore.postgres import PostgresStreams
from eventstore.record import Codec, UnknownEvent
from eventstore.writer import Unavailable
from providers import known as providers
from replication.config import Config
from replication.geo import Confirmations

if TYPE_CHECKING:
    from app.tracing import Tracing

_TO_OTHER_PAGES: dict[str, Any] = {
    "allow_methods": ["GET"],
    "allow_headers": ["Authorization", "Last-Event-ID"],
    "expose_headers": ["Ledger-Position"],
}
"""What the live page of another region may do here (CORS)."""
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
    start = Start(told_of(settings), adopted_only=settings.adopted_only)
    read = await stack.enter_async_context(querying.read_side(settings, write, start, stop))
    starting = asyncio.create_task(start.record(write.decider, read.pool), name="start")
    starting.add_done_callback(stop_if_dead)
    stack.callback(starting.cancel)

    app = application()
    schemas = Schemas()
    known = providers.load(settings.providers)
    streams = PostgresStreams(read.pool)
    asking = await registering.asking(settings, stack, streams, Codec(AGGREGATES), write.vault, counted.watch_registers)
    denials = denying.recorder(write.decider, read.pool, start)
    stack.push_async_callback(denials.close)
    forwarding = counted.watch_regions(Forwarding(_others(settings), us=settings.region))
    confirmations = _confirmations(settings, stack)
    services = Services(
        write.decider,
        write.vault,
        write.authentication,
        write.fingerprint_key,
        providers.speaking(known, of="kyc"),
        asking,
        residency=write.residency,
        denials=denials,
        forwarding=forwarding,
        durable=Durable(settings.region, _others(settings), confirmations),
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
    app.include_router(compartments.router(services, read, schemas))
    app.include_router(auditing.router(read, schemas))
    app.include_router(explaining.router(read, schemas, write.authentication.known))
    app.include_router(fates.router(read, schemas, confirmations, forwarding))
    app.include_router(metrics.router(counted, read, settings))
    signing = await signing_in(settings, stack, write, read.redis)
    app.include_router(signin.router(signing, write.authentication, start, schemas))
    schemas.install(app)
    explain_errors(app, denials)
    await stack.enter_async_context(forwarding.running(_replication(settings)))
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[settings.site, *settings.peers.values()],
        **_TO_OTHER_PAGES,
    )
    outermost: ASGIApp = Lane(app, [*commands.routes, *games.routes])
    if tracing:
        from app.tracing import TracedCommands

        outermost = TracedCommands(outermost, tracing=tracing)
    return Timed(Guard(outermost, write.authentication.limits, settings.proxies), metrics=counted)


def _others(settings: Settings) -> list[str]:
    return [region for region in settings.regions if region != settings.region]


def _replication(settings: Settings) -> Config:
    return Config(settings.region, settings.deployment, settings.postgres, settings.nats, settings.nats_seeds)


def _confirmations(settings: Settings, stack: AsyncExitStack) -> Confirmations:
    """What commands wait for that are to be safe from the loss of this region."""
    confirmations = Confirmations(settings.postgres, settings.region, _log)
    if _others(settings):
        listening_to_them = asyncio.create_task(confirmations.run(), name="confirmations")
        listening_to_them.add_done_callback(stop_if_dead)
        stack.callback(listening_to_them.cancel)
    return confirmations


def application() -> FastAPI:
    """One that serves nothing yet."""
    return FastAPI(
        title="Countroom",
        version="0.1.0",
        description="The back office of an online casino, on a ledger that its regulator can check.",
        # FastAPI's own would tell query strings, and look-ups have names and e-mail addresses there.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # its redirect would go wherever the Host field says
    )


async def signing_in(settings: Settings, stack: AsyncExitStack, write: WriteSide, redis: Redis) -> SignIn:
    """What sign-in needs; `stack` closes it. Raises IdentityProvidersError, PasswordFilesError."""
    client = await stack.enter_async_context(httpx2.AsyncClient())
    names = [settings.deployment, settings.site]
    common = common_passwords.load(settings.password_words, settings.breached_passwords, names)
    passwords = Passwords(common=common)
    stack.callback(passwords.close)
    return SignIn(
        write.decider,
        CredentialsReader(write.decider.log, write.streams, write.vault, Codec(AGGREGATES)),
        write.directory,
        (write.sessions, Pending(redis), Attempts(redis)),
        passwords,
        Site(settings.site),
        {each.name: Oidc(each, client) for each in identity_providers.load(settings.oidc)},
        lambda: datetime.now(UTC),
    )


def explain_errors(app: FastAPI, denials: Denials | None = None) -> None:
    """Answer every error with a problem document; what somebody may not do is recorded."""

    async def refused(request: Request, error: Exception) -> Response:
        denying.note(denials, request.scope, error)
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

    async def forgetful(_request: Request, error: Exception) -> Response:
        _log.warning("Redis does not answer", error=str(error))
        shown = problems.Busy("sessions cannot be looked up now")
        return Response(
            problems.document(shown), problems.status_of(type(shown)), problems.headers(shown), problems.MEDIA_TYPE
        )

    app.add_exception_handler(psycopg.OperationalError, away)
    app.add_exception_handler(RedisError, forgetful)
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
            http=listening.protocol(Fields(tls=settings.site.startswith("https:"))),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=3,
        )
        config.load()
        if settings.tls is not None:
            config.ssl = listening.tls(*settings.tls)
        server = _Server(config)
        looking = asyncio.create_task(listening.look_after(server.server_state.connections))
        stack.callback(looking.cancel)
        serving = asyncio.create_task(server.serve())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        stopping.cancel()
        await serving
