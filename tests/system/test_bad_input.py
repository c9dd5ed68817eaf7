"""Bad input gets a problem document with a stable code, and changes nothing."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import pytest

from tests.system.conftest import Client, Deployment

MONEY = {"amount": 500, "currency": "EUR"}


def deposit(**changed: Any) -> dict[str, Any]:
    return {"amount": MONEY, "provider": "card", **changed}


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        (deposit(amount={"amount": -5, "currency": "EUR"}), 422, "invalid_amount", "/amount/amount"),
        (deposit(amount={"amount": 0, "currency": "EUR"}), 422, "invalid_amount", "/amount/amount"),
        (deposit(amount={"amount": 2**53, "currency": "EUR"}), 422, "invalid_amount", "/amount/amount"),
        (deposit(amount={"amount": 10**30, "currency": "EUR"}), 422, None, "/amount/amount"),
        (deposit(amount={"amount": 1.5, "currency": "EUR"}), 422, "invalid", "/amount/amount"),
        (deposit(amount={"amount": 2.0, "currency": "EUR"}), 422, "invalid", "/amount/amount"),
        (deposit(amount={"amount": "5", "currency": "EUR"}), 422, "invalid", "/amount/amount"),
        (deposit(amount={"amount": 5, "currency": "QQQ"}), 422, "unknown_currency", "/amount/currency"),
        (deposit(amount={"amount": 5, "currency": "eur"}), 422, "unknown_currency", "/amount/currency"),
        (deposit(amount={"amount": 5, "currency": "USD"}), 409, "currency_mismatch", None),
        (deposit(provider="Not A Word"), 422, "invalid", "/provider"),
        (deposit(extra=1), 422, "invalid", ""),
        (deposit(occurred="yesterday"), 422, "invalid", "/occurred"),
        (deposit(occurred="2023-02-30"), 422, "invalid", "/occurred"),
        (deposit(occurred="0001-01-01T00:00:00+05:00"), 422, "invalid", "/occurred"),
        (deposit(occurred="2999-01-01"), 422, "invalid", "/occurred"),
        (deposit(occurred="1997-01-01"), 403, "forbidden", None),
        (deposit(reference="\x00"), 422, "invalid", ""),
        (deposit(reference="\ufffe"), 422, "invalid", ""),
        ({}, 422, "invalid", ""),
        ([], 422, "invalid", ""),
    ],
)
def test_a_wrong_deposit_is_refused_and_nothing_changes(
    eu: Client, deployment: Deployment, body: Any, status: int, code: str | None, pointer: str | None
) -> None:
    player = eu.register()
    before = deployment.heads("eu")["eu"]

    answer = eu.post(f"/v1/players/{player}/deposits", body)

    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json
    assert problem["status"] == status
    assert code is None or problem["code"] == code
    assert pointer is None or problem["pointer"] == pointer
    recorded = int(status == HTTPStatus.FORBIDDEN)  # who was denied something is noted, once in a while
    assert deployment.heads("eu")["eu"] - before <= recorded


@pytest.mark.parametrize("raw", [b"", b"{", b"null", b'{"amount":', b"\xff\xfe", b'{"a":1}{"b":2}'])
def test_what_is_not_json_is_refused(eu: Client, deployment: Deployment, raw: bytes) -> None:
    player = eu.register()
    before = deployment.heads("eu")["eu"]
    answer = eu.post(f"/v1/players/{player}/deposits", None, raw=raw)
    assert (answer.status, answer.json["code"]) == (422, "invalid")
    assert deployment.heads("eu")["eu"] == before


def test_a_body_of_more_than_60_kib_is_refused(eu: Client, deployment: Deployment) -> None:
    player = eu.register()
    before = deployment.heads("eu")["eu"]
    answer = eu.post(f"/v1/players/{player}/block", None, raw=b'{"reason":"' + b"x" * 61_440 + b'"}')
    assert (answer.status, answer.json["code"]) == (413, "body_too_large")
    assert deployment.heads("eu")["eu"] == before


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/players/player_01ka7g0000e00800000000001a/deposits", 404, "not_found"),
        ("/v1/players/transaction_01ka7g0000e00800000000001a/deposits", 422, "invalid_id"),
        ("/v1/players/player_01KA7G0000E00800000000001A/deposits", 422, "invalid_id"),
        ("/v1/players/player_81ka7g0000e00800000000001a/deposits", 422, "invalid_id"),
        ("/v1/players/x/deposits", 422, "invalid_id"),
        ("/v1/nothing", 404, "not_found"),
    ],
)
def test_an_unknown_identifier_is_told_from_a_malformed_one(eu: Client, path: str, status: int, code: str) -> None:
    answer = eu.post(path, deposit())
    assert (answer.status, answer.json["code"]) == (status, code)


def test_an_unknown_transaction_cannot_be_settled(eu: Client) -> None:
    answer = eu.post("/v1/transactions/transaction_01ka7g0000e00800000000001a/settle", {}, role="payments")
    assert (answer.status, answer.json["code"]) == (404, "not_found")


def test_a_command_without_a_key_is_refused(eu: Client) -> None:
    answer = eu.post("/v1/players", {"country": "AT", "currency": "EUR"}, key=None)
    assert (answer.status, answer.json["code"]) == (400, "idempotency_key_missing")


def test_the_same_key_gives_the_first_answer_again_and_another_body_is_a_conflict(
    eu: Client, deployment: Deployment
) -> None:
    player = eu.register()
    first = eu.deposit(player, 700, key=f"key of {player}")
    after = deployment.heads("eu")["eu"]

    again = eu.deposit(player, 700, key=f"key of {player}")
    other = eu.deposit(player, 701, key=f"key of {player}")

    assert (again.status, again.raw, again.headers["ledger-position"]) == (
        201,
        first.raw,
        first.headers["ledger-position"],
    )
    assert again.headers["idempotency-replayed"] == "true"
    assert (other.status, other.json["code"]) == (409, "idempotency_key_reused")
    assert deployment.heads("eu")["eu"] == after


def test_the_first_answer_stands_even_when_the_player_was_blocked_since(eu: Client) -> None:
    player = eu.register()
    first = eu.deposit(player, 700, key=f"before {player}")
    assert eu.post(f"/v1/players/{player}/block", {"reason": "fraud"}).status == 200
    assert eu.deposit(player, 700, key=f"before {player}").raw == first.raw


def test_a_deposit_over_the_limit_says_what_is_used_and_when_it_frees(eu: Client, deployment: Deployment) -> None:
    player = eu.register()
    assert eu.deposit(player, 400).status == 201
    assert eu.post(f"/v1/players/{player}/limits/deposit", {"limit": {"amount": 1000, "currency": "EUR"}}).status == 200
    before = deployment.heads("eu")["eu"]

    answer = eu.deposit(player, 601)

    problem = answer.json
    assert (answer.status, problem["code"]) == (422, "limit_exceeded")
    assert problem["limit"] == {"amount": 1000, "currency": "EUR"}
    assert problem["used"] == {"amount": 400, "currency": "EUR"}
    assert problem["remaining"] == {"amount": 600, "currency": "EUR"}
    assert problem["frees_at"].endswith("T00:00:00Z")
    assert deployment.heads("eu")["eu"] == before + 1  # what a limit has refused is a fact
    assert eu.deposit(player, 600).status == 201


def test_a_failed_deposit_gives_its_headroom_back(eu: Client) -> None:
    player = eu.register()
    eu.post(f"/v1/players/{player}/limits/deposit", {"limit": {"amount": 1000, "currency": "EUR"}})
    transaction = eu.deposit(player, 1000).json["transaction"]
    assert eu.deposit(player, 1).status == 422
    assert eu.post(f"/v1/transactions/{transaction}/fail", {"reason": "declined"}, role="payments").status == 200
    assert eu.deposit(player, 1000).status == 201


def test_a_limit_is_cut_at_once_and_never_raised_at_once(eu: Client) -> None:
    player = eu.register()
    path = f"/v1/players/{player}/limits/deposit"
    assert eu.post(path, {"limit": {"amount": 1000, "currency": "EUR"}}).status == 200
    assert eu.post(path, {"limit": {"amount": 300, "currency": "EUR"}}).status == 200
    raised = eu.post(path, {"limit": {"amount": 301, "currency": "EUR"}})
    assert (raised.status, raised.json["code"]) == (422, "limit_raise")
    assert eu.deposit(player, 301).status == 422


def test_a_blocked_player_cannot_deposit_but_money_under_way_arrives(eu: Client) -> None:
    player = eu.register()
    transaction = eu.deposit(player, 900).json["transaction"]
    eu.post(f"/v1/players/{player}/block", {"reason": "fraud"})

    refused = eu.deposit(player, 1)
    settled = eu.post(f"/v1/transactions/{transaction}/settle", {}, role="payments")

    assert (refused.status, refused.json["code"]) == (409, "player_blocked")
    assert settled.json["balance"] == MONEY | {"amount": 900}


def test_nobody_without_a_token_and_no_role_beyond_its_own(eu: Client) -> None:
    player = eu.register()
    nobody = Client(eu.url, {"operator": "cr_wrong"}).get("/v1/dashboard")
    assert (nobody.status, nobody.json["code"]) == (401, "unauthenticated")
    for role in ("viewer", "auditor", "payments"):
        assert eu.deposit(player, 1, role=role).status == 403
    assert eu.get("/v1/logs/eu/entries", role="operator").status == 403
    assert eu.get(f"/v1/players/{player}", role="viewer").status == 403


def test_a_batch_runs_items_of_one_stream_in_order_and_each_has_its_own_result(eu: Client) -> None:
    key = f"batch {eu.register()}"
    items = [
        {"key": f"{key} 0", "path": "/v1/players", "body": {"country": "AT", "currency": "EUR"}},
        {"key": f"{key} 1", "path": "/v1/players/$0/limits/deposit", "body": {"limit": MONEY}},
        {"key": f"{key} 2", "path": "/v1/players/$0/deposits", "body": deposit()},
        {"key": f"{key} 3", "path": "/v1/players/$0/deposits", "body": deposit()},
        {"key": f"{key} 4", "path": "/v1/players/$3/block", "body": {"reason": "x"}},
        {"key": f"{key} 5", "path": "/v1/players/$0/block", "body": {"reason": "x"}},
        {"key": f"{key} 6", "path": "/v1/players/$0/deposits", "body": deposit()},
        {"key": f"{key} 7", "path": "/v1/nowhere", "body": {}},
        {"key": f"{key} 8", "path": "/v1/players/$99/block", "body": {"reason": "x"}},
    ]
    first = eu.post("/v1/batch", {"items": items}, key=None).json["items"]
    assert [item["status"] for item in first] == [201, 200, 201, 422, 424, 200, 409, 404, 424]
    again = eu.post("/v1/batch", {"items": items}, key=None).json["items"]
    for one, other in zip(first, again, strict=True):
        if one["status"] < 300:
            assert other.pop("repeated") is True
            assert one == other


def test_an_item_counts_as_if_it_had_been_sent_alone(eu: Client) -> None:
    player = eu.register()
    body = json.dumps(deposit()).encode()
    alone = eu.post(f"/v1/players/{player}/deposits", None, raw=body, key=f"either {player}")
    raw = b'{"items":[{"key":"either %b","path":"/v1/players/%b/deposits","body":%b}]}' % (
        player.encode(),
        player.encode(),
        body,
    )
    (item,) = eu.post("/v1/batch", None, raw=raw, key=None).json["items"]
    assert item["body"] == alone.json
    assert item["repeated"]


def test_errors_outside_any_handler_are_problems_too(eu: Client) -> None:
    for answer in (
        eu.get("/v1/players?limit=0"),
        eu.get("/v1/players?limit=x"),
        eu.get("/v1/players?limit=9999999999999999999"),
        eu.get("/v1/players?cursor=%00"),
        eu.get("/v1/logs/%00/entries", role="auditor"),
        eu.get("/v1/logs/eu/entries?after=9999999999999999999", role="auditor"),
        eu.get("/no"),
    ):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["code"] in {"invalid", "not_found"}
