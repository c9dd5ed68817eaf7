"""People who sign in over real HTTP: a region whose clock is a value, operators who were invited, browsers, authenticators."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2
import pyotp
from argon2 import PasswordHasher
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from redis.asyncio import Redis

from access import identity_providers
from access.attempts import Attempts
from access.credentials import CredentialsReader
from access.directory import Directory
from access.identity_providers import IdentityProvider
from access.oidc import Oidc
from access.passkeys import Site
from access.passwords import Passwords
from access.pending import Pending
from access.sessions import Sessions
from app import auditing, commanding, querying, signin
from app.authentication import COOKIE, Authentication
from app.signing_in import SignIn
from commands import operators as inviting
from commands.operators import InviteOperator, OperatorChanged
from commands.plan import Context, Plan
from domain import operators
from domain.kernel import OperatorId
from eventstore.postgres import PostgresStreams
from eventstore.vault import RegionKey
from tests.app.reading import CODEC, TOKENS, Client, Region, region, serving
from tests.ledger import OWNED, Ledger
from tests.stack import Servers

PASSWORD = "correct horse battery staple"
ORIGIN = "https://office.example"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Clock:
    """Begins now, since the log has its own, and goes only as told."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.at

    def forward(self, **by: float) -> None:
        self.at += timedelta(**by)


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def problem(self) -> tuple[int, str]:
        return self.status, self.json["code"]


class Browser:
    """Keeps cookies as the service sets them, and the token of its session."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies: dict[str, str] = {}
        self.csrf = ""

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.send("GET", path, None, headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        raw = json.dumps(body or {}).encode()
        given = {"Content-Type": "application/json", "X-CSRF-Token": self.csrf, "Sec-Fetch-Site": "same-origin"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.send("POST", path, raw, {**given, **named})

    async def send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        answer = await asyncio.to_thread(self._send, method, path, body, dict(headers))
        for name, value in answer.headers:
            if name.lower() == "set-cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.partition(";")[0]
                assert "; Secure; HttpOnly; SameSite=" in value
                if rest.startswith(";"):
                    del self.cookies[key]
        if answer.header("content-type") == "application/json":
            told = answer.json
            signed_in = told.get("signed_in") or told
            self.csrf = signed_in.get("csrf", self.csrf)
        return answer

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        parts = urlsplit(path if "://" in path else self.url + path)
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        try:
            connection.request(method, parts._replace(scheme="", netloc="").geturl(), body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    @property
    def session(self) -> str:
        return self.cookies.get(COOKIE, "")


class Person(NamedTuple):
    operator: OperatorId
    email: str
    invitation: str


class House:
    """A region with people who sign in."""

    def __init__(self, made: Region, url: str, ledger: Ledger, signing_in: SignIn, clock: Clock, redis: Redis) -> None:
        self.region, self.url, self.ledger = made, url, ledger
        self.signing_in, self.clock, self.redis = signing_in, clock, redis
        self.client = Client(url)

    def browser(self) -> Browser:
        return Browser(self.url)

    async def invited(self, email: str = "anna@example.com", person: str = "anna") -> Person:
        """An administrator who was invited, and has not come yet."""
        id_ = inviting.new_operator_id(list(OWNED), self.clock())
        command = InviteOperator(name="Anna", email=email, person=person)
        receipt = await self.decide(inviting.invite_first(id_, command, self.region.read.vault, self.clock()))
        return Person(id_, email, receipt.answer.invitation)

    async def decide(self, plan: Any) -> Any:
        return await self.region.services.decider.decide(plan)

    async def granted(self, person: Person, role: str) -> None:
        await self.change(person, lambda at, operator: operators.grant(operator, role=role, until=None, at=at))

    async def change(self, person: Person, decision: Any) -> None:
        """As commands of administrators do it, however few there are."""
        self.clock.forward(seconds=1)
        context = Context(
            inviting.SYSTEM, self.clock(), hashlib.sha256(str(self.clock.at).encode()).digest()[:16], None
        )
        writes = {"operator": operators.stream(person.operator)}
        answer = OperatorChanged(person.operator)
        await self.decide(Plan(context, require=(), writes=writes, decision=decision, answer=lambda _facts: answer))

    async def joined(self, email: str = "anna@example.com") -> tuple[Person, Browser, pyotp.TOTP]:
        """Somebody who has come, set a password and enrolled an app; their browser is signed in."""
        person, browser = await self.invited(email), self.browser()
        answer = await browser.post(
            "/v1/me/password", {"operator": person.operator, "invitation": person.invitation, "password": PASSWORD}
        )
        assert answer.status == 200, answer
        assert answer.json["enrol"]
        begun = (await browser.post("/v1/me/factors/totp")).json
        app = pyotp.TOTP(begun["secret"])
        enrolled = await browser.post("/v1/me/factors/totp", {"handle": begun["handle"], "code": self.code(app)})
        assert enrolled.status == 200, enrolled
        self.clock.forward(seconds=31)
        return person, browser, app

    def code(self, app: pyotp.TOTP) -> str:
        return app.at(self.clock())

    async def sign_in(self, email: str, app: pyotp.TOTP, browser: Browser | None = None) -> Browser:
        browser = browser or self.browser()
        first = await browser.post("/v1/signin/password", {"email": email, "password": PASSWORD})
        assert first.status == 200, first
        second = await browser.post("/v1/signin/factor", {"ticket": first.json["ticket"], "code": self.code(app)})
        assert second.status == 200, second
        self.clock.forward(seconds=31)
        return browser

    async def facts(self, person: Person) -> list[tuple[str, Any]]:
        """What the log says of their sign-ins."""
        await self.signing_in.told()
        stream = f"region-eu-signin_{person.operator.partition('_')[2]}"
        read = [CODEC.decode(entry) for entry in self.ledger.entries() if stream.encode() in entry.body]
        return [(each.body.type, each.event) for each in read]


@asynccontextmanager
async def house(
    ledger: Ledger,
    servers: Servers,
    providers: tuple[IdentityProvider, ...] = (),
    origin: str = ORIGIN,
    *,
    whole: bool = False,
) -> AsyncIterator[House]:
    """`whole`: with commands and queries too, whose routes take a second to make."""
    clock = Clock()
    async with (
        region(ledger, servers, RegionKey(b"k" * 32), gap=False) as made,
        httpx2.AsyncClient() as client,
        Redis.from_url(servers.endpoints.redis) as redis,
    ):
        await redis.flushdb()
        read, services = made.read, made.services
        streams = PostgresStreams(read.pool)
        directory, sessions = Directory(streams, CODEC, now=clock, monotonic=_Ticks()), Sessions(redis)
        authentication = Authentication(TOKENS, directory, sessions, now=clock)
        read, services = read._replace(authentication=authentication), services._replace(authentication=authentication)
        passwords = Passwords(CHEAP)
        signing_in = SignIn(
            services.decider,
            CredentialsReader("eu", streams, services.vault, CODEC),
            directory,
            (sessions, Pending(redis), Attempts(redis)),
            passwords,
            Site(origin),
            {each.name: Oidc(each, client) for each in providers},
            clock,
        )
        routers = [signin.router(signing_in, authentication, read.start, made.schemas)]
        if whole:
            routers += [
                commanding.router(services, read.start, made.schemas, lambda _: None),
                querying.router(read, made.schemas),
                auditing.router(read, made.schemas),
            ]
        async with serving(made.schemas, routers) as served:
            yield House(made._replace(read=read, services=services), served.url, ledger, signing_in, clock, redis)
        await signing_in.told()
        passwords.close()


class _Ticks:
    """Every look is much later than the one before, so that nothing is taken from memory."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


