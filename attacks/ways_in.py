"""
Sign-in, attacked: codes, tickets and invitations a second time, sessions planted and guessed, accounts probed; and what a
provider of identities is made to say.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import pyotp

from attacks import identity
from attacks.identity import FORGERIES, LOGOUT_EVENT, Claims, Forge
from attacks.routes import as_json
from attacks.site import COOKIE, PASSWORD, Person, Request, Site, browser_of
from attacks.suite import ANY, UNKNOWN, Attack, Expected, World

_FAILED: Expected = ((401, "signin_failed"),)
_STEP = 30
_START = "/v1/signin/oidc/office/start"
_BACK = "/v1/signin/oidc/office/callback"
_OUT = "/v1/signin/oidc/office/logout"


def _ask(path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Request:
    return Request("POST", path, {"Content-Type": "application/json", **(headers or {})}, as_json(body))


def _ticket(site: Site, person: Person) -> str:
    asked = _ask("/v1/signin/password", {"email": person.email, "password": PASSWORD})
    return str(site.done(site.send(asked))["ticket"])


def codes(world: World) -> Iterator[Attack]:
    """One-use codes again, early and late (RFC 6238, 5.2: a code is accepted once; RFC 4226, 7.3: tries are bounded)."""
    site = world.site
    person = site.joined("codes")
    assert person.app is not None
    factor = "/v1/signin/factor"
    route = f"POST {factor}"

    def shown(code: str, ticket: str = "") -> Request:
        return _ask(factor, {"ticket": ticket or _ticket(site, person), "code": code})

    now = time.time()
    code, ticket = person.app.at(now), _ticket(site, person)
    signed_in = site.send(shown(code, ticket))
    site.done(signed_in)
    yield Attack("codes", route, "a code again", shown(code), _FAILED)
    yield Attack("codes", route, "a ticket again", shown(person.app.at(now + _STEP), ticket), _FAILED)
    yield Attack("codes", route, "the code before", shown(person.app.at(now - _STEP)), _FAILED)
    for what, odd in (("of ten minutes ago", now - 600), ("of in ten minutes", now + 600)):
        yield Attack("codes", route, f"a code {what}", shown(person.app.at(odd)), _FAILED)
    browser = browser_of(signed_in)
    again = _ask("/v1/signin/step-up", {"code": code}, browser.headers())
    yield Attack("codes", "POST /v1/signin/step-up", "a code again", again, ((401, "signin_failed"),))
    fresh = site.joined("recovers")
    made = site.done(site.post("/v1/me/recovery-codes", {}, fresh.browser.headers(), keyed=False))["codes"]
    first = _ticket(site, fresh)
    site.done(site.send(_ask(factor, {"ticket": first, "code": made[0]})))
    spent = _ask(factor, {"ticket": _ticket(site, fresh), "code": made[0]})
    yield Attack("codes", route, "a recovery code again", spent, _FAILED)
    theirs = _ask(factor, {"ticket": _ticket(site, fresh), "code": person.app.at(now + _STEP)})
    yield Attack("codes", route, "another person's code", theirs, _FAILED)
    for n in range(6):
        guess = _ask(factor, {"ticket": _ticket(site, fresh), "code": f"{n:06}"})
        yield Attack("codes", route, f"guess {n + 1}", guess, _FAILED)
    joining = {"operator": person.operator, "invitation": person.invitation, "password": PASSWORD}
    twice = _ask("/v1/me/password", joining)
    yield Attack("codes", "POST /v1/me/password", "an invitation again", twice, ((403, "invitation_refused"),))
    wrong = {**joining, "operator": site.invited("awaited")[0], "invitation": "cri_" + "a" * 43}
    yield Attack(
        "codes",
        "POST /v1/me/password",
        "a guessed invitation",
        _ask("/v1/me/password", wrong),
        ((403, "invitation_refused"),),
    )


def sessions(world: World) -> Iterator[Attack]:
    """Session fixation, and sessions of others."""
    site = world.site
    planted = "planted-by-somebody"
    operator, _, invitation = site.invited("fixed")
    joining = {"operator": operator, "invitation": invitation, "password": PASSWORD}
    joined = site.send(_ask("/v1/me/password", joining, {"Cookie": f"{COOKIE}={planted}"}))
    site.done(joined)
    me = "GET /v1/me"
    yield Attack("fixation", me, "an id that was planted", _with(planted), UNKNOWN)
    before = browser_of(joined)
    site.until(lambda: site.get("/v1/me", before.headers()))
    begun = site.done(site.post("/v1/me/factors/totp", {}, before.headers(), keyed=False))
    app = pyotp.TOTP(begun["secret"])
    enrolled = site.post(
        "/v1/me/factors/totp", {"handle": begun["handle"], "code": app.at(time.time())}, before.headers(), keyed=False
    )
    site.done(enrolled)
    yield Attack("fixation", me, "the id from before the second factor", _with(before.id), UNKNOWN)
    after = browser_of(enrolled)
    code = app.at(time.time() + _STEP)
    site.done(site.send(_ask("/v1/signin/step-up", {"code": code}, after.headers())))
    yield Attack("fixation", me, "the id from before the step-up", _with(after.id), UNKNOWN)
    victim, thief = site.joined("robbed"), site.joined("thief")
    kept = site.done(site.get("/v1/me/sessions", victim.browser.headers()))["items"][0]["session"]
    revoke = "POST /v1/me/sessions/{session}/revoke"
    asked = _ask(f"/v1/me/sessions/{kept}/revoke", {}, thief.browser.headers())
    yield Attack("cross-player", revoke, "another's session", asked, ((404, "not_found"),))
    listing = Request("GET", f"/v1/me/sessions?operator={victim.operator}", thief.browser.headers())
    yield Attack("cross-player", "GET /v1/me/sessions", "another's sessions", listing, ((403, "forbidden"),), (kept,))
    yield Attack("fixation", me, "a session by its public name", _with(kept), UNKNOWN)


def _with(session_id: str) -> Request:
    return Request("GET", "/v1/me", {"Cookie": f"{COOKIE}={session_id}"})


def probing(world: World) -> Iterator[Attack]:
    """Whether there is an account: the answers are the same, to the byte."""
    site = world.site
    person = site.joined("known")
    gone = site.joined("suspended")
    site.done(site.post(f"/v1/operators/{gone.operator}/suspend", {"reason": "left"}, site.as_role("administrator")))
    path, route = "/v1/signin/password", "POST /v1/signin/password"
    unknown = site.send(_ask(path, {"email": "nobody@example.com", "password": "not the password at all"}))
    same = unknown.raw.decode()
    for what, email, password in (
        ("a wrong password", person.email, "not the password at all"),
        ("somebody suspended", gone.email, PASSWORD),
        ("a long password", person.email, "x" * 1000),
        ("an address with SQL", "' OR 1=1 --", "x" * 12),
    ):
        asked = _ask(path, {"email": email, "password": password})
        yield Attack("probing", route, what, asked, _FAILED, shows=same)
    for n in range(6):
        asked = _ask(path, {"email": person.email, "password": f"guess number {n} of many"})
        yield Attack("probing", route, f"guess {n + 1}", asked, _FAILED, shows=same)
    locked = _ask(path, {"email": person.email, "password": PASSWORD})
    yield Attack("probing", route, "the right password while it is locked", locked, _FAILED, shows=same)
    for what, headers in (
        ("a form of another site", {"Content-Type": "text/plain"}),
        ("from another site", {"Sec-Fetch-Site": "cross-site"}),
    ):
        asked = _ask(path, {"email": person.email, "password": PASSWORD}, headers)
        yield Attack("csrf", route, what, asked, ((403, "csrf_refused"), (422, "invalid")))


def identities(world: World) -> Iterator[Attack]:
    """Tokens of a provider of identities: whoever did not sign them, for whomever else, of whenever else, for whatever else."""
    site, issuer = world.site, world.site.issuer
    operator, _, invitation = site.invited("single")
    site.grant(operator, "supervisor")
    subject = "ann"
    honest = _arrive(site, subject, {}, identity.signed, {"operator": operator, "invitation": invitation})
    if "#" not in honest.headers.get("location", "") or "failed" in honest.headers["location"]:
        raise AssertionError(f"the provider itself is not believed: {honest.status} {honest.headers}")
    route = f"GET {_BACK.replace('office', '{provider}')}"
    refused: Expected = ((303, None),)
    now = int(time.time())
    wrong: Mapping[str, Claims] = {
        "for another audience": {"aud": "somebody"},
        "for two audiences": {"aud": [identity.CLIENT, "somebody"]},
        "given to another": {"azp": "somebody"},
        "of another issuer": {"iss": "https://other.example"},
        "of another question": {"nonce": "another"},
        "of no question": {"nonce": None},
        "about nobody": {"sub": None},
        "over": {"iat": now - 700, "exp": now - 400},
        "without an end": {"exp": None},
        "not good yet": {"nbf": now + 600},
        "made tomorrow": {"iat": now + 86_400, "exp": now + 90_000},
        "made long ago, with a late end": {"iat": now - 86_400, "exp": now + 86_400},
        "about an unlinked user": {"sub": "stranger"},
    }
    tries: list[tuple[str, Claims, Forge]] = [(what, claims, identity.signed) for what, claims in wrong.items()]
    tries += [(what, {}, forge) for what, forge in FORGERIES.items()]
    tries += [(f"typed {kind}", {}, identity.typed(kind)) for kind in ("logout+jwt", "at+jwt")]
    for what, claims, forge in tries:
        asked = _arriving(site, subject, claims, forge)
        yield Attack("tokens", route, what, asked, refused, shows="#failed=")
    away, question = _depart(site)
    code, state = issuer.code(
        question, lambda nonce: identity.signed(issuer, issuer.claims(subject, nonce=nonce, amr=["mfa"]))
    )
    for what, cookie, said in (
        ("no browser's cookie", "", state),
        ("another browser's cookie", f"{COOKIE}-away=another", state),
        ("another state", away, "another"),
    ):
        asked = Request("GET", f"{_BACK}?code={code}&state={said}", {"Cookie": cookie})
        yield Attack("tokens", route, what, asked, refused, shows="#failed=")
    used = _arriving(site, subject, {}, identity.signed)
    site.send(used)
    yield Attack("replay", route, "a callback again", used, refused, shows="#failed=")
    mine, _ = issuer.code(
        _depart(site)[1], lambda _: identity.signed(issuer, issuer.claims(subject, nonce="x", amr=["mfa"]))
    )
    away, question = _depart(site)
    _, state = issuer.code(question, lambda _: "")
    injected = Request("GET", f"{_BACK}?code={mine}&state={state}", {"Cookie": away})
    yield Attack("tokens", route, "a code of another question (PKCE)", injected, refused, shows="#failed=")
    yield from _logouts(site, subject)


def _logouts(site: Site, subject: str) -> Iterator[Attack]:
    """Logout tokens (OpenID Connect Back-Channel Logout 1.0, 2.6)."""
    issuer = site.issuer
    route = f"POST {_OUT.replace('office', '{provider}')}"

    def post(token: str) -> Request:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        return Request("POST", _OUT, form, f"logout_token={quote(token)}".encode())

    said = issuer.claims(subject, jti="j1", events={LOGOUT_EVENT: {}})
    refused: Expected = ((400, "logout_refused"), (400, ANY))
    for what, forge in FORGERIES.items():
        yield Attack("tokens", route, what, post(forge(issuer, said)), refused)
    for what, changed in (
        ("with a nonce", {"nonce": "n"}),
        ("without the event", {"events": {}}),
        ("an ID token", {"events": None, "jti": None}),
        ("for another audience", {"aud": "somebody"}),
        ("about nobody", {"sub": None}),
        ("without a name of its own", {"jti": None}),
    ):
        told = {name: value for name, value in {**said, **changed}.items() if value is not None}
        yield Attack("tokens", route, what, post(identity.signed(issuer, told)), refused)
    good = post(identity.signed(issuer, said, typ="logout+jwt"))
    site.done(site.send(good))
    yield Attack("replay", route, "a logout token again", good, refused)
    yield Attack("tokens", route, "nothing", post(""), refused)


def _depart(site: Site, joining: Mapping[str, str] | None = None) -> tuple[str, str]:
    """(the cookie of who goes away, where they go). `joining`: operator and invitation of who comes for the first time."""
    if joining:
        answer = site.send(_ask(_START, joining))
        return answer.headers["set-cookie"].partition(";")[0], str(site.done(answer)["url"])
    answer = site.get(_START, {})
    return answer.headers["set-cookie"].partition(";")[0], answer.headers["location"]


def _arriving(
    site: Site, subject: str, changed: Claims, forge: Forge, joining: Mapping[str, str] | None = None
) -> Request:
    issuer = site.issuer
    away, question = _depart(site, joining)

    def token(nonce: str) -> str:
        claims = issuer.claims(subject, **{"nonce": nonce, "amr": ["mfa"], "auth_time": int(time.time()), **changed})
        if "sub" in changed:
            claims = (
                {**claims, "sub": changed["sub"]} if changed["sub"] else {k: v for k, v in claims.items() if k != "sub"}
            )
        return forge(issuer, claims)

    code, state = issuer.code(question, token)
    return Request("GET", f"{_BACK}?code={code}&state={state}", {"Cookie": away})


def _arrive(site: Site, subject: str, changed: Claims, forge: Forge, joining: Mapping[str, str] | None = None) -> Any:
    return site.send(_arriving(site, subject, changed, forge, joining))
