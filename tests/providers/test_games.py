"""How providers of games sign, and the file that names their keys."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from providers import games, signing
from providers.games import Padding, PublicKeys, Secrets
from providers.known import ProvidersUnreadable, load
from providers.signing import WINDOW_S, BadSignature

NOW = 1_795_348_800
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
BODY = b'{"verb":"bet"}'


def pem(key: Any) -> bytes:
    found: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found


@pytest.mark.parametrize("padding", ["pkcs1v15", "pss"])
def test_a_private_key_signs_now_and_these_bytes(padding: Padding) -> None:
    keys = PublicKeys([KEY.public_key()], padding)
    header = games.sign(KEY, padding, BODY, NOW)
    for late in (-WINDOW_S, 0, WINDOW_S):
        keys.verify(header, BODY, NOW + late)
    other: Padding = "pss" if padding == "pkcs1v15" else "pkcs1v15"
    wrong = [
        (games.sign(OTHER, padding, BODY, NOW), BODY, NOW),
        (games.sign(KEY, other, BODY, NOW), BODY, NOW),
        (header, BODY + b" ", NOW),
        (header.replace(f"t={NOW}", f"t={NOW + 1}"), BODY, NOW),
        (header, BODY, NOW + WINDOW_S + 1),
        (header, BODY, NOW - WINDOW_S - 1),
    ]
    for given, body, now in wrong:
        with pytest.raises(BadSignature):
            keys.verify(given, body, now)


def test_while_a_key_is_changed_either_fits_and_either_side_may_begin() -> None:
    both = PublicKeys([OTHER.public_key(), KEY.public_key()], "pss")
    both.verify(games.sign(KEY, "pss", BODY, NOW), BODY, NOW)
    twice = games.sign(OTHER, "pss", BODY, NOW) + "," + games.sign(KEY, "pss", BODY, NOW).partition(",")[2]
    PublicKeys([KEY.public_key()], "pss").verify(twice, BODY, NOW)
    secrets = Secrets([b"the older secret", b"the newer secret"])
    for secret in (b"the older secret", b"the newer secret"):
        secrets.verify(signing.sign(secret, BODY, NOW), BODY, NOW)
    with pytest.raises(BadSignature):
        secrets.verify(signing.sign(b"another's secret", BODY, NOW), BODY, NOW)


def test_a_public_key_is_no_secret() -> None:
    """Whoever knows the public key could sign with it if the way of signing were the caller's to choose."""
    with pytest.raises(BadSignature):
        PublicKeys([KEY.public_key()], "pss").verify(signing.sign(pem(KEY), BODY, NOW), BODY, NOW)


@pytest.mark.parametrize(
    "header",
    ["", f"t={NOW}", f"t={NOW},rsa=", f"t={NOW},rsa={'A' * 85}", f"t={NOW},rsa={'A' * 87}=", f"t={NOW},rsa={'é' * 344}",
     f"t={NOW},rsa={'A' * 344},v1={'0' * 64}", f"t=-1,rsa={'A' * 344}", f"t={NOW},rsa={'A' * 5_000}"],
)  # fmt: skip
def test_a_header_of_another_form_is_refused(header: str) -> None:
    with pytest.raises(BadSignature):
        PublicKeys([KEY.public_key()], "pss").verify(header, BODY, NOW)


def written(folder: Path, **line: Any) -> Path:
    (folder / "secret").write_text("00" * 16)
    (folder / "spin.pem").write_bytes(pem(KEY))
    (folder / "short.pem").write_bytes(pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)))
    (folder / "curve.pem").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    file = folder / "providers.json"
    file.write_text(json.dumps([{"name": "spin", **line}]))
    return file


def test_a_provider_of_games_needs_no_other_secret(tmp_path: Path) -> None:
    spin = load(written(tmp_path, games={"signature": "rsa", "public_keys": ["spin.pem"], "padding": "pss"}))["spin"]
    assert (spin.secret, spin.speaks) == (None, frozenset())
    assert spin.games is not None
    spin.games.verify(games.sign(KEY, "pss", BODY, NOW), BODY, NOW)


