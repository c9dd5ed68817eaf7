"""Who is traced, and that nobody else pays for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings, wants_traces
from app.tracing import TracedCommands, Tracing
from replication.frame import Frame

OTLP = "OTEL_EXPORTER_OTLP_"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, False),
        ({OTLP + "ENDPOINT": ""}, False),
        ({OTLP + "ENDPOINT": "http://collector:4318"}, True),
        ({OTLP + "TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({OTLP + "METRICS_ENDPOINT": "http://collector:4318/v1/metrics"}, False),
        ({OTLP + "ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_traces_are_sent_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], wanted: bool
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert wants_traces() is wanted


def test_what_serves_does_not_load_the_packages_for_traces_by_itself() -> None:
    program = "import sys, app.api, app.workers, replication.relay, replication.applier, projections.runner\n"
    program += "sys.exit(any(name in sys.modules for name in ('app.tracing', 'opentelemetry.sdk.trace')))"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=False).returncode == 0


@pytest.mark.parametrize(
    "body", [b'{"trace":"x"}', b'{"trace":5,"data":{"trace":"x"}}', b'"trace":"', b'{"trace":"\xff"}']
)
def test_a_body_of_another_region_may_say_anything(body: bytes) -> None:
    nowhere = Path("/nonexistent")
    settings = Settings("test", "eu", ("eu",), "", "", "", nowhere, "", 0, nowhere, nowhere, nowhere, {})
    tracing = Tracing(settings, ["applier"])
    tracing.moved("copy", "us", Frame(1, b"", [1], [b""], [body]), 0.1)
    tracing.close()


@pytest.mark.parametrize(
    ("path", "is_traced"),
    [("/v1/players", True), ("/v1/compartments/north/players/player_1/notes", False)],
)
async def test_what_is_done_inside_a_compartment_makes_no_span(path: str, is_traced: bool) -> None:
    nowhere = Path("/nonexistent")
    tracing = Tracing(
        Settings("test", "eu", ("eu",), "", "", "", nowhere, "", 0, nowhere, nowhere, nowhere, {}), ["api"]
    )
    given = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    seen: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.extend(scope["headers"])

    scope = {"type": "http", "method": "POST", "path": path, "headers": [given]}
    await TracedCommands(app, tracing)(scope, None, None)  # type: ignore[arg-type]
    tracing.close()
    assert (seen != [given]) is is_traced
