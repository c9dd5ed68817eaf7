"""The file that says who our providers are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from providers.known import ProvidersUnreadable, load

SECRET = "00" * 16


def written(folder: Path, *lines: object, secret: str = SECRET) -> Path:
    (folder / "secret").write_text(secret + "\n")
    file = folder / "providers.json"
    file.write_text(json.dumps(lines))
    return file


def test_providers_are_known_by_name_with_their_secret(tmp_path: Path) -> None:
    known = load(written(tmp_path, {"name": "acme", "secret": "secret", "url": "https://psp.example/payouts"}))
    assert (known["acme"].secret, known["acme"].url) == (bytes(16), "https://psp.example/payouts")
    assert SECRET not in repr(known)
    assert repr(bytes(16)) not in repr(known)


def test_a_provider_speaks_of_payments_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    ident = {"name": "ident", "secret": "secret", "speaks": ["kyc"]}
    known = load(written(tmp_path, {"name": "acme", "secret": "secret"}, ident))
    assert (known["acme"].speaks, known["ident"].speaks) == ({"payments"}, {"kyc"})


def test_without_a_file_nobody_is_known() -> None:
    assert load(None) == {}


@pytest.mark.parametrize(
    ("lines", "secret"),
    [
        ([{"name": "Acme", "secret": "secret"}], SECRET),
        ([{"name": "acme", "secret": "nowhere"}], SECRET),
        ([{"name": "acme", "secret": "secret"}], "00" * 15),
        ([{"name": "acme", "secret": "secret"}], "not hex"),
        ([{"name": "acme", "secret": "secret", "url": "ftp://psp.example"}], SECRET),
        ([{"name": "acme", "secret": "secret"}] * 2, SECRET),
        ([{"name": "acme", "secret": "secret", "speaks": ["gossip"]}], SECRET),
        ([{"name": "acme", "secret": "secret", "colour": "red"}], SECRET),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, lines: list[object], secret: str) -> None:
    with pytest.raises(ProvidersUnreadable, match=str(tmp_path)):
        load(written(tmp_path, *lines, secret=secret))
