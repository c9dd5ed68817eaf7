"""The doors that a signature opens: providers of games and of payments; and what a player's session is good for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from attacks.routes import SIGNED, Route, as_json
from attacks.site import Request
from attacks.suite import ANY, UNKNOWN, Attack, World
from providers import signing

_WINDOW = signing.WINDOW_S


def signatures(world: World) -> Iterator[Attack]:
    """Every signed route: without a signature, with another's, with an old one, over other bytes."""
    site, now = world.site, time.time()
    for route in world.routes:
        if not SIGNED.fullmatch(route.name):
            continue
        ours, other = ("psp", "reel") if route.template.endswith("/callbacks") else ("reel", "spin")
        body = as_json(route.body)
        media = {"Content-Type": "application/json"}
        good = site.signed(ours, body)
        for what, provider, headers in (
            ("no signature", ours, media),
            ("an empty signature", ours, {**media, signing.HEADER: ""}),
            ("another provider's signature", ours, site.signed(other, body)),
            ("a guessed secret", ours, site.signed(ours, body, secret=bytes(32))),
            ("an old signature", ours, site.signed(ours, body, at=now - _WINDOW - 30)),
            ("a signature of tomorrow", ours, site.signed(ours, body, at=now + 86_400)),
            ("a signature of other bytes", ours, site.signed(ours, body + b" ")),
            (
                "a signature with another time",
                ours,
                {**good, signing.HEADER: good[signing.HEADER].replace("t=1", "t=2", 1)},
            ),
            ("an unknown provider", "nobody", site.signed(ours, body)),
            ("a token in place of a signature", ours, {**media, **site.as_role("aggregator")}),
        ):
            asked = Request("POST", _path(route, provider), headers, body)
            yield Attack("signatures", route.name, what, asked, UNKNOWN)
    odd = as_json(
        {
            "verb": "win",
            "reference": "x",
            "player": world.player,
            "game": "g",
            "round": "r",
            "amount": 1,
            "currency": "EUR",
        }
    )
    asked = Request("POST", "/v1/games/reel/bet", site.signed("reel", odd), odd)
    yield Attack(
        "signatures", "POST /v1/games/{provider}/bet", "signed as another verb", asked, ((422, "verb_differs"),)
    )


def _path(route: Route, provider: str) -> str:
    return route.template.replace("{provider}", provider)


def players(world: World) -> Iterator[Attack]:
    """Cross-player and cross-provider: a session is one player's, with one provider; and what was said once has one effect."""
    site = world.site
    seat, other = _seated(world), world.ids["other_player"]
    say = _Saying(world)
    bet = {
        "verb": "bet",
        "reference": site.key(),
        "player": world.player,
        "session": seat["session"],
        "game": "slot",
        "round": "r1",
        "amount": 100,
        "currency": "EUR",
    }
    site.done(site.send(say("reel", bet)))
    route = "POST /v1/games/{provider}/bet"
    yield Attack("replay", route, "a bet again", say("reel", bet), ((200, None),), shows='"repeated":true')
    changed = {**bet, "amount": 1}
    yield Attack("replay", route, "its reference for another amount", say("reel", changed), ((409, ANY), (422, ANY)))
    new = {**bet, "reference": "another"}
    for what, said, provider in (
        ("another player in this one's session", {**new, "player": other}, "reel"),
        ("another provider in this one's session", new, "spin"),
        ("no session", {**new, "session": ""}, "reel"),
        ("a session that there is not", {**new, "session": "session_" + world.player.partition("_")[2]}, "reel"),
        (
            "this one's token for another player",
            {**new, "token": seat["token"], "player": other, "session": ""},
            "reel",
        ),
        ("this one's token at another provider", {**new, "token": seat["token"], "player": "", "session": ""}, "spin"),
        ("a token cut short", {**new, "token": seat["token"][:-2], "player": "", "session": ""}, "reel"),
    ):
        refused = ((409, ANY), (422, ANY), (403, ANY), (404, ANY), (401, ANY))
        yield Attack(
            "cross-player", route, what, say(provider, said), refused, records=frozenset({"wallet.stake_refused"})
        )
    entering = {"verb": "authenticate", "reference": site.key(), "token": seat["token"]}
    for provider in ("spin",):
        asked = say(provider, {**entering, "reference": "enter"})
        refused = ((409, ANY), (422, ANY), (403, ANY), (404, ANY), (401, ANY))
        yield Attack(
            "cross-player", "POST /v1/games/{provider}/authenticate", "another provider's token", asked, refused
        )
    relay = as_json({"items": [{"key": site.key(), "path": "/v1/games/spin/bet", "body": new}]})
    headers = {**site.as_role("aggregator"), "Content-Type": "application/json"}
    asked = Request("POST", "/v1/batch", headers, relay)
    yield Attack(
        "cross-player", "POST /v1/batch", "relayed for who has not named it", asked, ((200, None),), shows='"status":40'
    )


class _Saying:
    def __init__(self, world: World) -> None:
        self._site = world.site

    def __call__(self, provider: str, said: dict[str, Any]) -> Request:
        body = json.dumps({name: value for name, value in said.items() if value != ""}).encode()
        headers = self._site.signed(provider, body)
        return Request("POST", f"/v1/games/{provider}/{said['verb']}", headers, body)


def _seated(world: World) -> dict[str, str]:
    """A session that is open, of a player with money: {session, token}."""
    site, player = world.site, world.player
    amount = {"amount": 10_000, "currency": "EUR"}
    asked = {"amount": amount, "provider": "psp"}
    deposit = site.done(site.post(f"/v1/players/{player}/deposits", asked, site.as_role("operator")))
    said = as_json({"id": site.key(), "verb": "settle", "transaction": deposit["transaction"]})
    asked_ = Request("POST", "/v1/providers/psp/callbacks", site.signed("psp", said), said)
    site.done(site.send(asked_))
    launched = site.done(
        site.post(
            f"/v1/players/{player}/sessions",
            {"provider": "reel", "game": "slot", "kind": "slot"},
            site.as_role("operator"),
        )
    )
    body = as_json({"verb": "authenticate", "reference": site.key(), "token": launched["token"]})
    opened = site.done(site.send(Request("POST", "/v1/games/reel/authenticate", site.signed("reel", body), body)))
    return {"session": opened["session"], "token": launched["token"]}
