"""Signed heads as an operator and a regulator meet them: in a deployment that runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psycopg

from app.heads import read_policy
from app.status import status
from tests.system.conftest import Deployment
from verifier.note import open_note, parse_checkpoint


def newest(deployment: Deployment, region: str, log: str) -> tuple[int, list[str]]:
    """Size of the newest published head as `countroom status` shows it, and who witnessed it."""
    [found] = [each for each in status(deployment.local.stack.data)["regions"] if each["name"] == region]
    signed = found["logs"][log]["signed"]
    return (signed["size"], signed["witnesses"]) if signed else (0, [])


def until_witnessed(deployment: Deployment, region: str, log: str, size: int) -> list[str]:
    end = time.monotonic() + 60
    while True:
        signed, witnesses = newest(deployment, region, log)
        if signed >= size and witnesses:
            return witnesses
        assert time.monotonic() < end, (signed, witnesses, size)
        time.sleep(0.1)


def test_every_region_shows_each_log_signed_and_witnessed_by_the_other(deployment: Deployment) -> None:
    for client in deployment.clients.values():
        client.register()
    for log, witness in (("eu", "us"), ("us", "eu")):
        size = deployment.heads(log)[log]
        for region in ("eu", "us"):
            assert until_witnessed(deployment, region, log, size) == [witness]


def test_a_checkpoint_is_public_and_opens_with_the_keys_of_the_policy(deployment: Deployment) -> None:
    deployment.clients["eu"].register()
    size = deployment.heads("eu")["eu"]
    until_witnessed(deployment, "us", "eu", size)
    policy = read_policy(deployment.local.stack.data / "trust.policy")
    keys = [str(each.key) for each in (*policy.logs, *policy.witnesses)]
    for client in deployment.clients.values():
        with urllib.request.urlopen(f"{client.url}/v1/logs/eu/checkpoint", timeout=30) as answer:
            opened = open_note(answer.read(), keys)
        assert parse_checkpoint(opened.text).size >= size
        assert {"countroom.demo/eu", "countroom.demo/us/witness"} <= set(opened.names)


def test_a_key_is_rotated_while_everything_runs(deployment: Deployment) -> None:
    data = deployment.local.stack.data
    done = json.loads(command("region", "rotate-key", "--region", "us", "--data", str(data), "--json"))
    until_witnessed(deployment, "eu", "us", done["position"])
    for client in deployment.clients.values():
        with urllib.request.urlopen(f"{client.url}/v1/logs/us/checkpoint", timeout=30) as answer:
            note = answer.read()
        for vkey in (done["old"], done["new"]):
            assert open_note(note, [vkey]).names == ["countroom.demo/us"]


def test_a_log_whose_postgresql_has_started_anew_is_compared_before_it_is_written(deployment: Deployment) -> None:
    stack, client = deployment.local.stack, deployment.clients["us"]
    player, key = {"country": "DE", "currency": "EUR"}, client.key_of_ours()
    stack.kill("us", "postgres")
    stack.wait_restarted("us", "postgres", timeout_s=60)
    while (answer := client.post("/v1/players", player, key=key)).status == 503:  # connections that broke
        time.sleep(0.1)
    assert answer.status == 201, answer
    with psycopg.connect(deployment.local.settings["us"].postgres) as connection:
        row = connection.execute("SELECT by FROM ledger.clearance").fetchone()
    assert row == ("compared with eu",)


def command(*arguments: str) -> str:
    """What `countroom` says on standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout
