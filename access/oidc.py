"""
Single sign-on: what a provider of identities says of somebody (OpenID Connect Core 1.0, code flow with PKCE), and that they have
signed out there (OpenID Connect Back-Channel Logout 1.0).

Invariants:
    - a token counts only if one of the provider's own keys signed it, by an algorithm of ALGORITHMS that the provider is allowed,
      for us, now, and as the answer to the question that was asked (state, nonce, PKCE);
    - what a token is not for is refused, however well it is signed: an ID token ends no session, a logout token opens none;
    - keys are asked for again when a token names an unknown one, but not more often than every KEYS_EVERY; where the provider says they
      are is asked with them, so that it may move.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeGuard
from urllib.parse import quote_plus, urlencode

import httpx2
import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry

from access.identity_providers import ALGORITHMS, IdentityProvider

KEYS_EVERY = timedelta(seconds=30)
KEYS_GOOD_FOR = timedelta(minutes=10)
DESCRIPTION_GOOD_FOR = timedelta(hours=1)
LEEWAY = timedelta(seconds=60)
"""For clocks that differ. Figures of the house, as are those above."""
OLD = timedelta(minutes=10)
"""How long ago a token may have been made, whatever its end is."""
TIMEOUT_S = 5.0
ANSWER_BYTES_MAX = 256 * 1024
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"


class NotBelieved(Exception):
    """What a provider, or whoever speaks in its name, says does not count. The reason is for our own log."""


class ProviderSilent(Exception):
    """The provider does not answer, or not as OpenID Connect has it."""


class Question(NamedTuple):
    """`url`: where the browser goes. `nonce` and `verifier` are kept here until it comes back."""

    url: str
    nonce: str
    verifier: str


class Identity(NamedTuple):
    """Somebody, as a provider knows them. `second_factor`: whether it says that they have shown one. `at`: when they signed in
    there, if it says so.
    """

    issuer: str
    subject: str
    session: str
    groups: Sequence[str]
    second_factor: bool
    at: datetime | None


class SignedOut(NamedTuple):
    """A provider says that a session of its own ended (`session`), or all of a user's (`subject`). `id`: of its message."""

    issuer: str
    subject: str
    session: str
    id: str


