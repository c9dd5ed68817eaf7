"""A region that joins: what it owns, whose signatures count, and how the others are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import joining, settings
from app.heads import make_keys, read_policy
from app.local import _founders
from app.settings import Settings, SettingsError


def of(region: str, regions: tuple[str, ...], folder: Path, *joined: str) -> Settings:
    return Settings(
        deployment="test",
        region=region,
        regions=regions,
        postgres="postgresql://nowhere",
        redis="redis://nowhere",
        nats="nats://nowhere",
        nats_seeds=folder,
        api_host="127.0.0.1",
        api_port=1,
        region_key=folder,
        fingerprint_key=folder,
        tokens=folder,
        peers={},
        signer=folder / region / "signer",
        witness=folder / region / "witness",
        policy=folder / "trust.policy",
        joined=joined,
    )


def test_shares_stay_what_they_were_when_a_region_joins(tmp_path: Path) -> None:
    two, three = (of("eu", regions, tmp_path, *regions[2:]) for regions in (("eu", "us"), ("eu", "us", "ap")))
    assert [three.partitions_of(each) for each in ("eu", "us")] == [two.partitions_of(each) for each in ("eu", "us")]
    assert len(three.partitions_of("ap")) == 0


def test_processes_are_told_who_has_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = of("ap", ("eu", "us", "ap"), tmp_path, "ap")
    tmp_path.chmod(0o700)
    for folder in ("signer", "witness"):
        (tmp_path / "ap" / folder).mkdir(mode=0o700, parents=True)
    for name, value in told.environment().items():
        monkeypatch.setenv(name, value)
    assert settings.from_environment() == told
    monkeypatch.setenv("COUNTROOM_JOINED", "se")
    with pytest.raises(SettingsError, match="COUNTROOM_JOINED"):
        settings.from_environment()


def test_the_regions_with_which_a_folder_began_are_its_founders(tmp_path: Path) -> None:
    assert _founders(tmp_path, ["eu", "us"]) == ["eu", "us"]
    for region in ("eu", "us"):
        (tmp_path / region).mkdir()
    assert _founders(tmp_path, ["eu", "us", "ap"]) == ["eu", "us"]
    (tmp_path / "founders.json").write_text('["eu"]')
    assert _founders(tmp_path, ["eu", "us", "ap"]) == ["eu"]


def test_the_policy_names_a_region_that_joined_and_counts_it(tmp_path: Path) -> None:
    first = make(tmp_path, "eu", "us")
    assert make(tmp_path, "eu", "us") == first
    make(tmp_path, "eu", "us", "ap")
    policy = read_policy(tmp_path / "trust.policy")
    assert [each.name for each in policy.witnesses] == ["eu", "us", "ap"]
    assert len(policy.logs) == 3
    assert policy.is_quorum([policy.witnesses[2].key])


def test_to_a_policy_that_somebody_changed_keys_are_added_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "trust.policy"
    made = make(tmp_path, "eu", "us")
    file.write_text("# ours\n" + made)
    assert make(tmp_path, "eu", "us") == "# ours\n" + made
    extended = make(tmp_path, "eu", "us", "ap")
    assert extended.startswith("# ours\n" + made)
    assert make(tmp_path, "eu", "us", "ap") == extended
    policy = read_policy(file)
    assert len(policy.logs) == 3
    assert not policy.is_quorum([policy.witnesses[2].key])


def test_who_waits_is_told_how_far_each_log_is() -> None:
    far = {"eu": joining._Far(250, 0), "us": joining._Far(90, 40), "ap": joining._Far(7, 7)}
    assert list(joining._lines(far, {"eu": 1000, "us": 90, "ap": 7}, 2.0)) == [
        "eu: 250 of 1,000 entries (25 %), 125/s",
        "us: all 90 entries, to be witnessed",
        "ap: all 7 entries, witnessed",
    ]


def make(folder: Path, *regions: str) -> str:
    make_keys([of(each, regions, folder, *regions[2:]) for each in regions])
    return (folder / "trust.policy").read_text()
