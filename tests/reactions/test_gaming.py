"""What game providers say: signed, over the hot lane, an ordinary route or in a batch, and always with the same answer."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI

from app import gaming
from app.openapi import Schemas
from app.planning import BODY_BYTES_MAX
from domain import play, wallets
from domain.kernel import PlayerId
from domain.play import SessionEnded, SessionOpened
from domain.protection import ActionIsBlocked, PlayRefused
from domain.wallets import StakeRefused
from providers import games, signing
from tests.reactions.table import LANES, NEW_REEL, NEW_SPIN, REEL, SIGNS, SPIN, Said, Table, batch

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
    held = await table.say("balance", lane=lane, player=table.player, session=table.session)
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
    assert (again.status_code, again.json()["session"]) == (200, table.session)
    assert sum(isinstance(event, SessionOpened) for event in table.region.events("play")) == 1


@pytest.mark.parametrize("reference", ["hello", "hello again"], ids=["opening", "open already"])
async def test_who_has_shown_a_token_hears_the_same_whenever_they_ask_again(table: Table, reference: str) -> None:
    await table.sit()
    first = await table.say("authenticate", reference=reference, token=table.token)
    await table.say("bet", **table.bet(4_000))
    again = await table.say("authenticate", reference=reference, token=table.token)
    assert again.json()["repeated"]
    assert again.json() == {**first.json(), "repeated": True}
    assert again.json()["balance"] == {"cash": 10_000, "bonus": 0, "currency": "EUR"}
    fresh = await table.say("authenticate", reference="fresh", token=table.token)
    assert fresh.json()["balance"]["cash"] == 6_000


@pytest.mark.parametrize("by", ["itself", "an aggregator"])
async def test_what_was_launched_for_one_provider_is_of_no_use_to_another(table: Table, by: str) -> None:
    """Be its session open or over."""

    async def shown(verb: str, provider: str, **said: Any) -> Said:
        if by == "itself":
            return dict((await table.say(verb, provider, **said)).json())
        [item] = await batch(table, "aggregator:test", (f"/v1/games/{provider}/{verb}", {"verb": verb, **said}))
        return dict(item["body"])

    await table.sit("reel")
    bet = {name: value for name, value in table.bet(400).items() if name not in ("player", "session")}
    guessed = table.token[:-1] + ("0" if table.token[-1] != "0" else "1")
    wrong = [
        ("spin", {"token": table.token}),
        ("reel", {"token": guessed}),
        ("reel", {"token": table.token, "player": "player_" + "0" * 26}),
    ]
    for when in ("open", "over"):
        for verb in ("balance", "bet", "win", "bonus_win", "free_win", "rollback", "close"):
            for provider, said in wrong:
                assert (await shown(verb, provider, **bet, **said))["code"] == "token_refused"
            own = await shown(verb, "reel", **{**bet, "reference": f"{verb}-{when}"}, token=table.token)
            assert own.get("code") == ("session_closed" if when == "over" and verb in ("balance", "bet") else None)
        await table.say("end", reference="bye", player=table.player, session=table.session)
    assert not [event for event in table.region.events("wallet") if "spin" in str(event)]


async def test_a_player_who_is_protected_is_refused_a_game_and_a_session_and_both_stand_in_the_log(
    table: Table,
) -> None:
    await table.sit()
    post = table.region.process.post
    launched = {"provider": "reel", "game": "g", "kind": "slot"}
    why = {"kind": "complaint", "reason": "asked for"}
    block = {"action": "bet", "reason": "harm", "intervention": why}
    await post(f"/v1/players/{table.player}/blocks", block)
    for _ in range(2):
        with pytest.raises(ActionIsBlocked):
            await post(f"/v1/players/{table.player}/sessions", launched, key="launch")
        refused = await table.say("authenticate", reference="hello again", token=table.token)
        assert (refused.status_code, refused.json()["code"]) == (409, "action_blocked")
    told = [event for event in table.region.events("protection") if isinstance(event, PlayRefused)]
    assert [(event.action, event.code) for event in told] == [("bet", "action_blocked")] * 2
    await post(f"/v1/players/{table.player}/unblocks", {"action": "bet", "reason": "harm", "intervention": why})
    with pytest.raises(ActionIsBlocked):
        await post(f"/v1/players/{table.player}/sessions", launched, key="launch")
    again = await table.say("authenticate", reference="hello again", token=table.token)
    assert (again.content, again.status_code) == (refused.content, 409)
    assert (await table.say("authenticate", reference="fresh", token=table.token)).status_code == 200


async def test_a_balance_is_told_of_who_plays_there_now(table: Table) -> None:
    await table.sit()
    told = await table.say("balance", token=table.token)
    assert told.json()["balance"]["cash"] == 10_000
    for provider, said in (("spin", {"session": table.session}), ("reel", {"session": "session_" + "0" * 26})):
        refused = await table.say("balance", provider, player=table.player, **said)
        assert (refused.status_code, refused.json()["code"]) == (409, "session_closed")
    assert (await table.say("balance", player=table.player)).json()["pointer"] == "/session"
    await table.say("end", reference="bye", player=table.player, session=table.session)
    assert (await table.say("balance", token=table.token)).json()["code"] == "session_closed"


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
    held = (await table.say("balance", player=table.player, session=table.session)).json()
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
    bet = table.bet()
    said = {"reference": "c", "player": table.player, "game": bet["game"], "round": bet["round"]}
    body = json.dumps({"verb": "close", **said}).encode()
    now = int(time.time())
    for header in (signing.sign(NEW_REEL, body, now), signing.sign(REEL, body, now)):
        assert (await table.say("close", raw=body, header=header)).status_code == 200
    for key in (SPIN, NEW_SPIN):
        header = games.sign(key, "pss", body, now)
        assert (await table.say("close", "spin", raw=body, header=header)).status_code == 200


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
