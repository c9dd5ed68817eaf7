"""Secrets and people's addresses never stand in a process's own log, whoever hands them to the logger."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.typing import EventDict

from access.tokens import new_token
from app.redacting import HIDDEN, hidden, redact

SECRETS = {
    "a token of ours": new_token(),
    "a token that was issued": "crt_" + new_token()[3:],
    "an invitation": "cri_" + new_token()[3:],
    "an Authorization": "Bearer abcdefghijklmnop",
    "a session": base64.urlsafe_b64encode(b"\xfb" + bytes(range(31))).rstrip(b"=").decode(),
    "a cookie": "__Host-countroom=0123456789",
    "a seed of NATS": "SU" + "A2" * 28,
    "an age identity": "AGE-SECRET-KEY-1" + "Q" * 58,
    "a JWT": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.",
    "a PEM": Ed25519PrivateKey.generate()
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode(),
    "a password's hash": "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$aGFzaA",
    "an enrolment": "otpauth://totp/Countroom:ann?secret=JBSWY3DPEHPK3PXP",
    "somebody's address": "zebulon.quackenbush@example.org",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_text_is_written_without_the_secret_in_it(secret: str) -> None:
    assert secret not in hidden(f"before {secret} after")
    assert hidden(f"before {secret} after").startswith("before [")
    assert secret.strip() not in json.dumps(
        hidden({"list": [secret, {"deep": secret.encode()}], "error": ValueError(secret)})
    )


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("postgresql://shop:hunter2@db/countroom", f"postgresql://{HIDDEN}@db/countroom"),
        ("redis://:hunter2@cache:6379/0", f"redis://{HIDDEN}@cache:6379/0"),
        ("connection failed: password=hunter2 host=db", f"connection failed: {HIDDEN} host=db"),
        ("password = 'two words' host=db", f"{HIDDEN} host=db"),
        ("GET /?invitation=operator_7%3Acri_" + "a1" * 20, f"GET /?invitation=operator_7%3A{HIDDEN}"),
    ],
)
def test_where_a_server_is_may_be_said_and_its_password_not(text: str, kept: str) -> None:
    assert hidden(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "player_01ka7g0000e00800000000001a",
        "eu/1042/9f86d081884c7d65",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "the database does not answer: connection to 127.0.0.1:5432 refused",
        "2026-11-22T22:44:59.123456Z",
        "countroom.acme/eu+ab12cd34+AUb0",
        "GET /v1/players/player_01ka7g0000e00800000000001a/limits/deposit",
    ],
)
def test_what_is_no_secret_is_written_as_it_is(text: str) -> None:
    assert hidden(text) == text


def test_what_is_called_a_secret_is_not_written_whatever_it_looks_like() -> None:
    event: EventDict = {
        "event": "x",
        "token": "abc",
        "client_secret": 5,
        "tokens": ["a"],
        "told": {"password": "p"},
        "seed": "",
    }
    assert redact(None, "info", event) == {
        "event": "x", "token": HIDDEN, "client_secret": HIDDEN, "tokens": HIDDEN, "told": {"password": HIDDEN}, "seed": "",
    }  # fmt: skip


_SERVICE = """
import logging, sys, structlog
from app.settings import Settings
from app.workers import _log_as_lines
from pathlib import Path
secret = sys.stdin.read()
nowhere = Path("/nowhere")
_log_as_lines(Settings("test", "eu", ("eu",), "", "", "", nowhere, "127.0.0.1", 1, nowhere, nowhere, nowhere, {}), ["api"])
log = structlog.get_logger("ours")
log.warning("said " + secret, said=secret, within={"deep": [secret]})
try:
    raise ValueError(secret)
except ValueError:
    log.exception("failed")
    logging.getLogger("theirs").exception("failed: %s", secret)
"""


def test_the_log_of_a_service_has_no_secret_also_in_exceptions_and_in_what_libraries_say() -> None:
    secret = "\n".join(each.replace("\n", " ") for each in SECRETS.values())
    ran = subprocess.run(
        [sys.executable, "-c", _SERVICE],
        input=secret,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ},
        check=True,
    )
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [line["event"].partition(" ")[0].rstrip(":") for line in lines] == ["said", "failed", "failed"]
    assert [name for name, each in SECRETS.items() if each in ran.stderr or each.replace("\n", " ") in ran.stderr] == []
    assert lines[0]["said"].count(HIDDEN) >= len(SECRETS) - 1


def test_without_the_processor_the_same_search_finds_them() -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[structlog.processors.JSONRenderer()]))
    log = logging.getLogger("tests.bare")
    log.addHandler(handler)
    log.warning(SECRETS["a token of ours"])
    assert SECRETS["a token of ours"] in written.getvalue()
