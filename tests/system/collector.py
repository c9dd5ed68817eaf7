"""A collector of traces that keeps them for tests."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span(NamedTuple):
    process: str
    region: str
    name: str
    trace: str
    id: str
    parent: str
    began: int
    ended: int
    attributes: dict[str, Any]


class Collector(ThreadingHTTPServer):
    """Takes traces as OTLP over HTTP, as any collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: list[Span] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def eventually(self, trace: str, count: int) -> list[Span]:
        """The spans of a trace, once there are `count` of them."""
        end = time.monotonic() + 60
        while len(found := [span for span in self.spans if span.trace == trace]) != count:
            assert time.monotonic() < end, "\n".join(map(str, self.spans))
            time.sleep(0.1)
        return found


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in sent.resource_spans:
            where = values(resource.resource.attributes)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
                    times = span.start_time_unix_nano, span.end_time_unix_nano
                    read = Span(
                        where["service.name"],
                        where["countroom.region"],
                        span.name,
                        *ids,
                        *times,
                        values(span.attributes),
                    )
                    self.server.spans.append(read)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