class _Metadata(msgspec.Struct, frozen=True):
    """What of the provider's own description is used (OpenID Connect Discovery 1.0, 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    authorization_response_iss_parameter_supported: bool = False


class _Answer(msgspec.Struct, frozen=True):
    """Of the token endpoint."""

    id_token: str
    access_token: str = ""


class _Keys(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


class Oidc:
    """One provider. `client` belongs to the caller, and follows no redirects."""

    def __init__(self, provider: IdentityProvider, client: httpx2.AsyncClient) -> None:
        self.provider = provider
        self._client = client
        self._metadata: tuple[_Metadata, datetime] | None = None
        self._keys: Mapping[str, dict[str, Any]] = {}
        self._keys_at: datetime | None = None

    async def ask(self, state: str, redirect_uri: str, at_most: timedelta, at: datetime) -> Question:
        """Where somebody signs in: anew if they have done so longer ago than `at_most`. A provider that is asked so says when they
        have (OpenID Connect Core, 3.1.2.1, max_age). Raises ProviderSilent.
        """
        metadata = await self._described(at)
        nonce, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        asked = {
            "response_type": "code",
            "client_id": self.provider.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self.provider.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": _base64url(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
            "max_age": str(int(at_most.total_seconds())),
        }
        if self.provider.second_factor.acr:
            asked["acr_values"] = " ".join(self.provider.second_factor.acr)
        joined = "&" if "?" in metadata.authorization_endpoint else "?"
        return Question(f"{metadata.authorization_endpoint}{joined}{urlencode(asked)}", nonce, verifier)

    async def answer(
        self, code: str, issuer: str | None, nonce: str, verifier: str, redirect_uri: str, at: datetime
    ) -> Identity:
        """Who came back with a code. `issuer`: the parameter iss (RFC 9207). Raises NotBelieved, ProviderSilent."""
        metadata = await self._described(at)
        if issuer != metadata.issuer and (issuer or metadata.authorization_response_iss_parameter_supported):
            raise NotBelieved("the answer is another provider's")
        answer = await self._redeem(metadata, code, verifier, redirect_uri)
        claims = await self._claims(answer.id_token, at)
        if not secrets.compare_digest(_text(claims, "nonce"), nonce):
            raise NotBelieved("the token answers another question")
        subject = _text(claims, "sub")
        if not subject:
            raise NotBelieved("the token is about nobody")
        groups = claims.get(self.provider.groups_claim)
        if groups is None and self.provider.roles and metadata.userinfo_endpoint:
            told = await self._userinfo(metadata.userinfo_endpoint, answer.access_token)
            if told.get("sub") != subject:
                raise NotBelieved("what is told of the user is about another one")
            groups = told.get(self.provider.groups_claim)
        named = [each for each in groups if isinstance(each, str)] if isinstance(groups, list) else []
        signed_in = claims.get("auth_time")
        return Identity(
            metadata.issuer,
            subject,
            _text(claims, "sid"),
            named,
            self._is_second_factor(claims),
            datetime.fromtimestamp(signed_in, at.tzinfo) if isinstance(signed_in, int) else None,
        )

    async def signed_out(self, token: str, at: datetime) -> SignedOut:
        """What a logout token says (Back-Channel Logout, 2.6). Raises NotBelieved, ProviderSilent."""
        claims = await self._claims(token, at, typ="logout+jwt")
        events = claims.get("events")
        if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict) or "nonce" in claims:
            raise NotBelieved("the token is no logout token")
        found = SignedOut(_text(claims, "iss"), _text(claims, "sub"), _text(claims, "sid"), _text(claims, "jti"))
        if not (found.subject or found.session) or not found.id:
            raise NotBelieved("the logout token names no session and no user, or not itself")
        return found

    def roles(self, groups: Sequence[str]) -> tuple[str, ...]:
        """What these groups of the provider come to here."""
        return tuple(sorted({self.provider.roles[each] for each in groups if each in self.provider.roles}))

    def _is_second_factor(self, claims: Mapping[str, Any]) -> bool:
        wanted, amr = self.provider.second_factor, claims.get("amr")
        shown = {each for each in amr if isinstance(each, str)} if isinstance(amr, list) else set()
        return claims.get("acr") in wanted.acr or bool(shown & set(wanted.amr))

    # Tokens

    async def _claims(self, token: str, at: datetime, typ: str = "") -> dict[str, Any]:
        """The claims of a token that is the provider's, for us, and good now. Raises NotBelieved, ProviderSilent."""
        header = _header(token)
        algorithm, named = header.get("alg"), header.get("typ")
        if algorithm not in ALGORITHMS or algorithm not in self.provider.algorithms:
            raise NotBelieved("the token's algorithm is not allowed")
        if named not in (None, "JWT", typ or "JWT"):
            raise NotBelieved(f"the token is a {named}")
        key = await self._key(header.get("kid"), at)
        if key.get("alg", algorithm) != algorithm or key.get("use", "sig") != "sig":
            raise NotBelieved("the key is for something else")
        try:
            claims = jwt.decode(token, JWKRegistry.import_key(key), algorithms=[algorithm]).claims
        except (JoseError, ValueError, TypeError) as error:
            raise NotBelieved(f"the token does not stand: {type(error).__name__}") from error
        self._check(claims, at)
        return claims

    def _check(self, claims: Mapping[str, Any], at: datetime) -> None:
        """OpenID Connect Core, 3.1.3.7. Raises NotBelieved."""
        mine = self.provider.client_id
        audience = claims.get("aud")
        for_whom = [audience] if isinstance(audience, str) else audience
        if claims.get("iss") != self.provider.issuer:
            raise NotBelieved("the token is of another issuer")
        if not isinstance(for_whom, list) or mine not in for_whom:
            raise NotBelieved("the token is for somebody else")
        if claims.get("azp", mine) != mine or (len(for_whom) > 1 and "azp" not in claims):
            raise NotBelieved("the token was given to somebody else")
        now = at.timestamp()
        made, ends, begins = claims.get("iat"), claims.get("exp"), claims.get("nbf", 0)
        if not (_is_time(made) and _is_time(ends) and _is_time(begins)):
            raise NotBelieved("the token does not say when it was made and until when it is good")
        leeway = LEEWAY.total_seconds()
        if now >= ends + leeway or made > now + leeway or begins > now + leeway:
            raise NotBelieved("the token is over, or not good yet")
        if made < now - OLD.total_seconds():
            raise NotBelieved("the token is old")

    async def _key(self, named: object, at: datetime) -> dict[str, Any]:
        """The key of that name, or the only one if none is named. Raises NotBelieved, ProviderSilent."""
        since = at - self._keys_at if self._keys_at else KEYS_GOOD_FOR
        if since >= KEYS_GOOD_FOR or (named not in self._keys and since >= KEYS_EVERY):
            await self._fetch_keys(at)
        if named is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        if not isinstance(named, str) or named not in self._keys:
            raise NotBelieved("the provider has no such key")
        return self._keys[named]

    async def _fetch_keys(self, at: datetime) -> None:
        self._keys_at = at  # whatever comes of it: a provider that fails is not asked by everybody
        metadata = await self._described(at, KEYS_EVERY)
        found = await self._get(metadata.jwks_uri, _Keys)
        public = [each for each in found.keys if each.get("kty") in ("RSA", "EC", "OKP")]
        self._keys = {str(each.get("kid", "")): each for each in public}

    # Asking

    async def _described(self, at: datetime, good_for: timedelta = DESCRIPTION_GOOD_FOR) -> _Metadata:
        """As the provider has described itself no longer ago. Raises ProviderSilent, NotBelieved if it is another's description."""
        if self._metadata is not None and at - self._metadata[1] < good_for:
            return self._metadata[0]
        address = f"{self.provider.issuer.rstrip('/')}/.well-known/openid-configuration"
        found: _Metadata = await self._get(address, _Metadata)
        if found.issuer != self.provider.issuer:
            raise NotBelieved("the description is of another issuer")
        self._metadata = (found, at)
        return found

    async def _redeem(self, metadata: _Metadata, code: str, verifier: str, redirect_uri: str) -> _Answer:
        given = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        who = f"{quote_plus(self.provider.client_id)}:{quote_plus(self.provider.secret)}"  # RFC 6749, 2.3.1
        headers = {"Authorization": f"Basic {base64.b64encode(who.encode()).decode()}"}
        response = await self._send("POST", metadata.token_endpoint, data=given, headers=headers)
        if response.status_code in (400, 401):
            raise NotBelieved("the provider does not take the code")
        answer: _Answer = _decoded(response, _Answer)
        return answer

    async def _userinfo(self, address: str, access_token: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {access_token}"}
        found: dict[str, Any] = _decoded(await self._send("GET", address, headers=headers), dict[str, Any])
        return found

    async def _get(self, address: str, kind: type[Any]) -> Any:
        return _decoded(await self._send("GET", address), kind)

    async def _send(self, method: str, address: str, **given: Any) -> httpx2.Response:
        """Raises ProviderSilent."""
        if not self.provider.may_be_asked(address):
            raise ProviderSilent("the provider names an address that is not encrypted")
        try:
            return await self._client.request(method, address, timeout=TIMEOUT_S, follow_redirects=False, **given)
        except (httpx2.HTTPError, OSError, ValueError) as error:
            raise ProviderSilent(f"{self.provider.name}: {type(error).__name__}") from error


def _decoded(response: httpx2.Response, kind: Any) -> Any:
    """Raises ProviderSilent."""
    if response.status_code != 200 or len(response.content) > ANSWER_BYTES_MAX:  # noqa: PLR2004 — OK
        raise ProviderSilent(f"the provider answers {response.status_code}")
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise ProviderSilent(f"the provider's answer is none: {error}") from error


def _header(token: str) -> dict[str, Any]:
    """What a token says of itself, before anything was checked. Raises NotBelieved."""
    try:
        head = token.partition(".")[0]
        found: dict[str, Any] = msgspec.json.decode(
            base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)), type=dict[str, Any]
        )
    except (ValueError, msgspec.DecodeError) as error:
        raise NotBelieved("this is no token") from error
    return found


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(claims: Mapping[str, Any], name: str) -> str:
    found = claims.get(name)
    return found if isinstance(found, str) else ""


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
