"""Signed heads between regions: who signs what, who vouches for it, and what happens when two histories disagree."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from structlog import get_logger

from eventstore.note import SigningKey, checkpoint_text, signed
from eventstore.signer import Signer
from eventstore.tree import Tree
from replication.asking import Answer, peer, serve
from replication.link import link
from replication.witness import STATUS
from tests.flushing import flushed
from tests.replication.regions import Region, World, eventually, forget_stream, newest_in_stream
from verifier.merkle import root as root_of
from verifier.note import NoteError
from verifier.policy import Accepted, parse_policy
from verifier.witness import format_request
from verifier.witnessing import make_key


def heads(region: Region, log: str = "eu") -> list[tuple[int, bytes, bytes, bool]]:
    """Size, root, note, and whether it is published, of every head that the region keeps."""
    found = region.sql(
        "SELECT c.size, c.root, c.note, c.published_at IS NOT NULL FROM ledger.checkpoint c"
        " JOIN ledger.log l ON l.id = c.log WHERE l.name = %s ORDER BY 1",
        log,
    )
    return [(size, bytes(root), bytes(note), published) for size, root, note, published in found]


def published(region: Region, log: str = "eu") -> int:
    return max((size for size, _, _, done in heads(region, log) if done), default=0)


def without_witnesses(region: Region, size: int) -> None:
    """As if nobody but the log itself had signed this head when it came."""
    [note] = [note for of, _, note, _ in heads(region) if of == size]
    text, _, signatures = note.partition(b"\n\n")
    alone = text + b"\n\n" + signatures.splitlines(keepends=True)[0]
    with psycopg.connect(region.dsn, options="-c session_replication_role=replica") as connection:
        connection.execute(
            "UPDATE ledger.checkpoint SET note = %s WHERE size = %s AND log = (SELECT id FROM ledger.log WHERE name = 'eu')",
            (alone, size),
        )


def evidence(region: Region) -> list[tuple[str, str]]:
    return region.sql("SELECT role, reason FROM replication.evidence WHERE cleared_at IS NULL ORDER BY id")


def accepted(world: World, note: bytes) -> Accepted:
    return world.keys.policy.check(note)


def copied(world: World, *regions: str, log: str = "eu") -> asyncio.Event:
    """Relay, copies and witnesses of one log; how to stop the relay."""
    relay = world.relay(log)
    for region in regions:
        world.applier(region, log)
        world.witness(region, log)
    return relay


async def test_a_head_is_signed_and_every_region_that_has_copied_it_vouches_for_it(world: World) -> None:
    copied(world, "us", "ap")
    world.checkpointer("eu", "us", "ap")
    last = world["eu"].append([1, 3, 2])
    await eventually(lambda: published(world["eu"]) == last, world=world)
    *_, (size, root, note, _) = heads(world["eu"])
    assert root == root_of(leaf for _, leaf, _ in world["eu"].rows("eu"))
    found = accepted(world, note)
    assert (found.checkpoint.size, found.checkpoint.root) == (size, root)
    assert set(found.cosigned_s) == {"us", "ap"}


async def test_other_regions_keep_the_published_head_for_their_own_readers(world: World) -> None:
    copied(world, "us", "ap")
    world.checkpointer("eu", "us", "ap")
    last = world["eu"].append([1] * 300)
    for region in ("us", "ap"):
        await eventually(lambda region=region: published(world[region]) == last, world=world)
        *_, (size, root, note, _) = heads(world[region])
        *_, (signed_size, signed_root, signed_note, _) = heads(world["eu"])
        assert (size, root) == (signed_size, signed_root)
        assert set(note.splitlines()) == set(signed_note.splitlines())


async def test_each_head_extends_the_one_before(world: World) -> None:
    copied(world, "us")
    world.checkpointer("eu", "us")
    for _ in range(3):
        last = world["eu"].append([2, 1])
        await eventually(lambda last=last: published(world["eu"]) == last, world=world)
    leaves = [leaf for _, leaf, _ in world["eu"].rows("eu")]
    assert len(heads(world["eu"])) >= 3
    for size, root, note, _ in heads(world["eu"]):
        assert root == root_of(leaves[:size])
        assert set(accepted(world, note).cosigned_s) == {"us"}


async def test_a_witness_whose_copy_lags_does_not_sign_and_does_so_later(world: World) -> None:
    world.relay("eu")
    world.witness("us", "eu")
    world.checkpointer("eu", "us")
    last = world["eu"].append([1, 1])
    await eventually(lambda: published(world["eu"]) == last, world=world)
    with pytest.raises(NoteError, match="quorum"):
        accepted(world, heads(world["eu"])[-1][2])
    world.applier("us", "eu")
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    last = world["eu"].append([1])
    await eventually(lambda: published(world["eu"]) == last, world=world)
    await eventually(lambda: "us" in accepted(world, heads(world["eu"])[-1][2]).cosigned_s, world=world)


async def test_an_outside_witness_is_asked_over_http_and_its_quorum_counts(world: World, tmp_path: Path) -> None:
    log = next(str(each.key) for each in world.keys.policy.logs if each.key.name.endswith("/eu"))
    (tmp_path / "regulator.policy").write_text(f"log {log}\nquorum none\n")
    vkey = make_key(tmp_path / "regulator", "regulator.test/witness").public
    with outside_witness(tmp_path) as url:
        text = world.keys.text.replace("quorum regions\n", f"witness regulator {vkey} {url}\nquorum regulator\n")
        policy = parse_policy(text.encode())
        world.checkpointer("eu", policy=policy)
        for _ in range(2):
            last = world["eu"].append([1, 2])
            await eventually(lambda last=last: published(world["eu"]) == last, world=world)
            assert set(policy.check(heads(world["eu"])[-1][2]).cosigned_s) == {"regulator"}


@contextmanager
def outside_witness(folder: Path) -> Iterator[str]:
    """The stand-alone witness, as a regulator runs it; its address."""
    options = ["--policy", str(folder / "regulator.policy"), "--folder", str(folder / "regulator")]
    process = subprocess.Popen(
        [sys.executable, "-m", "verifier.cli", "witness", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


async def test_a_head_that_the_copy_disproves_is_not_cosigned_and_kept_as_evidence(world: World) -> None:
    copied(world, "us")
    last = world["eu"].append([1, 2, 1])
    await eventually(lambda: world["us"].position("eu") == last, world=world)
    tree = Tree()
    tree.extend([b"%032d" % n for n in range(last)])
    with Signer.open(world.keys.signer("eu"), "countroom.test/eu") as signer:
        signer.extend([b"%032d" % n for n in range(last)])
        forged = signer.sign()
    async with link(world["eu"].config, "eu", "test", get_logger()) as own, peer(own, "us") as us:
        answer = await us.ask("add-checkpoint", format_request(0, [], forged), timeout_s=30)
    assert answer.headers["Witness-Status"] == "422"
    await eventually(lambda: evidence(world["us"]), world=world)
    [(role, reason)] = evidence(world["us"])
    assert role == "witness"
    assert reason.startswith("split view")


async def test_two_heads_of_one_size_are_a_split_view_with_both_kept(world: World) -> None:
    copied(world, "us")
    world.checkpointer("eu", "us")
    last = world["eu"].append([1, 2, 1])
    await eventually(lambda: published(world["us"]) == last, world=world)
    key = SigningKey.from_file(next((world.keys.signer("eu") / "keys").iterdir()))
    other = signed(checkpoint_text("countroom.test/eu", last, b"\7" * 32), [key])
    async with link(world["eu"].config, "eu", "test", get_logger()) as own, peer(own, "us") as us:
        answer = await us.ask("add-checkpoint", format_request(last, [], other), timeout_s=30)
    assert answer.headers["Witness-Status"] == "409"
    [(role, reason)] = evidence(world["us"])
    assert (role, reason) == ("witness", f"split view: two roots of the same size, {last}")
    [(kept,)] = world["us"].sql("SELECT data FROM replication.evidence")
    assert bytes(kept).endswith(other)
    assert b"countroom.test/eu" in bytes(kept)[: -len(other)]


async def test_nobody_answers_for_another_region(world: World) -> None:
    """ap may not pose as us: what it publishes below us's subject does not get through."""
    async with link(world["eu"].config, "eu", "test", get_logger()) as own, peer(own, "us") as us:
        heard: list[str] = []

        async def forge(message: Any) -> None:
            heard.append(message.subject)
            await message.respond(b"forged")

        async with world.link("ap", "eu") as ap:
            await ap.subscribe("ask.EU.us.*", cb=forge)
            await ap.subscribe("ask.EU.US.*", cb=forge)
            await flushed(ap)
            await asyncio.sleep(0.3)
            with pytest.raises(Exception, match="answer"):
                await us.ask("head", timeout_s=1)
            assert heard == []