def test_payments_and_games_are_told_under_two_names(tmp_path: Path) -> None:
    """A dispute that is won and a game that is won may have the same reference, which is one command for ever."""
    said = {"secret": "secret", "games": {"signature": "hmac", "secrets": ["secret"]}}
    with pytest.raises(ProvidersUnreadable, match="under two names"):
        load(written(tmp_path, **said))
    both = load(written(tmp_path, **said, speaks=["kyc"]))["spin"]
    assert (both.secret, both.speaks) == (bytes(16), {"kyc"})
    assert both.games is not None


RSA = {"signature": "rsa", "public_keys": ["spin.pem"]}
HMAC = {"signature": "hmac", "secrets": ["secret"]}


@pytest.mark.parametrize("said", [RSA, HMAC], ids=["rsa", "hmac"])
def test_a_key_is_one_providers(tmp_path: Path, said: dict[str, Any]) -> None:
    """Or what one has signed would be the other's word, too."""
    file = written(tmp_path)
    mine, theirs = (
        {"name": "spin", "games": said},
        {"name": "reel", "games": {**said, "aggregators": ["aggregator:hub"]}},
    )
    if said is RSA:
        theirs["games"]["padding"] = "pss"  # type: ignore[index]
    file.write_text(json.dumps([mine, theirs]))
    with pytest.raises(ProvidersUnreadable) as refused:
        load(file)
    assert str(refused.value) == f"{file}: reel has a key of spin - at `$[1]`"
    file.write_text(
        json.dumps([{"name": "spin", "games": {**said, next(iter({*said} - {"signature"})): [*_keys(said)] * 2}}])
    )
    assert load(file)["spin"].aggregators == frozenset()


def _keys(said: dict[str, Any]) -> list[str]:
    found: list[str] = said.get("secrets") or said["public_keys"]
    return found


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"a" * 16, b"a" * 16, True),
        (b"a" * 16, b"a" * 16 + b"\0", True),
        (b"a" * 65, hashlib.sha256(b"a" * 65).digest(), True),
        (b"a" * 64, hashlib.sha256(b"a" * 64).digest(), False),
        (b"a" * 16, b"\0" + b"a" * 16, False),
    ],
)
def test_two_secrets_have_one_name_if_they_sign_alike(one: bytes, other: bytes, same: bool) -> None:
    assert (signing.name_of(one) == signing.name_of(other)) is same
    assert (signing.sign(one, BODY, NOW) == signing.sign(other, BODY, NOW)) is same


def test_the_file_says_who_speaks_for_a_provider(tmp_path: Path) -> None:
    spin = load(written(tmp_path, games={**RSA, "aggregators": ["aggregator:hub"]}))["spin"]
    assert spin.aggregators == {"aggregator:hub"}


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"games": {**HMAC, "aggregators": [""]}},
        {"games": {**HMAC, "aggregators": "aggregator:hub"}},
        {"games": {"signature": "md5", "secrets": ["secret"]}},
        {"games": {"signature": "hmac"}},
        {"games": {"signature": "hmac", "secrets": []}},
        {"games": {"signature": "hmac", "secrets": ["secret"] * 5}},
        {"games": {"signature": "hmac", "secrets": ["nowhere"]}},
        {"games": {"signature": "hmac", "public_keys": ["spin.pem"]}},
        {"games": {"signature": "rsa", "public_keys": ["secret"]}},
        {"games": {"signature": "rsa", "public_keys": ["short.pem"]}},
        {"games": {"signature": "rsa", "public_keys": ["curve.pem"]}},
        {"games": {"signature": "rsa", "public_keys": ["spin.pem"], "padding": "none"}},
        {"url": "https://psp.example", "games": {"signature": "hmac", "secrets": ["secret"]}},
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, line: dict[str, Any]) -> None:
    with pytest.raises(ProvidersUnreadable, match=str(tmp_path)):
        load(written(tmp_path, **line))
