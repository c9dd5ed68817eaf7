"""The file that says who our providers are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from providers.known import ProvidersUnreadable, load

SECRET = "00" * 16
ACME = {"name": "acme", "secret": "secret"}
OTHER = {"name": "other", "secret": "long"}
GAMES = {"signature": "hmac", "secrets": ["secret"]}


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
    ident = {"name": "ident", "secret": "long", "speaks": ["kyc"]}
    (tmp_path / "long").write_text(SECRET[2:] + "01")
    known = load(written(tmp_path, {"name": "acme", "secret": "secret"}, ident))
    assert (known["acme"].speaks, known["ident"].speaks) == ({"payments"}, {"kyc"})


def test_without_a_file_nobody_is_known() -> None:
    assert load(None) == {}


@pytest.mark.parametrize(
    ("lines", "secret", "said"),
    [
        (
            [{"name": "Acme", "secret": "secret"}],
            SECRET,
            r"{file}: Expected `str` matching regex .* - at `\$\[0\].name`",
        ),
        ([{"name": "acme"}], SECRET, r"{file}: acme has no secret - at `\$\[0\].secret`"),
        (
            [{"name": "acme", "secret": "no"}],
            SECRET,
            r"{file}: .*/no cannot be read: No such file .* - at `\$\[0\].secret`",
        ),
        ([OTHER, ACME], "00" * 15, r"{file}: the secret in .*/secret has 15 bytes, and needs 16 - at `\$\[1\].secret`"),
        ([ACME], "topsecret", r"{file}: the secret in .*/secret is not written in hex - at `\$\[0\].secret`"),
        ([{**ACME, "url": "ftp://psp.example"}], SECRET, r"{file}: Expected `str` matching .* - at `\$\[0\].url`"),
        ([ACME, ACME], SECRET, r"{file}: acme is named twice - at `\$\[1\].name`"),
        ([{**ACME, "speaks": ["gossip"]}], SECRET, r"{file}: Invalid enum value 'gossip' - at `\$\[0\].speaks\[0\]`"),
        ([ACME, OTHER], SECRET, r"{file}: other has a key of acme - at `\$\[1\]`"),
        ([ACME, OTHER], f"{SECRET}00", r"{file}: other has a key of acme - at `\$\[1\]`"),
        ([OTHER, {"name": "reel", "games": GAMES}], SECRET, r"{file}: reel has a key of other - at `\$\[1\]`"),
        ([{**ACME, "colour": "red"}], SECRET, r"{file}: Object contains unknown field `colour` - at `\$\[0\]`"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence_with_the_file_and_the_place(
    tmp_path: Path, lines: list[object], secret: str, said: str
) -> None:
    (tmp_path / "long").write_text(SECRET)
    file = written(tmp_path, *lines, secret=secret)
    with pytest.raises(ProvidersUnreadable) as refused:
        load(file)
    sentence = str(refused.value)
    assert re.fullmatch(said.replace("{file}", re.escape(str(file))), sentence)
    assert "topsecret" not in sentence
    assert SECRET not in sentence


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'[{"name": "acme",\n  "secret" "s"}]', "Expecting ':' delimiter: line 2 column 12"),
        (b"", "Expecting value: line 1 column 1"),
        (b'{"name": "acme"}', "Expected `array`, got `object`"),
        (b'[{"name": "\xff"}]', "is not text: invalid start byte at byte 11"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_a_file_that_is_no_json_says_where(tmp_path: Path, raw: bytes, said: str) -> None:
    file = tmp_path / "providers.json"
    file.write_bytes(raw)
    with pytest.raises(ProvidersUnreadable) as refused:
        load(file)
    assert str(refused.value).startswith(str(file))
    assert said in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "providers.json"
    with pytest.raises(ProvidersUnreadable) as refused:
        load(file)
    assert str(refused.value) == f"{file} cannot be read: No such file or directory"
