"""
What Prometheus reads at /metrics: what this process has counted since its start, and how far PostgreSQL and Redis say that
the region is at this moment.

Invariants:
    - labels are words of ours (endpoints, codes, routes, logs, projections, registers): never an identifier, and few;
    - what is asked inside a compartment is not counted: nobody outside learns how much that is;
    - counting costs a command far less than a microsecond: a batch is counted once;
    - a region whose servers are away still tells what was counted, and that they are away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

import psycopg
from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import linking, openapi
from app.forwarding import Forwarding
from app.querying import ReadSide
from app.settings import Settings
from commands.compartments import UNMEASURED
from eventstore.copies import Counts, counts
from eventstore.log import Command
from queries import due, lags, positions
from reactions.custody import may_hold
from registers.breaker import Breaker
from registers.circuit import State

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_COMMANDS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST"})
_GIVE_UP_SECONDS = 2.0

_ROWS = (
    """
    SELECT l.name, w.peer, w.alarm IS NOT NULL
      FROM replication.watermark AS w JOIN ledger.log AS l ON l.id = w.log""",
    """
    SELECT l.name,
           coalesce((SELECT e.position FROM ledger.entry AS e WHERE e.log = l.id ORDER BY e.position DESC LIMIT 1), 0),
           EXISTS (SELECT FROM replication.evidence AS v WHERE v.log = l.id AND v.cleared_at IS NULL),
           coalesce((SELECT c.size FROM ledger.checkpoint AS c
                      WHERE c.log = l.id AND c.published_at IS NOT NULL ORDER BY c.size DESC LIMIT 1), 0),
           l.own AND ledger.may_write(l.id)
      FROM ledger.log AS l ORDER BY l.id""",
    """
    SELECT projection, log, position FROM read.position JOIN read.generation USING (projection, generation)
     WHERE live""",
    "SELECT projection, log FROM read.status",
    "SELECT log, position, target, per_second, vouched FROM replication.caught_up",
)


class Metrics:
    """What a process counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        commands = Counter(
            "countroom_commands",
            "Commands, by endpoint and what became of them: ok, repeated, or the code of the problem.",
            ["endpoint", "outcome"],
            registry=self.registry,
        )
        requests = Histogram(
            "countroom_http_request_duration_seconds",
            "From a request's arrival to the beginning of its answer.",
            ["method", "route", "status"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._command = cache(commands.labels)
        self._request = cache(requests.labels)
        self._batch_size = Histogram(
            "countroom_append_batch_commands",
            "Commands that were appended together.",
            buckets=_COMMANDS,
            registry=self.registry,
        )
        self._batch_seconds = Histogram(
            "countroom_append_duration_seconds",
            "From sending a batch to PostgreSQL to its commit.",
            buckets=_SECONDS,
            registry=self.registry,
        )

    def commands(self, counted: Mapping[tuple[str, str], int]) -> None:
        """Count commands by (endpoint, outcome)."""
        for names, count in counted.items():
            self._command(*names).inc(count)

    def appended(self, commands: Sequence[Command], seconds: float) -> None:
        self._batch_size.observe(len(commands))
        self._batch_seconds.observe(seconds)

    def watch_registers(self, registers: Iterable[Breaker]) -> None:
        """Tell of the registers of the excluded that this process asks."""
        self.registry.register(_Registers(list(registers)))

    def watch_regions(self, forwarding: Forwarding) -> Forwarding:
        """Tell of the commands that this process sends to other regions. Returns who sends them."""
        self.registry.register(_Regions(forwarding))
        return forwarding

    def request(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "none")
        if route.startswith(UNMEASURED):
            return
        self._request(method, route, str(status)).observe(seconds)


class Timed:
    """ASGI middleware that measures requests. A stream is measured up to its beginning."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.request(scope, message["status"], time.perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, timed)
        except Exception:
            self._metrics.request(scope, 500, time.perf_counter() - began)
            raise


def router(metrics: Metrics, read: ReadSide, settings: Settings) -> APIRouter:
    """The route /metrics."""
    made = APIRouter(tags=["health"])

    async def scrape() -> Response:
        """Metrics in the text format of Prometheus."""
        shown = _Together(metrics.registry, await _gauges(read, settings))
        return Response(generate_latest(shown), media_type=CONTENT_TYPE_LATEST)

    made.add_api_route(
        "/metrics",
        scrape,
        methods=["GET"],
        summary="Metrics for Prometheus",
        response_class=Response,
        openapi_extra={**openapi.UNGUARDED, "x-reads": []},
        responses={200: {"description": "Found", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    return made


class _Registers(Collector):
    def __init__(self, registers: Sequence[Breaker]) -> None:
        self._registers = registers

    def collect(self) -> Iterator[Metric]:
        asked = CounterMetricFamily(
            "countroom_register_questions",
            "Questions to a register of the excluded, by what became of them.",
            labels=["register", "outcome"],
        )
        is_open = _gauge(
            "countroom_register_open", "Whether a register is not asked for a while, as it did not answer.", "register"
        )
        for each in self._registers:
            is_open.add_metric([each.name], each.state is not State.CLOSED)
            for outcome, count in sorted(each.counted.items()):
                asked.add_metric([each.name, outcome], count)
        yield from (asked, is_open)


class _Regions(Collector):
    def __init__(self, forwarding: Forwarding) -> None:
        self._forwarding = forwarding

    def collect(self) -> Iterator[Metric]:
        sent = CounterMetricFamily(
            "countroom_forwarded",
            "Commands that were sent to the region that owns their player, by what became of that: answered, unreachable, unknown.",
            labels=["region", "outcome"],
        )
        is_open = _gauge(
            "countroom_region_open", "Whether a region is sent no commands for a while, as it did not answer.", "region"
        )
        for region, circuit in self._forwarding.circuits.items():
            is_open.add_metric([region], circuit.state is not State.CLOSED)
        for (region, outcome), count in sorted(self._forwarding.counted.items()):
            sent.add_metric([region, outcome], count)
        yield from (sent, is_open)


class _Together(Collector):
    def __init__(self, counted: Collector, gauges: Sequence[GaugeMetricFamily]) -> None:
        self._counted = counted
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        yield from self._counted.collect()
        yield from self._gauges


async def _gauges(read: ReadSide, settings: Settings) -> list[GaugeMetricFamily]:
    up = _gauge("countroom_server_up", "Whether a server could be asked for the gauges.", "server")
    tables, caches = await _tables(read, settings), await _caches(read)
    up.add_metric(["postgres"], tables is not None)
    up.add_metric(["redis"], caches is not None)
    reached = _gauge("countroom_projection_position", "The last entry that a read model holds.", "projection", "log")
    for projection, log, position in (*(tables.projections if tables else ()), *(caches or ())):
        reached.add_metric([projection, log], position)
    always = [up, reached, _of_link(settings)]
    if tables is None:
        return always
    stopped = _gauge("countroom_projection_stopped", "Whether a read model cannot go on in a log.", "projection", "log")
    for where in sorted({(each[0], each[1]) for each in (*tables.projections, *(caches or ()), *tables.stops)}):
        stopped.add_metric(where, where in tables.stops)
    of_tables = [
        *_of_logs(tables, settings),
        *_of_lags(tables.lags),
        *_of_fetching(tables.fetched),
        *_of_duties(tables.late),
        _of_keys(tables.keys),
    ]
    return [*always, stopped, *of_tables]


def _of_link(settings: Settings) -> GaugeMetricFamily:
    left = _gauge("countroom_link_certificate_seconds", "For how long the certificate of our links is still valid.")
    seconds = linking.left_s(settings.nats_seeds, datetime.now(UTC))
    if seconds is not None:
        left.add_metric([], seconds)
    return left


def _of_logs(tables: _Tables, settings: Settings) -> list[GaugeMetricFamily]:
    position = _gauge("countroom_log_position", "The newest entry of a log held here.", "log")
    halted = _gauge("countroom_log_halted", "Whether the replication of a log has halted here.", "log")
    differs = _gauge("countroom_copy_differs", "Whether a peer's copy is not our log.", "log", "peer")
    signed = _gauge("countroom_log_signed_size", "The size of a log's newest published head.", "log")
    writable = _gauge("countroom_log_writable", "Whether our log was compared since PostgreSQL started.", "log")
    for log, head, is_halted, size, may_write in tables.logs:
        position.add_metric([log], head)
        halted.add_metric([log], is_halted)
        signed.add_metric([log], size)
        if log == settings.region:
            writable.add_metric([log], may_write)
    for log, peer, alarm in tables.copies:
        differs.add_metric([log, peer], alarm)
    return [position, halted, signed, writable, differs]


def _of_lags(found: Sequence[lags.Lag]) -> list[GaugeMetricFamily]:
    """What is not known is not told; that it is not known is."""
    labels = ("log", "peer")
    entries = _gauge(
        "countroom_replication_lag_entries", "What was signed of a log and is not in a region's copy.", *labels
    )
    seconds = _gauge(
        "countroom_replication_lag_seconds", "For how long the oldest of it has not been in the copy.", *labels
    )
    known = _gauge(
        "countroom_replication_lag_known", "Whether the other side was heard of, so that the lag is known.", *labels
    )
    heard = _gauge("countroom_replication_heard_seconds", "How long ago the other side was last heard of.", *labels)
    for each in found:
        copy = [each.log, each.region]
        known.add_metric(copy, each.entries is not None)
        for gauge, figure in ((entries, each.entries), (seconds, each.seconds), (heard, each.heard_seconds)):
            if figure is not None:
                gauge.add_metric(copy, figure)
    return [entries, seconds, known, heard]


def _of_fetching(fetched: Sequence[tuple[str, int, int, int, int]]) -> list[GaugeMetricFamily]:
    gauges = [
        _gauge("countroom_catch_up_position", "How far the newest fetching of a log by ranges has come.", "log"),
        _gauge("countroom_catch_up_target", "How far it is to come.", "log"),
        _gauge("countroom_catch_up_entries_per_second", "How quickly it was done.", "log"),
        _gauge("countroom_catch_up_vouched", "Up to where published heads vouch for what the copy holds.", "log"),
    ]
    for log, *figures in fetched:
        for gauge, figure in zip(gauges, figures, strict=True):
            gauge.add_metric([log], figure)
    return gauges


def _of_keys(keys: Mapping[str, Counts]) -> GaugeMetricFamily:
    made = _gauge(
        "countroom_vault_keys", "Data keys that another region made, by whether they are here.", "log", "state"
    )
    for log, counted in keys.items():
        for state, count in counted._asdict().items():
            made.add_metric([log, state], count)
    return made


def _of_duties(late: Sequence[due.OfLog]) -> list[GaugeMetricFamily]:
    overdue = _gauge("countroom_due_overdue", "Commands that are due and not done.", "log", "duty")
    since = _gauge("countroom_due_overdue_oldest_seconds", "For how long the oldest has been due.", "log", "duty")
    unanswered = _gauge("countroom_payouts_unanswered", "Payouts that were ordered and not answered.", "log")
    ordered = _gauge("countroom_payouts_unanswered_oldest_seconds", "How long ago the oldest was ordered.", "log")
    for log, duty, (count, oldest_s) in late:
        labels = [log] if duty == due.PAYOUT else [log, duty]
        counts, ages = (unanswered, ordered) if duty == due.PAYOUT else (overdue, since)
        counts.add_metric(labels, count)
        ages.add_metric(labels, oldest_s)
    return [overdue, since, unanswered, ordered]


class _Tables(NamedTuple):
    """What PostgreSQL says, row by row."""

    copies: list[tuple[str, str, bool]]
    logs: list[tuple[str, int, bool, int, bool]]
    projections: list[tuple[str, str, int]]
    stops: list[tuple[str, str]]
    fetched: list[tuple[str, int, int, int, int]]
    lags: list[lags.Lag]
    late: list[due.OfLog]
    keys: Mapping[str, Counts]


async def _tables(read: ReadSide, settings: Settings) -> _Tables | None:
    try:
        async with asyncio.timeout(_GIVE_UP_SECONDS), read.pool.connection() as connection:
            copies, logs, reached, stops, fetched = [
                await (await connection.execute(query)).fetchall() for query in _ROWS
            ]
            behind = await lags.lags(connection, settings.region, settings.regions)
            late = await due.late(connection)
            may = may_hold(settings.who_may_hold(), settings.region)
            return _Tables(copies, logs, reached, stops, fetched, behind, late, await counts(connection, may))
    except (TimeoutError, psycopg.Error):
        return None


async def _caches(read: ReadSide) -> list[tuple[str, str, int]] | None:
    try:
        async with asyncio.timeout(_GIVE_UP_SECONDS):
            return [
                (projection, log, position)
                for projection in sorted(positions.CACHES)
                for log, position in (await positions.cached(read.redis, projection)).positions.items()
            ]
    except (TimeoutError, OSError, RedisError):
        return None


def _gauge(name: str, says: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, says, labels=labels)