async def test_after_a_start_of_postgresql_a_log_is_read_only_until_it_was_compared(world: World) -> None:
    guard(world["eu"])
    with pytest.raises(psycopg.Error, match="read-only"):
        world["eu"].append([1])
    checkpointing = world.checkpointer("eu", "us")
    await asyncio.sleep(0.5)
    with pytest.raises(psycopg.Error, match="read-only"):
        world["eu"].append([1])  # nobody has answered
    copied(world, "us")
    await eventually(lambda: may_write(world["eu"]), world=world)
    world["eu"].append([1])
    await world.halt(checkpointing)


async def test_a_restored_backup_fetches_back_what_it_lost_before_it_may_be_written(world: World) -> None:
    relaying = copied(world, "us")
    checkpointing = world.checkpointer("eu", "us")
    last = world["eu"].append([1, 2, 1] * 50)
    await eventually(lambda: published(world["us"]) == last, world=world)
    await world.halt(checkpointing)
    unsigned = world["eu"].append([3])
    await eventually(lambda: world["us"].position("eu") == unsigned, world=world)
    await world.halt(relaying)
    before = world["eu"].entries("eu")
    restored = await world.restored_with(world["eu"], 6)
    world["eu"] = restored
    world.relay("eu")
    world.checkpointer("eu", "us")
    await eventually(lambda: may_write(restored), world=world)
    assert restored.entries("eu") == before
    last = restored.append([1])
    await eventually(lambda: published(world["us"]) == last, world=world)
    assert evidence(restored) == evidence(world["us"]) == []


