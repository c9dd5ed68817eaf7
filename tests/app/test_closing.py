"""What a closed log, and the one that goes on with it, are told and may do: settings, policy, files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app import bootstrap, checking, closings, heads, local
from app.closings import Closing
from app.heads import name_next, refuse_unnamed
from app.settings import Settings, SettingsError, from_environment
from domain.logs import Continued, Stranded
from eventstore.note import SigningKey
from replication.config import Config
from tests.eventstore.test_closing import EU_2, closed, second, wallet
from tests.ledger import EU, US, Ledger, opening
from verifier.note import Kind, key_of
from verifier.policy import Policy, parse_policy

CLOSED = Closing(Continued("eu", 14, "ab" * 32), Stranded(10, 12, "cd" * 32))


def keys(region: str) -> tuple[str, str]:
    log = SigningKey.generate(f"countroom.test/{region}")
    witness = SigningKey.generate(f"countroom.test/{region}/witness")
    return log.vkey, str(key_of(witness.name, Kind.COSIGNATURE, witness.key))


def settings(folder: Path, region: str = "eu.2", **more: object) -> Settings:
    told = Settings(
        deployment="test",
        region=region,
        regions=(region, "us"),
        postgres="",
        redis="",
        nats="",
        nats_seeds=folder,
        api_host="127.0.0.1",
        api_port=1,
        region_key=folder / "region.key",
        fingerprint_key=folder / "fingerprint.key",
        tokens=folder / "tokens.json",
        peers={},
    )
    return told._replace(**more)  # type: ignore[arg-type]


def test_the_next_log_has_the_place_of_the_closed_one_and_both_are_held(tmp_path: Path) -> None:
    told = settings(tmp_path, closed=("eu",))
    assert told.logs == ("eu.2", "us", "eu")
    assert told.partitions_of(told.region) == range(128)
    assert told.partitions_of("us") == range(128, 256)


def test_what_is_told_in_the_environment_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = settings(tmp_path, closed=("eu",), continues=tmp_path / "continues")
    for name, value in told._replace(postgres="p", redis="r", nats="n").environment().items():
        monkeypatch.setenv(name, value)
    found = from_environment()
    assert (found.closed, found.continues) == (told.closed, told.continues)
    monkeypatch.setenv("COUNTROOM_CLOSED", "us")
    with pytest.raises(SettingsError, match="none of COUNTROOM_REGIONS"):
        from_environment()


def test_a_log_with_a_number_is_opened_with_what_it_was_told_or_not_at_all(tmp_path: Path) -> None:
    assert closings.told(settings(tmp_path, "eu")) is None
    with pytest.raises(SettingsError, match="COUNTROOM_CONTINUES"):
        closings.told(settings(tmp_path))
    told = settings(tmp_path, continues=tmp_path)
    with pytest.raises(SettingsError, match="has not finished"):
        closings.told(told)
    (tmp_path / closings.TOLD).write_bytes(closings.encode(CLOSED))
    assert closings.told(told) == CLOSED
    with pytest.raises(SettingsError, match="does not go on"):
        closings.told(told._replace(region="eu.3"))
    with pytest.raises(SettingsError, match="does not go on"):
        closings.told(told._replace(region="us"))
    body = bootstrap._opening(told).bodies[0]
    assert b'"partitions":[],"continues":{"log":"eu","position":14' in body
    assert b'"stranded":{"first":10,"last":12' in body


@pytest.mark.parametrize("without", [CLOSED, CLOSED._replace(stranded=None)])
def test_what_is_written_is_read_again(tmp_path: Path, without: Closing) -> None:
    assert closings.read(tmp_path) is None
    (tmp_path / closings.TOLD).write_bytes(closings.encode(without))
    assert closings.read(tmp_path) == without


async def test_the_signer_of_a_closed_log_is_not_opened(tmp_path: Path) -> None:
    signer = tmp_path / "signer"
    signer.mkdir()
    closings.refuse_closed(signer)
    (signer / closings.MARK).write_bytes(closings.encode(CLOSED))
    told = settings(tmp_path, "eu", signer=signer, policy=tmp_path / "policy")
    with pytest.raises(SettingsError, match="was closed"):
        await heads.checkpoint(told, Config("eu", "test", "", "", tmp_path), asyncio.Event())


def policy(*regions: str, rest: str) -> tuple[str, dict[str, tuple[str, str]]]:
    made = {region: keys(region) for region in regions}
    lines = [f"log {log}\nwitness {region} {witness}\n" for region, (log, witness) in made.items()]
    return "".join(lines) + rest, made


def quorum(policy_: Policy, *names: str) -> bool:
    return policy_.is_quorum(each.key for each in policy_.witnesses if each.name in names)


@pytest.mark.parametrize(
    ("rest", "needed"),
    [
        ("group regions any eu us\nquorum regions\n", [("eu.2",), ("eu",), ("us",)]),
        ("group regions all eu us\nquorum regions\n", [("eu.2", "us"), ("eu", "us")]),
        ("group two 2 eu us ap\nquorum two\n", [("eu.2", "us"), ("eu", "ap"), ("us", "ap")]),
        ("quorum eu\n", [("eu",), ("eu.2",)]),
    ],
)
def test_in_a_policy_either_key_of_the_region_counts_and_both_are_one(rest: str, needed: list[tuple[str, ...]]) -> None:
    text, made = policy("eu", "us", "ap", rest=rest)
    log, witness = keys("eu.2")
    found = parse_policy((changed := name_next(text, "eu", "eu.2", log, witness)).encode())
    assert {each.key.name for each in found.logs} == {f"countroom.test/{each}" for each in (*made, "eu.2")}
    for names in needed:
        assert quorum(found, *names), names
    if "any" not in rest and rest != "quorum eu\n":
        assert not quorum(found, "eu", "eu.2"), "one region counts as two"
    assert name_next(changed, "eu", "eu.2", log, witness) == changed
    third = name_next(changed, "eu.2", "eu.3", *keys("eu.3"))
    again = parse_policy(third.encode())
    for names in needed:
        assert quorum(again, *("eu.3" if each == "eu.2" else each for each in names)), names


def test_a_policy_without_a_quorum_names_the_keys_alone() -> None:
    text, _ = policy("eu", rest="quorum none\n")
    log, witness = keys("eu.2")
    found = parse_policy(name_next(text, "eu", "eu.2", log, witness).encode())
    assert len(found.logs) == len(found.witnesses) == 2
    assert quorum(found)


def test_a_log_that_goes_on_with_a_closed_one_is_copied_only_if_the_policy_names_its_key() -> None:
    text, _ = policy("eu", "us", rest="quorum none\n")
    found = parse_policy(text.encode())
    refuse_unnamed(found, ["countroom.test/us"])
    with pytest.raises(SettingsError, match=r"eu\.2 goes on with a closed log, and the policy names no key"):
        refuse_unnamed(found, ["countroom.test/eu.2"])


def test_a_closed_log_is_not_run_under_its_name_and_its_place_goes_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "founders.json").write_text('["eu","us"]')
    local.close_log(tmp_path, "eu")
    local.close_log(tmp_path, "eu")
    assert local.closed_logs(tmp_path) == ("eu",)
    assert (tmp_path / "founders.json").read_text() == '["eu.2","us"]'
    with pytest.raises(local.LogClosed, match=r"goes on as eu\.2"), local.running(tmp_path, ["eu", "us"], 8100):
        pass


def test_a_copy_with_stranded_entries_verifies_and_tells_of_them(migrated: str) -> None:
    """us's database: eu came to it with an entry more than counts, behind the one with which eu.2 goes on."""
    ledger, eu = Ledger(migrated), closed(wallet(5, 2))
    for name, origin, own in (("us", US, True), ("eu", EU, False), ("eu.2", EU_2, False)):
        ledger.sql("SELECT ledger.register_log(%s, %s, %s)", name, origin, own)
    assert ledger.append(opening(US, (128, 255))) == [0]
    ledger.append_copy(eu[:2], log=2)
    ledger.append_copy(second(eu[1], wallet(5, 2, epoch=2)), log=3)
    ledger.append_copy(eu[2:], log=2)
    found = checking.verify([migrated], "", None, lambda *_: None)
    assert found.status == checking.INTACT, found.to_text()
    assert "closed behind position 2, goes on as eu.2; 1 entry behind it stranded" in found.to_text()
    ledger.sql(
        "SET session_replication_role = replica; UPDATE ledger.entry SET stream = NULL, version = NULL WHERE log = 2 AND position = 2"
    )
    assert checking.verify([migrated], "", None, lambda *_: None).status == checking.NOT_INTACT
    ledger.close()
