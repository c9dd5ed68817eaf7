"""Which regions may hold whose keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.residency import EVERYWHERE, Residency, ResidencyUnreadable, load

HERE = Residency({"DE": ("eu",), "US-NJ": ("us",), "*": ("eu", "us")})


def test_a_part_of_a_country_follows_the_country_unless_it_is_named() -> None:
    assert HERE.of("DE-BY") == ("eu",)
    assert HERE.of("US-NJ") == ("us",)
    assert HERE.of("US-PA") == ("eu", "us")


def test_a_successor_of_a_log_is_in_the_same_region() -> None:
    assert HERE.allows("DE", "eu.2")
    assert not HERE.allows("DE", "us.2")


def test_without_a_file_every_region_may() -> None:
    assert load(None, ["eu"]) == EVERYWHERE
    assert EVERYWHERE.allows("DE", "us")


@pytest.mark.parametrize("text", ["", "[]", '{"DE": "eu"}', '{"DE": ["xx"]}', '{"DE": []}', '{"DE": ["eu", "mars"]}'])
def test_a_file_that_cannot_be_followed_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "residency.json"
    file.write_text(text)
    with pytest.raises(ResidencyUnreadable, match=r"residency\.json"):
        load(file, ["eu", "us.2"])


def test_what_the_file_says_holds(tmp_path: Path) -> None:
    file = tmp_path / "residency.json"
    file.write_text('{"DE": ["eu"]}')
    assert load(file, ["eu", "us"]).of("DE") == ("eu",)
    assert load(file, ["eu", "us"]).digest != EVERYWHERE.digest