async def test_a_backup_that_went_its_own_way_is_not_written_to_and_says_why(world: World) -> None:
    copied(world, "us")
    checkpointing = world.checkpointer("eu", "us")
    last = world["eu"].append([1, 2, 1])
    await eventually(lambda: published(world["us"]) == last, world=world)
    await world.halt(checkpointing)
    restored = await world.restored_with(world["eu"], 1, guarded=False)
    restored.append([1, 1])  # before anybody compared: another history
    guard(restored)
    world["eu"] = restored
    world.checkpointer("eu", "us")
    await eventually(lambda: evidence(restored), world=world)
    assert not may_write(restored)
    [(role, reason)] = evidence(restored)
    assert role == "checkpointer"
    assert "goes on otherwise" in reason or "has the leaf" in reason
    assert published(world["us"]) == last


async def test_a_restored_backup_waits_for_every_region_that_may_hold_more(world: World) -> None:
    """What us had acknowledged was told to be safe; ap, which answers, does not hold it."""
    relaying = world.relay("eu")
    world.applier("us", "eu")
    world.witness("ap", "eu")
    copying, answering = world.applier("ap", "eu"), world.witness("us", "eu")
    checkpointing = world.checkpointer("eu", "us", "ap")
    last = world["eu"].append([1, 2, 1] * 5)
    await eventually(lambda: published(world["us"]) == last and world["ap"].position("eu") == last, world=world)
    await world.halt(checkpointing)
    await world.halt(copying)
    unsigned = world["eu"].append([3])
    await eventually(lambda: world["eu"].watermark("us") == unsigned, world=world)
    await world.halt(relaying)
    await world.halt(answering)
    before = world["eu"].entries("eu")
    world["eu"] = restored = await world.restored_with(world["eu"], 6)
    world.checkpointer("eu", "us", "ap")
    await eventually(lambda: "us does not answer" in waits_for(restored), world=world)
    await asyncio.sleep(0.5)
    assert (may_write(restored), restored.position("eu")) == (False, 6)
    world.witness("us", "eu")
    await eventually(lambda: may_write(restored), world=world)
    assert restored.entries("eu") == before
    assert cleared_by(restored) == f"compared with us, ap; {unsigned - 6} entries fetched back"
    await eventually(lambda: waits_for(restored) == "", world=world)
    world.relay("eu")
    world.applier("ap", "eu")
    last = restored.append([1])
    for region in ("us", "ap"):
        await eventually(lambda region=region: world[region].position("eu") == last, world=world)
        assert world[region].entries("eu") == restored.entries("eu")
    assert evidence(restored) == evidence(world["us"]) == evidence(world["ap"]) == []


