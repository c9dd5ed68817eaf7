"""
The region that is attacked: real processes, and in it players, tokens and people, of whom some may no longer come in.

Invariant: what stands here was made by the product's own commands over HTTP. Only the age of a session is set by hand, in Redis:
nobody waits twelve hours for one to end.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import random
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import psycopg
import pyotp
import redis

from access.sessions import Session
from access.tokens import TokenRecord, new_token, record
from app import local
from app.local import Local
from attacks.identity import Issuer
from eventstore.postgres import acting_as
from eventstore.record import decode_body
from providers import signing

PASSWORD = "correct horse battery staple"  # of people who live for a minute
COOKIE = "__Host-countroom"
SECRETS = {name: hashlib.sha256(name.encode()).digest() for name in ("psp", "reel", "spin")}
EVERYONE = ("support", "payments", "risk", "compliance", "operator", "cashier", "supervisor", "auditor", "analyst")
"""Roles of people that together may do nearly everything about players."""
_SECOND = ("administrator", "supervisor", "compliance")
_WAIT_S = 60.0


class Request(NamedTuple):
    """`headers`: as they are sent. `raw`: sent as it is, in place of all the rest."""

    method: str
    path: str
    headers: Mapping[str, str] = {}
    body: bytes | None = None
    raw: bytes = b""


class Answer(NamedTuple):
    """`status` 0: the connection was ended without an answer."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def code(self) -> str:
        """Of a problem document; "" for anything else."""
        if self.headers.get("content-type") != "application/problem+json":
            return ""
        found = self.json
        return str(found.get("code", "")) if found.get("status") == self.status else ""


class Browser(NamedTuple):
    """What a browser holds of a session."""

    id: str
    csrf: str

    def headers(self) -> dict[str, str]:
        return {"Cookie": f"{COOKIE}={self.id}", "X-CSRF-Token": self.csrf, "Content-Type": "application/json"}


class Person(NamedTuple):
    """Somebody who has joined. `app`: their authenticator; None: they have not enrolled one."""

    operator: str
    email: str
    invitation: str
    browser: Browser
    app: pyotp.TOTP | None


