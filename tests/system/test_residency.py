"""Keys only where the player's jurisdiction allows: elsewhere the log is copied, verified and counted, and nothing opens."""

from __future__ import annotations

from pathlib import Path

import psycopg

from domain.kernel import partition_of
from tests.system.conftest import running
from tests.system.test_heads import command

ABROAD = {"country": "US", "jurisdiction": "US-PA", "birth_date": "1980-01-02", "currency": "USD", "name": "Quillon"}


def test_a_region_that_may_not_hold_the_key_counts_the_money_and_verifies(tmp_path: Path) -> None:
    (tmp_path / "residency.json").write_text('{"US": ["us"]}')
    with running(tmp_path) as deployment:
        eu, us = deployment.clients["eu"], deployment.clients["us"]
        player = eu.surely("/v1/players", ABROAD, durability="geo").json["player"]
        assert partition_of(player) in us.share, "whoever is asked, they are registered where their key may be"
        at_home = eu.register(name="Ada")
        moved = eu.post(f"/v1/players/{at_home}/profile", {"jurisdiction": "AT", "language": "de"})
        assert moved.status == 200
        assert us.deposit(player, 1_00, "USD").status == 201
        deployment.caught_up()
        cards = {client: client.eventually(f"/v1/players/{player}", lambda _card: True) for client in (eu, us)}
        assert (cards[eu]["personal"]["name"], cards[us]["personal"]["name"]) == (None, "Quillon")
        balances = [client.get("/v1/trial-balance").json for client in (eu, us)]
        assert balances[0]["accounts"] == balances[1]["accounts"]
        assert all(balance["balanced"] for balance in balances)
        settings = deployment.local.settings
        with psycopg.connect(settings["eu"].postgres) as connection:
            held = connection.execute(
                "SELECT count(*) FROM vault.data_key WHERE subject = %s", [player.removeprefix("player_")]
            ).fetchone()
        assert held == (0,)
        command("verify", settings["eu"].postgres)