async def test_a_log_that_has_not_gone_back_does_not_wait_for_a_region_that_is_silent(world: World) -> None:
    copied(world, "us")
    checkpointing = world.checkpointer("eu", "us", "ap")
    last = world["eu"].append([1, 2, 1])
    await eventually(lambda: published(world["us"]) == last, world=world)
    await world.halt(checkpointing)
    last = world["eu"].append([1])
    await eventually(lambda: newest_in_stream(world["eu"]) == last == world["us"].position("eu"), world=world)
    guard(world["eu"])
    assert not may_write(world["eu"])
    world.checkpointer("eu", "us", "ap")
    await eventually(lambda: may_write(world["eu"]), world=world)
    assert cleared_by(world["eu"]) == "compared with us; ap was not waited for: the log has not gone back"


async def test_a_log_whose_stream_is_lost_waits_for_every_region(world: World) -> None:
    """Nothing but the copies tells how far it went after its newest signed head."""
    relaying = copied(world, "us")
    checkpointing = world.checkpointer("eu", "us", "ap")
    last = world["eu"].append([1, 2, 1])
    await eventually(lambda: published(world["us"]) == last, world=world)
    await world.halt(checkpointing)
    await world.halt(relaying)
    await forget_stream(world["eu"].config)
    guard(world["eu"])
    world.checkpointer("eu", "us", "ap")
    await eventually(lambda: "ap does not answer" in waits_for(world["eu"]), world=world)
    assert "our own stream is empty" in waits_for(world["eu"])
    assert not may_write(world["eu"])
    world.witness("ap", "eu")
    await eventually(lambda: may_write(world["eu"]), world=world)
    assert cleared_by(world["eu"]) == "compared with us, ap"


async def test_a_restored_backup_waits_until_a_copy_has_what_our_own_stream_shows(world: World) -> None:
    """All regions answer, and none holds the newest entries yet, which they will take from the stream."""
    relaying = world.relay("eu")
    world.witness("us", "eu")
    copying = world.applier("us", "eu")
    checkpointing = world.checkpointer("eu", "us")
    last = world["eu"].append([1, 2, 1] * 5)
    await eventually(lambda: published(world["us"]) == last, world=world)
    await world.halt(checkpointing)
    await world.halt(copying)
    newest = world["eu"].append([3])
    await eventually(lambda: newest_in_stream(world["eu"]) == newest, world=world)
    await world.halt(relaying)
    before = world["eu"].entries("eu")
    world["eu"] = restored = await world.restored_with(world["eu"], 6)
    world.checkpointer("eu", "us")
    world.relay("eu")
    await eventually(lambda: f"our own stream has entries up to {newest}" in waits_for(restored), world=world)
    assert (may_write(restored), restored.position("eu")) == (False, 6)
    world.applier("us", "eu")
    await eventually(lambda: may_write(restored), world=world)
    assert restored.entries("eu") == before
    assert evidence(restored) == evidence(world["us"]) == []


