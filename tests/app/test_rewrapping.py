"""Changing a region's key: everything opens as before, with the new key alone, while others go on serving."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app import rewrapping
from app.rewrapping import RewrappingRefused, rotate
from domain.catalog import AGGREGATES
from domain.vaults import RegionKeyRotated
from eventstore import keyring, postgres
from eventstore.keyring import Keyring
from eventstore.record import Codec
from eventstore.rewrapping import ROLE, Left, Rewrapping, WrongKey
from eventstore.vault import CannotOpen, DataKey, Owed, RegionKey, Vault
from eventstore.writer import Unavailable
from tests.ledger import Ledger

WORDS = [("email", "anna@example.com"), ("name", "anna")]


class Region:
    """A region's vault as several processes use it."""

    def __init__(self, ledger: Ledger, file: Path, vault: Vault, other: Vault) -> None:
        self.ledger = ledger
        self.file = file
        self.vault = vault
        self.other = other
        self.keys: dict[str, DataKey] = {}

    async def keep(self, subject: str, vault: Vault | None = None, words: object = WORDS) -> None:
        key = self.vault.new_key(uuid.uuid4().bytes)
        await (vault or self.vault).keep([Owed(subject, key, words)])  # type: ignore[arg-type]
        self.keys[subject] = key

    async def opens(self, vault: Vault) -> bool:
        """Whether everything is found and opened."""
        commitments = {key.id: key.commitment for key in self.keys.values()}
        opened = await vault.keys(commitments) == {key.id: key for key in self.keys.values()}
        return opened and [await vault.find(*word) for word in WORDS] == [sorted(self.keys)] * len(WORDS)

    async def rotate(self) -> rewrapping.Rewrapped:
        return await rotate(self.ledger.dsn, "eu", self.file)

    def wrapped_by(self) -> set[str]:
        return {by for (by,) in self.ledger.sql("SELECT wrapped_by FROM vault.data_key")}

    def announced(self) -> list[RegionKeyRotated]:
        codec = Codec(AGGREGATES)
        read = [codec.decode(entry).event for entry in self.ledger.entries() if b"vault.key_rotated" in entry.body]
        return [event for event in read if isinstance(event, RegionKeyRotated)]


@pytest.fixture
async def region(ledger: Ledger, tmp_path: Path) -> AsyncIterator[Region]:
    file = tmp_path / "region.key"
    file.touch(0o600)
    file.write_text("11" * 32)
    async with postgres.pool(ledger.dsn, "countroom_writer", size=2) as pool:
        made = Region(ledger, file, Vault(pool, Keyring(file)), Vault(pool, Keyring(file)))
        for subject in "abcdefg":
            await made.keep(subject)
        yield made


@pytest.fixture
async def fresh(ledger: Ledger, region: Region) -> AsyncIterator[Vault]:
    """A process that has opened nothing yet."""
    async with postgres.pool(ledger.dsn, "countroom_writer", size=1) as pool:
        yield Vault(pool, Keyring(region.file))


async def test_after_a_rotation_everything_opens_with_the_new_key_and_nothing_with_the_old(
    region: Region, fresh: Vault
) -> None:
    old = RegionKey.from_file(region.file)
    before = region.ledger.sql("SELECT id, wrapped FROM vault.data_key")
    digests = {bytes(digest) for (digest,) in region.ledger.sql("SELECT digest FROM vault.blind_index")}
    done = await region.rotate()
    new = RegionKey.from_file(region.file)
    assert (done.old, done.new, done.keys) == (old.id, new.id, 7)
    assert region.announced() == [RegionKeyRotated(old.id, new.id, 7)]
    assert region.wrapped_by() == {new.id}
    assert await region.opens(region.vault)
    assert await region.opens(region.other)
    assert await region.opens(fresh)
    for id_, wrapped in region.ledger.sql("SELECT id, wrapped FROM vault.data_key"):
        with pytest.raises(CannotOpen):
            old.unwrap(str(id_), wrapped)
    for id_, wrapped in before:  # a backup of the vault
        with pytest.raises(CannotOpen):
            new.unwrap(str(id_), wrapped)
    assert not digests & {bytes(digest) for (digest,) in region.ledger.sql("SELECT digest FROM vault.blind_index")}
    assert old.digest(*WORDS[0]) in digests


