"""Erasure, carried out and said so by the region that has done it: on a real log and vault."""

from __future__ import annotations

from typing import Any

import pytest

from domain.kernel import PlayerId
from domain.vaults import KeysDestroyed
from eventstore.record import Recorded
from eventstore.vault import Vault
from reactions.erasing import ANEW_S, Erasing
from tests.commands.house import CODEC
from tests.reactions.people import account, erased, says_erased, with_a_vault
from tests.reactions.region import Region


@pytest.fixture
async def region(region: Region) -> Region:
    return await with_a_vault(region)


def erasing(region: Region, **more: Any) -> Erasing:
    vault: Any = region.vault
    run = region.process.decider.run
    return Erasing("eu", region.pool, CODEC, vault, run, clock=lambda: region.now, **more)


def said(region: Region) -> list[KeysDestroyed]:
    return [event for event in region.events("region-eu-vault") if isinstance(event, KeysDestroyed)]


def entry_of(region: Region, tag: str) -> Recorded:
    read = [CODEC.decode(entry) for entry in region.ledger.entries()]
    return next(each for each in read if each.body.type == tag)


def left(region: Region, player: PlayerId) -> int:
    counted = """
        SELECT (SELECT count(*) FROM vault.data_key WHERE subject = %s) + (SELECT count(*) FROM vault.blind_index WHERE subject = %s)"""
    suffix = player.removeprefix("player_")
    return int(region.ledger.sql(counted, suffix, suffix)[0][0])


async def test_a_region_says_once_that_nothing_is_left_of_an_erased_player(region: Region) -> None:
    anna, ben = await account(region, email="a@example.org"), await account(region, email="b@example.org")
    reaction = erasing(region)
    await reaction.step()
    assert said(region) == []
    says_erased(region, anna)
    for _ in range(2):
        await reaction.step()
    await erasing(region).step()
    key = entry_of(region, "player.erased").event.key  # type: ignore[attr-defined]
    assert said(region) == [KeysDestroyed(anna, key)]
    assert (left(region, anna), left(region, ben) > 0) == (0, True)
    entry = entry_of(region, "vault.keys_destroyed")
    assert entry.body.cause == entry_of(region, "player.erased").body.id
    assert entry.body.stream == "region-eu-vault_" + anna.removeprefix("player_")


async def test_what_was_destroyed_by_a_process_that_died_then_is_said_by_the_next(region: Region) -> None:
    players = [await account(region, email=f"{n}@example.org") for n in range(3)]
    for player in players:
        await erased(region, player)
    assert said(region) == []
    await erasing(region).step()
    assert [each.player for each in said(region)] == players


async def test_it_is_not_said_while_anything_is_left(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    """An erasure that arrives just after the keys of others were destroyed."""
    anna = await account(region, email="a@example.org")
    says_erased(region, anna)
    reaction = erasing(region)

    async def too_early(_self: Vault, *, anew: bool = False) -> int:
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(Vault, "apply_erasures", too_early)
        await reaction.step()
        region.ledger.sql("DELETE FROM vault.data_key")
        await reaction.step()
    assert left(region, anna) > 0, "a word"
    assert said(region) == []
    await reaction.step()
    assert [each.player for each in said(region)] == [anna]


async def test_what_is_restored_beside_a_running_log_goes_within_a_quarter_of_an_hour(region: Region) -> None:
    anna = await account(region, email="a@example.org")
    backup = region.ledger.sql("SELECT id, subject, wrapped, wrapped_by FROM vault.data_key")
    says_erased(region, anna)
    at = 0.0
    reaction = erasing(region, elapsed=lambda: at)
    await reaction.step()
    region.ledger.sql(
        "INSERT INTO vault.data_key (id, subject, wrapped, wrapped_by) VALUES (%s, %s, %s, %s)", *backup[0]
    )
    at = ANEW_S - 1
    await reaction.step()
    assert left(region, anna) == 1
    at = ANEW_S
    await reaction.step()
    assert left(region, anna) == 0
    assert len(said(region)) == 1
