"""
Players of EU, asked for in US: commands run in EU and are answered as if they had been sent there; and what is answered when EU
is frozen, killed or not there.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from providers import signing
from tests.asking import Answer, send
from tests.providers.psp import Psp, open_psp
from tests.system.conftest import Client, Deployment, running

REEL = b"reel, a secret of tests"
WHY = {"kind": "correction", "reason": "known for long"}
_LOCK = "SELECT pg_advisory_lock(1129272146, l.id) FROM ledger.log AS l WHERE l.own"  # as ledger.append takes it
_WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1129272146 AND NOT granted"


class Two:
    """EU and US, and providers who tell either."""

    def __init__(self, deployment: Deployment, psp: Psp) -> None:
        self.deployment, self.psp = deployment, psp
        self.eu, self.us = deployment.clients["eu"], deployment.clients["us"]
        self._numbers = iter(range(10**6))

    def both(self, path: str, body: Any, *, first: str = "us", **more: Any) -> Answer:
        """The first answer, given in one region; in the other one it is a repeat, with the same bytes."""
        key = f"both {next(self._numbers)}"
        one, other = (self.us, self.eu) if first == "us" else (self.eu, self.us)
        return alike(*[reached(lambda each=each: each.post(path, body, key=key, **more)) for each in (one, other)])

    def play(self, client: Client, verb: str, **said: Any) -> Answer:
        raw = json.dumps({"verb": verb, **said}).encode()
        headers = {signing.HEADER: signing.sign(REEL, raw, int(time.time()))}
        return send("POST", f"{client.url}/v1/games/reel/{verb}", raw, headers)

    def metric(self, name: str) -> float:
        lines = send("GET", f"{self.us.url}/metrics", None, {}).raw.decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{")), 0.0)

    def deposits(self, player: str, amount: int, after: Answer) -> int:
        """How many deposits of this amount the player has, as of an answer or later."""
        at_least = headers(after)["ledger-position"]
        found = self.eu.eventually(f"/v1/players/{player}/transactions?at_least={at_least}", lambda _found: True)
        return sum(each["money"]["amount"] == amount for each in found["items"])


def reached(ask: Callable[[], Answer], *, seconds: float = 60) -> Answer:
    """The answer, once the owner is reached: where that takes longer than a caller is made to wait, nothing was recorded."""
    end = time.monotonic() + seconds
    while (answer := ask()).status == 503 and time.monotonic() < end:
        assert answer.problem() == (503, "owner_unreachable")
    return answer


def headers(answer: Answer) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items() if name.lower() != "date"}


def alike(first: Answer, second: Answer) -> Answer:
    """Nothing tells them apart but that the second, where something was recorded, is a repeat."""
    repeated = headers(second)
    assert repeated.pop("idempotency-replayed", "true") == "true"
    assert (first.status, first.raw, headers(first)) == (second.status, second.raw, repeated)
    return first


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("forwarding")
    with open_psp() as psp:
        file = psp.write_file(folder)
        (folder / "reel.secret").write_text(REEL.hex())
        reel = {"name": "reel", "games": {"signature": "hmac", "secrets": ["reel.secret"]}}
        file.write_text(json.dumps([*json.loads(file.read_text()), reel]))
        with running(folder) as deployment:
            made = Two(deployment, psp)
            player = made.eu.register()
            end = time.monotonic() + 60
            while made.us.deposit(player, 1).status != 201:  # its log has not come to US yet
                assert time.monotonic() < end
                time.sleep(0.1)
            yield made


def test_a_command_is_answered_as_by_its_players_own_region(two: Two) -> None:
    player = two.eu.register()
    path = f"/v1/players/{player}"
    deposit = two.both(f"{path}/deposits", {"amount": {"amount": 5_00, "currency": "EUR"}, "provider": "acme"})
    assert deposit.status == 201
    assert headers(deposit)["ledger-position"].startswith("eu/")
    limit = {"period": "day", "limit": {"amount": 10_00, "currency": "EUR"}}
    assert two.both(f"{path}/limits/deposit", limit, first="eu").status == 200
    too_much = {"amount": {"amount": 50_00, "currency": "EUR"}, "provider": "acme"}
    key = "too much, in either region"
    refused = [each.post(f"{path}/deposits", too_much, key=key) for each in (two.us, two.eu)]
    assert [each.problem() for each in refused] == [(422, "limit_exceeded")] * 2
    ticket = two.both(f"{path}/tickets", {"channel": "email", "subject": "Hello", "text": "Where is my money?"})
    assert ticket.status == 201
    answered = two.both(f"/v1/tickets/{ticket.json['ticket']}/answer", {"text": "On its way."})
    assert answered.status == 200
    asked = two.both(f"/v1/transactions/{deposit.json['transaction']}/settle", {"intervention": WHY}, role="cashier")
    assert (asked.status, asked.json["status"]) == (202, "awaiting_approval")
    approval = f"/v1/approvals/{asked.json['approval']}/approve"
    approved = two.both(approval, {"hash": asked.json["hash"]}, role="supervisor")
    assert (approved.status, approved.json["status"]) == (200, "approved"), approved


def test_refusals_have_the_same_bytes(two: Two) -> None:
    player = two.eu.register()
    path, body = f"/v1/players/{player}/deposits", {"amount": {"amount": 1, "currency": "EUR"}, "provider": "acme"}
    for answer, problem in (
        (two.both(path, {"amount": 5}), (422, "invalid")),
        (two.both(path, body, role="viewer"), (403, "forbidden")),
        (two.both("/v1/players/nobody/deposits", body), (422, "invalid_id")),
        (two.both(f"/v1/players/{player[:-3]}aaa/deposits", body), (404, "not_found")),
        (two.both(path, body, if_match='"9"'), (412, "precondition_failed")),
        (two.both(path, body, if_match="nonsense"), (400, "if_match_malformed")),
    ):
        assert answer.problem() == problem
    nobody = alike(two.us.post(path, body, key=None), two.eu.post(path, body, key=None))
    assert nobody.problem() == (400, "idempotency_key_missing")
    two.us.post(path, body, key="once")
    reused = [each.post(path, {**body, "provider": "other"}, key="once") for each in (two.us, two.eu)]
    assert [each.problem() for each in reused] == [(409, "idempotency_key_reused")] * 2
    assert reused[0].raw == reused[1].raw


def test_a_batch_goes_to_where_each_item_belongs_in_the_order_given(two: Two) -> None:
    there = two.eu.register()
    deposit = {"amount": {"amount": 3_00, "currency": "EUR"}, "provider": "acme"}
    limit = {"period": "day", "limit": {"amount": 5_00, "currency": "EUR"}}
    items = [
        ("/v1/players", {"country": "AT", "currency": "EUR"}),
        (f"/v1/players/{there}/limits/deposit", limit),
        (f"/v1/players/{there}/deposits", deposit),
        ("/v1/players/$0/deposits", deposit),
        (f"/v1/players/{there}/deposits", deposit),
        ("/v1/transactions/$2/settle", {"intervention": WHY}),
        ("/v1/transactions/$4/settle", {"intervention": WHY}),
        ("/v1/transactions/$3/settle", {"intervention": WHY}),
    ]
    keys = [two.us.key_of_ours("supervisor"), *(f"batch {n}" for n in range(1, len(items)))]
    body = {"items": [{"key": key, "path": path, "body": said} for key, (path, said) in zip(keys, items, strict=True)]}
    rehearsed = two.us.post("/v1/batch", {**body, "dry_run": True}, key=None, role="supervisor").json["items"]
    assert [each["status"] for each in rehearsed] == [201, 200, 201, 424, 201, 424, 424, 424], rehearsed
    first = two.us.post("/v1/batch", body, key=None, role="supervisor").json["items"]
    assert [each["status"] for each in first] == [201, 200, 201, 201, 422, 202, 424, 202], first
    logs = [each.get("position", "").partition("/")[0] for each in first]
    assert logs == ["us", "eu", "eu", "us", "eu", "eu", "", "us"], "what a limit refuses is recorded"
    again = two.us.post("/v1/batch", body, key=None, role="supervisor").json["items"]
    assert [{**each, "repeated": None} for each in again] == [{**each, "repeated": None} for each in first]
    assert [each.get("repeated", False) for each in again] == [each["status"] < 400 for each in first]
    in_eu = two.eu.post("/v1/batch", body, key=None, role="supervisor").json["items"]
    assert in_eu == again, "its own items are there, the others are asked of US"


def test_what_a_provider_says_in_the_other_region_is_done_once(two: Two) -> None:
    player = two.eu.register()
    asked = {"amount": {"amount": 100_00, "currency": "EUR"}, "provider": "acme"}
    deposit = two.us.post(f"/v1/players/{player}/deposits", asked).json["transaction"]
    said = {"id": "1", "verb": "settle", "transaction": deposit}
    settled = alike(*[two.psp.tell(each.url, **said) for each in (two.us, two.eu)])
    assert (settled.status, settled.json["status"]) == (200, "settled")
    wrong = alike(*[two.psp.tell(each.url, **{**said, "verb": "dispute"}) for each in (two.us, two.eu)])
    assert wrong.status == 422
    assert two.psp.tell(two.us.url, secret=b"another" * 5, **said).problem() == (401, "unauthenticated")


def test_a_game_is_played_through_the_other_region(two: Two) -> None:
    player = two.eu.register()
    path = f"/v1/players/{player}"
    given = {"level": "identity", "provider": "acme"}
    assert two.us.post(f"{path}/kyc/request", given).status == 200
    seen: dict[str, Any] = {"level": "identity", "method": "video", "age_verified": True}
    assert two.psp.tell(two.us.url, id="2", verb="kyc_approve", player=player, **seen).status == 200
    cash = {"amount": {"amount": 100_00, "currency": "EUR"}, "provider": "acme"}
    deposit = two.us.post(f"{path}/deposits", cash).json["transaction"]
    assert two.psp.tell(two.us.url, id="3", verb="settle", transaction=deposit).json["status"] == "settled"
    launched = two.us.post(f"{path}/sessions", {"provider": "reel", "game": "book", "kind": "slot"})
    assert launched.status == 201, launched
    token = launched.json["token"]
    opened = two.play(two.us, "authenticate", reference="hello", token=token)
    assert opened.status == 200, opened
    bet = {"reference": "b1", "game": "book", "round": "r1", "amount": 1_00, "currency": "EUR", "token": token}
    staked = two.play(two.us, "bet", **bet)
    assert staked.json["balance"]["cash"] == 99_00, staked
    again = [two.play(each, "bet", **bet) for each in (two.us, two.eu)]
    assert alike(*again).json == {**staked.json, "repeated": True}
    balance = alike(*[two.play(each, "balance", token=token) for each in (two.us, two.eu)])
    assert (balance.json["balance"]["cash"], balance.json["position"]) == (99_00, None)


# Registrations

PERSON = {"country": "AT", "currency": "EUR"}


def registered(answers: Sequence[Answer]) -> set[tuple[int, str]]:
    return {(each.status, each.json["player"]) for each in answers}


def test_one_registration_said_in_two_regions_at_once_makes_one_player(two: Two) -> None:
    keys = [key for each in (two.eu, two.us) for key in (each.key_of_ours(), each.key_of_ours(), each.key_of_ours())]
    logs = set()
    with ThreadPoolExecutor(4) as pool:
        for key in keys:
            together = [pool.submit(each.post, "/v1/players", PERSON, key=key) for each in (two.eu, two.us) * 2]
            answers = [each.result() for each in together]
            assert len(registered(answers)) == 1, answers
            assert sum("idempotency-replayed" not in headers(each) for each in answers) == 1, answers
            [position] = {headers(each)["ledger-position"] for each in answers}
            logs.add(position.partition("/")[0])
    assert logs == {"eu", "us"}


def test_a_batch_and_a_single_call_of_one_registration_make_one_player(two: Two) -> None:
    for key in (two.eu.key_of_ours(), two.us.key_of_ours()):
        items = {"items": [{"key": key, "path": "/v1/players", "body": PERSON}]}
        one, other = (two.eu.post("/v1/batch", items, key=None), two.us.post("/v1/players", PERSON, key=key))
        assert one.json["items"][0]["body"]["player"] == other.json["player"]


# When EU is not well


@pytest.mark.fault
def test_whoever_registers_while_a_region_is_frozen_is_its_player_or_nobody(two: Two) -> None:
    theirs, ours = two.eu.key_of_ours(), two.us.key_of_ours()
    with frozen(two):
        time.sleep(2.5)  # so long that the time is asked first, which a frozen region does not tell
        assert two.us.post("/v1/players", PERSON, key=theirs).problem() == (503, "owner_unreachable")
        here = two.us.post("/v1/players", PERSON, key=ours)
    assert here.status == 201
    end = time.monotonic() + 60
    while (there := two.us.post("/v1/players", PERSON, key=theirs)).status != 201:
        assert time.monotonic() < end, there
        time.sleep(0.2)
    assert "idempotency-replayed" not in headers(there), "nothing had been recorded"
    again = [two.eu.post("/v1/players", PERSON, key=key) for key in (theirs, ours)]
    assert [each.raw for each in again] == [there.raw, here.raw]


@contextmanager
def frozen(two: Two) -> Iterator[None]:
    two.deployment.local.stack.send("eu", "api", signal.SIGSTOP)
    try:
        yield
    finally:
        two.deployment.local.stack.send("eu", "api", signal.SIGCONT)


def until_answered(two: Two, player: str) -> None:
    end = time.monotonic() + 60
    while two.us.deposit(player, 1).status != 201:
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.fault
def test_what_was_sent_to_a_frozen_region_is_not_done_when_it_thaws(two: Two) -> None:
    player = two.eu.register()
    for _ in range(10):  # after 2 s of silence the time is asked first, which a frozen region does not tell
        until_answered(two, player)
        with frozen(two):
            unknown = two.us.deposit(player, 7_00, key="frozen")
            meanwhile = two.us.get(headers(unknown).get("location", "/healthz"))
        if unknown.status != 503:
            break
    assert (unknown.status, unknown.json["state"]) == (202, "unknown")
    assert meanwhile.problem() == (503, "unavailable"), "whether it stands in EU is not known"
    id_ = unknown.json["command"]
    assert headers(unknown)["location"] == f"/v1/commands/{id_}"
    until_answered(two, player)
    assert [each.get(f"/v1/commands/{id_}").problem() for each in (two.eu, two.us)] == [(404, "not_found")] * 2
    sent_again = two.us.deposit(player, 7_00, key="frozen")
    assert sent_again.status == 201
    assert "idempotency-replayed" not in headers(sent_again)
    assert two.eu.get(f"/v1/commands/{id_}").json["position"] == headers(sent_again)["ledger-position"]
    assert two.deposits(player, 7_00, sent_again) == 1


@pytest.mark.fault
def test_after_some_silence_a_region_is_not_asked_until_it_answers_again(two: Two) -> None:
    player = two.eu.register()
    until_answered(two, player)
    key = iter(range(1000))
    with frozen(two):
        time.sleep(2.5)  # so long that the time is asked first, which a frozen region does not tell
        refused = [two.us.deposit(player, 9_00, key=f"silence {next(key)}") for _ in range(3)]
        assert [each.problem() for each in refused] == [(503, "owner_unreachable")] * 3
        assert headers(refused[0])["retry-after"] == "2"
        assert two.metric("countroom_region_open") == 1
        assert two.us.deposit(player, 9_00, key=f"silence {next(key)}").problem() == (503, "owner_unreachable")
        here = two.us.register()
        assert two.us.deposit(here, 1).status == 201, "what is US's own goes on"
    until_answered(two, player)
    assert two.metric("countroom_region_open") == 0
    for n in range(next(key)):
        answer = two.eu.deposit(player, 9_00, key=f"silence {n}")
        assert (answer.status, "idempotency-replayed" in headers(answer)) == (201, False), "nothing had been recorded"


@pytest.mark.fault
def test_the_fate_of_a_command_whose_owner_was_killed_over_it_is_told_later(two: Two) -> None:
    player = two.eu.register()
    until_answered(two, player)
    stack = two.deployment.local.stack
    with ThreadPoolExecutor(1) as pool:
        with psycopg.connect(two.deployment.local.settings["eu"].postgres, autocommit=True) as holding:
            holding.execute(_LOCK)
            answer: Future[Answer] = pool.submit(two.us.deposit, player, 4_00, key="killed")
            end = time.monotonic() + 10
            while holding.execute(_WAITING).fetchone() == (0,) and time.monotonic() < end:
                time.sleep(0.01)
            stack.kill("eu", "api")
        unknown = answer.result()
    assert (unknown.status, unknown.json["state"]) == (202, "unknown")
    stack.wait_restarted("eu", "api", timeout_s=60)
    until_answered(two, player)
    again = two.us.deposit(player, 4_00, key="killed")
    assert again.status == 201
    told = two.us.eventually(f"/v1/commands/{unknown.json['command']}", lambda found: found["state"] == "recorded")
    assert told["position"] == headers(again)["ledger-position"]
    assert two.deposits(player, 4_00, again) == 1
