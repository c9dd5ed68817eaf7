"""The region as it is attacked: a player of one brand with something of everything, and requests for each route about it."""

from __future__ import annotations

from typing import Any

from pyrage.x25519 import Identity

from attacks import routes
from attacks.site import Site
from attacks.suite import World

_SESSION = "session_"
_NO = "0" * 26
_UUID = "01900000-0000-7000-8000-000000000001"


def make(site: Site, *, quick: bool) -> tuple[World, list[str]]:
    """(what is attacked, the routes that have no policy)."""
    document = site.done(site.get("/openapi.json", {}))
    player, other = _player(site), _player(site)
    suffix = player.partition("_")[2]
    found = routes.routes(document, _values(player))
    ids = {
        f"{kind}_id": f"{kind}_{suffix}"
        for kind in ("player", "transaction", "ticket", "notice", "contact", "approval")
    }
    ids |= {"disclosure_id": _UUID, "command_id": "0" * 32}
    ids |= _things(site, player)
    ids |= {
        "other_player": other,
        "provider": "office",
        "compartment": "cases",
        "policies_hash": "0" * 64,
        "log": "eu",
        "position": "1",
        "path": "entries/000",
        "name": "players",
        "round": f"{suffix}.reel.r1",
        "factor": "factor",
        "session": "0" * 64,
    }
    return World(site, found, ids, player, quick), routes.without_policy(found, document)


def _player(site: Site) -> str:
    asked = {
        "country": "AT",
        "currency": "EUR",
        "brand": "main",
        "name": "Ann Example",
        "email": f"{site.key()}@example.com",
    }
    return str(site.done(site.post("/v1/players", asked, site.as_role("operator")))["player"])


def _things(site: Site, player: str) -> dict[str, str]:
    """A deposit under way, a ticket, a contact, somebody invited, a token."""
    operator = site.as_role("operator")
    at = f"/v1/players/{player}"
    deposit = {"amount": {"amount": 500, "currency": "EUR"}, "provider": "psp"}
    ticket = {"channel": "email", "subject": "A question", "text": "Where is it?"}
    return {
        "player_id": player,
        "transaction_id": site.done(site.post(f"{at}/deposits", deposit, operator))["transaction"],
        "ticket_id": site.done(site.post(f"{at}/tickets", ticket, operator))["ticket"],
        "contact_id": site.done(site.post(f"{at}/contacts", {"reason": "limits"}, operator))["contact"],
        "operator_id": site.invited("awaited")[0],
        "token_id": site.token("service:bystander", ["viewer"])[0],
    }


def _values(player: str) -> dict[str, Any]:
    """Examples for fields that a schema alone does not tell."""
    suffix = player.partition("_")[2]
    return {
        "currency": "EUR",
        "country": "AT",
        "jurisdiction": "MT",
        "channels": ["email"],
        "players": [player],
        "members": ["compliance:second"],
        "member": "compliance:second",
        "roles": ["viewer"],
        "role": "viewer",
        "holder": "service:made",
        "person": "somebody",
        "email": "somebody@example.com",
        "term": "1_day",
        "minutes": 30,
        "recipient": str(Identity.generate().to_public()),
        "at_least": 1,
        "actor": "viewer:dev",
        "day": "2026-01-01",
        "basis": "player_request",
        "name": "somebody",
        "bets": ["b1"],
        "items": [{"key": "k", "path": "/v1/players", "body": {}}],
        "/v1/players/look-up name": "Ann Example",
        "/v1/handovers partitions": [[0, 0]],
        "/v1/players/{player_id}/profile language": "en",
        "/v1/players/{player_id}/sessions kind": "slot",
        "/v1/players/{player_id}/sessions/end session": _SESSION + suffix,
        "/v1/players/{player_id}/sessions/checked session": _SESSION + suffix,
        "/v1/games/{provider}/end session": _SESSION + suffix,
        "/v1/games/{provider}/reality_check session": _SESSION + suffix,
        "/v1/tickets/{ticket_id}/assign to": "operator:" + _NO,
        "/v1/notices/{notice_id}/assign to": "operator:" + _NO,
        "/v1/notices/{notice_id}/link to": player,
        "/v1/operators/{operator_id}/scope brands": ["main"],
    }
