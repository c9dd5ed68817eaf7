"""What is told when something is away, or fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from app.bootstrap import MIGRATIONS
from app.metrics import Metrics, Timed, router
from app.querying import ReadSide
from app.settings import Settings
from eventstore import postgres, schema
from tests.ledger import EU, US, Ledger
from tests.stack import Servers


async def test_what_was_counted_is_told_while_the_servers_are_away() -> None:
    unset: Any = None
    metrics, settings = Metrics(), SimpleNamespace(nats_seeds=Path("seeds"))
    metrics.commands({("/v1/players", "ok"): 3})
    async with (
        postgres.pool("postgresql://127.0.0.1:1/nowhere", "countroom_reader", size=1) as pool,
        Redis.from_url("redis://127.0.0.1:1") as redis,
    ):
        (route,) = router(metrics, ReadSide(pool, redis, *[unset] * 8), settings).routes  # type: ignore[arg-type]
        text = (await route.endpoint()).body.decode()  # type: ignore[attr-defined]
    assert 'countroom_commands_total{endpoint="/v1/players",outcome="ok"} 3.0' in text
    assert 'countroom_server_up{server="postgres"} 0.0' in text
    assert 'countroom_server_up{server="redis"} 0.0' in text
    assert "countroom_log_position" not in text


async def test_what_is_late_is_told_by_log_and_duty(servers: Servers, tmp_path: Path) -> None:
    unset: Any = None
    dsn = servers.fresh_database("metrics")
    schema.migrate(dsn, MIGRATIONS)
    ledger = Ledger(dsn)
    ledger.sql("SELECT ledger.register_log('eu', %s, true), ledger.register_log('us', %s, false)", EU, US)
    for kind, seconds, log in (("deposit_expiry", 60, "eu"), ("payout", 300, "eu"), ("payout_order", 5, "us")):
        ledger.sql(
            "INSERT INTO read.due VALUES (%s, %s, now() - %s * interval '1 s', 'x', %s, 1, 1)", kind, kind, seconds, log
        )
    ledger.close()
    redis_url, nowhere = servers.endpoints.redis, tmp_path / "nowhere"
    settings = Settings(
        "test", "eu", ("eu", "us"), dsn, redis_url, "", nowhere, "127.0.0.1", 1, nowhere, nowhere, nowhere, {}
    )  # fmt: skip
    async with postgres.pool(dsn, "countroom_reader", size=1) as pool, Redis.from_url(redis_url) as redis:
        (route,) = router(Metrics(), ReadSide(pool, redis, *[unset] * 8), settings).routes
        text = (await route.endpoint()).body.decode()  # type: ignore[attr-defined]
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    told = {(each.name, each.labels.get("log"), each.labels.get("duty")): each.value for each in samples}
    assert told["countroom_due_overdue", "eu", "deposit_expiry"] == 1
    assert 60 <= told["countroom_due_overdue_oldest_seconds", "eu", "deposit_expiry"] < 120
    assert [told["countroom_payouts_unanswered", log, None] for log in ("eu", "us")] == [1, 0]
    assert 300 <= told["countroom_payouts_unanswered_oldest_seconds", "eu", None] < 360
    assert told["countroom_payouts_unanswered_oldest_seconds", "us", None] == 0
    late = {(log, duty) for (name, log, duty), value in told.items() if name == "countroom_due_overdue" and value}
    assert late == {("eu", "deposit_expiry"), ("us", "payout_order")}


async def test_a_request_that_fails_is_measured_as_such() -> None:
    async def fails(*_: object) -> None:
        raise LookupError

    metrics = Metrics()
    with pytest.raises(LookupError):
        await Timed(fails, metrics)({"type": "http", "method": "BREW"}, None, None)  # type: ignore[arg-type]
    labels = '{method="other",route="none",status="500"}'
    assert f"countroom_http_request_duration_seconds_count{labels} 1.0" in generate_latest(metrics.registry).decode()
