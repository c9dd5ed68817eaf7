"""
Traces: the spans of a command whose caller sent a traceparent, from the API to the read models of every region.

What links them is the `trace` in the command's events: each process finds it there, whenever it comes to them. Spans name
routes, logs, positions and tags of events; whom a command is about stands in the log.

Invariants:
    - without OTEL_EXPORTER_OTLP_ENDPOINT nobody imports this module, and nothing here is asked;
    - a collector that is slow or away holds nobody up: spans are sent from a thread of their own, or dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import msgspec
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.settings import Settings
from commands.compartments import UNMEASURED
from eventstore.log import Command
from eventstore.record import Recorded
from projections.projection import Batch, Events
from replication.frame import Frame

_HEADER = "traceparent"
_FIND = b'"trace":"'
_FAULT = 500
_FLUSH_SECONDS = 2.0
_w3c = TraceContextTextMapPropagator()


class _Body(msgspec.Struct):
    type: str = ""
    trace: str = ""


_decode = msgspec.json.Decoder(_Body).decode


class Tracing:
    """The spans of one process. The environment's OTEL_… variables say where they go, and may say how the process is called."""

    def __init__(self, settings: Settings, roles: Sequence[str]) -> None:
        ours = {"service.name": "-".join(("countroom", *roles)), "service.namespace": settings.deployment}
        resource = Resource.create({**ours, "countroom.region": settings.region})
        self._provider = TracerProvider(
            resource=resource.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("countroom")
        self.under_way = 0  # requests with a traceparent: while there are none, appends are not looked at

    def close(self) -> None:
        """Send what is left, if a collector takes it at once."""
        flush = threading.Thread(target=self._provider.shutdown, daemon=True)
        flush.start()
        flush.join(_FLUSH_SECONDS)

    def command(self, traceparent: str) -> Span | None:
        """The span of a command that begins now; None if its caller's trace is no trace."""
        parent = _parent(traceparent)
        return self._tracer.start_span("POST", parent, SpanKind.SERVER) if parent is not None else None

    def appended(self, commands: Sequence[Command], seconds: float) -> None:
        """One span for each trace that has commands in the batch."""
        if self.under_way:
            bodies = [command.bodies[0] for command in commands if command.bodies and _FIND in command.bodies[0]]
            for trace in {_body(body).trace for body in bodies}:
                self._ended("append", trace, seconds, {"countroom.commands": len(commands)})

    def moved(self, what: str, log: str, frame: Frame, seconds: float) -> None:
        """A span for each traced entry that was relayed or copied."""
        for position, raw in enumerate(frame.bodies, frame.first):
            if _FIND in raw:
                body = _body(raw)
                self._entry(what, body.trace, seconds, log, position, body.type)

    def projected(self, projection: str, batch: Batch, seconds: float) -> None:
        """A span for each traced event that a projection has applied."""
        for each in batch.events.derive(_traced):
            self._entry(
                f"project {projection}", each.body.trace or "", seconds, batch.log, each.position, each.body.type
            )

    def _entry(self, name: str, trace: str, seconds: float, log: str, position: int, event: str) -> None:
        at: dict[str, str | int] = {"countroom.log": log, "countroom.position": position, "countroom.event": event}
        self._ended(name, trace, seconds, at)

    def _ended(self, name: str, trace: str, seconds: float, attributes: Mapping[str, str | int]) -> None:
        """A span of what has just ended, if the trace is one."""
        parent = _parent(trace)
        if parent is not None:
            began = time.time_ns() - int(seconds * 1e9)
            self._tracer.start_span(name, parent, attributes=attributes, start_time=began).end()


class TracedCommands:
    """ASGI middleware: a command with a traceparent is a span, and what its events say is the context of that span."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        span = None
        if scope["type"] == "http" and scope["method"] == "POST" and not scope["path"].startswith(UNMEASURED):
            given = dict(scope["headers"]).get(_HEADER.encode())
            span = self._tracing.command(given.decode("latin-1")) if given else None
        if span is None:
            await self._app(scope, receive, send)
            return
        scope["headers"] = [*(each for each in scope["headers"] if each[0] != _HEADER.encode()), _own(span)]

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "")
                span.update_name(f"POST {route}".rstrip())
                span.set_attributes({"http.route": route, "http.response.status_code": message["status"]})
                if message["status"] >= _FAULT:
                    span.set_status(StatusCode.ERROR)
            await send(message)

        self._tracing.under_way += 1
        try:
            await self._app(scope, receive, noted)
        finally:
            self._tracing.under_way -= 1
            span.end()


def _own(span: Span) -> tuple[bytes, bytes]:
    carrier: dict[str, str] = {}
    _w3c.inject(carrier, set_span_in_context(span))
    return _HEADER.encode(), carrier[_HEADER].encode()


def _parent(traceparent: str) -> Context | None:
    context = _w3c.extract({_HEADER: traceparent}, Context())
    return context if get_current_span(context).get_span_context().is_valid else None


def _body(raw: bytes) -> _Body:
    """What another region's log says may be anything."""
    try:
        return _decode(raw)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return _Body()


def _traced(events: Events) -> list[Recorded]:
    return [each for each in events if each.body.trace]
