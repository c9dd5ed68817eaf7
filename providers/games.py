"""
How game providers sign what they say: over the time and the bytes as they travel, with a secret that both sides have, or with a
private key of their own.

    Countroom-Signature: t=<seconds since 1970 UTC>,v1=<hex>           HMAC-SHA-256(secret, t ‖ "." ‖ body)       (RFC 2104)
    Countroom-Signature: t=<seconds since 1970 UTC>,rsa=<base64>       RSA with SHA-256 of t ‖ "." ‖ body         (RFC 8017)

RSA's padding is PKCS #1 v1.5 or PSS (MGF1 with SHA-256, salt of any length), as the file of providers says. While a key is being
changed both are in that file, and one that fits is enough.

Invariants:
    - the bytes are checked before anything reads them;
    - what was signed more than signing.WINDOW_S from now is refused, whoever signed it;
    - a provider signs in one way only: whoever has a public key has no use for it as a secret.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Literal, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from providers import signing
from providers.signing import HEADER, WINDOW_S, BadSignature

KEYS_MAX = 4
RSA_BITS_MIN = 2048

Padding = Literal["pkcs1v15", "pss"]

_RSA = re.compile(r"t=(0|[1-9][0-9]{0,11})((?:,rsa=[A-Za-z0-9+/]{86,1366}={0,2}){1,4})")
_PADDING = {
    "pkcs1v15": padding.PKCS1v15(),
    "pss": padding.PSS(padding.MGF1(SHA256()), padding.PSS.AUTO),
}


class Signatures(Protocol):
    """A provider's keys. `names`: of each something that no other key has, and that does not tell it."""

    def names(self) -> Iterator[bytes]: ...

    def verify(self, header: str, body: bytes, now: int) -> None:
        """`now`: seconds since 1970 UTC. Raises BadSignature."""


class Secrets:
    """HMAC with any of these."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = secrets

    def names(self) -> Iterator[bytes]:
        return map(signing.name_of, self._secrets)

    def verify(self, header: str, body: bytes, now: int) -> None:
        *others, last = self._secrets
        for secret in others:
            try:
                return signing.verify(secret, header, body, now)
            except BadSignature:
                continue
        return signing.verify(last, header, body, now)


class PublicKeys:
    """RSA with any of these."""

    def __init__(self, keys: Sequence[RSAPublicKey], padding: Padding) -> None:
        self._keys = keys
        self._padding = _PADDING[padding]

    def names(self) -> Iterator[bytes]:
        """By the modulus: whoever has the private key of one exponent has that of all."""
        return (sha256(str(key.public_numbers().n).encode()).digest() for key in self._keys)

    def verify(self, header: str, body: bytes, now: int) -> None:
        found = _RSA.fullmatch(header)
        if found is None:
            raise BadSignature(f"{HEADER} is not t=…,rsa=…")
        signed = f"{found[1]}.".encode() + body
        given = [_decoded(each) for each in found[2][1:].removeprefix("rsa=").split(",rsa=")]
        if not any(self._fits(key, each, signed) for key in self._keys for each in given):
            raise BadSignature("the signature is another's, or of other bytes")
        if abs(now - int(found[1])) > WINDOW_S:
            raise BadSignature(f"it was signed more than {WINDOW_S} s from now")

    def _fits(self, key: RSAPublicKey, signature: bytes, signed: bytes) -> bool:
        try:
            key.verify(signature, signed, self._padding, SHA256())
        except InvalidSignature:
            return False
        return True


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BadSignature("the signature is not base64") from error


def public_key(pem: bytes) -> RSAPublicKey:
    """Raises ValueError for anything but an RSA key that is long enough."""
    key = load_pem_public_key(pem)
    if not isinstance(key, RSAPublicKey) or key.key_size < RSA_BITS_MIN:
        raise ValueError(f"not a public RSA key of at least {RSA_BITS_MIN} bits")
    return key


def sign(key: RSAPrivateKey, chosen: Padding, body: bytes, at: int) -> str:
    """The header's value, as a provider makes it."""
    scheme = (
        _PADDING[chosen] if chosen == "pkcs1v15" else padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH)
    )
    signature = key.sign(f"{at}.".encode() + body, scheme, SHA256())
    return f"t={at},rsa={base64.b64encode(signature).decode()}"
