"""
A provider of identities that an attacker has in hand, but for its key: it says in a token whatever an attack wants it to say.

What a provider that keeps the rules does is tested against a certified one (tests/app/test_single_sign_on.py); here somebody
forges. The forms are those of RFC 8725 (JSON Web Token Best Current Practices), 2, and of OpenID Connect Core 1.0, 3.1.3.7.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

NAME = "office"
CLIENT = "countroom"
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_KID = "k1"

Claims = dict[str, Any]
Forge = Callable[["Issuer", Claims], str]
"""What is sent in place of the token with these claims."""


class _Code(NamedTuple):
    challenge: str
    token: str


class Issuer:
    """Listens on a port of this machine while it is used as a context."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.secret = secrets.token_urlsafe(24)
        self._codes: dict[str, _Code] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def told(self, secret_file: str) -> dict[str, Any]:
        """As COUNTROOM_OIDC has it."""
        return {
            "name": NAME,
            "issuer": self.address,
            "client_id": CLIENT,
            "client_secret_file": secret_file,
            "roles": {"payments-team": "payments"},
            "second_factor": {"amr": ["mfa"]},
        }

    # What it says

    def claims(self, subject: str, **more: Any) -> Claims:
        now = int(time.time())
        said = {"iss": self.address, "aud": CLIENT, "sub": subject, "iat": now, "exp": now + 300, **more}
        return {name: value for name, value in said.items() if value is not None}

    def code(self, question: str, token: Callable[[str], str]) -> tuple[str, str]:
        """(code, state) of a question (the address to which the browser was sent); `token`: made of its nonce."""
        asked = parse_qs(urlsplit(question).query)
        code = secrets.token_urlsafe(16)
        self._codes[code] = _Code(asked["code_challenge"][0], token(asked["nonce"][0]))
        return code, asked["state"][0]

    def redeemed(self, code: str, verifier: str) -> str | None:
        """The token of a code, once, for who knows the verifier (RFC 7636)."""
        found = self._codes.pop(code, None)
        challenge = b64(hashlib.sha256(verifier.encode()).digest())
        return found.token if found and hmac.compare_digest(found.challenge, challenge) else None

    def jwk(self) -> dict[str, str]:
        numbers = self.key.public_key().public_numbers()
        length = (numbers.n.bit_length() + 7) // 8
        return {
            "kty": "RSA",
            "kid": _KID,
            "use": "sig",
            "alg": "RS256",
            "n": b64(numbers.n.to_bytes(length, "big")),
            "e": b64(numbers.e.to_bytes(3, "big")),
        }


def signed(issuer: Issuer, claims: Claims, *, by: rsa.RSAPrivateKey | None = None, **header: Any) -> str:
    """RS256, by the issuer's key or another one."""
    said = _parts({"alg": "RS256", "kid": _KID, "typ": "JWT", **header}, claims)
    signature = (by or issuer.key).sign(said, padding.PKCS1v15(), hashes.SHA256())
    return f"{said.decode()}.{b64(signature)}"


def unsigned(alg: str) -> Forge:
    """Nobody signs it, and it says so (RFC 8725, 2.1)."""
    return lambda _issuer, claims: _parts({"alg": alg, "kid": _KID}, claims).decode() + "."


def by_public_key(issuer: Issuer, claims: Claims) -> str:
    """Key-swapped: the public key, taken for the secret of an HMAC (RFC 8725, 2.1)."""
    said = _parts({"alg": "HS256", "kid": _KID}, claims)
    public = issuer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return f"{said.decode()}.{b64(hmac.digest(public, said, 'sha256'))}"


def by_client_secret(issuer: Issuer, claims: Claims) -> str:
    said = _parts({"alg": "HS256", "kid": _KID}, claims)
    return f"{said.decode()}.{b64(hmac.digest(issuer.secret.encode(), said, 'sha256'))}"


def by_stranger(issuer: Issuer, claims: Claims) -> str:
    return signed(issuer, claims, by=issuer.stranger)


def by_key_within(issuer: Issuer, claims: Claims) -> str:
    """The token brings its own key (RFC 8725, 2.9, and 3.10)."""
    numbers = issuer.stranger.public_key().public_numbers()
    n = b64(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big"))
    return signed(
        issuer, claims, by=issuer.stranger, kid="mine", jwk={"kty": "RSA", "n": n, "e": "AQAB", "kid": "mine"}
    )


def by_key_elsewhere(issuer: Issuer, claims: Claims) -> str:
    return signed(issuer, claims, by=issuer.stranger, kid="mine", jku=f"{issuer.address}/others")


def swapped(issuer: Issuer, claims: Claims) -> str:
    """Signature of one token, claims of another."""
    head, _, signature = signed(issuer, {**claims, "sub": "nobody"}).split(".")
    return f"{head}.{b64(json.dumps(claims).encode())}.{signature}"


def cut(issuer: Issuer, claims: Claims) -> str:
    return signed(issuer, claims).rpartition(".")[0] + "."


def typed(kind: str) -> Forge:
    return lambda issuer, claims: signed(issuer, claims, typ=kind)


FORGERIES: Mapping[str, Forge] = {
    "alg none": unsigned("none"),
    "alg nOnE": unsigned("nOnE"),
    "alg empty": unsigned(""),
    "HMAC by the public key": by_public_key,
    "HMAC by the client's secret": by_client_secret,
    "a stranger's key under the same name": by_stranger,
    "a key within the token": by_key_within,
    "a key elsewhere": by_key_elsewhere,
    "claims swapped": swapped,
    "signature cut off": cut,
}
"""By whom it was not signed."""


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _parts(header: Mapping[str, Any], claims: Claims) -> bytes:
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}".encode()


def _handler(issuer: Issuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            at = issuer.address
            if self.path.endswith("/openid-configuration"):
                self._answer(
                    {
                        "issuer": at,
                        "authorization_endpoint": f"{at}/authorize",
                        "token_endpoint": f"{at}/token",
                        "jwks_uri": f"{at}/jwks",
                    }
                )
            else:
                self._answer({"keys": [issuer.jwk()]})

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers.get("content-length", 0))).decode())
            token = issuer.redeemed(form.get("code", [""])[0], form.get("code_verifier", [""])[0])
            self._answer(
                {"id_token": token, "access_token": "x"} if token else {"error": "invalid_grant"}, 200 if token else 400
            )

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 — the library's name
            pass

        def _answer(self, told: Mapping[str, Any], status: int = 200) -> None:
            raw = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    return Handler
