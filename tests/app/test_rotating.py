"""Changing the key by which a log signs its heads."""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app import rotating
from app.rotating import RotationRefused, rotate
from domain.catalog import AGGREGATES
from domain.logs import KeyRotated
from eventstore import signer
from eventstore.record import Codec, decode_body
from eventstore.signer import Signer
from tests.ledger import EU, Ledger
from verifier.note import parse_vkey, verify_note

OVERLAP = timedelta(days=30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    signer.create(tmp_path / "signer", EU)
    return tmp_path / "signer"


def announced(ledger: Ledger) -> list[KeyRotated]:
    codec = Codec(AGGREGATES)
    return [event for entry in ledger.entries() if isinstance(event := codec.decode(entry).event, KeyRotated)]


async def test_the_log_announces_the_new_key_under_the_signatures_of_both(ledger: Ledger, folder: Path) -> None:
    [old] = signer.active(folder, EU)
    done = await rotate(ledger.dsn, "eu", folder, EU, OVERLAP)
    [event] = announced(ledger)
    assert (event.old, event.new, event.until) == (old.vkey, done.new, done.until)
    assert timedelta(days=29) < event.until - datetime.now(UTC) <= OVERLAP
    until = event.until.isoformat().replace("+00:00", "Z")
    said = f"countroom/key-rotation/v1\n{EU}\n{event.old}\n{event.new}\n{until}\n".encode()
    for vkey, signature in ((event.old, event.by_old), (event.new, event.by_new)):
        Ed25519PublicKey.from_public_bytes(parse_vkey(vkey).public_key).verify(b64decode(signature), said)
    assert decode_body(ledger.entries()[done.position - 1].body).stream == "region-eu-log"


async def test_from_then_on_both_keys_sign_until_the_old_one_is_retired(ledger: Ledger, folder: Path) -> None:
    with Signer.open(folder, EU) as signing:
        done = await rotate(ledger.dsn, "eu", folder, EU, OVERLAP)
        signing.extend(entry.leaf for entry in ledger.entries())
        both = verify_note(signing.sign(), [parse_vkey(done.old), parse_vkey(done.new)])
        assert len(both.signatures) == 2
        assert rotating.retire(folder, EU) == done.old
        alone = verify_note(signing.sign(), [parse_vkey(done.old), parse_vkey(done.new)])
        assert [str(each.key) for each in alone.signatures] == [done.new]


async def test_a_second_rotation_waits_for_the_end_of_the_first(ledger: Ledger, folder: Path) -> None:
    await rotate(ledger.dsn, "eu", folder, EU, OVERLAP)
    with pytest.raises(RotationRefused, match="retire"):
        await rotate(ledger.dsn, "eu", folder, EU, OVERLAP)
    rotating.retire(folder, EU)
    await rotate(ledger.dsn, "eu", folder, EU, OVERLAP)
    first, second = announced(ledger)
    assert second.old == first.new


async def test_one_that_stopped_after_its_announcement_goes_on_from_there(ledger: Ledger, folder: Path) -> None:
    before = (folder / "active.json").read_bytes()
    done = await rotate(ledger.dsn, "eu", folder, EU, OVERLAP)
    (folder / "active.json").write_bytes(before)  # as if it had been killed before the new key was made to sign
    assert await rotate(ledger.dsn, "eu", folder, EU, OVERLAP) == done
    assert len(announced(ledger)) == 1
    assert [key.vkey for key in signer.active(folder, EU)] == [done.old, done.new]


async def test_a_key_that_was_announced_and_lost_is_not_replaced_in_silence(ledger: Ledger, folder: Path) -> None:
    before = (folder / "active.json").read_bytes()
    done = await rotate(ledger.dsn, "eu", folder, EU, OVERLAP)
    (folder / "active.json").write_bytes(before)
    (folder / "keys" / parse_vkey(done.new).key_id.hex()).unlink()
    with pytest.raises(RotationRefused, match="private key"):
        await rotate(ledger.dsn, "eu", folder, EU, OVERLAP)


def test_the_only_key_is_not_retired(folder: Path) -> None:
    with pytest.raises(RotationRefused):
        rotating.retire(folder, EU)
