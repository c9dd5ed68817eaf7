"""kill -9 of any process, at any moment: after its restart the import completes, the totals are exact, the logs verify."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import cdnow, checking
from tests.system.conftest import Deployment, running

EVERY_PROCESS = [
    (region, role)
    for region in ("eu", "us")
    for role in ("api", "projector", "relay+applier", "postgres", "nats", "valkey")
]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Deployment]:
    with running(tmp_path) as made:
        yield made


class Import(threading.Thread):
    """An import that runs beside the test."""

    def __init__(self, deployment: Deployment, path: Path) -> None:
        super().__init__()
        self._url = deployment.clients["eu"].url
        self._token = deployment.local.tokens["importer"]
        self._path = path
        self.result: cdnow.Imported | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.result = asyncio.run(cdnow.import_cdnow(self._path, self._url, self._token, progress=cdnow.Silent()))
        except Exception as error:  # noqa: BLE001 — the test reports it
            self.error = error


def everything_holds(deployment: Deployment) -> None:
    """Totals are exact in both regions, the books balance, every log verifies, copies are equal byte for byte."""
    shown = deployment.caught_up()
    for dashboard in shown.values():
        assert dashboard["players"] == 2357
        assert dashboard["totals"] == [{"currency": "USD", "count": 6911, "amount": 24409194}]
    for client in deployment.clients.values():
        books = client.eventually("/v1/trial-balance", lambda found: found["positions"] == shown["eu"]["positions"])
        assert books["balanced"]
        assert {account["account"]: account["balance"] for account in books["accounts"]} == {
            "cash": 24409194,
            "psp:cdnow": -24409194,
        }
    settings = deployment.local.settings
    found = checking.verify(
        [*(client.url for client in deployment.clients.values()), *(s.postgres for s in settings.values())],
        deployment.local.tokens["auditor"],
        None,
        lambda *_: None,
    )
    assert found.status == checking.INTACT, found.to_text()
    assert len(found.findings) == 8
    assert len({(finding.log, finding.leaf) for finding in found.findings}) == 2


@pytest.mark.fault
@pytest.mark.timeout(240)
def test_an_import_survives_kill_9_of_every_process(fresh: Deployment) -> None:
    stack = fresh.local.stack
    work = Import(fresh, cdnow.locate("sample"))
    work.start()
    victims = list(EVERY_PROCESS)
    random.shuffle(victims)
    for region, role in victims:
        time.sleep(random.uniform(0.05, 0.6))
        stack.kill(region, role)
        stack.wait_restarted(region, role, timeout_s=60)
    work.join(120)

    assert work.error is None
    assert work.result is not None
    assert (work.result.players, work.result.deposits, work.result.skipped) == (2357, 6911, 8), victims
    everything_holds(fresh)


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_a_batch_whose_answer_was_lost_after_its_commit_is_counted_once(fresh: Deployment) -> None:
    """The API dies between the commits of a batch and its answer; the same batch sent again completes it."""
    eu = fresh.clients["eu"]
    player = eu.register()
    body = {"amount": {"amount": 100, "currency": "EUR"}, "provider": "card", "occurred": "2020-01-01"}
    register = {"country": "DE", "currency": "EUR", "occurred": "2020-01-01"}
    items = [
        {"key": f"{player} register", "path": "/v1/players", "body": register},
        *({"key": f"{player} {n}", "path": "/v1/players/$0/deposits", "body": body} for n in range(300)),
    ]
    start = fresh.heads("eu")["eu"]
    sender = threading.Thread(
        target=lambda: _ignore_loss(lambda: eu.post("/v1/batch", {"items": items}, key=None, role="importer"))
    )
    sender.start()
    while fresh.heads("eu")["eu"] < start + 60:  # some of its 301 commands are committed, its answer is not given
        time.sleep(0.002)
    fresh.local.stack.kill("eu", "api")
    sender.join(30)
    fresh.local.stack.wait_restarted("eu", "api", timeout_s=60)
    committed = fresh.heads("eu")["eu"]
    assert start + 60 <= committed < start + 1 + 900

    results = eu.post("/v1/batch", {"items": items}, key=None, role="importer").json["items"]

    assert [item["status"] for item in results] == [201] * 301
    assert sum(item.get("repeated", False) for item in results) >= 20
    assert fresh.heads("eu")["eu"] == start + 1 + 900
    imported = results[0]["body"]["player"]
    card = eu.eventually(
        f"/v1/players/{imported}", lambda found: found["balances"] and found["balances"][0]["deposits"] == 300
    )
    assert card["balances"][0]["cash"] == 30_000


def _ignore_loss(work: object) -> None:
    try:
        work()  # type: ignore[operator]
    except OSError:
        pass
    except Exception as error:
        if "http.client" not in type(error).__module__ and "RemoteDisconnected" not in type(error).__name__:
            raise


@pytest.mark.timeout(180)
def test_a_second_import_changes_nothing(fresh: Deployment) -> None:
    path = cdnow.locate("sample")
    for repeated in (False, True):
        work = Import(fresh, path)
        work.start()
        work.join()
        assert work.result is not None, work.error
        assert (work.result.players, work.result.deposits, work.result.skipped) == (2357, 6911, 8)
        assert (work.result.repeated > 0) is repeated
        heads = fresh.heads("eu")
        assert heads["eu"] == 1 + 2357 + 3 * 6911
        assert _rows(fresh, "SELECT count(*) FROM vault.data_key") == 2357
    everything_holds(fresh)


def _rows(deployment: Deployment, query: str) -> int:
    import psycopg

    with psycopg.connect(deployment.local.settings["eu"].postgres) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])
