"""
A real reactor, killed with -9 at each step of a payout: exactly one payment comes of each withdrawal.

The provider runs in this process. What shall not be appended yet is held up by the lock of the log, so a kill meets the reactor
at the very step.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app import reconciling
from app.reconciling import Period
from tests.providers.psp import Asked, Fault, Psp, answer, open_psp
from tests.system.conftest import Client, Deployment, running

_LOCK = "SELECT pg_advisory_lock(1129272146, l.id) FROM ledger.log AS l WHERE l.own"  # as ledger.append takes it
_WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1129272146 AND NOT granted"


@contextmanager
def log_held(deployment: Deployment) -> Iterator[psycopg.Connection[Any]]:
    """Nothing is appended within the block."""
    with psycopg.connect(deployment.local.settings["eu"].postgres, autocommit=True) as connection:
        connection.execute(_LOCK)
        yield connection


def kill_once_it_waits(deployment: Deployment, connection: psycopg.Connection[Any]) -> None:
    """Kill the reactor while its append is waiting for the log, or after a while in which it did not come."""
    end = time.monotonic() + 10
    while connection.execute(_WAITING).fetchone() == (0,) and time.monotonic() < end:
        time.sleep(0.01)
    deployment.local.stack.kill("eu", "reactor")


def kill_when_asked(deployment: Deployment) -> Fault:
    """The reactor dies while it waits for this answer, which is lost."""

    def fault(request: BaseHTTPRequestHandler, _psp: Psp, _asked: Asked) -> bool:
        deployment.local.stack.kill("eu", "reactor")
        request.close_connection = True
        return True

    return fault


def kill_after_the_answer(deployment: Deployment, killed: threading.Event) -> Fault:
    """The reactor has the answer and cannot record it any more."""

    def fault(request: BaseHTTPRequestHandler, psp: Psp, asked: Asked) -> bool:
        with log_held(deployment) as connection:
            answer(request, 200, psp.pay(asked["transaction"], asked), psp.secret)
            kill_once_it_waits(deployment, connection)
        killed.set()
        return True

    return fault


def funded(client: Client, psp: Psp) -> str:
    """A player of 100.00 who is known, as providers have told."""
    player = client.register()
    asked = {"amount": {"amount": 100_00, "currency": "EUR"}, "provider": psp.name}
    deposit = client.post(f"/v1/players/{player}/deposits", asked).json["transaction"]
    assert psp.tell(client.url, id="1", verb="settle", transaction=deposit).json["status"] == "settled"
    given = {"level": "identity", "provider": psp.name}
    assert client.post(f"/v1/players/{player}/kyc/request", given).status == 200
    seen = {"level": "identity", "method": "video", "age_verified": True}
    assert psp.tell(client.url, id="2", verb="kyc_approve", player=player, **seen).status == 200
    return player


def withdrawn(client: Client, player: str, amount: int, *, confirmed: bool = True) -> str:
    """An approved withdrawal's id. `confirmed`: another region will hold it; otherwise its answer waits for one in vain."""
    body = {"amount": {"amount": amount, "currency": "EUR"}, "provider": "acme"}
    made = client.post(f"/v1/players/{player}/withdrawals", body, **({"durability": "region"} if confirmed else {}))
    answer = made.json if confirmed else made.json["answer"]
    assert (made.status, answer["status"]) == (201 if confirmed else 202, "approved"), made
    return str(answer["transaction"])


def deposit_of(client: Client, player: str) -> str:
    found = client.get(f"/v1/players/{player}/transactions").json["items"]
    return next(str(each["id"]) for each in found if each["kind"] == "deposit")


def as_lines(psp: Psp) -> list[tuple[str, str, int]]:
    return [("withdrawal", key, amount) for key, amount, _ in psp.paid]


def stated(folder: Path, movements: Sequence[tuple[str, str, int]]) -> Path:
    """The provider's statement."""
    file = folder / "statement.csv"
    lines = [
        f"{n},{id_},{kind},{amount},EUR,settled,2026-01-01T00:00:00Z" for n, (kind, id_, amount) in enumerate(movements)
    ]
    file.write_text("\n".join(["id,transaction,kind,amount,currency,status,at", *lines]) + "\n")
    return file


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


