"""A signer signs what extends what it signed before, whatever happens to it in between."""

from __future__ import annotations

import json
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from eventstore import signer
from eventstore.note import SigningKey
from eventstore.signer import Signer, SignerError
from verifier import merkle
from verifier.note import Opened, open_note, parse_checkpoint

ORIGIN = "countroom.test/eu"


def leaves(count: int, start: int = 0, branch: int = 0) -> list[bytes]:
    return [merkle.leaf_hash(b"%d %d" % (branch, index)) for index in range(start, start + count)]


def stated(note: bytes, *vkeys: str) -> tuple[int, bytes]:
    """Size and root, from a note that the verifier accepts."""
    checkpoint = parse_checkpoint(open_note(note, vkeys).text)
    assert checkpoint.origin == ORIGIN
    return checkpoint.size, checkpoint.root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a signer that has signed five leaves."""
    made = tmp_path / "signer"
    signer.create(made, ORIGIN)
    with Signer.open(made, ORIGIN) as opened:
        opened.extend(leaves(5))
        opened.sign()
    return made


class Signing(RuleBasedStateMachine):
    """One folder, whatever comes. The law: each tree that was signed begins with all trees that were signed before."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.folder = Path(self.directory.name) / "signer"
        self.vkeys = {signer.create(self.folder, ORIGIN)}
        self.active = set(self.vkeys)
        self.signer = Signer.open(self.folder, ORIGIN)
        self.pending: list[bytes] = []  # leaves that the signer holds
        self.durable: list[bytes] = []  # and those that were signed
        self.branch = 0

    @rule(count=st.integers(0, 40))
    def extend(self, count: int) -> None:
        more = leaves(count, len(self.pending), self.branch)
        self.signer.extend(more)
        self.pending += more

    @rule()
    def sign(self) -> None:
        note = self.signer.sign()
        size, root = stated(note, *self.vkeys)
        assert size == len(self.pending) >= len(self.durable)
        assert self.pending[: len(self.durable)] == self.durable
        assert root == merkle.root(self.pending)
        for vkey in self.active:
            assert stated(note, vkey) == (size, root)
        assert self.signer.sign() == note
        self.durable = list(self.pending)

    @rule()
    def crash(self) -> None:
        """What was not signed is gone, and other leaves may come in its place."""
        self.signer.close()
        self.signer = Signer.open(self.folder, ORIGIN)
        self.pending = list(self.durable)
        self.branch += 1

    @rule()
    def create_again(self) -> None:
        assert signer.create(self.folder, ORIGIN) in self.active

    @rule()
    def open_twice(self) -> None:
        with pytest.raises(SignerError, match="another process"):
            Signer.open(self.folder, ORIGIN)

    @rule()
    def add_key(self) -> None:
        key = SigningKey.generate(ORIGIN)
        signer.add_key(self.folder, key)
        self.vkeys.add(key.vkey)
        self.active.add(key.vkey)

    @rule(data=st.data())
    def retire_key(self, data: st.DataObject) -> None:
        vkey = data.draw(st.sampled_from(sorted(self.active)))
        if len(self.active) > 1:
            signer.retire_key(self.folder, ORIGIN, vkey)
            self.active.remove(vkey)
        else:
            with pytest.raises(SignerError, match="only key"):
                signer.retire_key(self.folder, ORIGIN, vkey)

    @rule(at=st.integers(0, 2000), bit=st.integers(0, 7))
    def damage(self, at: int, bit: int) -> None:
        """No changed bit passes for a store; it is put back afterwards, as an operator would from the note."""
        path = self.folder / "head.json"
        stored = path.read_bytes()
        if json.loads(stored)["note"] is None:
            return
        changed = bytearray(stored)
        changed[at % len(stored)] ^= 1 << bit
        path.write_bytes(changed)
        with pytest.raises(SignerError):
            self.signer.sign()
        self.signer.close()
        with pytest.raises(SignerError):
            Signer.open(self.folder, ORIGIN)
        path.write_bytes(stored)
        self.crash()

    @invariant()
    def it_holds_what_it_was_given(self) -> None:
        assert (self.signer.size, self.signer.root) == (len(self.pending), merkle.root(self.pending))
        if self.durable:
            assert self.signer.note is not None

    def teardown(self) -> None:
        if hasattr(self, "signer"):
            self.signer.close()
            self.directory.cleanup()