class Site:
    """What attacks are made on, and what they look at afterwards."""

    def __init__(self, here: Local, extra: Mapping[str, str], issuer: Issuer, entries: psycopg.Connection[Any]) -> None:
        self.url = here.url("eu")
        self.tokens = here.tokens
        self.second = extra
        self.issuer = issuer
        self.redis = redis.Redis.from_url(here.settings["eu"].redis)
        self._entries = entries
        self._keys = itertools.count()
        self._hosts = itertools.cycle(range(1, 250))
        parts = urlsplit(self.url)
        self.host, self.port = str(parts.hostname), int(parts.port or 80)

    # Asking

    def send(self, request: Request) -> Answer:
        """The answer; who asks too often waits and asks again, since the attack is another one than to ask often."""
        while (answer := self._send(request)).code == "too_many_requests":
            time.sleep(float(answer.json["wait_s"]))
        return answer

    def _send(self, request: Request) -> Answer:
        """From an address of its own, as far as this machine has several: one alone would have to wait."""
        connection = self._connection()
        try:
            if request.raw:
                connection.connect()
                connection.sock.sendall(request.raw)
                response = http.client.HTTPResponse(connection.sock, method="GET")
                response.begin()
            else:
                connection.request(request.method, request.path, request.body, dict(request.headers))
                response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            if headers.get("content-type", "").startswith("text/event-stream"):
                return Answer(response.status, headers, response.read1(4096))
            return Answer(response.status, headers, response.read())
        except (http.client.HTTPException, ConnectionError, BrokenPipeError):
            return Answer(0, {}, b"")
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        made = http.client.HTTPConnection(
            self.host,
            self.port,
            timeout=30,
            source_address=(f"127.0.{next(self._hosts)}.{secrets.randbelow(250) + 1}", 0),
        )
        try:
            made.connect()
        except OSError:
            made = http.client.HTTPConnection(self.host, self.port, timeout=30)
        return made

    def post(self, path: str, body: Any, headers: Mapping[str, str], *, keyed: bool = True) -> Answer:
        key = {"Idempotency-Key": self.key()} if keyed else {}
        given = {"Content-Type": "application/json", **headers, **key}
        return self.send(Request("POST", path, given, json.dumps(body).encode()))

    def get(self, path: str, headers: Mapping[str, str]) -> Answer:
        return self.send(Request("GET", path, headers))

    def key(self) -> str:
        return f"attack-{next(self._keys)}-{time.monotonic_ns()}"

    def done(self, answer: Answer, *expected: int) -> Any:
        """What was answered to something that must have worked."""
        if answer.status not in (expected or (200, 201, 202)):
            raise NotReady(f"{answer.status}: {answer.raw[:500]!r}")
        return answer.json

    # What changed

    def position(self) -> int:
        row = self._entries.execute(
            "SELECT coalesce(max(e.position), 0) FROM ledger.entry e JOIN ledger.log l ON l.id = e.log WHERE l.name = 'eu'"
        ).fetchone()
        return int(row[0]) if row else 0

    def since(self, position: int) -> list[str]:
        """The types of what was recorded after it, but for what the house does by itself."""
        rows = self._entries.execute(
            "SELECT e.body FROM ledger.entry e JOIN ledger.log l ON l.id = e.log WHERE l.name = 'eu' AND e.position > %s",
            (position,),
        )
        bodies = [decode_body(row[0]) for row in rows.fetchall()]
        return [each.type for each in bodies if not each.actor.startswith("reaction:")]

    def sessions(self) -> frozenset[bytes]:
        """Who is signed in: the names of all sessions in Redis."""
        return frozenset(key for key in self.redis.scan_iter(match="session:*", count=1000))

    # People and programs

    def as_role(self, role: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[role]}"}

    def as_second(self, role: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.second[role]}"}

    def signed(
        self, provider: str, body: bytes, *, at: float | None = None, secret: bytes | None = None
    ) -> dict[str, str]:
        when = int(time.time() if at is None else at)
        made = signing.sign(secret or SECRETS[provider], body, when)
        return {signing.HEADER: made, "Content-Type": "application/json"}

    def token(
        self,
        holder: str,
        roles: list[str],
        *,
        seconds: float = 3600,
        confirm: bool = True,
        by: Mapping[str, str] | None = None,
        **scope: Any,
    ) -> tuple[str, str]:
        """(id, secret) of one that was issued, and confirmed by a second person. An operator's own is issued by them."""
        expires = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
        asked = {"holder": holder, "roles": roles, "expires": expires, **scope}
        made = self.done(self.post("/v1/tokens", asked, by or self.as_role("administrator")))
        if confirm:
            self.done(self.post(f"/v1/tokens/{made['token']}/confirm", {}, self.as_second("administrator")))
        return made["token"], made["secret"]

    def invited(self, name: str) -> tuple[str, str, str]:
        """(operator, e-mail, invitation)."""
        email = f"{name}.{secrets.token_hex(4)}@example.com"
        asked = {"name": name.title(), "email": email, "person": f"{name}-{secrets.token_hex(3)}"}
        made = self.done(self.post("/v1/operators", asked, self.as_role("administrator")))
        self.done(self.post(f"/v1/operators/{made['operator']}/confirm", {}, self.as_second("administrator")))
        return made["operator"], email, made["invitation"]

    def grant(self, operator: str, role: str, **more: Any) -> None:
        asked = self.post(f"/v1/operators/{operator}/roles", {"role": role, **more}, self.as_role("administrator"))
        awaits = self.done(asked)
        path = f"/v1/approvals/{awaits['approval']}/approve"
        self.done(self.post(path, {"hash": awaits["hash"]}, self.as_second("administrator")))

    def joined(self, name: str, roles: tuple[str, ...] = (), *, enrol: bool = True) -> Person:
        operator, email, invitation = self.invited(name)
        for role in roles:
            self.grant(operator, role)
        joining = {"operator": operator, "invitation": invitation, "password": PASSWORD}
        browser = browser_of(self.until(lambda: self.post("/v1/me/password", joining, {}, keyed=False)))
        if not enrol:
            return Person(operator, email, invitation, browser, None)
        begun = self.done(self.post("/v1/me/factors/totp", {}, browser.headers(), keyed=False))
        app = pyotp.TOTP(begun["secret"])
        shown = {
            "handle": begun["handle"],
            "code": app.at(time.time() - 30),
        }  # the one before, so that two more are good now
        enrolled = self.post("/v1/me/factors/totp", shown, browser.headers(), keyed=False)
        self.done(enrolled)
        return Person(operator, email, invitation, browser_of(enrolled), app)

    def aged(self, browser: Browser, **changed: Any) -> Browser:
        """The same session as it is when so much time has gone by: another id, and what is given differs."""
        kept = msgspec.json.decode(self.redis.get(_key(browser.id)) or b"", type=Session)
        made = secrets.token_urlsafe(32)
        self.redis.set(_key(made), msgspec.json.encode(msgspec.structs.replace(kept, **changed)), ex=3600)
        return Browser(made, browser.csrf)

    def until(self, ask: Any, *, seconds: float = _WAIT_S) -> Answer:
        """The answer as soon as it is one of success: what another process reads from the log takes a moment."""
        end = time.monotonic() + seconds
        while True:
            answer: Answer = ask()
            if answer.status in (200, 201, 202):
                return answer
            if time.monotonic() > end:
                raise NotReady(f"{answer.status}: {answer.raw[:500]!r}")
            time.sleep(0.2)


