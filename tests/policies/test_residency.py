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


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "[]",
            '{"DE": "eu"}',
            '{"DE": ["xx"]}',
            '{"DE": []}',
            '{"DE": ["eu", "mars"]}',
            '{"DE": {"regions": ["eu"]}}',
        ),
        *(
            f'{{"DE": {{"regions": ["eu"], "partitions": {ranges}}}}}'
            for ranges in (
                "[]",
                "[[5, 4]]",
                "[[0, 63], [200, 5]]",
                "[[0, 256]]",
                "[[-1, 3]]",
                "[[1]]",
                "[1, 2]",
                '["0-63"]',
            )
        ),
        '{"DE": {"regions": ["mars"], "partitions": [[0, 63]]}}',
        '{"DE": {"regions": [], "partitions": [[0, 63]]}}',
    ],
)
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


# Which partitions new players are given

SHARES = {"eu.2": range(128), "us": range(128, 256)}


def test_where_any_region_may_hold_the_keys_new_players_are_given_any_partition() -> None:
    assert list(EVERYWHERE.group("DE")) == list(range(256))
    assert list(load(None, SHARES, SHARES).group("DE")) == list(range(256))


def test_new_players_are_given_the_partitions_of_the_regions_that_may_hold_their_keys() -> None:
    here = HERE._replace(shares=SHARES)
    assert list(here.group("DE-BY")) == list(range(128))
    assert list(here.group("US-NJ")) == list(range(128, 256))
    assert list(here.group("US-PA")) == list(range(256))


def test_the_order_in_which_regions_are_named_changes_nothing() -> None:
    turned = Residency({"*": ("us", "eu")}, shares=dict(reversed(SHARES.items())))
    assert list(turned.group("DE")) == list(HERE._replace(shares=SHARES).group("US-PA"))


def test_partitions_may_be_stated_and_must_be_where_only_joined_regions_may_hold_the_keys(tmp_path: Path) -> None:
    file = tmp_path / "residency.json"
    file.write_text('{"AU": {"regions": ["ap"], "partitions": [[64, 127], [100, 130]]}, "*": ["eu"]}')
    stated = load(file, [*SHARES, "ap"], SHARES)
    assert list(stated.group("AU-NSW")) == list(range(64, 131))
    assert (stated.of("AU"), list(stated.group("DE"))) == (("ap",), list(range(128)))
    file.write_text('{"AU": ["ap"], "*": ["eu"]}')
    with pytest.raises(ResidencyUnreadable, match="AU: ap joined later, and owned no partitions at the beginning"):
        load(file, [*SHARES, "ap"], SHARES)
    assert load(file, [*SHARES, "ap"]).of("AU") == ("ap",)


def test_stated_partitions_are_part_of_the_policy(tmp_path: Path) -> None:
    file = tmp_path / "residency.json"
    digests = set()
    for said in (
        '["eu"]',
        '{"regions": ["eu"], "partitions": [[0, 63]]}',
        '{"regions": ["eu"], "partitions": [[0, 62]]}',
    ):
        file.write_text(f'{{"DE": {said}}}')
        digests.add(load(file, ["eu"]).digest)
    assert len(digests) == 3