async def test_a_copy_that_ends_before_the_signed_head_is_not_called_a_liar(world: World) -> None:
    relaying = copied(world, "us")
    checkpointing = world.checkpointer("eu", "us")
    copy = world["eu"].append([1, 2, 1] * 5)
    await eventually(lambda: published(world["us"]) == copy, world=world)
    await world.halt(relaying)
    last = world["eu"].append([3])
    await eventually(lambda: published(world["eu"]) == last, world=world)
    await world.halt(checkpointing)
    world["eu"] = restored = await world.restored_with(world["eu"], 6)
    world.checkpointer("eu", "us")
    await eventually(lambda: evidence(restored), world=world)
    said = f"a head of size {last} was signed, the log ends at 6, and the longest copy that answers at {copy}"
    assert evidence(restored) == [("checkpointer", said)]
    assert (may_write(restored), restored.position("eu")) == (False, 6)


async def test_a_region_that_names_an_impossible_position_does_not_end_the_comparison(world: World) -> None:
    guard(world["eu"])
    async with link(world["us"].config, "eu", "liar", get_logger()) as realm:
        said = [f'{{"position":{2**64},"leaf":""}}'.encode(), b'{"position":1,"leaf":"no"}', b"\xff"]
        asked: list[bytes] = []

        async def lie(request: bytes) -> Answer:
            asked.append(request)
            return Answer(said[len(asked) % len(said)], {})

        lying = asyncio.create_task(serve(realm, "us", {"head": lie}))
        world.checkpointer("eu", "us")
        await eventually(lambda: len(asked) > len(said), world=world)
        await eventually(lambda: "no other region answers" in waits_for(world["eu"]), world=world)
        lying.cancel()
        await asyncio.wait([lying])
    copied(world, "us")
    await eventually(lambda: may_write(world["eu"]), world=world)


async def test_a_witness_that_answers_with_endless_digits_does_not_end_the_signing(world: World) -> None:
    async with link(world["us"].config, "eu", "liar", get_logger()) as realm:
        said = [
            Answer(b"9" * 5000, {STATUS: "409"}),
            Answer(b"", {STATUS: "9" * 5000}),
            Answer(b"\xb2", {STATUS: "409"}),
        ]
        asked: list[bytes] = []

        async def lie(request: bytes) -> Answer:
            asked.append(request)
            return said[len(asked) % len(said)]

        lying = asyncio.create_task(serve(realm, "us", {"add-checkpoint": lie}))
        world.checkpointer("eu", "us")
        while len(asked) < len(said):
            last = world["eu"].append([1])
            await eventually(lambda last=last: published(world["eu"]) == last, world=world)
        lying.cancel()
        await asyncio.wait([lying])
    world.check()


def waits_for(region: Region) -> str:
    """Why the log is not written yet, as its checkpointer says."""
    state = region.state("eu", "checkpointer")
    return state[2] if state and state[0] == "waiting" else ""


def cleared_by(region: Region) -> str:
    [(by,)] = region.sql("SELECT by FROM ledger.clearance")
    return str(by)


def guard(region: Region) -> None:
    region.sql("SELECT ledger.guard(id) FROM ledger.log WHERE own")


def may_write(region: Region) -> bool:
    return bool(region.sql("SELECT ledger.may_write(id) FROM ledger.log WHERE own")[0][0])
