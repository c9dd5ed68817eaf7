"""What Prometheus reads of a region."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from projections.catalog import NAMES
from tests.system.conftest import Client, Deployment

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(client: Client) -> Samples:
    """Without a token, as Prometheus asks."""
    with urllib.request.urlopen(f"{client.url}/metrics", timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/plain")
        families = text_string_to_metric_families(answer.read().decode())
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((f"countroom_{name}", frozenset(labels.items())), 0.0)


def grown(client: Client, act: Callable[[], object], name: str, **labels: str) -> float:
    """By how much a metric is more after an act."""
    before = value(scraped(client), name, **labels)
    act()
    return value(scraped(client), name, **labels) - before


def eventually(client: Client, holds: Callable[[Samples], bool]) -> Samples:
    end = time.monotonic() + 60
    while not holds(samples := scraped(client)):
        assert time.monotonic() < end, samples
        time.sleep(0.1)
    return samples


def test_commands_are_counted_by_endpoint_and_outcome(eu: Client) -> None:
    player = eu.register()
    deposits = {"endpoint": "/v1/players/{player_id}/deposits"}
    assert grown(eu, lambda: eu.deposit(player, 5), "commands_total", **deposits, outcome="ok") == 1

    def again() -> None:
        for _ in range(2):
            eu.deposit(player, 5, key=f"twice {player}")

    assert grown(eu, again, "commands_total", **deposits, outcome="repeated") == 1
    assert grown(eu, lambda: eu.deposit(player, -5), "commands_total", **deposits, outcome="invalid_amount") == 1
    assert (
        grown(eu, lambda: eu.deposit(player, 5, role="viewer"), "commands_total", **deposits, outcome="forbidden") == 1
    )


def test_items_of_a_batch_are_counted_each(eu: Client) -> None:
    player = eu.register()

    def item(place: int, path: str, body: Any) -> dict[str, Any]:
        return {"key": f"{place} {player}", "path": path, "body": body}

    deposit = {"amount": {"amount": 5, "currency": "EUR"}, "provider": "card"}
    items = [item(n, f"/v1/players/{player}/deposits", deposit) for n in range(5)]
    items += [item(5, "/v1/nowhere", {}), item(6, "/v1/players/$5/block", {"reason": "x"})]
    before = scraped(eu)
    eu.post("/v1/batch", {"items": items}, key=None)
    after = scraped(eu)
    found = {
        (name, endpoint, outcome): value(after, name, endpoint=endpoint, outcome=outcome)
        - value(before, name, endpoint=endpoint, outcome=outcome)
        for name, endpoint, outcome in (
            ("commands_total", "/v1/players/{player_id}/deposits", "ok"),
            ("commands_total", "none", "not_found"),
            ("commands_total", "none", "dependency_failed"),
        )
    }
    assert list(found.values()) == [5, 1, 1]


def test_appends_are_measured_with_their_size(eu: Client) -> None:
    before = scraped(eu)
    eu.register()
    after = scraped(eu)
    for name in ("append_batch_commands", "append_duration_seconds"):
        assert value(after, f"{name}_count") - value(before, f"{name}_count") == 1
    assert value(after, "append_batch_commands_sum") - value(before, "append_batch_commands_sum") == 1
    assert 0 < value(after, "append_duration_seconds_sum") - value(before, "append_duration_seconds_sum") < 10


@pytest.mark.parametrize(
    ("path", "route", "status"),
    [
        ("/v1/players/player_01ka7g0000e00800000000001a", "/v1/players/{player_id}", "404"),
        ("/v1/players?limit=1", "/v1/players", "200"),
        ("/healthz", "/healthz", "200"),
        ("/v1/dashboard/live", "/v1/dashboard/live", "401"),
        ("/no/such/path", "none", "404"),
        ("/v1/batch", "/v1/batch", "405"),
    ],
)
def test_requests_are_measured_by_the_template_of_their_route(eu: Client, path: str, route: str, status: str) -> None:
    client = Client(eu.url, {"operator": ""}) if status == "401" else eu
    labels = {"method": "GET", "route": route, "status": status}
    assert grown(eu, lambda: client.get(path), "http_request_duration_seconds_count", **labels) == 1


def test_a_stream_is_measured_when_it_begins(eu: Client) -> None:
    labels = {"method": "GET", "route": "/v1/dashboard/live", "status": "200"}
    headers = {"Authorization": f"Bearer {eu.tokens['viewer']}"}
    request = urllib.request.Request(f"{eu.url}/v1/dashboard/live", headers=headers)

    def begin() -> None:
        with urllib.request.urlopen(request, timeout=60) as stream:
            assert stream.readline()
            assert value(scraped(eu), "http_request_duration_seconds_count", **labels) >= 1

    assert grown(eu, begin, "http_request_duration_seconds_count", **labels) == 1


def test_positions_lags_and_projections_are_those_of_the_region(eu: Client, us: Client, deployment: Deployment) -> None:
    eu.register()
    deployment.caught_up()
    heads = deployment.heads("eu")
    for client, here, there in ((eu, "eu", "us"), (us, "us", "eu")):
        samples = eventually(
            client,
            lambda s, own=here, peer=there: lag(s, own, peer) == 0 and all(applied(s, heads, each) for each in NAMES),
        )
        for log, head in heads.items():
            assert value(samples, "log_position", log=log) == head
            assert value(samples, "log_halted", log=log) == 0
            assert eventually(client, lambda s, at=log, to=head: value(s, "log_signed_size", log=at) >= to)
            for projection in NAMES:
                assert value(samples, "projection_position", projection=projection, log=log) == head
                assert value(samples, "projection_stopped", projection=projection, log=log) == 0
        assert value(samples, "copy_differs", log=here, peer=there) == 0
        assert value(samples, "log_writable", log=here) == 1
        assert {value(samples, "server_up", server=name) for name in ("postgres", "redis")} == {1}


def applied(samples: Samples, heads: Mapping[str, int], projection: str) -> bool:
    return all(value(samples, "projection_position", projection=projection, log=log) >= at for log, at in heads.items())


def lag(samples: Samples, log: str, peer: str) -> float:
    """Unknown before the peer's first acknowledgement."""
    return samples.get(("countroom_replication_lag_entries", frozenset({("log", log), ("peer", peer)})), float("inf"))


