"""The API is killed between the commits of a batch and its answer."""

from __future__ import annotations

import threading
import time

import pytest

from tests.system.conftest import Deployment


@pytest.mark.fault
def test_a_batch_whose_answer_was_lost_after_its_commit_is_counted_once(deployment: Deployment) -> None:
    eu = deployment.clients["eu"]
    player = eu.register()
    body = {"amount": {"amount": 100, "currency": "EUR"}, "provider": "card", "occurred": "2020-01-01"}
    register = {"country": "DE", "currency": "EUR", "occurred": "2020-01-01"}
    items = [
        {"key": eu.key_of_ours("importer"), "path": "/v1/players", "body": register},
        *({"key": f"{player} {n}", "path": "/v1/players/$0/deposits", "body": body} for n in range(300)),
    ]
    start, before = deployment.heads("eu")["eu"], deployment.types("eu")
    sender = threading.Thread(
        target=lambda: _ignore_loss(lambda: eu.post("/v1/batch", {"items": items}, key=None, role="importer"))
    )
    sender.start()
    while deployment.heads("eu")["eu"] < start + 60:  # some of its 301 commands are committed, its answer is not given
        time.sleep(0.002)
    deployment.local.stack.kill("eu", "api")
    sender.join(30)
    deployment.local.stack.wait_restarted("eu", "api", timeout_s=60)
    committed = deployment.heads("eu")["eu"]
    assert start + 60 <= committed < start + 1 + 1 + 900

    results = eu.post("/v1/batch", {"items": items}, key=None, role="importer").json["items"]

    assert [item["status"] for item in results] == [201] * 301
    assert sum(item.get("repeated", False) for item in results) >= 20
    made = deployment.types("eu") - before
    assert made.pop("service.started") == 1  # the process that took the killed one's place
    assert made == {
        "player.registered": 1,
        "transaction.deposit_requested": 300,
        "transaction.deposit_settled": 300,
        "wallet.credited": 300,
    }
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
