"""Those whom nobody knows, or knows no more; those who are known and ask for another right, another brand, or on another's behalf."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from access.policy import ROLES
from attacks.identity import Issuer, unsigned
from attacks.routes import BATCH, OPEN, OWN, SIGNED, Route, as_json
from attacks.site import COOKIE, EVERYONE, Browser, Request
from attacks.suite import ANY, FORBIDDEN, UNKNOWN, Attack, World
from policies.steps import ACTIONS as GRAVE

Headers = Mapping[str, str]
_EACH_QUICK = 2
ELSEWHERE = "elsewhere"
_NOT_SEEN = ((403, ANY), (404, "not_found"), (404, "unknown_rule"))
OF_THE_HOUSE = frozenset(
    {
        "compartment.manage", "rules.read", "status.read", "log.read", "operator.invite", "operator.manage", "operator.read",
        "role.grant", "token.issue", "token.revoke", "access.explain", "policy.adopt",
    }
)  # fmt: skip
"""Rights that are about no player, and so are bound to no brand (access/policies/schema.cedarschema). Whoever verifies a log needs
all of it.
"""


def request_of(world: World, route: Route, headers: Headers, **ids: str) -> Request:
    """One that would be right, sent with these headers."""
    given = {**headers}
    if route.body is not None:
        given.setdefault("Content-Type", route.media)
    if route.keyed:
        given["Idempotency-Key"] = world.site.key()
    return Request(
        route.method, route.path({**world.ids, **ids}), given, None if route.body is None else as_json(route.body)
    )


def guarded(world: World) -> list[Route]:
    return [route for route in world.routes if route.actions]


def closed(world: World) -> list[Route]:
    """Those that are not open, and that no provider signs."""
    return [route for route in world.routes if route.name not in OPEN and not SIGNED.fullmatch(route.name)]


def some(world: World, kinds: Sequence[tuple[str, Headers]], place: int) -> Iterable[tuple[str, Headers]]:
    """All kinds; in the quick form some for each route, so that every kind has its turn."""
    if not world.quick:
        return kinds
    return [kinds[(place * _EACH_QUICK + n) % len(kinds)] for n in range(_EACH_QUICK)]


def nobody(world: World) -> Iterator[Attack]:
    """No, wrong, expired and revoked credentials, on every route that is not everybody's."""
    kinds = list(_credentials(world))
    for place, route in enumerate(closed(world)):
        for what, headers in some(world, kinds, place):
            yield Attack("credentials", route.name, what, request_of(world, route, headers), UNKNOWN)


