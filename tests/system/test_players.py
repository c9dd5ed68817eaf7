"""Players over HTTP, as people and programs with their own tokens see and change them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.system.conftest import Client

PASSPORT = {"level": "identity", "method": "document", "age_verified": True}


def test_what_is_told_of_a_player_stands_on_the_card_and_in_the_timeline(eu: Client) -> None:
    told = {"name": "Ada Byron", "city": "Wien", "language": "de", "consents": ["sms"], "acquisition_source": "tv"}
    player = eu.register(**told, country="AT")
    path = f"/v1/players/{player}"
    for verb, body, role in (
        ("profile", {"city": "Graz", "street": "Ring 1"}, "operator"),
        ("tags", {"tag": "vip"}, "operator"),
        ("notes", {"text": "wants German"}, "operator"),
        ("kyc/request", {"level": "identity"}, "support"),
        ("kyc/approve", {**PASSPORT, "intervention": {"kind": "other", "reason": "seen"}}, "compliance"),
        ("logins", {"session": "1", "device": "ios", "address": "192.0.2.1"}, "operator"),
        ("block", {"reason": "chargeback"}, "compliance"),
        ("unblock", {"reason": "paid"}, "compliance"),
    ):
        answer = eu.post(f"{path}/{verb}", body, role=role)
        assert answer.status in {200, 201}, (verb, answer)

    card = eu.eventually(path, lambda found: found["player_version"] == 8)

    assert (card["personal"]["city"], card["personal"]["street"], card["status"]) == ("Graz", "Ring 1", "active")
    facts = card["facts"]
    assert (facts["tags"], facts["consents"], facts["kyc"]["level"]) == (["vip"], ["sms"], "identity")
    assert facts["last_login"]["device"] == "ios"
    tags = [item["type"] for item in eu.get(f"{path}/history?limit=3").json["items"]]
    assert tags == ["player.unblocked", "player.blocked", "login.succeeded"]
    assert [note["text"] for note in eu.get(f"{path}/notes").json["items"]] == ["wants German"]
    assert [note["text"] for note in eu.get(f"{path}/notes", role="auditor").json["items"]] == [None]
    assert eu.get(f"{path}/may-contact?channel=sms").json["allowed"] is True
    assert eu.get(f"{path}/may-contact?channel=email").json["reason"] == "no_consent"
    assert player in [item["id"] for item in eu.get("/v1/players?tag=vip&status=active&country=AT").json["items"]]


def test_as_of_a_moment_a_player_is_what_they_were(eu: Client) -> None:
    player = eu.register(country="AT", name="Ada", city="Wien")
    first = eu.post(f"/v1/players/{player}/tags", {"tag": "new"}).headers["ledger-position"]
    eu.post(f"/v1/players/{player}/tags/remove", {"tag": "new"})
    eu.post(f"/v1/players/{player}/profile", {"city": "Graz", "jurisdiction": "DE"})
    then, now = (
        eu.get(f"/v1/audit/players/{player}{at}", role="compliance").json
        for at in (f"?at={first.rpartition('/')[0]}", "")
    )
    assert (then["facts"]["tags"], then["personal"]["city"]) == (["new"], "Wien")
    assert (now["facts"]["tags"], now["personal"]["city"]) == ([], "Graz")
    assert (then["facts"]["profile"]["jurisdiction"], now["facts"]["profile"]["jurisdiction"]) == ("AT", "DE")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("may-contact?channel=fax", "invalid"),
        ("may-contact", "invalid"),
        ("history?limit=0", "invalid"),
        ("history?cursor=x", "invalid"),
        ("notes?cursor=x", "invalid"),
    ],
)
def test_what_cannot_be_meant_is_refused(eu: Client, path: str, code: str) -> None:
    assert eu.get(f"/v1/players/player_{'0' * 26}/{path}").problem() == (422, code)


def test_a_list_is_chosen_by_what_players_have(eu: Client) -> None:
    for chosen in ("status=odd", "tag=%00", "registered_from=soon"):
        assert eu.get(f"/v1/players?{chosen}").problem() == (422, "invalid")
    assert eu.get("/v1/players?country=XX").json == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("kyc/approve", PASSPORT),
        ("kyc/expire", {}),
        ("kyc/miss", {}),
        ("notes", {"text": "x"}),
        ("consents", {"channels": ["sms"]}),
    ],
)
def test_not_everybody_may_do_it(eu: Client, path: str, body: Any) -> None:
    player = eu.register(country="AT")
    assert eu.post(f"/v1/players/{player}/{path}", body, role="viewer").status == (
        422 if path == "kyc/approve" else 403
    )


def test_nobody_under_age_has_an_account(eu: Client) -> None:
    answer = eu.post("/v1/players", {"country": "DE", "currency": "EUR", "birth_date": "2015-01-01"})
    assert answer.problem() == (422, "underage")
    assert answer.json["minimum"] == 18
