"""A third region joins two that have worked: it copies their logs, until witnesses vouch for that, and takes part."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app import checking
from domain import players
from domain.kernel import PlayerId
from tests.stack import free_port_base
from tests.system.conftest import running


@pytest.mark.timeout(600)
def test_a_new_empty_region_catches_up_and_is_handed_partitions(tmp_path: Path) -> None:
    with running(tmp_path) as two:
        known = [client.register() for client in two.clients.values() for _ in range(3)]
        for player in known:
            region = "eu" if players.stream(PlayerId(player)).partition < 128 else "us"
            assert two.clients[region].deposit(player, 500).status == 201
        before = {region: two.heads(region)[region] for region in two.clients}

    joined = countroom("join", "ap", tmp_path, "--port-base", str(free_port_base(3)), "--then-stop", "--json")
    logs = json.loads(joined)["logs"]
    assert logs.keys() == before.keys()
    assert all(logs[log]["entries"] >= before[log] for log in before)

    with running(tmp_path, ("eu", "us", "ap")) as three:
        ap = three.clients["ap"]
        ap.eventually(f"/v1/players/{known[0]}", lambda _found: True)
        new = ap.register()  # where it goes is up to who owns its partition
        assert players.stream(PlayerId(new)).partition in range(256)
        partition = players.stream(PlayerId(known[0])).partition
        giver = "eu" if partition < 128 else "us"
        said = countroom("handover", None, tmp_path, "--region", giver, "--to", "ap", "--partitions", str(partition))
        assert "belong to ap now" in said
        assert ap.deposit(known[0], 700).status == 201
        three.caught_up()
        metrics = ap.get("/metrics", role="viewer").raw.decode()
        assert 'countroom_log_signed_size{log="eu"}' in metrics
        urls = [client.url for client in three.clients.values()]
        dsns = [settings.postgres for settings in three.local.settings.values()]
        found = checking.verify([*urls, *dsns], three.local.tokens["auditor"], None, lambda *_: None)
        assert found.status == checking.INTACT, found.to_text()
        assert len({(finding.log, finding.leaf) for finding in found.findings}) == 3
        assert three.types("ap")["log.adopted"] == 1


def countroom(verb: str, name: str | None, folder: Path, *arguments: str) -> str:
    names = [name] if name else []
    command = [sys.executable, "-m", "app", "region", verb, *names, *arguments, "--data", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