def _credentials(world: World) -> Iterator[tuple[str, Headers]]:
    site = world.site
    bearer, good = "Authorization", site.tokens["supervisor"]
    claims = {"sub": "operator:dev", "roles": ["administrator"], "exp": 4_102_444_800}
    _, ending = site.token("service:ending", ["operator"], seconds=1.5)
    revoked_id, revoked = site.token("service:revoked", ["operator"])
    site.done(site.post(f"/v1/tokens/{revoked_id}/revoke", {}, site.as_role("administrator")))
    _, awaiting = site.token("service:awaiting", ["operator"], confirm=False)
    gone = site.joined("gone", ("supervisor",))
    until = (
        datetime.now(UTC) + timedelta(days=1)
    ).isoformat()  # who administers without an end may be one of the last two
    site.grant(gone.operator, "administrator", until=until)
    time.sleep(1.2)  # until that is heard of
    holder = gone.operator.replace("operator_", "operator:")
    _, held = site.token(holder, ["supervisor"], by=gone.browser.headers())
    site.until(lambda: site.get("/v1/dashboard", {bearer: f"Bearer {held}"}))
    site.done(site.post(f"/v1/operators/{gone.operator}/suspend", {"reason": "left"}, site.as_role("administrator")))
    left = site.joined("left", ("supervisor",)).browser
    now = datetime.now(UTC)
    idle = site.aged(left, seen=now - timedelta(minutes=31))
    old = site.aged(left, created=now - timedelta(hours=12, minutes=1))
    both = {"Cookie": f"{COOKIE}={left.id}; {COOKIE}={left.id}", "X-CSRF-Token": left.csrf}
    yield "two sessions", both
    ended = site.aged(left)
    site.done(site.post("/v1/signin/out", {}, ended.headers(), keyed=False))
    time.sleep(2)  # until the token has ended, and every cache has heard of the rest
    yield "nothing", {}
    yield "a wrong token", {bearer: "Bearer cr_wrong"}
    yield "an empty token", {bearer: "Bearer "}
    yield "a token cut short", {bearer: f"Bearer {good[:-1]}"}
    yield "a token twice", {bearer: f"Bearer {good}, Bearer {good}"}
    yield "another scheme", {bearer: f"Basic {good}"}
    yield "an unsigned JWT", {bearer: f"Bearer {unsigned('none')(Issuer.__new__(Issuer), claims)}"}
    yield "a token in a cookie", {"Cookie": f"{COOKIE}={good}"}
    yield "an expired token", {bearer: f"Bearer {ending}"}
    yield "a revoked token", {bearer: f"Bearer {revoked}"}
    yield "a token that nobody has confirmed", {bearer: f"Bearer {awaiting}"}
    yield "a token of somebody suspended", {bearer: f"Bearer {held}"}
    yield "a session of somebody suspended", gone.browser.headers()
    yield "a session that somebody chose", Browser("chosen", "chosen").headers()
    yield "a session that was signed out", ended.headers()
    yield "a session after 31 minutes", idle.headers()
    yield "a session after 12 hours", old.headers()


def reduced(world: World) -> Iterator[Attack]:
    """Who is known and may nothing, or nothing any more: one factor only, a role that ended or was taken away."""
    site = world.site
    half = site.joined("half", ("supervisor",), enrol=False).browser
    lost, short = site.joined("lost", ("supervisor",)), site.joined("short")
    ends = datetime.now(UTC) + timedelta(seconds=15)  # two people have to act before it does
    site.grant(short.operator, "supervisor", until=ends.isoformat())
    path = f"/v1/operators/{lost.operator}/revoke-role"
    site.done(site.post(path, {"role": "supervisor"}, site.as_role("administrator")))
    time.sleep(max(2.0, (ends - datetime.now(UTC)).total_seconds() + 1))
    kinds = [
        ("one factor only", half.headers()),
        ("a role that was taken away", lost.browser.headers()),
        ("a role that ended", short.browser.headers()),
    ]
    for place, route in enumerate(guarded(world)):
        for what, headers in kinds if not world.quick else [kinds[place % len(kinds)]]:
            yield Attack("credentials", route.name, what, request_of(world, route, headers), FORBIDDEN)


def forged(world: World) -> Iterator[Attack]:
    """CSRF: a browser that is signed in, and a request that no page of ours has made."""
    site = world.site
    victim, other = site.joined("victim", ("supervisor", "compliance")).browser, site.joined("other").browser
    kinds: list[tuple[str, Headers]] = []
    for what, change in (
        ("no CSRF token", {"X-CSRF-Token": ""}),
        ("a wrong CSRF token", {"X-CSRF-Token": victim.csrf[:-1]}),
        ("another session's CSRF token", {"X-CSRF-Token": other.csrf}),
        ("from another site", {"Sec-Fetch-Site": "cross-site"}),
        ("from a neighbour of the site", {"Sec-Fetch-Site": "same-site"}),
    ):
        kinds.append((what, {**victim.headers(), **change}))
    refused = ((403, "csrf_refused"),)
    changing = [each for each in closed(world) if each.method == "POST"]
    for place, route in enumerate(changing):
        for what, headers in some(world, kinds, place):
            yield Attack("csrf", route.name, what, request_of(world, route, headers), refused)


