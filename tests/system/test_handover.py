"""Partitions go to the other region, and back, while players pay: nothing is refused, lost or doubled, and everything verifies."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import checking
from domain import players
from domain.kernel import PlayerId
from tests.asking import Answer
from tests.registering import key_within
from tests.system.conftest import Client, Deployment, running

AMOUNT = 100
MOVED = range(64)
PATIENCE_S = 30.0
PERSON = {"country": "AT", "currency": "EUR"}
ANN = {**PERSON, "name": "Ann Example"}


class Payers(threading.Thread):
    """Settles deposits of one player after the other, until told to stop. `refused`: what a caller would have to complain of."""

    def __init__(self, clients: dict[str, Client], paying: list[str]) -> None:
        super().__init__()
        self._clients = clients
        self._paying = paying
        self.settled: dict[str, int] = dict.fromkeys(paying, 0)
        self.refused: list[Answer] = []
        self.stop = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            player = self._paying[number % len(self._paying)]
            number += 1
            asked = self._ask(
                f"/v1/players/{player}/deposits",
                {"amount": {"amount": AMOUNT, "currency": "EUR"}, "provider": "card"},
                201,
            )
            if asked is not None:
                path = f"/v1/transactions/{asked.json['transaction']}/settle"
                if self._ask(path, {}, 200, role="payments") is not None:
                    self.settled[player] += 1

    def _ask(self, path: str, body: Any, status: int, *, role: str = "operator") -> Answer | None:
        """In eu; where that is told to be wrong, in the region that is named, with the same key."""
        key = f"pay {path} {time.monotonic_ns()}"
        answer = self._clients["eu"].post(path, body, key=key, role=role)
        if answer.status == 421:
            answer = self._clients[answer.json["owner"]].post(path, body, key=key, role=role)
        if answer.status != status:
            self.refused.append(answer)
            return None
        return answer


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with running(tmp_path_factory.mktemp("handover")) as made:
        yield made


def countroom(deployment: Deployment, folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "app", "region", "handover", *arguments, "--data", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(400)
def test_partitions_move_while_players_pay(two: Deployment) -> None:
    eu = two.clients["eu"]
    keys = [key_within(places) for places in (MOVED, range(64, 128)) for _ in range(6)]
    registered = {key: eu.post("/v1/players", PERSON, key=key) for key in keys}
    paying = [answer.json["player"] for answer in registered.values()]
    named = key_within(MOVED)
    ann = eu.post("/v1/players", ANN, key=named)
    moving = [each for each in paying if players.stream(PlayerId(each)).partition in MOVED]
    assert len(moving) == 6
    payers = Payers(two.clients, paying)
    payers.start()
    try:
        _until(lambda: payers.refused or sum(payers.settled.values()) >= 12)
        assert payers.refused == []
        folder = two.local.stack.data
        said = countroom(two, folder, "--region", "eu", "--to", "us", "--partitions", "0-63")
        assert "64 partitions of eu belong to us now" in said
        before = dict(payers.settled)
        _until(lambda: payers.refused or all(payers.settled[each] > before[each] for each in paying))
    finally:
        payers.stop.set()
        payers.join()
    assert payers.refused == []
    everything_holds(two, payers.settled)
    own = two.types("us")
    assert own["log.adopted"] == 1
    assert own["wallet.credited"] >= len(moving)
    for key, answer in registered.items():
        again = [client.post("/v1/players", PERSON, key=key) for client in two.clients.values()]
        assert [each.raw for each in again] == [answer.raw] * 2, "whoever owns them now"
    again = [client.post("/v1/players", ANN, key=named) for client in two.clients.values()]
    assert [each.raw for each in again] == [ann.raw] * 2
    other = [client.post("/v1/players", {**ANN, "name": "Ben"}, key=named).problem() for client in two.clients.values()]
    assert other == [(409, "idempotency_key_reused")] * 2, "the key of what is personal has come along"

    back = countroom(two, folder, "--region", "us", "--to", "eu", "--player", moving[0])
    assert "1 partitions of us belong to eu now" in back
    assert eu.post(f"/v1/players/{moving[0]}/block", {"reason": "fraud"}).status == 200
    everything_holds(two, payers.settled)


def everything_holds(two: Deployment, settled: dict[str, int]) -> None:
    """Balances are what was answered, in both regions; the books are balanced; copies are equal and verify."""
    shown = two.caught_up()
    for client in two.clients.values():
        for player, count in settled.items():
            shown_player = client.get(f"/v1/players/{player}").json
            assert shown_player["balances"][0]["cash"] == count * AMOUNT, player
        books = client.eventually("/v1/trial-balance", lambda found: found["positions"] == shown["eu"]["positions"])
        assert books["balanced"]
    urls = [client.url for client in two.clients.values()]
    dsns = [settings.postgres for settings in two.local.settings.values()]
    found = checking.verify([*urls, *dsns], two.local.tokens["auditor"], None, lambda *_: None)
    assert found.status == checking.INTACT, found.to_text()
    assert len({(finding.log, finding.leaf) for finding in found.findings}) == 2
    assert not any("adopted_as_stated" in finding.shown for finding in found.findings)


def _until(holds: Any) -> None:
    end = time.monotonic() + PATIENCE_S * 4
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
