"""What a region's name and index decide."""

from __future__ import annotations

from pathlib import Path

import pytest

from devstack import Given, Region, Stack


def region(name: str = "eu", index: int = 0, port_base: int = 8100, given: Given | None = None) -> Region:
    return Region(name=name, index=index, data=Path("/nowhere"), port_base=port_base, given=given or Given())


@pytest.mark.parametrize("name", ["eu", "eu.2", "us1", "us1.10"])
def test_a_region_is_named_by_a_word_and_perhaps_its_generation(name: str) -> None:
    assert region(name).name == name


@pytest.mark.parametrize(
    "name", ["", "EU", "eu-west", "eu_2", "2eu", "eu.0", "eu.02", "eu.", "eu.2.3", "../eu", "eu\n"]
)
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a region is named like"):
        region(name)


def test_nats_knows_a_region_by_a_name_without_dots() -> None:
    assert region("eu.2").token == "EU_2"


def test_the_second_regions_ports_begin_a_hundred_above_the_first() -> None:
    ports = region("us", index=1).ports
    assert (ports.api, ports.postgres, ports.nats, ports.leaf, ports.valkey) == (8200, 8201, 8202, 8203, 8204)


def test_ports_beyond_the_last_one_are_refused() -> None:
    with pytest.raises(ValueError, match="no ports"):
        region(port_base=65_534)


def test_a_given_server_needs_no_port_here() -> None:
    given = Given(postgres="postgresql://x/y", redis="redis://x")
    assert list(region(given=given).wanted_ports()) == [8100, 8102, 8103]


def test_a_given_nats_server_comes_with_its_seeds() -> None:
    with pytest.raises(ValueError, match="seeds"):
        Given(nats="nats://x")


def test_a_stack_needs_different_regions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different regions"):
        Stack(data=tmp_path, regions=["eu", "eu"])


def test_servers_cannot_be_given_for_a_region_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not among the regions"):
        Stack(data=tmp_path, regions=["eu"], given={"us": Given(redis="redis://x")})
