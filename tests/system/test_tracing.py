"""A command with a traceparent leaves one trace, in every process that comes to see it."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from projections.catalog import NAMES
from tests.system.collector import Collector
from tests.system.conftest import Client, running

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PROJECTIONS = set(NAMES)


def test_a_traced_deposit_is_one_trace_through_all_processes_of_two_regions(eu: Client, collector: Collector) -> None:
    player = eu.register()  # nobody asked for a trace of this one
    answer = eu.deposit(player, 5, traceparent=f"00-{TRACE}-{CALLER}-01")
    last = int(answer.headers["ledger-position"].split("/")[1])
    projected = [(region, f"project {name}") for region in ("eu", "us") for name in PROJECTIONS]
    events = ["transaction.deposit_requested", "limits.headroom_consumed"]
    spans = collector.eventually(TRACE, 2 + 2 * (2 + len(projected)))

    (command,) = [span for span in spans if span.parent == CALLER]
    assert (command.process, command.region) == ("countroom-api", "eu")
    assert command.name == "POST /v1/players/{player_id}/deposits"
    assert command.attributes == {
        "http.route": "/v1/players/{player_id}/deposits",
        "http.response.status_code": 201,
    }
    others = [span for span in spans if span is not command]
    assert {span.parent for span in others} == {command.id}
    (append,) = [span for span in others if span.name == "append"]
    assert (append.process, append.region, append.attributes) == ("countroom-api", "eu", {"countroom.commands": 1})
    assert command.began <= append.began < append.ended <= command.ended
    for process, name, region in [
        ("countroom-relay-applier", "relay", "eu"),
        ("countroom-relay-applier", "copy", "us"),
        *(("countroom-projector", name, region) for region, name in projected),
    ]:
        found = [span for span in others if (span.name, span.region) == (name, region)]
        assert [span.process for span in found] == [process] * 2
        assert [span.attributes for span in found] == [
            {"countroom.log": "eu", "countroom.position": last - 1 + i, "countroom.event": event}
            for i, event in enumerate(events)
        ]
        assert all(span.began <= span.ended for span in found)


def test_a_traced_batch_is_one_append_in_the_trace(eu: Client, collector: Collector) -> None:
    trace = TRACE[::-1]
    player = {"country": "AT", "currency": "EUR"}
    items = [{"key": eu.key_of_ours(), "path": "/v1/players", "body": player} for _ in range(20)]
    eu.post("/v1/batch", {"items": items}, key=None, traceparent=f"00-{trace}-{CALLER}-01")

    spans = collector.eventually(trace, 2 + 20 * 2 * (1 + len(PROJECTIONS)))
    names = sorted(span.name for span in spans)
    assert names[:2] == ["POST /v1/batch", "append"]


def test_what_stands_in_the_events_is_of_the_same_trace(eu: Client) -> None:
    trace = "1" * 32
    answer = eu.deposit(eu.register(), 5, traceparent=f"00-{trace}-{CALLER}-00")
    position = int(answer.headers["ledger-position"].split("/")[1])
    (entry,) = eu.get(f"/v1/logs/eu/entries?after={position - 1}&limit=1", role="auditor").json["items"]
    body = base64.b64decode(entry["entry"])
    assert f'"trace":"00-{trace}-'.encode() in body
    assert CALLER.encode() not in body


@pytest.mark.parametrize("given", [f"00-{'0' * 32}-{CALLER}-01", f"ff-{TRACE}-{CALLER}-01", "none", ""])
def test_what_is_no_trace_starts_none(eu: Client, collector: Collector, given: str) -> None:
    before = len(collector.spans)
    assert eu.deposit(eu.register(), 5, traceparent=given).status == 201
    time.sleep(0.5)
    assert len(collector.spans) == before


def test_a_caller_that_does_not_sample_is_not_sampled(eu: Client, collector: Collector) -> None:
    trace = "2" * 32
    eu.deposit(eu.register(), 5, traceparent=f"00-{trace}-{CALLER}-00")
    time.sleep(0.5)
    assert trace not in {span.trace for span in collector.spans}


@pytest.mark.fault
def test_a_collector_that_is_away_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with running(tmp_path, ["eu"]) as deployment:
        eu = deployment.clients["eu"]
        player = eu.register()
        for n in range(50):
            assert eu.deposit(player, 5, traceparent=f"00-{n + 1:032x}-{CALLER}-01").status == 201
        assert deployment.caught_up()["eu"]["players"] == 1