def beyond(world: World) -> Iterator[Attack]:
    """Cross-role: everybody who has none of the rights that a route names."""
    for place, route in enumerate(guarded(world)):
        without = [role for role, granted in ROLES.items() if not granted.intersection(route.actions)]
        for role in [without[place % len(without)]] if world.quick and without else without:
            asked = request_of(world, route, world.site.as_role(role))
            yield Attack("cross-role", route.name, f"as {role}", asked, (*FORBIDDEN, (403, "person_needed")))


def outside(world: World) -> Iterator[Attack]:
    """Cross-brand and cross-country: they may do everything, for players of another brand or country."""
    site = world.site
    roles = [*EVERYONE, "vip_manager", "marketing"]
    scopes: dict[str, dict[str, Any]] = {
        "of another brand": {"brands": [ELSEWHERE]},
        "of another country": {"countries": ["MT"]},
        "of our brand, another country": {"brands": ["main"], "countries": ["MT"]},
    }
    tokens = [
        (what, {"Authorization": f"Bearer {site.token('service:scoped', roles, **scope)[1]}"})
        for what, scope in scopes.items()
    ]
    regulator = site.token("regulator:mt", ["regulator"], countries=["MT"])[1]
    tokens.append(("a regulator of another country", {"Authorization": f"Bearer {regulator}"}))
    time.sleep(1.2)
    suffix = world.player.partition("_")[2]
    for place, route in enumerate(guarded(world)):
        if OF_THE_HOUSE.intersection(route.actions):
            continue
        for what, headers in tokens if not world.quick else [tokens[place % len(tokens)]]:
            about = "{" in route.template or not route.reads
            expects = _NOT_SEEN if about else (*_NOT_SEEN, (200, None))
            asked = request_of(world, route, headers)
            records = frozenset({"reads.recorded"}) if route.reads else frozenset()
            yield Attack("cross-brand", route.name, what, asked, expects, () if about else (suffix,), records)


def stale(world: World) -> Iterator[Attack]:
    """Step-up: a session whose second factor was shown six minutes ago, and what is grave."""
    site = world.site
    boss = site.joined("boss", ("administrator", "supervisor", "compliance", "cashier")).browser
    now = datetime.now(UTC)
    tired = site.aged(boss, stepped_up=now - timedelta(minutes=6))
    wanted = ((403, "step_up_required"),)
    for route in guarded(world):
        if route.actions[0] in GRAVE and route.method == "POST":
            yield Attack("step-up", route.name, "too late", request_of(world, route, tired.headers()), wanted)
    for name in ("/v1/me/recovery-codes", "/v1/me/factors/totp", "/v1/me/factors/passkey"):
        asked = Request("POST", name, tired.headers(), b"{}")
        yield Attack("step-up", f"POST {name}", "too late", asked, wanted)
    new = json.dumps({"password": "another battery horse staple"}).encode()
    yield Attack(
        "step-up", "POST /v1/me/password", "too late", Request("POST", "/v1/me/password", tired.headers(), new), wanted
    )


def by_token(world: World) -> Iterator[Attack]:
    """What concerns whoever is signed in is opened by no program's token, however much it may do."""
    for route in world.routes:
        if route.name in OWN:
            asked = request_of(world, route, world.site.as_role("administrator"))
            yield Attack("credentials", route.name, "a program's token", asked, UNKNOWN)


def in_batch(world: World) -> Iterator[Attack]:
    """Each item of a batch is asked for its own right; the request itself is anybody's who is known."""
    commands = [
        route for route in guarded(world) if route.keyed and "/compartments/{compartment}/players" not in route.template
    ]
    for route in commands:
        without = [role for role, granted in ROLES.items() if not granted.intersection(route.actions)]
        item = {"key": world.site.key(), "path": route.path(world.ids), "body": route.body}
        asked = Request(
            "POST",
            "/v1/batch",
            {**world.site.as_role(without[0]), "Content-Type": "application/json"},
            as_json({"items": [item]}),
        )
        yield Attack("cross-role", BATCH, f"{route.name} as {without[0]}", asked, ((200, None),), shows='"status":403')