@pytest.mark.fault
@pytest.mark.timeout(400)
def test_killed_at_each_step_a_reactor_pays_each_withdrawal_once(tmp_path: Path) -> None:
    with open_psp() as psp:
        psp.write_file(tmp_path)
        with running(tmp_path, ["eu"]) as deployment:
            eu, stack = deployment.clients["eu"], deployment.local.stack
            player = funded(eu, psp)

            def is_paid(withdrawal: str, count: int) -> None:
                until(lambda: deployment.types("eu")["payout.accepted"] >= count)
                assert [key for key, _, _ in psp.paid].count(withdrawal) == 1
                assert deployment.types("eu")["payout.accepted"] == count

            held = withdrawn(eu, player, 1_00)
            with log_held(deployment) as connection:
                kill_once_it_waits(deployment, connection)  # before it is ordered
            stack.wait_restarted("eu", "reactor", timeout_s=60)
            is_paid(held, 1)

            psp.before.append(kill_when_asked(deployment))  # ordered, and nobody was asked
            is_paid(withdrawn(eu, player, 2_00), 2)

            psp.after.append(kill_when_asked(deployment))  # paid, and the answer is lost
            is_paid(withdrawn(eu, player, 3_00), 3)

            killed = threading.Event()
            psp.before.append(kill_after_the_answer(deployment, killed))  # answered, and it is not recorded
            last = withdrawn(eu, player, 4_00)
            assert killed.wait(100)
            is_paid(last, 4)

            assert sorted(amount for _, amount, _ in psp.paid) == [1_00, 2_00, 3_00, 4_00]
            for key, _, _ in psp.paid:
                for _ in range(2):
                    told = psp.tell(eu.url, id="s", reference=f"settle {key}", verb="settle", transaction=key)
                    assert (told.status, told.json["status"]) == (200, "settled")
            books = eu.eventually("/v1/trial-balance", lambda found: found["positions"] == deployment.heads("eu"))
            balances = {each["account"]: each["balance"] for each in books["accounts"]}
            assert books["balanced"]
            assert balances == {"cash": 90_00, "reserved": 0, "psp:acme": -90_00}

            token = deployment.local.tokens["payments"]
            statement = stated(tmp_path, [("deposit", deposit_of(eu, player), 100_00), *as_lines(psp)])
            matched = reconciling.run(statement, "acme", eu.url, token, Period())
            assert (matched.status, len(matched.matched)) == (0, 5)
            short = reconciling.run(stated(tmp_path, as_lines(psp)), "acme", eu.url, token, Period())
            assert [(each.kind, each.transaction) for each in short.missing_there] == [
                ("deposit", deposit_of(eu, player))
            ]


@pytest.mark.fault
@pytest.mark.timeout(400)
def test_nobody_is_paid_while_no_other_region_has_the_order(tmp_path: Path) -> None:
    with open_psp() as psp:
        psp.write_file(tmp_path)
        with running(tmp_path, ["eu", "us"]) as deployment:
            eu, us, stack = deployment.clients["eu"], deployment.clients["us"], deployment.local.stack
            player = funded(eu, psp)
            first = withdrawn(eu, player, 1_00)
            until(lambda: [key for key, _, _ in psp.paid] == [first])

            stack.send("us", "relay+applier", signal.SIGSTOP)
            second = withdrawn(eu, player, 2_00, confirmed=False)
            asked = us.deposit(player, 3_00, durability="geo")
            assert (asked.status, asked.json["state"]) == (202, "unconfirmed"), asked
            fates = [each.get(f"/v1/commands/{asked.json['command']}").json for each in (eu, us)]
            assert fates[0] == fates[1], "US, which has not copied it, has asked EU"
            assert (fates[1]["position"], fates[1]["geo"]) == (asked.json["position"], False)
            until(lambda: deployment.types("eu")["payout.ordered"] == 2)
            time.sleep(3)
            assert len(psp.asked) == 1

            stack.send("us", "relay+applier", signal.SIGCONT)
            until(lambda: [key for key, _, _ in psp.paid] == [first, second])
            until(lambda: deployment.types("eu")["payout.accepted"] == 2)
