"""Two regions: what was written in one is read in the other by whoever asks for it, and what is geo is there before it is answered."""

from __future__ import annotations

import json

from tests.system.conftest import Client, Deployment


def position(headers: dict[str, str]) -> str:
    return next(value for name, value in headers.items() if name.lower() == "ledger-position")


def test_who_writes_here_reads_it_there_and_goes_on_from_that_anywhere(eu: Client, us: Client) -> None:
    seen = ""
    for _ in range(3):
        written = eu.post("/v1/players", {"country": "AT", "currency": "EUR"})
        player = written.json["player"]
        made = eu.deposit(player, 500)
        seen = position(made.headers)
        card = us.read(f"/v1/players/{player}?at_least={seen}")
        assert (card.status, card.json["id"]) == (200, player)
        paid = us.read(f"/v1/transactions/{made.json['transaction']}?at_least={seen}")
        assert paid.status == 200
        note = us.post("/v1/players", {"country": "AT", "currency": "EUR"})
        both = f"{seen},{position(note.headers)}"
        listed = eu.read(f"/v1/players?limit=10&at_least={both}")
        assert {player, note.json["player"]} <= {each["id"] for each in listed.json["items"]}
        chained = us.read(f"/v1/dashboard?at_least={position(listed.headers)}", role="viewer")
        assert chained.status == 200
        assert position(chained.headers).startswith("eu/")


def test_the_fate_of_a_command_is_told_in_every_region_once_it_is_there(eu: Client, us: Client) -> None:
    written = eu.surely("/v1/players", {"country": "AT", "currency": "EUR"}, durability="geo")
    headers = {name.lower(): value for name, value in written.headers.items()}
    assert (written.status, headers["durability"]) == (201, "geo")
    at_home = eu.read(headers["content-location"]).json
    assert (at_home["geo"], at_home["copies"]) == (True, {"us": True})
    there = us.read(f"{headers['content-location']}?at_least={headers['ledger-position']}").json
    assert (there["position"], there["copies"]) == (at_home["position"], {"us": True})


def test_every_read_of_the_api_says_what_it_reads(eu: Client) -> None:
    paths = json.loads(eu.get("/openapi.json").raw)["paths"]
    gets = {path: methods["get"] for path, methods in paths.items() if "get" in methods}
    assert [path for path, operation in gets.items() if "x-reads" not in operation] == []
    assert len([path for path, operation in gets.items() if operation["x-reads"]]) > 45


def test_a_region_that_hears_of_nobody_else_answers_reads_and_refuses_what_has_not_come(deployment: Deployment) -> None:
    us = deployment.clients["us"]
    head = deployment.heads("us")["eu"]
    answer = us.get(f"/v1/players?at_least=eu/{head + 1_000_000}&wait=100")
    assert answer.problem() == (503, "not_yet")
    assert us.get("/v1/players").status == 200