Signing.TestCase.settings = settings(max_examples=25, stateful_step_count=25)
TestSigning = Signing.TestCase


def test_a_signer_goes_on_where_another_process_stopped(folder: Path) -> None:
    with Signer.open(folder, ORIGIN) as again:
        assert (again.size, again.root) == (5, merkle.root(leaves(5)))
        assert again.note is not None
        assert again.sign() == again.note
        again.extend(leaves(2, 5))
        assert stated(again.sign(), signer.create(folder, ORIGIN)) == (7, merkle.root(leaves(7)))


def test_a_new_log_has_an_empty_tree(tmp_path: Path) -> None:
    vkey = signer.create(tmp_path / "a" / "b", ORIGIN)
    with Signer.open(tmp_path / "a" / "b", ORIGIN) as opened:
        assert (opened.size, opened.root, opened.note) == (0, merkle.EMPTY_ROOT, None)
        assert stated(opened.sign(), vkey) == (0, merkle.EMPTY_ROOT)


_FOREVER = """
import sys, hashlib
from pathlib import Path
from eventstore.signer import Signer
signer = Signer.open(Path(sys.argv[1]), sys.argv[2])
while True:
    signer.extend([hashlib.sha256(b"%d" % signer.size).digest()])
    note = signer.sign()
    sys.stdout.buffer.write(b"%d %d\\n" % (signer.size, len(note)))
    sys.stdout.buffer.flush()
"""
_SIGN_AND_DIE = """
import os, sys
from pathlib import Path
from eventstore.signer import Signer
signer = Signer.open(Path(sys.argv[1]), sys.argv[2])
signer.extend([bytes(32)])
signer.sign()
os._exit(9)
"""


def test_a_process_killed_at_any_moment_has_signed_nothing_that_is_lost(folder: Path) -> None:
    for kills in range(3):
        process = subprocess.Popen([sys.executable, "-c", _FOREVER, folder, ORIGIN], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3 + 17 * kills)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait()
        given = int(lines[-1].split()[0])
        with Signer.open(folder, ORIGIN) as after:
            assert given <= after.size <= given + 1
            assert after.sign() == after.note


def test_what_was_stored_and_never_given_out_is_signed_again(folder: Path) -> None:
    process = subprocess.run([sys.executable, "-c", _SIGN_AND_DIE, folder, ORIGIN], check=False)
    assert process.returncode == 9
    with Signer.open(folder, ORIGIN) as after:
        assert after.size == 6
        assert stated(after.sign(), signer.create(folder, ORIGIN)) == (6, merkle.root([*leaves(5), bytes(32)]))


def test_a_store_that_is_put_back_under_a_running_signer_is_noticed(folder: Path) -> None:
    old = (folder / "head.json").read_bytes()
    with Signer.open(folder, ORIGIN) as running:
        running.extend(leaves(1, 5))
        running.sign()
        (folder / "head.json").write_bytes(old)
        running.extend(leaves(1, 6))
        with pytest.raises(SignerError, match="changed by somebody else"):
            running.sign()


def test_a_store_that_is_put_back_while_nobody_looks_is_sound_in_itself(folder: Path) -> None:
    """The limit of what a folder can know of itself: witnesses, and the heads in the ledger, know of the larger tree."""
    old = (folder / "head.json").read_bytes()
    with Signer.open(folder, ORIGIN) as before:
        before.extend(leaves(1, 5))
        before.sign()
    (folder / "head.json").write_bytes(old)
    with Signer.open(folder, ORIGIN) as after:
        assert after.size == 5


def edited(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "head.json"
        head = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps(head, separators=(",", ":"), ensure_ascii=False) + "\n")

    return edit


