"""kill -9 of any process, at any moment: after its restart the import completes, the totals are exact, the logs verify."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from app import cdnow, checking
from tests.system.conftest import Deployment, running

EVERY_PROCESS = [
    (region, role)
    for region in ("eu", "us")
    for role in (
        "api",
        "projector",
        "reactor",
        "relay+applier",
        "checkpointer+witness",
        "custodian",
        "postgres",
        "nats",
        "valkey",
    )
]


PATIENCE_S = 200  # as long as it takes to kill each, and for each to come back


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
            self.result = asyncio.run(cdnow.import_cdnow(self._path, self._url, self._token, patience_s=PATIENCE_S))
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


class Killed(NamedTuple):
    deployment: Deployment
    imported: cdnow.Imported
    victims: list[tuple[str, str]]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    """Two regions into which the sample was imported while each of their processes was killed once."""
    with running(tmp_path_factory.mktemp("killed")) as made:
        work = Import(made, cdnow.locate("sample"))
        work.start()
        victims = list(EVERY_PROCESS)
        random.shuffle(victims)
        for region, role in victims:
            time.sleep(random.uniform(0.05, 0.6))
            made.local.stack.kill(region, role)
            made.local.stack.wait_restarted(region, role, timeout_s=100)
        work.join(200)
        assert work.error is None, victims
        assert work.result is not None, victims
        yield Killed(made, work.result, victims)


@pytest.mark.fault
@pytest.mark.timeout(400)
def test_an_import_survives_kill_9_of_every_process(killed: Killed) -> None:
    imported = killed.imported
    assert (imported.players, imported.deposits, imported.skipped) == (2357, 6911, 8), killed.victims
    everything_holds(killed.deployment)


@pytest.mark.fault
@pytest.mark.timeout(400)
def test_a_second_import_changes_nothing(killed: Killed) -> None:
    positions = [killed.deployment.heads(region)[region] for region in ("eu", "us")]
    counts = killed.deployment.types("eu") + killed.deployment.types("us")
    starts, reads = counts.pop("service.started"), counts.pop("reads.recorded")
    assert counts == {
        "log.opened": 2,
        "player.registered": 2357,
        "transaction.deposit_requested": 6911,
        "transaction.deposit_settled": 6911,
        "wallet.credited": 6911,
    }
    assert starts >= 4  # at first, and after its death; a start that was recorded may be killed before its answer
    assert reads >= 2  # what `verify` has read
    keys = _rows(killed.deployment, "SELECT count(*) FROM vault.data_key")
    assert keys >= 2357  # a key whose entry died with its process stays behind; it opens nothing
    again = Import(killed.deployment, cdnow.locate("sample"))
    again.start()
    again.join()
    assert again.result is not None, again.error
    assert again.result == replace(killed.imported, repeated=2357 + 6911, seconds=again.result.seconds)
    assert [killed.deployment.heads(region)[region] for region in ("eu", "us")] == positions
    assert _rows(killed.deployment, "SELECT count(*) FROM vault.data_key") == keys
    everything_holds(killed.deployment)


def _rows(deployment: Deployment, query: str) -> int:
    import psycopg

    with psycopg.connect(deployment.local.settings["eu"].postgres) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])
