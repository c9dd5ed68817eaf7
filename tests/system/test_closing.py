"""
A region's database was restored to its past, written to, and so forked from what was copied, promised and signed: its log is closed, and
the region goes on as the next one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app import checking, local
from app.settings import inherited
from domain import players
from domain.kernel import PlayerId
from tests.stack import free_port_base
from tests.system.conftest import Client, Deployment, running

pytestmark = pytest.mark.fault
EU, US = "eu", "us"


def deposit(client: Client, player: str, amount: int) -> None:
    asked = client.deposit(player, amount)
    assert asked.status == 201, asked
    settled = client.post(f"/v1/transactions/{asked.json['transaction']}/settle", {}, role="payments")
    assert settled.status == 200, settled


def region_of(player: str) -> str:
    partition = players.stream(PlayerId(player)).partition
    assert partition is not None
    return EU if partition < 128 else US


def cash(client: Client, player: str) -> int:
    found = client.get(f"/v1/players/{player}")
    assert found.status == 200, found
    return int(found.json["balances"][0]["cash"])


def countroom(*arguments: str, folder: Path, fails: bool = False) -> str:
    command = [sys.executable, "-m", "app", "region", *arguments, "--data", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode != 0) is fails, done.stderr
    return done.stderr if fails else done.stdout


def forked(folder: Path, backup: Path, player: str) -> None:
    """Put the older database in place, with a new NATS folder, let it be written, and write."""
    shutil.rmtree(folder / EU / "postgres")
    shutil.copytree(backup, folder / EU / "postgres")
    shutil.rmtree(folder / EU / "nats" / "jetstream")
    with local.running(folder, [EU, US], free_port_base(2), idle=[EU]) as here:
        settings = here.settings[EU]
        with psycopg.connect(settings.postgres, autocommit=True) as connection:
            connection.execute(
                "SELECT ledger.clear_to_write(id, 'ann, who believed that us was gone') FROM ledger.log WHERE own"
            )
        environment = {**inherited(), **settings.environment()}
        serving = [
            subprocess.Popen([sys.executable, "-m", "app", "serve", *roles], env=environment)
            for roles in (["api"], ["projector"], ["relay"])
        ]
        try:
            client = Client(settings.url, here.tokens)
            end = time.monotonic() + 120
            while not written(client, player, 70_000):
                assert time.monotonic() < end
                time.sleep(0.2)
            halted_in(here, US)
        finally:
            for process in serving:
                process.terminate()
            for process in serving:
                process.wait(30)


def written(client: Client, player: str, amount: int) -> bool:
    """As soon as the service has come up."""
    try:
        asked = client.deposit(player, amount)
    except OSError:
        return False
    if asked.status == 201:
        client.post(f"/v1/transactions/{asked.json['transaction']}/settle", {}, role="payments")
    return asked.status == 201


def halted_in(here: local.Local, region: str) -> None:
    end = time.monotonic() + 60
    with psycopg.connect(here.settings[region].postgres, autocommit=True) as connection:
        while not (
            found := connection.execute(
                "SELECT e.reason FROM replication.evidence e JOIN ledger.log l ON l.id = e.log"
                " WHERE l.name = 'eu' AND e.role = 'applier' AND e.cleared_at IS NULL"
            ).fetchall()
        ):
            assert time.monotonic() < end, "the copy did not halt"
            time.sleep(0.2)
    assert "fork" in found[0][0]


@pytest.mark.timeout(900)
def test_a_forked_log_is_closed_and_its_players_pay_on(tmp_path: Path) -> None:
    with running(tmp_path) as two:
        known = [client.register() for client in two.clients.values() for _ in range(2)]
        ours = next(each for each in known if region_of(each) == EU)
        for player in known:
            deposit(two.clients[region_of(player)], player, 500)
        two.caught_up()
    backup = tmp_path.with_name(f"{tmp_path.name}-backup")
    shutil.copytree(tmp_path / EU / "postgres", backup)
    with running(tmp_path) as two:
        deposit(two.clients[EU], ours, 900)
        late = two.clients[EU].register()
        two.caught_up()
        agreed = two.heads(US)[EU]
    forked(tmp_path, backup, ours)

    ports = ("--port-base", str(free_port_base(2)))
    told = json.loads(countroom("close", EU, "--at-last-agreed", "--dry-run", "--json", *ports, folder=tmp_path))
    assert (told["position"], told["continues_as"]) == (agreed, "eu.2")
    assert ours in told["stranded"]["players"]
    assert "--yes" in countroom("close", EU, "--at-last-agreed", *ports, folder=tmp_path, fails=True)
    assert not (tmp_path / "eu.2" / "continues" / "continues.json").exists()
    done = json.loads(
        countroom("close", EU, "--at-last-agreed", "--yes", "--then-stop", "--json", *ports, folder=tmp_path)
    )
    assert (done["position"], done["partitions"]) == (agreed, 128)
    again = json.loads(
        countroom("close", EU, "--at-last-agreed", "--yes", "--then-stop", "--json", *ports, folder=tmp_path)
    )
    assert again["partitions"] == 128
    with pytest.raises(local.LogClosed, match=r"goes on as eu\.2"), running(tmp_path):
        pass

    with running(tmp_path, ("eu.2", US)) as two:
        goes_on(two, ours, late, known, told)


def goes_on(two: Deployment, ours: str, late: str, known: list[str], told: dict[str, Any]) -> None:
    agreed, left = told["position"], told["stranded"]
    first, second = two.clients["eu.2"], two.clients[US]
    deposit(first, ours, 11)
    deposit(second, ours, 22)
    deposit(second, late, 33)
    deposit(first, next(each for each in known if region_of(each) == US), 44)
    new = [client.register() for client in (first, second)]
    deposit(first, new[0], 55)
    heads = {region: two.heads(region)[region] for region in two.clients} | {EU: agreed}
    for client in two.clients.values():
        client.eventually("/v1/dashboard", lambda found: found["positions"] == heads, role="viewer")
        books = client.eventually("/v1/trial-balance", lambda found: found["positions"] == heads)
        assert books["balanced"]
        total = 4 * 500 + 900 + 11 + 22 + 33 + 44 + 55
        assert {each["account"]: each["balance"] for each in books["accounts"]} == {"cash": total, "psp:card": -total}
    for client in (first, second):
        assert cash(client, ours) == 500 + 900 + 11 + 22
        assert cash(client, late) == 33
        for gone in (f"eu/{left['last']}/{left['leaf'][:16]}", f"eu/{agreed + 1}"):
            assert client.get(f"/v1/players/{ours}?at_least={gone}").json["code"] == "position_stranded"
    found = checking.verify(
        [*(client.url for client in two.clients.values()), *(each.postgres for each in two.local.settings.values())],
        two.local.tokens["auditor"],
        None,
        lambda *_: None,
    )
    assert found.status == checking.INTACT, found.to_text()
    assert {finding.log for finding in found.findings} == {EU, "eu.2", US}
    assert len({(finding.log, finding.leaf) for finding in found.findings}) == 3
    assert "of the closed database stranded" in found.to_text()
    assert f"closed behind position {agreed}, goes on as eu.2" in found.to_text()
    assert two.types("eu.2")["log.adopted"] == 1
