from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registers import known
from registers.known import Known, RegistersUnreadable
from tests.registers.register import SECRET, Register

LINE = {"register": "CRUKS", "url": "https://register.example/ask", "secret": "register.secret"}


def test_without_a_file_the_house_was_told_of_no_registers_which_is_not_the_same_as_of_none(tmp_path: Path) -> None:
    assert known.load(None) is None
    file = tmp_path / "registers.json"
    file.write_text("[]")
    assert known.load(file) == {}


def test_a_register_is_known_by_its_name_and_its_secret_is_not_shown(tmp_path: Path) -> None:
    file = Register(url="https://register.example/ask").write_file(tmp_path, jurisdictions=["AT"])
    found = known.load(file)
    assert found == {"CRUKS": Known("CRUKS", SECRET, "https://register.example/ask", frozenset({"AT"}))}
    assert SECRET.hex() not in repr(found)
    assert repr(SECRET) not in repr(found)


@pytest.mark.parametrize(
    "lines",
    [
        "{}",
        [{**LINE, "url": "ftp://register.example"}],
        [{**LINE, "secret": "nowhere"}],
        [{**LINE, "register": ""}],
        [{**LINE, "password": "x"}],
        [LINE, LINE],
    ],
)
def test_what_does_not_say_who_is_asked_is_refused(tmp_path: Path, lines: Any) -> None:
    (tmp_path / "register.secret").write_text(SECRET.hex())
    file = tmp_path / "registers.json"
    file.write_text(lines if isinstance(lines, str) else json.dumps(lines))
    with pytest.raises(RegistersUnreadable):
        known.load(file)


@pytest.mark.parametrize("secret", ["", "no hex", "00" * 15])
def test_a_secret_is_long_enough(tmp_path: Path, secret: str) -> None:
    file = Register(url="https://register.example/ask").write_file(tmp_path)
    (tmp_path / "register.secret").write_text(secret)
    with pytest.raises(RegistersUnreadable):
        known.load(file)