class NotReady(Exception):
    """What an attack needs could not be made."""


def browser_of(answer: Answer) -> Browser:
    """What an answer that begins a session gives a browser."""
    found = re.search(rf"{COOKIE}=([^;]+)", answer.headers.get("set-cookie", ""))
    told = answer.json
    return Browser(found[1] if found else "", (told.get("signed_in") or told)["csrf"])


def _key(session_id: str) -> str:
    return f"session:{hashlib.sha256(session_id.encode()).hexdigest()}"


@contextmanager
def running(folder: Path) -> Iterator[Site]:
    """A region of its own in the folder, with providers of games, payments and identities. Raises local.NoDevstack."""
    with Issuer() as issuer:
        extra = _prepare(folder, issuer)
        with local.running(folder, ["eu"], local.free_port_base(1, first=random.randrange(10_000, 30_000))) as here:
            dsn = acting_as(here.settings["eu"].postgres, "countroom_reader")
            with psycopg.connect(dsn, autocommit=True) as entries:
                yield Site(here, extra, issuer, entries)


def _prepare(folder: Path, issuer: Issuer) -> dict[str, str]:
    """Write what the region is told at its start; the tokens of second persons, by role."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, secret in SECRETS.items():
        local.write_private(folder / f"{name}.secret", secret.hex())
    games = {"signature": "hmac", "aggregators": ["aggregator:dev"]}
    known: list[dict[str, Any]] = [
        {"name": "psp", "secret": "psp.secret"},
        {"name": "reel", "games": {**games, "secrets": ["reel.secret"]}},
        {"name": "spin", "games": {"signature": "hmac", "secrets": ["spin.secret"]}},
    ]
    local.write_private(folder / "providers.json", json.dumps(known))
    local.write_private(folder / "oidc.secret", issuer.secret)
    local.write_private(folder / "oidc.json", json.dumps([issuer.told("oidc.secret")]))
    extra = {role: new_token() for role in _SECOND}
    records: list[TokenRecord] = [record(token, f"{role}:second", [role]) for role, token in extra.items()]
    local.write_private(folder / "tokens.json", msgspec.json.encode(records).decode())
    return extra
