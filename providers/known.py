"""
Who our providers are: a JSON file that the settings name.

    [{"name": "acme", "url": "https://psp.example/payouts", "secret": "/etc/countroom/acme.secret", "speaks": ["payments"]},
     {"name": "reel", "games": {"signature": "hmac", "secrets": ["reel.secret"], "aggregators": ["aggregator:hub"]}},
     {"name": "spin", "games": {"signature": "rsa", "padding": "pss", "public_keys": ["spin-2026.pem", "spin-2027.pem"]}}]

`secret` is a file with at least 16 bytes in hex, the same on both sides. `url` may be missing: then the provider only calls us.
`speaks`: of what it may tell us, `payments` (if it says nothing, of those) or `kyc`. `games`: how it signs what it says as a
provider of games, who need have no `secret`; more than one key while they are being changed. `aggregators`: the actors, by their
tokens, who may say it instead.

Invariant: a key is one provider's: what one has signed is not another's word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from providers import games, signing
from providers.games import KEYS_MAX, Padding, Signatures
from providers.signing import SECRET_BYTES_MIN

_Name = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_-]{0,39}$")]


class ProvidersUnreadable(Exception):
    """The file of providers, or one of their secrets, does not say what it should."""


_Files = Annotated[list[str], msgspec.Meta(min_length=1, max_length=KEYS_MAX)]
_Actors = frozenset[Annotated[str, msgspec.Meta(min_length=1, max_length=100)]]


class _Hmac(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="signature", tag="hmac"):
    secrets: _Files
    aggregators: _Actors = frozenset()


class _Rsa(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="signature", tag="rsa"):
    public_keys: _Files
    padding: Padding = "pkcs1v15"
    aggregators: _Actors = frozenset()


_Games: TypeAlias = _Hmac | _Rsa


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: _Name
    secret: str | None = None
    url: Annotated[str, msgspec.Meta(pattern="^https?://")] | None = None
    speaks: frozenset[Literal["payments", "kyc"]] = frozenset({"payments"})
    games: _Games | None = None


class Known(msgspec.Struct, frozen=True):
    """A provider. `url`: where payouts are posted. `speaks`: of what it may tell us. `games`: how it signs what it says of games.

    `secret`: None for one that only has games. `aggregators`: the actors who may say of its games what it would.
    """

    name: str
    secret: bytes | None
    url: str | None
    speaks: frozenset[str] = frozenset({"payments"})
    games: Signatures | None = None
    aggregators: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Known({self.name})"

    def key_names(self) -> Iterator[bytes]:
        """Of each of its keys a name, which does not tell it."""
        if self.secret is not None:
            yield signing.name_of(self.secret)
        if self.games is not None:
            yield from self.games.names()


def load(file: Path | None) -> Mapping[str, Known]:
    """By name; nobody without a file. A secret's path is relative to the file.

    Raises ProvidersUnreadable, whose one sentence names the file and the place in it.
    """
    if file is None:
        return {}
    known: dict[str, Known] = {}
    whose: dict[bytes, str] = {}
    for number, line in enumerate(_lines(file)):
        if line.name in known:
            raise ProvidersUnreadable(f"{file}: {line.name} is named twice - at `$[{number}].name`")
        with _placed(file, f"$[{number}].secret"):
            secret = _payments_secret(line, file.parent)
        with _placed(file, f"$[{number}].games"):
            signatures = _games(line.games, file.parent)
        if secret is not None and signatures is not None and "payments" in line.speaks:
            where = f"$[{number}].games"  # a dispute that is won and a game that is won may have one reference
            raise ProvidersUnreadable(f"{file}: payments and games are told under two names - at `{where}`")
        speaks = frozenset[str]() if secret is None else line.speaks
        aggregators = line.games.aggregators if line.games else frozenset()
        made = known[line.name] = Known(line.name, secret, line.url, speaks, signatures, aggregators)
        for other in {whose.setdefault(key, line.name) for key in made.key_names()} - {line.name}:
            raise ProvidersUnreadable(f"{file}: {line.name} has a key of {other} - at `$[{number}]`")
    return known


@contextmanager
def _placed(file: Path, place: str) -> Iterator[None]:
    """Whatever is unreadable there is told with its place."""
    try:
        yield
    except ProvidersUnreadable as error:
        raise ProvidersUnreadable(f"{file}: {error} - at `{place}`") from error


def speaking(known: Mapping[str, Known], *, of: Literal["payments", "kyc"]) -> frozenset[str]:
    """The names of those who may tell us of it."""
    return frozenset(name for name, each in known.items() if of in each.speaks)


def _lines(file: Path) -> list[_Line]:
    """Read as plain JSON first, whose errors name a line."""
    try:
        return msgspec.convert(json.loads(_read(file)), list[_Line])
    except (ValueError, RecursionError) as error:  # those of json and of msgspec are ValueErrors
        raise ProvidersUnreadable(f"{file}: {error}") from error


def _payments_secret(line: _Line, folder: Path) -> bytes | None:
    """None for who has only games, and needs none."""
    if line.secret is not None:
        return _secret(folder / line.secret)
    if line.games is None or line.url is not None:
        raise ProvidersUnreadable(f"{line.name} has no secret")
    return None


def _games(said: _Games | None, folder: Path) -> Signatures | None:
    match said:
        case None:
            return None
        case _Hmac(secrets):
            return games.Secrets([_secret(folder / each) for each in secrets])
        case _Rsa(public_keys, padding):
            return games.PublicKeys([_public_key(folder / each) for each in public_keys], padding)


def _public_key(file: Path) -> RSAPublicKey:
    try:
        return games.public_key(_read(file).encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ProvidersUnreadable(f"{file}: {error}") from error


def _secret(file: Path) -> bytes:
    try:
        secret = bytes.fromhex(_read(file).strip())
    except ValueError:  # whose message would tell of the secret
        raise ProvidersUnreadable(f"the secret in {file} is not written in hex") from None
    if len(secret) < SECRET_BYTES_MIN:
        raise ProvidersUnreadable(f"the secret in {file} has {len(secret)} bytes, and needs {SECRET_BYTES_MIN}")
    return secret


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ProvidersUnreadable(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ProvidersUnreadable(f"{file} is not text: {error.reason} at byte {error.start}") from error
