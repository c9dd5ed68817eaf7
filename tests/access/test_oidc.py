"""A token of a provider counts only if it is its own, for us, now, and the answer to what was asked."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from access.identity_providers import APART, IdentityProvider, IdentityProvidersError, load
from access.oidc import LOGOUT_EVENT, NotBelieved, Oidc, ProviderSilent

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ISSUER = "https://id.example"
KEY = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
OTHER = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
CURVE = ECKey.generate_key("P-256", {"kid": "curve", "use": "sig"})


class Provider:
    """As one answers. `keys`, `token` and `description` are what it says; `asked` counts by path."""

    def __init__(self) -> None:
        self.keys: list[Any] = [KEY.as_dict(private=False)]
        self.moved: list[Any] = []
        self.token = ""
        self.description: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.asked: list[str] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.asked.append(path)
        answers: dict[str, Any] = {
            "/.well-known/openid-configuration": {
                "issuer": ISSUER,
                "authorization_endpoint": f"{ISSUER}/auth",
                "token_endpoint": f"{ISSUER}/token",
                "jwks_uri": f"{ISSUER}/keys",
                "userinfo_endpoint": f"{ISSUER}/me",
                **self.description,
            },
            "/keys": {"keys": self.keys},
            "/moved": {"keys": self.moved},
            "/token": {"id_token": self.token, "access_token": "a"},
            "/me": self.userinfo,
        }
        return httpx2.Response(200, json=answers[path])


@asynccontextmanager
async def oidc(provider: Provider, **more: Any) -> AsyncIterator[Oidc]:
    known = IdentityProvider(
        name="office", issuer=ISSUER, client_id="countroom", client_secret_file="", secret="s", **more
    )
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(provider)) as client:
        yield Oidc(known, client)


def claims(**changed: Any) -> dict[str, Any]:
    now = int(NOON.timestamp())
    told = {"iss": ISSUER, "aud": "countroom", "sub": "anna", "nonce": "n", "iat": now, "exp": now + 300, **changed}
    return {name: value for name, value in told.items() if value is not None}


def signed(told: dict[str, Any], key: Any = KEY, **header: Any) -> str:
    head = {"alg": "RS256", "kid": "one", **header}
    return jwt.encode({k: v for k, v in head.items() if v is not None}, told, key, algorithms=[head["alg"]])


def by_hand(header: dict[str, Any], told: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(each).encode() for each in (header, told)] + [signature]
    return ".".join(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts)


async def answered(token: str, provider: Provider | None = None, at: datetime = NOON, **more: Any) -> Any:
    provider = provider or Provider()
    provider.token = token
    async with oidc(provider, **more) as made:
        return await made.answer("code", None, "n", "v", "https://office.example/callback", at)


async def test_a_good_token_says_who_came() -> None:
    found = await answered(signed(claims(amr=["pwd", "otp"], sid="s", groups=["a", 7], auth_time=1)))
    assert (found.issuer, found.subject, found.session, found.groups) == (ISSUER, "anna", "s", ["a"])
    assert not found.second_factor


PUBLIC_PEM = KEY.as_pem(private=False)
HMAC_WITH_THE_PUBLIC_KEY = jwt.encode(
    {"alg": "HS256", "kid": "one"}, claims(), OctKey.import_key(base64.b64encode(PUBLIC_PEM)), algorithms=["HS256"]
)


@pytest.mark.parametrize(
    "token",
    [
        by_hand({"alg": "none"}, claims()),
        by_hand({"alg": "None", "kid": "one"}, claims()),
        by_hand({"alg": "RS256", "kid": "one"}, claims()),
        by_hand({"alg": "RS256", "kid": "one"}, claims(), b"x" * 256),
        HMAC_WITH_THE_PUBLIC_KEY,
        signed(claims(), OTHER),
        signed(claims(), OTHER, jwk=OTHER.as_dict(private=False)),
        signed(claims(), kid="unknown"),
        signed(claims(), typ="logout+jwt"),
        signed(claims(), typ="at+jwt"),
        signed(claims(iss="https://id.example.evil.test")),
        signed(claims(iss=ISSUER + "/")),
        signed(claims(aud="another")),
        signed(claims(aud=["another"])),
        signed(claims(aud=["another", "countroom"])),
        signed(claims(azp="another")),
        signed(claims(aud=None)),
        signed(claims(exp=int(NOON.timestamp()) - 61)),
        signed(claims(exp=None)),
        signed(claims(iat=None)),
        signed(claims(iat=int(NOON.timestamp()) + 120)),
        signed(claims(iat=int(NOON.timestamp()) - 700)),
        signed(claims(nbf=int(NOON.timestamp()) + 120)),
        signed(claims(exp=True)),
        signed(claims(nonce="another")),
        signed(claims(nonce=None)),
        signed(claims(sub=None)),
        signed(claims(sub="")),
        "",
        "a.b",
        "a.b.c.d.e",
        "\x00",
    ],
)  # fmt: skip
async def test_a_token_that_is_not_the_answer_is_not_believed(token: str) -> None:
    with pytest.raises(NotBelieved):
        await answered(token)


async def test_an_algorithm_that_the_provider_is_not_allowed_is_refused() -> None:
    provider = Provider()
    provider.keys.append(CURVE.as_dict(private=False))
    token = signed(claims(), CURVE, alg="ES256", kid="curve")
    assert (await answered(token, provider)).subject == "anna"
    with pytest.raises(NotBelieved):
        await answered(token, provider, algorithms=("RS256",))


async def test_a_secret_key_among_those_of_the_provider_is_no_key() -> None:
    provider = Provider()
    provider.keys = [{"kty": "oct", "k": "AAAA", "kid": "one"}]
    with pytest.raises(NotBelieved):
        await answered(signed(claims()), provider)


async def test_keys_are_asked_for_again_when_one_is_unknown_but_not_all_the_time() -> None:
    provider = Provider()
    newer = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"})
    async with oidc(provider) as made:

        async def ask(token: str, at: datetime) -> Any:
            provider.token = token
            return await made.answer("code", None, "n", "v", "https://office.example/callback", at)

        await ask(signed(claims()), NOON)
        provider.keys = [newer.as_dict(private=False)]
        for seconds in (1, 10, 29):
            with pytest.raises(NotBelieved):
                await ask(signed(claims(), newer, kid="two"), NOON + timedelta(seconds=seconds))
        assert provider.asked.count("/keys") == 1
        assert (await ask(signed(claims(), newer, kid="two"), NOON + timedelta(seconds=30))).subject == "anna"
        with pytest.raises(NotBelieved):
            await ask(signed(claims()), NOON + timedelta(seconds=31))
        assert provider.asked.count("/keys") == 2


async def test_a_provider_moves_its_keys_and_its_pages_without_a_restart_here() -> None:
    provider = Provider()
    async with oidc(provider) as made:

        async def where(at: datetime) -> str:
            return (await made.ask("state", "https://office.example/callback", timedelta(), at)).url.partition("?")[0]

        provider.token = signed(claims())
        assert await where(NOON) == f"{ISSUER}/auth"
        await made.answer("code", None, "n", "v", "https://office.example/callback", NOON)
        newer = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"})
        provider.keys, provider.moved = [], [newer.as_dict(private=False)]
        provider.description = {"jwks_uri": f"{ISSUER}/moved", "authorization_endpoint": f"{ISSUER}/new"}
        provider.token = signed(claims(), newer, kid="two")
        later = NOON + timedelta(seconds=30)
        assert (await made.answer("code", None, "n", "v", "https://office.example/callback", later)).subject == "anna"
        assert await where(later) == f"{ISSUER}/new"
        provider.description = {}
        assert await where(later + timedelta(minutes=59)) == f"{ISSUER}/new"
        assert await where(later + timedelta(hours=1)) == f"{ISSUER}/auth"


async def test_a_key_that_was_taken_back_is_forgotten_after_ten_minutes() -> None:
    provider = Provider()
    async with oidc(provider) as made:
        provider.token = signed(claims())
        await made.answer("code", None, "n", "v", "https://office.example/callback", NOON)
        provider.keys = []
        later = NOON + timedelta(minutes=10)
        provider.token = signed(claims(iat=int(later.timestamp()), exp=int(later.timestamp()) + 60))
        with pytest.raises(NotBelieved):
            await made.answer("code", None, "n", "v", "https://office.example/callback", later)


async def test_another_providers_description_or_answer_is_refused() -> None:
    provider = Provider()
    provider.description = {"issuer": "https://evil.test"}
    with pytest.raises(NotBelieved):
        await answered(signed(claims()), provider)
    provider.description = {"authorization_response_iss_parameter_supported": True}
    with pytest.raises(NotBelieved):
        await answered(signed(claims()), provider)


async def test_nothing_is_sent_unencrypted() -> None:
    provider = Provider()
    provider.description = {"token_endpoint": "http://id.example/token"}
    with pytest.raises(ProviderSilent):
        await answered(signed(claims()), provider)
    assert "/token" not in provider.asked


async def test_what_is_told_of_the_user_counts_only_if_it_is_about_them() -> None:
    provider = Provider()
    provider.userinfo = {"sub": "anna", "groups": ["a"]}
    assert (await answered(signed(claims()), provider, roles={"a": "payments"})).groups == ["a"]
    provider.userinfo = {"sub": "ben", "groups": ["a"]}
    with pytest.raises(NotBelieved):
        await answered(signed(claims()), provider, roles={"a": "payments"})


def logout(**changed: Any) -> dict[str, Any]:
    told = claims(nonce=None, sid="s", jti="j", events={LOGOUT_EVENT: {}}) | changed
    return {name: value for name, value in told.items() if value is not None}


async def test_a_logout_token_names_what_ended() -> None:
    async with oidc(Provider()) as made:
        found = await made.signed_out(signed(logout(), typ="logout+jwt"), NOON)
    assert found == (ISSUER, "anna", "s", "j")


@pytest.mark.parametrize(
    "token",
    [
        signed(claims()),
        signed(logout(events=None)),
        signed(logout(events={LOGOUT_EVENT: 1})),
        signed(logout(events=[LOGOUT_EVENT])),
        signed(logout(nonce="n")),
        signed(logout(sub=None, sid=None)),
        signed(logout(jti=None)),
        signed(logout(aud="another")),
        signed(logout(exp=int(NOON.timestamp()) - 61)),
        signed(logout(), OTHER),
        signed(logout(), typ="at+jwt"),
        by_hand({"alg": "none"}, logout()),
    ],
)
async def test_what_is_no_logout_token_ends_nothing(token: str) -> None:
    async with oidc(Provider()) as made:
        with pytest.raises(NotBelieved):
            await made.signed_out(token, NOON)


def test_the_file_of_providers_is_read_with_its_secrets_or_says_why_not(tmp_path: Path) -> None:
    file, secret = tmp_path / "oidc.json", tmp_path / "office.secret"
    line = {"name": "office", "issuer": ISSUER, "client_id": "c", "client_secret_file": "office.secret"}

    def loaded(**changed: Any) -> Any:
        file.write_text(json.dumps([{**line, **changed}]))
        return load(file)

    with pytest.raises(IdentityProvidersError, match="cannot be read"):
        loaded()
    secret.write_text("s3cret\n")
    secret.chmod(0o644)
    with pytest.raises(IdentityProvidersError, match="chmod 600"):
        loaded()
    secret.chmod(0o600)
    [found] = loaded(roles={"a": "payments"})
    assert found.secret == "s3cret"
    assert "s3cret" not in repr(found)
    for changed, why in (
        ({"issuer": "http://id.example"}, "https"),
        ({"roles": {"a": "emperor"}}, "emperor"),
        *(({"roles": {"a": role}}, f"{role} is granted by two people") for role in sorted(APART)),
        ({"algorithms": ["HS256"]}, "HS256"),
        ({"secret": "x"}, "file of its own"),
        ({"colour": "red"}, "colour"),
    ):
        with pytest.raises(IdentityProvidersError, match=why):
            loaded(**changed)
    assert load(None) == ()