async def test_the_old_key_is_overwritten_before_its_name_goes_away(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode, secret = region.file.stat().st_ino, region.file.read_text()
    seen = []
    unlink = Path.unlink

    def spied(self: Path, missing_ok: bool = False) -> None:
        seen.append((self.name, self.stat().st_ino, self.read_bytes()))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", spied)
    await region.rotate()
    assert seen == [("region.key.old", inode, bytes(64))]
    assert [path.name for path in region.file.parent.iterdir()] == ["region.key"]
    assert secret not in region.file.read_text()
    assert region.file.stat().st_mode & 0o777 == 0o600


async def test_others_keep_find_and_open_at_every_step(region: Region) -> None:
    old = RegionKey.from_file(region.file)
    new = Keyring(region.file).prepare()
    async with await postgres.connect(region.ledger.dsn, ROLE) as connection:
        work = Rewrapping(connection, old, new, batch=2)
        await work.begin()
        done = 1
        while done:
            assert await region.opens(region.vault)
            await region.keep(f"x{len(region.keys)}", region.other)  # it goes on serving
            assert await region.opens(region.other)
            done = await work.step()
        assert await work.left() == Left(0, 0)
    assert region.wrapped_by() == {new.id}


@pytest.mark.parametrize(
    "killed", ["prepare", "begin", "step 1", "step 5", "record", "link", "swap", "destroy", "destroyed"]
)
async def test_a_rotation_that_was_killed_goes_on_from_there(
    region: Region, fresh: Vault, killed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = RegionKey.from_file(region.file)
    monkeypatch.setitem(Rewrapping.__init__.__kwdefaults__, "batch", 2)
    with monkeypatch.context() as patch:
        _die(patch, killed)
        with pytest.raises(Killed):
            await region.rotate()
    assert await region.opens(region.vault)
    done = await region.rotate()
    assert await region.opens(region.vault)
    assert await region.opens(fresh)
    assert region.announced() == [RegionKeyRotated(old.id, done.new, 7)]
    assert done.new == RegionKey.from_file(region.file).id
    assert [path.name for path in region.file.parent.iterdir()] == ["region.key"]
    assert region.ledger.sql("SELECT id, destroyed IS NOT NULL FROM vault.region_key ORDER BY number") == [
        (old.id, True),
        (done.new, False),
    ]


class Killed(BaseException):
    """As a process is."""


def _die(patch: pytest.MonkeyPatch, killed: str) -> None:  # noqa: C901 — one case a place
    """Stop right after that."""
    what, _, count = killed.partition(" ")
    left = [int(count or 1)]

    async def dies_later(self: Rewrapping) -> int | None:
        done: int | None = await original(self)
        left[0] -= 1
        if not left[0]:
            raise Killed
        return done

    def dies(self: Keyring) -> None:
        original(self)
        raise Killed

    def dies_before(*_: object) -> None:
        raise Killed

    async def recorded(*arguments: object) -> None:
        await original(*arguments)
        raise Killed

    match what:
        case "begin" | "step":
            original = getattr(Rewrapping, what)
            patch.setattr(Rewrapping, what, dies_later)
        case "prepare" | "swap":
            original = getattr(Keyring, what)
            patch.setattr(Keyring, what, dies)
        case "record":
            original = rewrapping._record
            patch.setattr(rewrapping, "_record", recorded)
        case "link":
            patch.setattr(Path, "replace", _replace_but_the_key)
        case "destroy":
            patch.setattr(keyring.Path, "unlink", dies_before)
        case "destroyed":
            patch.setattr(Rewrapping, "destroyed", dies_before)


def _replace_but_the_key(self: Path, target: Path) -> Path:
    if target.name == "region.key":
        raise Killed
    self.rename(target)
    return target


async def test_a_second_rotation_lays_one_more_key_over_the_index(region: Region, fresh: Vault) -> None:
    assert await region.opens(region.vault)
    for _ in range(2):
        await region.rotate()
    await region.keep("z")
    assert await region.opens(region.vault)
    assert await region.opens(fresh)
    assert region.ledger.sql("SELECT DISTINCT layers FROM vault.blind_index") == [(3,)]


async def test_a_vault_that_another_key_wraps_is_not_rotated(region: Region) -> None:
    await region.rotate()
    kept = region.file.read_text()
    region.file.write_text("22" * 32)
    with pytest.raises(WrongKey):
        await region.rotate()
    region.file.with_name("region.key.next").unlink()
    region.file.write_text(kept)
    assert await region.opens(region.vault)


async def test_before_the_first_rotation_too_the_file_must_hold_the_vaults_key(region: Region, fresh: Vault) -> None:
    kept = region.file.read_text()
    region.file.write_text("22" * 32)
    with pytest.raises(WrongKey):
        await region.rotate()
    assert region.ledger.sql(
        "SELECT (SELECT count(*) FROM vault.region_key), (SELECT count(*) FROM vault.index_key)"
    ) == [(0, 0)]
    region.file.write_text(kept)
    await region.rotate()
    assert await region.opens(fresh)


async def test_of_two_rotations_at_once_the_second_is_refused_and_changes_nothing(
    region: Region, fresh: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, before = Rewrapping.step, region.file.read_text()

    async def meanwhile(self: Rewrapping) -> int:
        monkeypatch.setattr(Rewrapping, "step", step)
        with pytest.raises(RewrappingRefused, match="another process"):
            await region.rotate()
        assert region.file.read_text() == before
        return await step(self)

    monkeypatch.setattr(Rewrapping, "step", meanwhile)
    done = await region.rotate()
    assert await region.opens(fresh)
    assert region.announced() == [RegionKeyRotated(done.old, done.new, 7)]


async def test_the_regions_key_is_never_what_is_destroyed(region: Region, fresh: Vault) -> None:
    """As two rotations at once once left it: the old name, and under it the new key."""
    done = await region.rotate()
    os.link(region.file, region.file.with_name("region.key.old"))
    with pytest.raises(RewrappingRefused, match="itself"):
        await region.rotate()
    assert RegionKey.from_file(region.file).id == done.new
    assert await region.opens(fresh)


async def test_a_process_without_the_newest_key_keeps_nothing(region: Region) -> None:
    await region.rotate()
    stranger = Vault(region.vault._pool, RegionKey(b"s" * 32))
    with pytest.raises(Unavailable, match="is not here"):
        await region.keep("z", stranger)


async def test_a_row_that_nobody_can_unwrap_stops_a_rotation_before_the_old_key_is_gone(region: Region) -> None:
    region.ledger.sql("UPDATE vault.data_key SET wrapped = %s WHERE subject = 'c'", bytes(60))
    old = region.file.read_text()
    with pytest.raises(WrongKey, match="resolved"):
        await region.rotate()
    assert region.file.read_text() == old
    assert region.announced() == []
