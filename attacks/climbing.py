"""Privileges: more than one has, alone, or by somebody else's key."""

from __future__ import annotations

import time
from collections.abc import Iterator

from attacks.routes import as_json
from attacks.site import Request
from attacks.suite import FORBIDDEN, Attack, Expected, World


def alone(world: World) -> Iterator[Attack]:
    """Four eyes by one person: roles, tokens, money; by themselves, and by a second account of theirs."""
    site = world.site
    first, second = site.joined("climber", ("administrator", "supervisor", "cashier")), site.joined("shadow")
    same: Expected = ((403, "same_person"), (409, "same_person"))

    def post(path: str, body: object, who: dict[str, str], route: str, what: str, expects: Expected) -> Attack:
        headers = {"Content-Type": "application/json", **who, "Idempotency-Key": site.key()}
        return Attack("four eyes", f"POST {route}", what, Request("POST", path, headers, as_json(body)), expects)

    mine = first.browser.headers()
    asked = site.done(site.post(f"/v1/operators/{second.operator}/roles", {"role": "administrator"}, mine))
    approve = f"/v1/approvals/{asked['approval']}/approve"
    template = "/v1/approvals/{approval_id}/approve"
    yield post(approve, {"hash": asked["hash"]}, mine, template, "one's own request", same)
    yield post(
        approve, {"hash": "0" * 64}, site.as_second("administrator"), template, "another text", ((409, ""), (422, ""))
    )
    yield post(approve, {"hash": asked["hash"]}, site.as_role("cashier"), template, "by who may not", FORBIDDEN)
    own = f"/v1/operators/{first.operator}/roles"
    raised = site.done(site.post(own, {"role": "compliance"}, mine))
    path = f"/v1/approvals/{raised['approval']}/approve"
    yield post(path, {"hash": raised["hash"]}, mine, template, "a role for oneself", same)
    token = site.done(site.post("/v1/tokens", _token("service:mine", ["supervisor"]), mine))
    confirm = f"/v1/tokens/{token['token']}/confirm"
    yield post(confirm, {}, mine, "/v1/tokens/{token_id}/confirm", "one's own token", same)
    helper = first.operator.replace("operator_", "operator:")
    beyond = _token(helper, ["compliance"])
    yield post(
        "/v1/tokens", beyond, mine, "/v1/tokens", "a token with more than its holder", ((422, ""), (409, ""), (403, ""))
    )
    own_token = site.done(site.post("/v1/tokens", _token(helper, ["administrator"]), mine))
    path = f"/v1/tokens/{own_token['token']}/confirm"
    site.done(site.post(path, {}, site.as_second("administrator")))
    by_token = {"Authorization": f"Bearer {own_token['secret']}"}
    time.sleep(1.2)
    refused: Expected = ((403, "token_refused"),)
    yield post(approve, {"hash": asked["hash"]}, by_token, template, "by a token of one's own", refused)
    yield post(confirm, {}, by_token, "/v1/tokens/{token_id}/confirm", "one's token by another of one's own", refused)


def _token(holder: str, roles: list[str]) -> dict[str, object]:
    return {"holder": holder, "roles": roles, "expires": "2099-01-01T00:00:00Z"}


def keys(world: World) -> Iterator[Attack]:
    """Another's Idempotency-Key: it is not theirs to hear the first answer by."""
    site = world.site
    key = site.key()
    body = {"name": "Secret", "email": "secret@example.com", "person": "secret"}
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    first = site.done(
        site.send(Request("POST", "/v1/operators", {**headers, **site.as_role("administrator")}, as_json(body)))
    )
    again = Request("POST", "/v1/operators", {**headers, **site.as_role("administrator")}, as_json(body))
    yield Attack(
        "replay",
        "POST /v1/operators",
        "the same key again",
        again,
        ((201, None),),
        (str(first["invitation"]),),
        shows='"invitation":null',
    )
    changed = as_json({**body, "person": "another"})
    reused = Request("POST", "/v1/operators", {**headers, **site.as_role("administrator")}, changed)
    yield Attack(
        "replay", "POST /v1/operators", "its key for another command", reused, ((409, "idempotency_key_reused"),)
    )
    others = Request("POST", "/v1/operators", {**headers, **site.as_role("operator")}, as_json(body))
    yield Attack("replay", "POST /v1/operators", "another's key", others, FORBIDDEN, (first["operator"],))
