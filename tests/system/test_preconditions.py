"""If-Match over HTTP: what a GET answered as ETag guards a command."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.asking import Answer
from tests.system.conftest import Client, Deployment

LIMIT = {"limit": {"amount": 1000, "currency": "EUR"}}


def card(client: Client, player: str, version: str) -> str:
    """The card's ETag, once it shows what was written."""
    client.eventually(f"/v1/players/{player}", lambda found: found["version"] == version)
    return client.get(f"/v1/players/{player}").headers["etag"]


def test_a_card_that_was_read_guards_a_command(eu: Client, us: Client, deployment: Deployment) -> None:
    player = eu.register()
    for reader, versions in ((eu, "1.0.0.0"), (us, "1.0.1.0")):
        tag = card(reader, player, versions)
        assert eu.deposit(player, 5, if_match=f'"other", {tag}').status == 201
        before = deployment.heads("eu")["eu"]
        refused = eu.deposit(player, 5, if_match=tag)
        assert (refused.status, refused.json["code"]) == (412, "precondition_failed")
        assert refused.headers["content-type"] == "application/problem+json"
        assert deployment.heads("eu")["eu"] == before


def test_all_that_stands_on_a_card_is_in_its_tag(eu: Client) -> None:
    player = eu.register()
    transaction = eu.deposit(player, 700).json["transaction"]
    eu.post(f"/v1/transactions/{transaction}/settle", {}, role="payments", if_match='"1"')
    assert card(eu, player, "1.1.1.0") == '"1.1.1.0"'
    assert eu.post(f"/v1/players/{player}/limits/deposit", LIMIT, if_match='"1.1.1.0"').status == 200
    assert eu.post(f"/v1/players/{player}/block", {"reason": "x"}, if_match='"1.1.1.0"').status == 412
    assert eu.post(f"/v1/players/{player}/block", {"reason": "x"}, if_match='"1.1.2.0"').status == 200
    assert card(eu, player, "2.1.2.0")


def test_a_transaction_that_was_read_guards_its_end(eu: Client) -> None:
    transaction = eu.deposit(eu.register(), 700).json["transaction"]
    eu.eventually(f"/v1/transactions/{transaction}", lambda found: found["version"] == 1)
    tag = eu.get(f"/v1/transactions/{transaction}").headers["etag"]
    fail = f"/v1/transactions/{transaction}/fail"
    assert eu.post(fail, {"reason": "declined"}, role="payments", if_match=tag).status == 200
    assert eu.post(fail, {"reason": "declined"}, role="payments", if_match=tag).status == 412


def test_any_state_of_an_existing_player_will_do(eu: Client) -> None:
    player = eu.register()
    assert eu.deposit(player, 5, if_match="*").status == 201
    assert eu.deposit("player_01ka7g0000e00800000000001a", 5, if_match="*").status == 404


@pytest.mark.parametrize("given", ["1.0.0.0", '"', '"1.0.0.0" "2.0.0"', '*, "1.0.0.0"', ""])
def test_what_is_no_tag_is_refused(eu: Client, given: str) -> None:
    refused = eu.deposit(eu.register(), 5, if_match=given)
    assert (refused.status, refused.json["code"]) == (400, "if_match_malformed")


def test_a_repeat_gets_the_first_answer_whatever_is_there_now(eu: Client) -> None:
    player = eu.register()
    first = eu.deposit(player, 5, key=f"once {player}", if_match='"1.0.0.0"')
    again = eu.deposit(player, 5, key=f"once {player}", if_match='"1.0.0.0"')
    assert (first.status, again.status, again.raw) == (201, 201, first.raw)
    assert again.headers["idempotency-replayed"] == "true"


def test_of_racing_writers_that_read_the_same_card_one_wins(eu: Client) -> None:
    player = eu.register()
    tag = card(eu, player, "1.0.0.0")
    racers = [Client(eu.url, eu.tokens) for _ in range(8)]

    def race(place: int) -> Answer:
        key = f"race {place} {player}"
        if place % 2:
            return racers[place].deposit(player, 5, key=key, if_match=tag)
        return racers[place].post(f"/v1/players/{player}/limits/deposit", LIMIT, key=key, if_match=tag)

    with ThreadPoolExecutor(len(racers)) as pool:
        statuses = sorted(answer.status for answer in pool.map(race, range(len(racers))))
    assert statuses[0] in {200, 201}
    assert statuses[1:] == [412] * 7


def test_an_item_of_a_batch_has_its_own(eu: Client) -> None:
    player = eu.register()

    def item(place: int, **more: Any) -> dict[str, Any]:
        return {"key": f"{place} {player}", "path": f"/v1/players/{player}/limits/deposit", "body": LIMIT, **more}

    items = [item(0, if_match='"1.0.0.0"'), item(1, if_match='"1.0.0.0"'), item(2, if_match="x"), item(3)]
    answers = eu.post("/v1/batch", {"items": items}, key=None).json["items"]
    assert [answer["status"] for answer in answers] == [200, 412, 400, 200]


def test_the_interface_says_where_it_may_be_given(eu: Client) -> None:
    paths = eu.get("/openapi.json").json["paths"]
    guarded = {
        path
        for path, methods in paths.items()
        for parameter in methods.get("post", {}).get("parameters", ())
        if parameter["name"] == "If-Match"
    }
    commands = {path for path, methods in paths.items() if "post" in methods and "{" in path}
    without_tag = ("/v1/providers/", "/v1/games/", "/v1/signin/", "/v1/me/", "/v1/compartments/", "/v1/policies/")
    assert guarded == {path for path in commands if not path.startswith(without_tag)}
    for path in guarded:
        assert "`precondition_failed`" in paths[path]["post"]["responses"]["412"]["description"]
        assert "`if_match_malformed`" in paths[path]["post"]["responses"]["400"]["description"]
    assert "ETag" in paths["/v1/players/{player_id}"]["get"]["responses"]["200"]["headers"]
