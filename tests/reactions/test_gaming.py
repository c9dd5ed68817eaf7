"""What game providers say: signed, over the hot lane, an ordinary route or in a batch, and always with the same answer."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import httpx2
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI

from access.tokens import Tokens, record
from app import commanding, gaming
from app.api import explain_errors
from app.commanding import BODY_BYTES_MAX, Services
from app.lane import Lane
from app.openapi import Schemas
from app.starting import Start
from domain import play, wallets
from domain.kernel import PlayerId
from domain.play import SessionEnded, SessionOpened
from domain.wallets import StakeRefused
from providers import games, signing
from providers.known import Known
from tests.commands.house import CODEC, SECRET, deposit_of
from tests.ledger import OWNED
from tests.reactions.region import Region

Said = dict[str, Any]

REEL, NEW_REEL = b"reel, the old secret", b"reel, the new secret"
SPIN, NEW_SPIN = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
KNOWN = {
    "reel": Known("reel", None, None, frozenset(), games.Secrets([REEL, NEW_REEL])),
    "spin": Known("spin", None, None, frozenset(), games.PublicKeys([SPIN.public_key(), NEW_SPIN.public_key()], "pss")),
    "old": Known("old", None, None, frozenset(), games.PublicKeys([SPIN.public_key()], "pkcs1v15")),
    "acme": Known("acme", b"only for payments", None),
}
SIGNS: dict[str, Callable[[bytes, int], str]] = {
    "reel": lambda body, at: signing.sign(REEL, body, at),
    "spin": lambda body, at: games.sign(SPIN, "pss", body, at),
    "old": lambda body, at: games.sign(SPIN, "pkcs1v15", body, at),
    "acme": lambda body, at: signing.sign(b"only for payments", body, at),
}
LANES = {"hot": "", "ordinary": "?ordinary"}
TOKENS = {"aggregator": "cr_aggregator", "operator": "cr_operator"}


class Table:
    """A player, a provider, and the door between them."""

    def __init__(self, region: Region, client: httpx2.AsyncClient, counted: Counter[tuple[str, str]]) -> None:
        self.region, self.client, self.counted = region, client, counted
        self.player = self.session = self.token = ""
        self._numbers = iter(range(10**6))

    async def sit(self, provider: str = "reel", cash: int = 10_000, **more: Any) -> None:
        self.player = await self.rich(cash, **more)
        self.token = await self.launch(provider)
        opened = await self.say("authenticate", provider, reference="hello", token=self.token)
        assert opened.status_code == 200, opened.text
        self.session = opened.json()["session"]

    async def rich(self, cash: int, **more: Any) -> str:
        """A player who is known and has so much cash, from long ago."""
        post = self.region.process.post
        player = await self.region.player(**more)
        why = {"kind": "correction", "reason": "known for long"}
        known = {"level": "identity", "method": "passport", "age_verified": True, "intervention": why}
        await post(f"/v1/players/{player}/kyc/approve", known)
        await post(f"/v1/players/{player}/deposits", deposit_of(cash, occurred="2020-01-01"))
        return player

    async def launch(self, provider: str = "reel", **more: Any) -> str:
        body = {"provider": provider, "game": "book-of-tests", "kind": "slot", **more}
        answer: Any = (await self.region.process.post(f"/v1/players/{self.player}/sessions", body)).answer
        return str(answer.token)

    async def say(
        self, verb: str, provider: str = "reel", *, lane: str = "hot", signed_at: int = 0, header: str | None = None,
        raw: bytes | None = None, **said: Any,
    ) -> httpx2.Response:  # fmt: skip
        body = json.dumps({"verb": verb, **said}).encode()
        signed = SIGNS[provider](body, signed_at or int(time.time()))
        return await self.client.post(
            f"/v1/games/{provider}/{verb}{LANES[lane]}",
            content=body if raw is None else raw,
            headers={signing.HEADER: signed if header is None else header},
        )

    def bet(self, amount: int = 100, **more: Any) -> Said:
        n = next(self._numbers)
        return {
            "reference": f"b{n}", "player": self.player, "session": self.session, "game": "book-of-tests",
            "round": f"r{n}", "amount": amount, "currency": "EUR", **more,
        }  # fmt: skip


@pytest.fixture
async def table(region: Region) -> AsyncIterator[Table]:
    tokens = Tokens([record(token, f"{role}:test", [role]) for role, token in TOKENS.items()])
    services = Services(region.process.decider, region.vault, tokens, list(OWNED), SECRET)  # type: ignore[arg-type]
    start, app, schemas = Start(), FastAPI(), Schemas()
    await start.record(region.process.decider, region.pool)
    counted: Counter[tuple[str, str]] = Counter()
    door = gaming.Door(services, start, counted.update, KNOWN)
    routes = gaming.router(door, schemas)
    commands = commanding.router(services, start, schemas, counted.update, door.relay)
    app.include_router(commands)
    app.include_router(routes)
    explain_errors(app)
    schemas.install(app)
    hot = Lane(app, [*commands.routes, *routes.routes])
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(hot), base_url="http://door") as client:
        yield Table(region, client, counted)


# The verbs, end to end


@pytest.mark.parametrize("lane", LANES)
async def test_a_session_is_played(table: Table, lane: str) -> None:
    await table.sit()
    bet = table.bet(1_000)
    staked = await table.say("bet", lane=lane, **bet)
    assert (staked.status_code, staked.headers["content-type"]) == (200, "application/json")
    answer = staked.json()
    assert answer["balance"] == {"cash": 9_000, "bonus": 0, "currency": "EUR"}
    assert answer["position"].startswith("eu/")
    assert answer["repeated"] is False
    won = await table.say("win", lane=lane, **{**bet, "amount": 2_500, "reference": "w"})
    assert won.json()["balance"]["cash"] == 11_500
    closed = await table.say(
        "close", lane=lane, reference="c", player=table.player, game=bet["game"], round=bet["round"]
    )
    assert closed.status_code == 200, closed.text
    for verb, cash, bonus in (("bonus_win", 11_500, 300), ("free_win", 11_500, 600)):
        more = await table.say(verb, lane=lane, **{**bet, "amount": 300, "reference": "w2"})
        assert more.json()["balance"] == {"cash": cash, "bonus": bonus, "currency": "EUR"}
    back = await table.say("rollback", lane=lane, reference="rb", player=table.player, bet=bet["reference"])
    assert (back.json()["balance"]["cash"], back.json()["returned"]) == (12_500, 1_000)
    held = await table.say("balance", lane=lane, player=table.player)
    assert held.json()["balance"] == {"cash": 12_500, "bonus": 600, "currency": "EUR"}
    assert held.json()["position"] is None
    ended = await table.say("end", lane=lane, reference="bye", player=table.player, session=table.session)
    assert ended.json()["session"] == table.session
    moved = [event for event in table.region.events("wallet") if isinstance(event, wallets.KINDS)]
    assert sum(amount for event in moved for _, amount in wallets.postings(event)) == 0


async def test_all_ways_give_the_same_bytes(table: Table) -> None:
    await table.sit()
    bet = table.bet()
    first = await table.say("bet", **bet)
    again = await table.say("bet", lane="ordinary", **bet)
    assert again.json() == {**first.json(), "repeated": True}
    assert (await table.say("bet", **bet)).content == again.content
    for said in ({**bet, "amount": 10**9, "reference": "much"}, {"reference": "x"}):
        hot, ordinary = [await table.say("bet", lane=lane, **said) for lane in LANES]
        assert (hot.status_code, hot.content) == (ordinary.status_code, ordinary.content)
        assert hot.headers["content-type"] == ordinary.headers["content-type"] == "application/problem+json"


async def test_a_token_stands_for_player_and_session(table: Table) -> None:
    await table.sit()
    bet = {name: value for name, value in table.bet(400).items() if name not in ("player", "session")}
    answer = await table.say("bet", **bet, token=table.token)
    assert answer.json()["balance"]["cash"] == 9_600
    [staked] = [event for event in table.region.events("wallet") if event.tag == "wallet.staked"]
    assert staked.played.session == table.session  # type: ignore[attr-defined]


async def test_a_reference_is_one_command_for_ever(table: Table) -> None:
    await table.sit()
    bet = table.bet()
    await table.say("bet", **bet)
    assert (await table.say("bet", **bet, at="later")).json()["repeated"]
    other = await table.say("bet", **{**bet, "amount": 101})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert table.region.tags("wallet").count("wallet.staked") == 1


async def test_a_late_bet_after_its_rollback_moves_nothing(table: Table) -> None:
    await table.sit()
    bet = table.bet()
    assert (await table.say("rollback", reference="rb", player=table.player, bet=bet["reference"])).status_code == 200
    late = await table.say("bet", **bet)
    assert (late.status_code, late.json()["void"], late.json()["balance"]["cash"]) == (200, True, 10_000)


async def test_commands_are_counted_by_verb(table: Table) -> None:
    await table.sit()
    await table.say("bet", **table.bet())
    await table.say("bet", **table.bet(10**9))
    assert table.counted["/v1/games/{provider}/bet", "ok"] == 1
    assert table.counted["/v1/games/{provider}/bet", "insufficient_funds"] == 1
    assert table.counted["/v1/games/{provider}/authenticate", "ok"] == 1


# Sessions


async def test_a_token_is_told_once(table: Table) -> None:
    await table.sit()
    body = {"provider": "reel", "game": "g", "kind": "slot"}
    first, again = [
        (await table.region.process.post(f"/v1/players/{table.player}/sessions", body, key="launch")).answer
        for _ in range(2)
    ]
    assert (first.session, bool(first.token)) == (again.session, True)  # type: ignore[attr-defined]
    assert again.token is None  # type: ignore[attr-defined]
    assert first.token not in str(table.region.events("play"))  # type: ignore[attr-defined]


async def test_a_token_opens_a_session_of_its_own_provider_and_once(table: Table) -> None:
    await table.sit()
    stolen = await table.say("authenticate", "spin", reference="hello", token=table.token)
    assert (stolen.status_code, stolen.json()["code"]) == (409, "token_refused")
    for token in ("", "x", table.token[:-1] + ("0" if table.token[-1] != "0" else "1")):
        assert (await table.say("authenticate", reference=f"hello {token}", token=token)).json()[
            "code"
        ] == "token_refused"
    again = await table.say("authenticate", reference="hello again", token=table.token)
    assert (again.status_code, again.json()["session"], again.json()["position"]) == (200, table.session, None)
    assert sum(isinstance(event, SessionOpened) for event in table.region.events("play")) == 1


async def test_after_its_session_a_bet_is_refused_and_a_win_arrives(table: Table) -> None:
    await table.sit()
    bet = table.bet(1_000)
    await table.say("bet", **bet)
    await table.say("end", reference="bye", player=table.player, session=table.session)
    refused = await table.say("bet", **table.bet())
    assert (refused.status_code, refused.json()["code"]) == (409, "session_closed")
    won = await table.say("win", **{**bet, "amount": 700})
    assert (won.status_code, won.json()["balance"]["cash"]) == (200, 9_700)
    assert [event.code for event in table.region.events("wallet") if isinstance(event, StakeRefused)] == [
        "session_closed"
    ]


async def test_a_session_is_of_one_provider(table: Table) -> None:
    await table.sit("reel")
    assert (await table.say("bet", "spin", **table.bet())).json()["code"] == "session_closed"
    await table.say("end", "spin", reference="bye", player=table.player, session=table.session)
    assert (await table.say("bet", **table.bet())).status_code == 200


async def test_the_timer_ends_what_nobody_ends(table: Table) -> None:
    await table.sit()
    region = table.region
    await region.project()
    assert ("session_end", f"play-{table.player.partition('_')[2]}") in region.due()
    await region.wait(hours=12, minutes=1)
    await region.timers().step()
    [ended] = [event for event in region.events("play") if isinstance(event, SessionEnded)]
    assert (ended.reason, ended.due_at) == ("expired", None)
    await region.project()
    assert not [kind for kind, _ in region.due() if kind == "session_end"]


async def test_a_reality_check_is_told_and_stops_bets_until_it_is_acknowledged(table: Table) -> None:
    await table.sit()
    played_for(table, minutes=61)
    refused = await table.say("bet", **table.bet())
    assert (refused.status_code, refused.json()["code"]) == (422, "reality_check_due")
    assert refused.json()["every_s"] == 3_600
    held = (await table.say("balance", player=table.player)).json()
    assert held["reality_check"]["played_s"] >= 3_600
    won = (await table.say("win", **{**table.bet(5), "reference": "w"})).json()
    assert won["reality_check"]["rule"] == "house.reality_check"
    told = await table.say("reality_check", reference="told", player=table.player, session=table.session)
    assert told.status_code == 200, told.text
    after = await table.say("bet", **table.bet())
    assert (after.status_code, after.json().get("reality_check")) == (200, None)


def played_for(table: Table, **duration: float) -> None:
    """The door asks the time of day itself: let the session have begun so much earlier."""
    decider, name = table.region.process.decider, play.stream(PlayerId(table.player)).name
    folded = decider._states[name]
    state = msgspec.structs.replace(folded.state, since=folded.state.since - timedelta(**duration))
    decider._states[name] = msgspec.structs.replace(folded, state=state)


# Signatures


@pytest.mark.parametrize("provider", ["reel", "spin", "old"])
@pytest.mark.parametrize("lane", LANES)
async def test_each_provider_signs_in_its_own_way(table: Table, provider: str, lane: str) -> None:
    await table.sit(provider)
    assert (await table.say("bet", provider, lane=lane, **table.bet())).status_code == 200


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("provider", ["reel", "spin", "old"])
async def test_what_is_not_signed_now_with_this_key_over_these_bytes_leaves_no_trace(
    table: Table, provider: str, lane: str
) -> None:
    await table.sit(provider)
    before, bet = len(table.region.events()), table.bet()
    body, now = json.dumps({"verb": "bet", **bet}).encode(), int(time.time())
    other = "spin" if provider == "old" else "old"
    wrong: list[dict[str, Any]] = [
        {"header": ""},
        {"header": "t=1"},
        {"header": SIGNS[other](body, now)},  # another's key, or the same key with another padding
        {"header": signing.sign(b"another secret!!", body, now)},
        {"raw": body.replace(b'"amount": 100', b'"amount": 101')},
        {"signed_at": now - signing.WINDOW_S - 2},
        {"signed_at": now + signing.WINDOW_S + 2},
    ]
    for each in wrong:
        answer = await table.say("bet", provider, lane=lane, **each, **bet)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), each
        assert answer.headers["www-authenticate"] == "Bearer"
    assert len(table.region.events()) == before


async def test_a_message_that_is_sent_twice_has_one_effect(table: Table) -> None:
    await table.sit()
    bet = table.bet()
    body = json.dumps({"verb": "bet", **bet}).encode()
    header = signing.sign(REEL, body, int(time.time()))
    answers = [await table.say("bet", raw=body, header=header) for _ in range(3)]
    assert [each.json()["repeated"] for each in answers] == [False, True, True]


async def test_a_bet_is_no_win(table: Table) -> None:
    """The signature is over the body, and the body says which verb it is of."""
    await table.sit()
    bet = table.bet()
    body = json.dumps({"verb": "bet", **bet}).encode()
    header = signing.sign(REEL, body, int(time.time()))
    for lane in LANES:
        replayed = await table.say("win", lane=lane, raw=body, header=header)
        assert (replayed.status_code, replayed.json()["code"]) == (422, "verb_differs")
    assert "wallet.won" not in table.region.tags("wallet")


async def test_while_a_key_is_changed_both_sign(table: Table) -> None:
    await table.sit()
    body = json.dumps({"verb": "balance", "player": table.player}).encode()
    now = int(time.time())
    for header in (signing.sign(NEW_REEL, body, now), signing.sign(REEL, body, now)):
        assert (await table.say("balance", raw=body, header=header)).status_code == 200
    for key in (SPIN, NEW_SPIN):
        header = games.sign(key, "pss", body, now)
        assert (await table.say("balance", "spin", raw=body, header=header)).status_code == 200


async def test_whoever_has_no_games_is_nobody(table: Table) -> None:
    for provider in ("acme",):
        assert (await table.say("balance", provider, player="player_x")).json()["code"] == "unauthenticated"
    SIGNS["nobody"] = SIGNS["reel"]
    assert (await table.say("balance", "nobody", player="player_x")).json()["code"] == "unauthenticated"


@pytest.mark.parametrize("lane", LANES)
async def test_what_is_malformed_is_told_with_its_place(table: Table, lane: str) -> None:
    await table.sit()
    answer = await table.say("bet", lane=lane, **{**table.bet(), "amount": "100"})
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/amount")
    large = await table.say("bet", lane=lane, **table.bet(), at="x" * BODY_BYTES_MAX)
    assert (large.status_code, large.json()["code"]) in ((413, "body_too_large"), (422, "invalid"))
    assert (await table.client.post("/v1/games/reel/dance", content=b"{}")).status_code == 404
    assert (await table.client.get("/v1/games/reel/bet")).status_code == 405


# Batches


async def batch(table: Table, role: str, *items: tuple[str, Said]) -> list[dict[str, Any]]:
    body = {"items": [{"key": str(n), "path": path, "body": said} for n, (path, said) in enumerate(items)]}
    answer = await table.client.post("/v1/batch", json=body, headers={"Authorization": f"Bearer {TOKENS[role]}"})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def test_an_aggregator_sends_many_calls_at_once(table: Table) -> None:
    await table.sit()
    bets = [{"verb": "bet", **table.bet(100)} for _ in range(5)]
    results = await batch(table, "aggregator", *(("/v1/games/reel/bet", bet) for bet in bets))
    assert [each["body"]["balance"]["cash"] for each in results] == [9_900, 9_800, 9_700, 9_600, 9_500]
    signed = await table.say(**bets[0])
    assert signed.json()["repeated"] is True
    bodies = [CODEC.decode(entry).body for entry in table.region.ledger.entries()]
    assert {body.actor for body in bodies if body.type == "wallet.staked"} == {"aggregator:test"}


async def test_nobody_else_speaks_for_providers(table: Table) -> None:
    await table.sit()
    bet = {"verb": "bet", **table.bet()}
    [refused] = await batch(table, "operator", ("/v1/games/reel/bet", bet))
    assert (refused["status"], refused["body"]["code"]) == (403, "forbidden")
    unknown = await batch(
        table, "aggregator", ("/v1/games/nobody/bet", bet), ("/v1/games/reel/dance", bet), ("/v1/games/reel/win", bet)
    )
    assert [each["body"]["code"] for each in unknown] == ["not_found", "unknown_verb", "verb_differs"]


async def test_an_item_that_names_what_a_game_has_said_is_refused_alone(table: Table) -> None:
    await table.sit()
    bet = {"verb": "bet", **table.bet()}
    results = await batch(
        table, "aggregator", ("/v1/games/reel/bet", bet), ("/v1/players/$0/block", {"reason": "fraud"})
    )
    assert [each["status"] for each in results] == [200, 424]


async def test_nobody_bets_without_the_limits_that_are_a_condition_of_play_nor_more_on_a_slot_in_another_games_session(
    table: Table,
) -> None:
    table.player = await table.rich(10_000, country="DE")
    table.token = await table.launch(kind="table")
    table.session = (await table.say("authenticate", reference="hello", token=table.token)).json()["session"]
    refused = await table.say("bet", **table.bet(500))
    assert refused.json()["code"] == "limit_required"
    limit = {"kind": "deposit", "period": "month", "limit": {"amount": 50_000, "currency": "EUR"}}
    await table.region.process.post(f"/v1/players/{table.player}/limits", limit)
    assert (await table.say("bet", **table.bet(500))).status_code == 200
    other = await table.say("bet", **table.bet(500, game="a-slot"))
    assert (other.json()["code"], other.json()["rule"]) == ("limit_exceeded", "slot_stake.max")


def test_every_verb_is_in_the_openapi_document() -> None:
    app, schemas = FastAPI(), Schemas()
    app.include_router(gaming.router(None, schemas))  # type: ignore[arg-type]
    schemas.install(app)
    paths = app.openapi()["paths"]
    assert set(paths) == {f"/v1/games/{{provider}}/{verb}" for verb in gaming.VERBS}
    assert paths["/v1/games/{provider}/bet"]["post"]["security"] == []
