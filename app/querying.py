"""
The read side on HTTP: each query with its path, its right, its parameters and its schema.

Invariant: what a route returns is one msgspec Struct, encoded once; parameters are checked before anything is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from functools import partial
from typing import Annotated, Any, NamedTuple

import msgspec
from fastapi import APIRouter, Header, Query, Request
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis
from starlette.responses import Response, StreamingResponse

from access import predicate
from access.policy import Action, Principal
from access.predicate import Predicate
from access.steps import StepUpRequired, require_stepped_up
from app import approving, causal, health, managing, noticing, openapi, paying, playing, problems, ticketing
from app import players as people
from app import seeing as sight
from app.authentication import Authentication
from app.bootstrap import WriteSide
from app.openapi import Schemas
from app.opening import Opener
from app.routing import ALWAYS, Routes
from app.settings import Settings
from app.starting import Start, recorder
from app.streaming import NDJSON, SSE, Still, Streamed, dashboards
from app.watching import Verification, Watch
from commands.edge import Amount, money
from commands.reads import Recorder, TooManyReads, read_of
from domain.errors import Forbidden, Invalid, NotFound, Rejected
from domain.kernel import OperatorId, PlayerId
from eventstore import postgres
from eventstore.vault import Vault
from policies import steps
from projections import catalog
from queries import audit, dashboard, lags, projections, rules, segments, wallets
from queries import causal as positions
from queries.causal import Reached, Waiting
from queries.context import Context, MayKnow, know_nothing, open_nothing
from queries.tiles import POSITION_MAX

READERS_MAX = 8
UNRECORDED: tuple[type[Rejected], ...] = (TooManyReads, problems.Busy, StepUpRequired)
"""Why a read that is recorded may be refused although it is allowed: it cannot be recorded now."""
_encode = msgspec.json.Encoder().encode


class RegionInfo(msgspec.Struct, frozen=True):
    """A region of the deployment; `self` is true for the one that answers."""

    name: str
    url: str
    self: bool


class Regions(msgspec.Struct, frozen=True):
    items: list[RegionInfo]
    next_cursor: str | None = None


class Logs(msgspec.Struct, frozen=True):
    items: list[audit.LogHead]
    next_cursor: str | None = None


class Lags(msgspec.Struct, frozen=True):
    items: list[lags.Lag]
    next_cursor: str | None = None


class Verifications(msgspec.Struct, frozen=True):
    items: list[Verification]
    next_cursor: str | None = None


class Projections(msgspec.Struct, frozen=True):
    items: list[projections.ProjectionInfo]
    next_cursor: str | None = None


class ReadSide(NamedTuple):
    """What queries need at run time."""

    pool: AsyncConnectionPool[AsyncConnection[Any]]
    redis: Redis
    vault: Vault
    authentication: Authentication
    watch: Watch
    regions: Regions
    stop: asyncio.Event
    start: Start
    reads: Recorder
    waiting: Waiting

    @property
    def looking(self) -> Context:
        """For looking where the logs and the read models are."""
        return Context(self.pool, self.redis, open_nothing)

    async def reached(self, sources: Collection[str]) -> Reached:
        """How far these are (queries/causal.py)."""
        return await positions.reached(self.looking, self.log, sources)

    @property
    def log(self) -> str:
        """The name of the log that is written here."""
        return self.reads.log

    async def auditor(
        self, request: Request, action: Action = Action.AUDIT_READ, player: str | None = None
    ) -> Principal:
        """Who asks, if they may read the audit of all players, or of one. Raises Unauthenticated, Forbidden, NotFound."""
        principal = await self.authentication(request.scope)
        await sight.require_of(self, principal, action, player)
        return principal

    def still(self, request: Request, action: Action, player: str | None = None) -> Still:
        """Whether whoever has asked this still may, while the answer goes on."""

        async def ask() -> None:
            await sight.require_of(self, await self.authentication.still(request.scope), action, player)

        return Still(ask)

    async def recorded(
        self, principal: Principal, what: str, /, subjects: Collection[PlayerId | OperatorId] = (), **query: object
    ) -> None:
        """Return once the log says that the principal reads this: to be awaited before the answer begins.

        Raises Invalid, TooManyReads, StepUpRequired for an export, and Busy while the log cannot be written: a read that leaves no trace is not given.
        """
        self.start.require()
        if what in steps.EXPORTS:
            require_stepped_up(principal, what, datetime.now(UTC))
        await self.reads.record(principal, read_of(what, subjects, **query))

    def context(self, *, sees: Predicate = predicate.ALWAYS, may_know: MayKnow = know_nothing) -> Context:
        """For queries that show what is personal as sealed."""
        return Context(self.pool, self.redis, open_nothing, sees=sees, may_know=may_know)

    @asynccontextmanager
    async def opening(
        self, principal: Principal, what: str, query: Mapping[str, object], seen: sight.Sight, *, always: bool = False
    ) -> AsyncIterator[Context]:
        """For queries that open what is personal, of players as `seen` says and of operators by right. To be left before the answer
        begins: on leaving, it is recorded of whom that tells, and nothing if it tells of nobody, unless `always`. Raises as `recorded` does.
        """
        told: set[PlayerId | OperatorId] = set()
        opener = Opener(self.vault, told)
        players = opener if seen.personal else open_nothing
        operators = opener if principal.may(Action.OPERATOR_READ) else open_nothing
        yield Context(self.pool, self.redis, players, operators, seen.sees, told, sight.may_know(principal))
        opener.close()
        if told or always:
            await self.recorded(principal, what, told, **query)


@asynccontextmanager
async def read_side(settings: Settings, write: WriteSide, start: Start, stop: asyncio.Event) -> AsyncIterator[ReadSide]:
    """Connections for queries and the running check of the logs, until the block ends."""
    here = RegionInfo(settings.region, settings.url, self=True)
    others = [RegionInfo(name, url, self=False) for name, url in settings.peers.items()]
    order = {name: place for place, name in enumerate(settings.regions)}
    regions = Regions(sorted([here, *others], key=lambda region: order.get(region.name, len(order))))
    watch = Watch(settings.postgres)
    async with (
        postgres.pool(settings.postgres, "countroom_reader", size=READERS_MAX) as pool,
        Redis.from_url(settings.redis) as redis,
    ):
        watch.start()
        try:
            reads = recorder(write.decider, pool)
            waiting = causal.waiting_on(pool, redis, reads.log)
            yield ReadSide(pool, redis, write.vault, write.authentication, watch, regions, stop, start, reads, waiting)
        finally:
            watch.stop()


_INT = {"type": "integer"}
_LIMIT = openapi.query_parameter("limit", {**_INT, "minimum": 1, "maximum": 200, "default": 50})
_CURSOR = openapi.query_parameter("cursor", {"type": "string"}, "The last page's next_cursor.")


def router(read: ReadSide, schemas: Schemas) -> APIRouter:
    """All query routes, health and the live page."""
    routes = Routes(read, schemas)
    _add_players(routes, read)
    approving.add(routes.get, [_CURSOR, _LIMIT])
    ticketing.add(routes.get, [_CURSOR, _LIMIT])
    noticing.add(routes.get, [_CURSOR, _LIMIT])
    playing.add(routes.get, [_CURSOR, _LIMIT])
    managing.add(routes.get, [_CURSOR, _LIMIT])
    _add_overviews(routes, read, schemas)
    _add_audit(routes, read, schemas)
    _add_projections(routes, read, schemas)
    health.add(routes.router, read)
    return routes.router


def _add_players(routes: Routes, read: ReadSide) -> None:
    people.add(routes.get, routes.look_up, read.vault, [_CURSOR, _LIMIT])
    paying.add(routes.get, [_CURSOR, _LIMIT])


def _add_overviews(routes: Routes, read: ReadSide, schemas: Schemas) -> None:
    async def deposited(context: Context, currency: str, minimum: int, **given: Any) -> segments.Segment:
        """The CRM segment «deposited at least X in total», the largest first."""
        return await segments.deposited_at_least(context, money(Amount(minimum, currency), ""), **given)

    async def law(_context: Context, jurisdiction: str, at: str | None = None) -> rules.Rules:
        """What the law asks for in a jurisdiction on a day (by default today, UTC), and whether the engine applies it."""
        try:
            day = date.fromisoformat(at) if at else datetime.now(UTC).date()
        except ValueError:
            raise Invalid("at is a day of the calendar", parameter="at") from None
        return rules.show(jurisdiction, day)

    routes.get(
        "/v1/rules",
        rules.Rules,
        Action.RULES_READ,
        law,
        reads=(),
        parameters=[
            openapi.query_parameter("jurisdiction", {"type": "string"}, "ISO 3166-1 or 3166-2.", required=True),
            openapi.query_parameter("at", {"type": "string", "format": "date"}, "A day (UTC)."),
        ],
        errors=(rules.UnknownJurisdiction,),
    )
    routes.get("/v1/dashboard", dashboard.Dashboard, Action.DASHBOARD_READ, dashboard.dashboard, reads=("dashboard",))
    routes.get(
        "/v1/trial-balance", wallets.TrialBalance, Action.DASHBOARD_READ, wallets.trial_balance, reads=("wallets",)
    )
    routes.get(
        "/v1/segments/deposited",
        segments.Segment,
        Action.SEGMENT_READ,
        deposited,
        reads=("segments",),
        parameters=[
            openapi.query_parameter("currency", {"type": "string"}, "ISO 4217 code.", required=True),
            openapi.query_parameter("minimum", {**_INT, "minimum": 1}, "Minor units.", required=True),
            _CURSOR,
            _LIMIT,
        ],
    )

    async def live(request: Request, last_event_id: Annotated[str | None, Header()] = None) -> Response:
        """The dashboard now and whenever it changes, as server-sent events; id = positions, resume by Last-Event-ID."""
        principal = await read.authentication(request.scope)
        await sight.require_of(read, principal, Action.DASHBOARD_READ)
        still = read.still(request, Action.DASHBOARD_READ)
        return StreamingResponse(
            dashboards(
                dashboard.live(read.context()), still, read.stop, last_event_id, partial(positions.named, read.looking)
            ),
            media_type=SSE,
            headers={"Cache-Control": "no-cache"},
        )

    routes.router.add_api_route(
        "/v1/dashboard/live",
        live,
        methods=["GET"],
        summary="The dashboard, live",
        openapi_extra={
            "responses": schemas.refusals((problems.Unauthenticated, Forbidden)),
            **openapi.needs(Action.DASHBOARD_READ),
            **causal.reads("dashboard"),
        },
        responses={200: {"description": "Server-sent events", "content": {SSE: {"schema": {"type": "string"}}}}},
    )


def _add_audit(routes: Routes, read: ReadSide, schemas: Schemas) -> None:
    async def logs(context: Context) -> Logs:
        """The logs held here, each with its newest entry."""
        return Logs(await audit.logs(context))

    async def behind(context: Context) -> Lags:
        """How far copies are behind their logs, by signed heads: those held here, and the own log's in other regions."""
        names = [each.name for each in read.regions.items]
        async with context.pool.connection() as connection:
            return Lags(await lags.lags(connection, read.log, names))

    async def verification(_context: Context) -> Verifications:
        """What the check that always runs has found in each log."""
        return Verifications(read.watch.found())

    async def regions(_context: Context) -> Regions:
        """All regions of the deployment."""
        return read.regions

    routes.get("/v1/logs", Logs, Action.STATUS_READ, logs, reads=(causal.LOG,))
    routes.get("/v1/lags", Lags, Action.STATUS_READ, behind, reads=(causal.LOG,))
    routes.get("/v1/verification", Verifications, Action.STATUS_READ, verification, reads=())
    routes.get("/v1/regions", Regions, Action.STATUS_READ, regions, reads=())

    async def entries(
        request: Request,
        log: str,
        after: Annotated[int, Query(ge=0, le=POSITION_MAX, description="Start behind this position.")] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: str | None = None,
    ) -> Response:
        """A log's entries, byte by byte: a page of JSON, or all up to the head as NDJSON if Accept asks for it."""
        principal = await read.auditor(request, Action.LOG_READ)
        if "\0" in log:  # no text of PostgreSQL holds it
            raise NotFound("no log has this name")
        context = read.context()
        if NDJSON not in request.headers.get("Accept", ""):
            found = await audit.page(context, log, after, limit, cursor)
            await read.recorded(principal, "log.entries", log=log, after=after, limit=limit, cursor=cursor)
            return Response(_encode(found), media_type="application/json")
        stream = audit.stream(context, log, after)
        first = await anext(stream, b"")  # an unknown log is refused before the answer has begun
        await read.recorded(principal, "log.read", log=log)

        return Streamed(first, stream, read.still(request, Action.LOG_READ))

    routes.router.add_api_route(
        "/v1/logs/{log}/entries",
        entries,
        methods=["GET"],
        summary="A log's entries, byte by byte",
        responses={
            200: {
                "description": "Found",
                "content": {**schemas.json(audit.AuditPage), NDJSON: {"schema": schemas.ref(audit.AuditEntry)}},
            }
        },
        openapi_extra={
            "responses": schemas.refusals((*ALWAYS, NotFound, *UNRECORDED)),
            **openapi.needs(Action.LOG_READ),
            **causal.reads(causal.LOG),
        },
    )