@pytest.fixture
def admin(deployment: Deployment) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(deployment.local.settings["eu"].postgres, autocommit=True) as connection:
        yield connection


def test_a_halted_log_and_a_stopped_projection_are_seen(eu: Client, admin: psycopg.Connection[Any]) -> None:
    admin.execute(
        "INSERT INTO replication.evidence (log, role, reason, data)"
        " SELECT id, 'applier', 'a test', '' FROM ledger.log WHERE name = 'us'"
    )
    admin.execute("INSERT INTO read.status VALUES ('dashboard', 'us', 7, 'a test')")
    samples = scraped(eu)
    admin.execute("SELECT replication.clear_halt('us', 'the test')")
    admin.execute("DELETE FROM read.status WHERE reason = 'a test'")
    assert value(samples, "log_halted", log="us") == 1
    assert value(samples, "log_halted", log="eu") == 0
    assert value(samples, "projection_stopped", projection="dashboard", log="us") == 1
    assert value(samples, "projection_stopped", projection="dashboard", log="eu") == 0
    assert value(scraped(eu), "log_halted", log="us") == 0


def test_no_label_names_anybody(eu: Client) -> None:
    player = eu.register(email="ann@example.com", name="Ann Example")
    eu.get(f"/v1/players/{player}")
    eu.look_up(email="ann@example.com")
    eu.get("/v1/players?email=ann@example.com")
    eu.get(f"/v1/{player}")
    text = urllib.request.urlopen(f"{eu.url}/metrics", timeout=60).read().decode()
    assert "example" not in text.lower()
    assert player.removeprefix("player_") not in text
