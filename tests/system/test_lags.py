"""How far copies are behind, as two regions that run say it: over HTTP, to Prometheus, and to whoever asks on the machine."""

from __future__ import annotations

import time
from typing import Any

import pytest

from app import cli
from app.standing import place, standing
from tests.system.conftest import Client, Deployment
from tests.system.test_metrics import Samples, eventually, value

COPIES = [("eu", "us"), ("us", "eu")]


def level(shown: Any) -> bool:
    return [(each["log"], each["region"]) for each in shown["items"]] == COPIES and all(
        each["state"] == "level" for each in shown["items"]
    )


def test_both_regions_come_to_say_that_nothing_is_missing_anywhere(
    eu: Client, us: Client, deployment: Deployment
) -> None:
    eu.register()
    heads = deployment.heads("eu")
    for client in (eu, us):
        shown = client.eventually("/v1/lags", lambda found: level(found) and signed(found) >= heads["eu"])
        assert all(each["entries"] == 0 <= each["heard_seconds"] for each in shown["items"])


def signed(found: Any) -> int:
    """Of the log eu."""
    return int(next(each["signed"] for each in found["items"] if each["log"] == "eu"))


def test_prometheus_is_told_of_both_ends_of_each_copy(eu: Client, us: Client) -> None:
    for client in (eu, us):
        for log, peer in COPIES:

            def is_known(samples: Samples, log: str = log, peer: str = peer) -> bool:
                return value(samples, "replication_lag_known", log=log, peer=peer) == 1

            samples = eventually(client, is_known)
            assert value(samples, "replication_heard_seconds", log=log, peer=peer) < 60


def test_a_region_that_is_well_needs_nobody(deployment: Deployment) -> None:
    data = deployment.local.stack.data
    for region in ("eu", "us"):
        end = time.monotonic() + 60
        while (found := standing(place(region, data))).wanted:
            assert time.monotonic() < end, found.wanted
            time.sleep(0.5)
        assert found.may_write
        assert {(each.log, each.region) for each in found.copies} == set(COPIES)
        assert sum(owned.number for owned in found.owned) == 256
        assert {each.region for each in found.acknowledged} == {"eu", "us"} - {region}


def test_the_command_says_it_to_a_person(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    data = deployment.local.stack.data
    end = time.monotonic() + 60
    while standing(place("us", data)).wanted:
        assert time.monotonic() < end
        time.sleep(0.5)
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.app(["region", "status", "--region", "us", "--data", str(data)])
    said = capsys.readouterr().out
    assert "region us at " in said
    assert "its log may be written: yes since " in said
    assert "us owns 128 partitions: 128-255 (epoch 1)" in said
    assert "nothing needs a person" in said