def _add_projections(routes: Routes, read: ReadSide, schemas: Schemas) -> None:
    async def read_models(context: Context) -> Projections:
        """The read models: how far each one is, what code made it, and where it cannot go on."""
        return Projections(await projections.projections(context))

    routes.get("/v1/projections", Projections, Action.STATUS_READ, read_models, reads=catalog.NAMES)

    async def state(request: Request, name: str) -> Response:
        """All that a read model holds at one moment, as NDJSON: what it is, each table and its rows, and a digest."""
        principal = await read.auditor(request)
        stream = projections.state(read.context(), name)
        first = await anext(stream)  # an unknown read model is refused before the answer has begun
        try:
            await read.recorded(principal, "projection.state", projection=name)
        except BaseException:
            await stream.aclose()
            raise
        return Streamed(first, stream, read.still(request, Action.AUDIT_READ))

    routes.router.add_api_route(
        "/v1/projections/{name}/state",
        state,
        methods=["GET"],
        summary="All that a read model holds",
        responses={200: {"description": "Found", "content": {NDJSON: {"schema": {"type": "string"}}}}},
        openapi_extra={
            "responses": schemas.refusals((*ALWAYS, NotFound, *UNRECORDED)),
            **openapi.needs(Action.AUDIT_READ),
            **causal.reads("{name}"),
        },
    )
