"""Keys that travel between two running regions: who is registered in one is read, found and signed in in the other."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from tests.system.conftest import Deployment, running
from tests.system.test_heads import command

RESIDENCY = '{"US-NJ": ["us"], "*": ["eu", "us"]}'
HOME = {"country": "US", "jurisdiction": "US-NJ", "birth_date": "1980-01-02", "currency": "USD"}


@pytest.mark.timeout(300)
def test_what_one_region_made_the_other_reads_finds_and_gives_up(tmp_path: Path) -> None:
    (tmp_path / "residency.json").write_text(RESIDENCY)
    with running(tmp_path) as deployment:
        eu, us = deployment.clients["eu"], deployment.clients["us"]
        anna = eu.register(name="Anna Quill", email="anna.quill@example.com")
        stays = us.register(name="Ben Quill", email="ben.quill@example.com", **HOME)
        card = us.eventually(f"/v1/players/{anna}", lambda card: card["personal"]["name"] is not None)
        assert (card["personal"]["name"], card["personal"]["email"]) == ("Anna Quill", "anna.quill@example.com")
        assert us.found(email="Anna.Quill@example.com") == [anna]
        deployment.caught_up()
        assert eu.get(f"/v1/players/{stays}").json["personal"]["name"] is None
        assert held(deployment, "eu", stays) == 0
        status = json.loads(command("vault", "status", "--region", "eu", "--data", str(tmp_path), "--json"))
        assert status == {"region": "eu", "of": {"us": {"held": 0, "missing": 0, "not_allowed": 1, "refused": 0}}}
        assert 'countroom_vault_keys{log="eu",state="held"} 1.0' in us.get("/metrics").raw.decode()
        is_another_account_there(deployment, anna)
        signs_in_elsewhere(deployment)
        moved_away(deployment, anna)


def is_another_account_there(deployment: Deployment, anna: str) -> None:
    """What is decided in us does not depend on whether a key of eu has come yet."""
    us = deployment.clients["us"]
    answer = us.post("/v1/players", {"country": "AT", "currency": "EUR", "email": "anna.quill@example.com"})
    assert (answer.status, answer.json["status"]) == (201, "active")
    us.finds(anna, answer.json["player"], email="anna.quill@example.com")


def signs_in_elsewhere(deployment: Deployment) -> None:
    """Invited in eu, with a password that is sealed under a key of eu; shown in us."""
    eu, us = deployment.clients["eu"], deployment.clients["us"]
    body = {"name": "Otto", "email": "otto@example.com", "person": "p-17"}
    made = eu.post("/v1/operators", body, role="administrator")
    assert made.status == 201, made
    operator = made.json["operator"]
    shown = us.eventually(f"/v1/operators/{operator}", lambda card: card["name"] == "Otto", role="administrator")
    assert shown["email"] == "otto@example.com"


def moved_away(deployment: Deployment, player: str) -> None:
    """To where only us may hold keys: eu refuses, which owns the player; the other way us gives up its copy."""
    eu = deployment.clients["eu"]
    refused = eu.post(f"/v1/players/{player}/profile", {"jurisdiction": "US-NJ"})
    assert (refused.status, refused.json["code"]) == (422, "keys_elsewhere")
    assert held(deployment, "us", player) == 1


def held(deployment: Deployment, region: str, player: str) -> int:
    with psycopg.connect(deployment.local.settings[region].postgres) as connection:
        row = connection.execute(
            "SELECT count(*) FROM vault.data_key WHERE subject = %s", [player.removeprefix("player_")]
        ).fetchone()
    assert row is not None
    return int(row[0])
