"""A player of EU excludes themselves in US while nothing passes between the two: it binds in US at once, and in EU when it arrives."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app import checking
from tests.asking import Answer
from tests.system.conftest import Deployment, running

HALF_A_YEAR = {"term": "6_months"}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("safeguards")
    with running(folder) as made:
        yield made


@contextmanager
def cut(two: Deployment) -> Iterator[None]:
    """Nothing passes between the regions, and nobody is told so."""
    two.local.stack.send("us", "nats", signal.SIGSTOP)
    try:
        yield
    finally:
        two.local.stack.send("us", "nats", signal.SIGCONT)


def until(holds: Callable[[], bool], *, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def header(answer: Answer, name: str) -> str:
    return {key.lower(): value for key, value in answer.headers.items()}.get(name, "")


@pytest.mark.fault
@pytest.mark.timeout(400)
def test_an_exclusion_in_the_other_region_binds_there_at_once_and_everywhere_when_it_arrives(two: Deployment) -> None:
    eu, us = two.clients["eu"], two.clients["us"]
    player, other = eu.register(consents=["email"]), eu.register()
    path = f"/v1/players/{player}"
    until(lambda: us.deposit(player, 1).status == 201)
    until(lambda: us.deposit(other, 1).status == 201)
    paid = us.deposit(player, 1, key="paid")
    two.caught_up()
    with cut(two):
        asked = us.post(f"{path}/exclude", HALF_A_YEAR, key="stop me")
        assert (asked.status, asked.json["state"]) == (202, "unconfirmed"), asked
        assert asked.json["position"].startswith("us/")
        again = us.post(f"{path}/exclude", HALF_A_YEAR, key="stop me")
        assert (again.json, header(again, "idempotency-replayed")) == (asked.json, "true")
        for refused in (us.post(f"{path}/logins", {"session": "s"}), us.deposit(player, 1)):
            assert refused.problem() == (409, "excluded")
        repeated = us.deposit(player, 1, key="paid")
        assert (repeated.status, repeated.json) == (201, paid.json), "it stands in the copy"
        assert header(repeated, "idempotency-replayed") == "true"
        wanted = (
            (player, "logins", {"session": "s"}),
            (other, "consents/withdraw", {"channels": ["email"]}),
            (other, "panic", {}),
            (other, "unblock", {"reason": "x"}),
        )
        items = [
            {"key": f"item {n}", "path": f"/v1/players/{whose}/{what}", "body": body}
            for n, (whose, what, body) in enumerate(wanted)
        ]
        batch = us.post("/v1/batch", {"items": items}, key=None, role="supervisor").json["items"]
        assert [each["status"] for each in batch] == [409, 503, 202, 503], batch  # a consent may have been given since
        assert us.get(f"{path}/protection").json["closed"]["login"] == "excluded"
        assert us.get(f"{path}/may-contact?channel=email").json["reason"] == "excluded"
        assert us.post(f"{path}/unblock", {"reason": "known"}, role="supervisor").problem() == (
            503,
            "owner_unreachable",
        )
        assert eu.deposit(player, 1).status == 201, "EU does not know yet"
        assert eu.get(f"{path}/protection").json["exclusions"] == []
    until(lambda: bool(eu.get(f"{path}/protection").json["exclusions"]))
    assert eu.deposit(player, 1).problem() == (409, "excluded")
    until(lambda: two.types("eu")["protection.safeguards_taken_up"] == 2)
    until(lambda: us.post(f"{path}/logins", {"session": "s"}).problem() == (409, "excluded"))
    same = eu.post(f"{path}/exclude", HALF_A_YEAR, key="stop me")
    assert (same.status, same.json) == (200, asked.json["answer"])
    assert header(same, "ledger-position") == asked.json["position"]
    assert (two.types("eu")["protection.excluded"], two.types("us")["safeguard.excluded"]) == (1, 1)
    two.caught_up()
    for client in (eu, us):
        found = client.get(f"{path}/history").json["items"]
        happened = [each["type"] for each in found]
        assert {"safeguard.excluded", "protection.excluded", "protection.safeguards_taken_up"} <= set(happened), (
            json.dumps(happened)
        )
    two.caught_up()  # what was read of a person stands in the log as well
    urls = [client.url for client in two.clients.values()]
    dsns = [settings.postgres for settings in two.local.settings.values()]
    verified = checking.verify([*urls, *dsns], two.local.tokens["auditor"], None, lambda *_: None)
    assert verified.status == checking.INTACT, verified.to_text()
    assert len({(each.log, each.leaf) for each in verified.findings}) == 2


@pytest.mark.fault
def test_where_the_owner_does_not_answer_it_is_recorded_too_and_counts_once(two: Deployment) -> None:
    eu, us = two.clients["eu"], two.clients["us"]
    player = eu.register()
    path = f"/v1/players/{player}"
    until(lambda: us.deposit(player, 1).status == 201)
    assert eu.deposit(player, 1).status == 201, "its process has the player in mind"
    before = two.types("eu")["protection.timed_out"]
    two.local.stack.send("eu", "api", signal.SIGSTOP)
    try:
        until(lambda: us.post(f"{path}/panic", {}, key="panic").status == 200)
        asked = us.post(f"{path}/panic", {}, key="panic")
        assert (asked.status, header(asked, "durability")) == (200, "geo"), "the copies go on"
        assert header(asked, "ledger-position").startswith("us/")
        until(lambda: two.types("eu")["protection.timed_out"] == before + 1)
    finally:
        two.local.stack.send("eu", "api", signal.SIGCONT)
    until(lambda: eu.deposit(player, 1).problem() == (409, "timed_out"))
    assert us.post(f"{path}/panic", {}, key="panic").json == asked.json
    two.caught_up()
    assert two.types("eu")["protection.timed_out"] == before + 1
    assert len(us.get(f"{path}/protection").json["time_outs"]) == 1