def upper_case(folder: Path) -> None:
    """The same hashes, spelt otherwise."""
    edited(frontier=[root.upper() for root in json.loads((folder / "head.json").read_text())["frontier"]])(folder)


def of_another_folder(folder: Path) -> None:
    """A sound store, with a note of the same origin by another key."""
    other = folder.with_name("other")
    signer.create(other, ORIGIN)
    with Signer.open(other, ORIGIN) as opened:
        opened.extend(leaves(2))
        opened.sign()
    shutil.copy(other / "head.json", folder / "head.json")


@pytest.mark.parametrize(
    "damage",
    [
        edited(size=4),
        edited(size=-1),
        edited(size=6),
        edited(frontier=["00" * 32, "00" * 32]),
        edited(frontier=["xx", "00" * 32]),
        upper_case,
        edited(note=None),
        edited(note="text\n\n— a AAAAAAAA\n"),
        edited(origin="countroom.test/us"),
        edited(size=0, frontier=[]),
        edited(more=1),
        of_another_folder,
        lambda folder: (folder / "head.json").unlink(),
        lambda folder: (folder / "head.json").write_text(""),
        lambda folder: (folder / "active.json").write_text("[]"),
        lambda folder: (folder / "active.json").write_text("{}"),
        lambda folder: (folder / "active.json").unlink(),
        lambda folder: next((folder / "keys").iterdir()).unlink(),
        lambda folder: next((folder / "keys").iterdir()).write_text("PRIVATE+KEY+x"),
        lambda folder: next((folder / "keys").iterdir()).write_text(SigningKey.generate(ORIGIN).skey),
    ],
)
def test_a_damaged_folder_is_refused(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder)
    with pytest.raises(SignerError):
        Signer.open(folder, ORIGIN)
    with pytest.raises(SignerError):
        signer.create(folder, ORIGIN)


def test_a_folder_is_that_of_one_origin(folder: Path) -> None:
    with pytest.raises(SignerError):
        Signer.open(folder, "countroom.test/us")
    with pytest.raises(SignerError):
        signer.create(folder, "countroom.test/us")
    with pytest.raises(SignerError):
        signer.add_key(folder, SigningKey.generate("countroom.test/us"))


def test_there_is_nothing_to_open_before_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(SignerError, match="no folder"):
        Signer.open(tmp_path / "none", ORIGIN)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SignerError):
        Signer.open(tmp_path / "empty", ORIGIN)


def test_a_folder_that_was_begun_is_completed(tmp_path: Path) -> None:
    made = tmp_path / "signer"
    signer.create(made, ORIGIN)
    (made / "active.json").unlink()
    vkey = signer.create(made, ORIGIN)
    assert signer.create(made, ORIGIN) == vkey
    with Signer.open(made, ORIGIN) as opened:
        assert stated(opened.sign(), vkey)[0] == 0


def test_both_keys_sign_during_a_rotation(folder: Path) -> None:
    old, new = signer.create(folder, ORIGIN), SigningKey.generate(ORIGIN)
    with Signer.open(folder, ORIGIN) as running:
        signer.add_key(folder, new)
        note = running.sign()
        assert stated(note, old) == stated(note, new.vkey) == (5, merkle.root(leaves(5)))
        assert open_note(note, [old, new.vkey]) == Opened(note.decode().partition("\n\n")[0] + "\n", [ORIGIN])
        signer.retire_key(folder, ORIGIN, old)
        assert note.startswith(running.sign().partition(b"\n\n")[0])
        assert [key.vkey for key in signer.keys_of(folder, ORIGIN)] == [new.vkey, old]
    with Signer.open(folder, ORIGIN) as after:
        assert after.note is not None
        assert stated(after.note, new.vkey)[0] == 5


def test_only_its_owner_reads_the_folder(folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_leaf_that_is_no_hash_is_refused(folder: Path) -> None:
    with Signer.open(folder, ORIGIN) as opened, pytest.raises(ValueError, match="31 bytes"):
        opened.extend([bytes(31)])