def provider(issuer: str, **more: Any) -> IdentityProvider:
    given: dict[str, Any] = {"roles": {"payments-team": "payments"}, "scopes": ("openid", "groups"), **more}
    return identity_providers.IdentityProvider(
        name="office",
        issuer=issuer,
        client_id="countroom",
        client_secret_file="",
        secret="a secret of the tests",
        **given,
    )


class Authenticator:
    """A passkey in software: ES256, attestation "none", with a counter (WebAuthn level 2, 6 and 7)."""

    def __init__(self, origin: str = ORIGIN) -> None:
        self.origin, self.rp_id = origin, urlsplit(origin).hostname or ""
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.credential = hashlib.sha256(str(id(self.key)).encode()).digest()
        self.count = 1
        self.user = b""

    def create(self, options: Any) -> dict[str, Any]:
        self.user = unb64(options["user"]["id"])
        numbers = self.key.public_key().public_numbers()
        cose = b"\xa5\x01\x02\x03\x26\x20\x01" + b"".join(
            name + b"\x58\x20" + value.to_bytes(32, "big")
            for name, value in ((b"\x21", numbers.x), (b"\x22", numbers.y))
        )
        attested = bytes(16) + struct.pack(">H", 32) + self.credential + cose
        data = self._data(0x45) + attested
        attestation = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58" + bytes([len(data)]) + data
        response = {"clientDataJSON": self._client("webauthn.create", options), "attestationObject": b64(attestation)}
        return self._made(response)

    def get(self, options: Any, **changed: Any) -> dict[str, Any]:
        """`changed`: flags, type, challenge, origin."""
        self.count += 1
        data = self._data(changed.get("flags", 0x05))
        client = self._client(changed.get("type", "webauthn.get"), options, **changed)
        signature = self.key.sign(data + hashlib.sha256(unb64(client)).digest(), ec.ECDSA(hashes.SHA256()))
        response = {
            "clientDataJSON": client,
            "authenticatorData": b64(data),
            "signature": b64(signature),
            "userHandle": b64(self.user),
        }
        return self._made(response)

    def _made(self, response: dict[str, str]) -> dict[str, Any]:
        id_ = b64(self.credential)
        return {"id": id_, "rawId": id_, "type": "public-key", "response": response, "clientExtensionResults": {}}

    def _data(self, flags: int) -> bytes:
        return hashlib.sha256(self.rp_id.encode()).digest() + bytes([flags]) + struct.pack(">I", self.count)

    def _client(self, kind: str, options: Any, **changed: Any) -> str:
        told = {
            "type": kind,
            "challenge": changed.get("challenge", options["challenge"]),
            "origin": changed.get("origin", self.origin),
            "crossOrigin": False,
        }
        return b64(json.dumps(told).encode())


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
