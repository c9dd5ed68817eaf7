"""Notes as a log signs them, as others read them: the verifier, and what Go's note package published."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from eventstore import note
from eventstore.note import NoteError, SigningKey, checkpoint_text, signed, with_signatures
from tests.verifier import notes
from verifier.note import NoteError as Refused
from verifier.note import cosign, open_note, parse_checkpoint

ORIGIN = "countroom.test/eu"
ROOT = bytes(range(32))
# golang.org/x/mod, sumdb/note/note_test.go, TestNewSigner: the private key of PeterNeumann.
PETER_SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETER = SigningKey("PeterNeumann", Ed25519PrivateKey.from_private_bytes(notes.PETER_SEED))


def test_keys_are_spelt_as_go_spells_them() -> None:
    assert PETER.skey == PETER_SKEY
    assert PETER.vkey == notes.PETER_VKEY
    assert SigningKey.parse(PETER_SKEY).vkey == notes.PETER_VKEY


def test_a_text_is_signed_as_go_signs_it() -> None:
    assert signed(notes.PROBLEM_TEXT, [PETER]) == f"{notes.PROBLEM_TEXT}\n{notes.PETER_LINE}".encode()


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_the_verifier_reads_what_is_signed(seed: bytes, size: int, root: bytes) -> None:
    key = SigningKey(ORIGIN, Ed25519PrivateKey.from_private_bytes(seed))
    assert SigningKey.parse(key.skey).vkey == key.vkey
    opened = open_note(signed(checkpoint_text(ORIGIN, size, root), [key]), [key.vkey])
    assert opened.names == [ORIGIN]
    assert tuple(parse_checkpoint(opened.text)) == (ORIGIN, size, root)


def test_a_changed_note_is_no_longer_signed() -> None:
    made = signed(checkpoint_text(ORIGIN, 7, ROOT), [PETER]).replace(b"\n7\n", b"\n8\n")
    with pytest.raises(Refused):
        open_note(made, [PETER.vkey])
    with pytest.raises(NoteError, match="false"):
        PETER.signed(made)


def test_each_key_signs_a_note_once() -> None:
    other, witness = SigningKey.generate(ORIGIN), Ed25519PrivateKey.generate()
    text = checkpoint_text(ORIGIN, 7, ROOT)
    made = signed(text, [PETER])
    lines = [other.line(text), cosign(text, name="w", key=witness, timestamp_s=1)]
    more = with_signatures(made, [*lines, *lines])
    assert more == made + "".join(lines).encode()
    later = cosign(text, name="w", key=witness, timestamp_s=2)
    assert with_signatures(more, [PETER.line(text), later]) == more
    assert PETER.signed(more)
    assert not SigningKey.generate("PeterNeumann").signed(more)


@pytest.mark.parametrize(
    "line",
    ["", "— a b", "— a AAAA\n", "- a AAAAAAAA\n", "— a+b AAAAAAAA\n", "— a b\n\n", "— a AAAAA\n", "— a AAAAAAB=\n"],
)
def test_a_malformed_line_is_not_added(line: str) -> None:
    with pytest.raises(NoteError):
        with_signatures(signed(checkpoint_text(ORIGIN, 7, ROOT), [PETER]), [line])


@pytest.mark.parametrize("text", [b"", b"text\n", b"text\n\n", b"text\n\n- a AAAA", b"\xff\n\n- a AAAA\n"])
def test_a_text_without_signatures_is_no_note(text: bytes) -> None:
    with pytest.raises(NoteError):
        note.text_of(text)


@pytest.mark.parametrize("text", ["", "text", "cosignature/v1\ntime 1\ntext\n"])
def test_what_a_witness_signs_is_not_signed(text: str) -> None:
    with pytest.raises(NoteError):
        signed(text, [PETER])


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b", "a\x00"])
def test_a_name_is_one_word(name: str) -> None:
    with pytest.raises(NoteError):
        SigningKey.generate(name)
    with pytest.raises(NoteError):
        checkpoint_text(name, 7, ROOT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        notes.PETER_VKEY,
        PETER_SKEY + "\n",
        PETER_SKEY.replace("c74f20a3", "c74f20a4"),
        PETER_SKEY.replace("+AYEK", "+AoEK"),
        PETER_SKEY[:-4],
        PETER_SKEY.replace("KDFz", "KDF"),
    ],
)
def test_a_malformed_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(NoteError) as refused:
        SigningKey.parse(text)
    assert "AYEK" not in str(refused.value)


def test_a_key_lies_in_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "key"
    PETER.write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.from_file(path).skey == PETER_SKEY
    with pytest.raises(FileExistsError):
        PETER.write(path)


def test_printing_a_key_does_not_show_it() -> None:
    assert str(PETER) == repr(PETER) == "SigningKey(PeterNeumann+c74f20a3)"
