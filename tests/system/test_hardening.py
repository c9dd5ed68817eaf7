"""What stands before a region's API, seen from outside, and what its processes write about it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.asking import send
from tests.system.conftest import Client, Deployment, running

PASSWORD, BEARER, SECRET = (
    "correct-horse-Xq7-canary",
    "cr_canaryCanaryCanary0123456789abcdefghijkl",
    "c0ffee" * 8,
)
NAME, EMAIL = "Zacharias Canarienvogel", "zacharias.canarienvogel@example.org"
PROVIDERS = [{"name": "acme", "secret": "acme.secret"}]


def raw(client: Client, request: bytes) -> bytes:
    """What is answered to bytes as they are, until the connection ends."""
    host, _, port = client.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        answered = b""
        while part := connection.recv(65_536):
            answered += part
    return answered


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/", None),
        ("GET", "/healthz", None),
        ("GET", "/v1/dashboard", None),
        ("GET", "/v1/players", None),
        ("GET", "/v1/nothing", None),
        ("DELETE", "/v1/players", None),
        ("POST", "/v1/players", b"{}"),
        ("POST", "/v1/players", b"{"),
        ("POST", "/v1/batch", b"{}"),
        ("POST", "/v1/games/nobody/bet", b"{}"),
        ("GET", "/v1/logs/eu/checkpoint", None),
        ("GET", "/openapi.json", None),
    ],
)
def test_every_answer_has_its_fields_whoever_makes_it(eu: Client, method: str, path: str, body: bytes | None) -> None:
    for token in (eu.tokens["operator"], "cr_wrong"):
        told = {"Authorization": f"Bearer {token}", "Idempotency-Key": f"{path} {token[:6]}"}
        headers = send(method, eu.url + path, body, told).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == ("public, max-age=1" if path.endswith("checkpoint") else "no-store")
        assert "server" not in headers


@pytest.mark.parametrize("path", ["/v1/players", "/v1/batch", "/v1/games/nobody/bet", "/v1/providers/nobody/callbacks"])
@pytest.mark.parametrize(
    "deep", [b"[" * 50_000, b'{"a":' * 10_000, b'{"items":[{"key":"k","path":"p","body":' + b"[" * 20_000]
)
def test_a_body_that_is_nested_without_end_is_the_callers_fault(eu: Client, path: str, deep: bytes) -> None:
    told = {"Authorization": f"Bearer {eu.tokens['operator']}", "Idempotency-Key": f"deep {path} {len(deep)}"}
    answer = send("POST", eu.url + path, deep, told)
    assert answer.status in (401, 422), answer


def test_a_request_that_is_cut_short_in_its_head_or_its_form_gets_a_problem(eu: Client) -> None:
    answered = raw(eu, b"nonsense\r\n\r\n")
    assert b" 400 " in answered.split(b"\r\n")[0]
    assert json.loads(answered.partition(b"\r\n\r\n")[2])["code"] == "malformed"


def test_no_process_writes_a_password_a_token_a_secret_or_a_name(tmp_path: Path) -> None:
    (tmp_path / "providers.json").write_text(json.dumps(PROVIDERS))
    (tmp_path / "acme.secret").write_text(SECRET)
    with running(tmp_path, ("eu",)) as deployment:
        _say_everything(deployment)
        tokens = list(deployment.local.tokens.values())
    planted = [PASSWORD, BEARER, SECRET, NAME, EMAIL, *tokens]
    logs = sorted(tmp_path.rglob("*.log"))
    assert len(logs) >= 5
    assert _found(logs, planted) == []
    (tmp_path / "planted.log").write_text(f'{{"event": "said {BEARER}"}}\n')  # the search is able to find
    assert _found([*logs, tmp_path / "planted.log"], planted) == [("planted.log", BEARER)]


def _say_everything(deployment: Deployment) -> None:
    eu = deployment.clients["eu"]
    player = eu.register(name=NAME, email=EMAIL)
    deployment.caught_up()
    assert eu.found(email=EMAIL) == [player]
    assert eu.get(f"/v1/players/{player}").status == 200
    assert eu.get(f"/v1/players?email={EMAIL}").problem() == (400, "personal_in_address")
    wrong = {"Authorization": f"Bearer {BEARER}", "Cookie": f"__Host-countroom={BEARER}", "X-CSRF-Token": BEARER}
    for body in ({"email": EMAIL, "password": PASSWORD}, {"email": 5, "password": PASSWORD}, {"password": PASSWORD}):
        send("POST", f"{eu.url}/v1/signin/password", json.dumps(body).encode(), {"Content-Type": "application/json"})
    send("POST", f"{eu.url}/v1/players", json.dumps({"name": NAME, "token": BEARER}).encode(), wrong)
    send("GET", f"{eu.url}/v1/players?email={EMAIL}&token={BEARER}", None, wrong)
    send("POST", f"{eu.url}/v1/providers/acme/callbacks", NAME.encode(), {"Countroom-Signature": f"t=1,v1={SECRET}"})
    raw(eu, b"GET /" + BEARER.encode() + b" \x00HTTP/1.1\r\nauthorization: Bearer " + BEARER.encode() + b"\r\n\r\n")
    eu.post(f"/v1/players/{player}/profile", {"street": NAME, "unknown": EMAIL})


def _found(files: list[Path], planted: list[str]) -> list[tuple[str, str]]:
    return [(file.name, each) for file in files for each in planted if each.encode() in file.read_bytes()]
