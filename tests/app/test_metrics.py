"""What is told when something is away, or fails."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import generate_latest
from redis.asyncio import Redis

from app.metrics import Metrics, Timed, router
from app.querying import ReadSide
from eventstore import postgres


async def test_what_was_counted_is_told_while_the_servers_are_away() -> None:
    unset: Any = None
    metrics = Metrics()
    metrics.commands({("/v1/players", "ok"): 3})
    async with (
        postgres.pool("postgresql://127.0.0.1:1/nowhere", "countroom_reader", size=1) as pool,
        Redis.from_url("redis://127.0.0.1:1") as redis,
    ):
        (route,) = router(metrics, ReadSide(pool, redis, *[unset] * 7), unset).routes
        text = (await route.endpoint()).body.decode()  # type: ignore[attr-defined]
    assert 'countroom_commands_total{endpoint="/v1/players",outcome="ok"} 3.0' in text
    assert 'countroom_server_up{server="postgres"} 0.0' in text
    assert 'countroom_server_up{server="redis"} 0.0' in text
    assert "countroom_log_position" not in text


async def test_a_request_that_fails_is_measured_as_such() -> None:
    async def fails(*_: object) -> None:
        raise LookupError

    metrics = Metrics()
    with pytest.raises(LookupError):
        await Timed(fails, metrics)({"type": "http", "method": "BREW"}, None, None)  # type: ignore[arg-type]
    labels = '{method="other",route="none",status="500"}'
    assert f"countroom_http_request_duration_seconds_count{labels} 1.0" in generate_latest(metrics.registry).decode()
