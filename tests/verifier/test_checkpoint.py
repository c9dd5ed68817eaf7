"""Checkpoints, and the cosignatures of witnesses on them."""

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.verifier import notes
from verifier.encoding import NUMBER_MAX
from verifier.merkle import verify_consistency
from verifier.note import (
    Checkpoint,
    Kind,
    NoteError,
    VerifierKey,
    assemble,
    cosign,
    format_checkpoint,
    key_of,
    open_note,
    parse_checkpoint,
    parse_vkey,
    sign,
    verify_note,
)

KEY = Ed25519PrivateKey.from_private_bytes(notes.SIGSUM_SEED)
ROOT = bytes(range(32))
ROOT64 = base64.b64encode(ROOT).decode()
TEXT = f"example.com/log\n42\n{ROOT64}\n"
WITNESS = key_of("w", Kind.COSIGNATURE, KEY)

# Reading and writing


def test_the_example_of_the_specification_is_read() -> None:
    root = base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
    checkpoint = parse_checkpoint(notes.SOFA_TEXT)
    assert checkpoint == Checkpoint("example.com/behind-the-sofa", 20852163, root)
    assert format_checkpoint("example.com/behind-the-sofa", 20852163, root) == notes.SOFA_TEXT


def test_a_published_checkpoint_is_opened_and_read() -> None:
    text, _ = open_note(notes.SUMDB_NOTE.encode(), [notes.SUMDB_VKEY])
    origin, size, root = parse_checkpoint(text)
    assert (origin, size) == ("go.sum database tree", 30055305)
    assert root == base64.b64decode("mXfgRcJ0bG0j3CPdKwgGWtUzBUbX67saZGRmFuJGGsM=")


def test_a_tree_head_of_go_is_written_and_read() -> None:
    """golang.org/x/mod, sumdb/tlog/note_test.go, TestFormatTree and TestParseTree."""
    text = "go.sum database tree\n123456789012\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=\n"
    checkpoint = parse_checkpoint(text)
    assert (checkpoint.origin, checkpoint.size) == ("go.sum database tree", 123456789012)
    assert format_checkpoint(checkpoint.origin, checkpoint.size, checkpoint.root) == text


def test_extension_lines_are_kept() -> None:
    assert parse_checkpoint(TEXT).extensions == ()
    text = TEXT + "one\ntwo words\n— three\n"
    assert parse_checkpoint(text).extensions == ("one", "two words", "— three")
    assert format_checkpoint("example.com/log", 42, ROOT, ["one", "two words", "— three"]) == text


def test_an_empty_tree_has_the_size_0() -> None:
    assert parse_checkpoint(f"o\n0\n{ROOT64}\n").size == 0


@pytest.mark.parametrize("origin", ["a", "é" * 128, "example log+origin", " ", "go.sum database tree"])
def test_any_line_may_be_an_origin(origin: str) -> None:
    assert parse_checkpoint(format_checkpoint(origin, 1, ROOT)).origin == origin


@pytest.mark.parametrize(
    "text",
    [
        # transparency-dev/formats, log/checkpoint_test.go, TestUnmarshalLogState, with a root of 32 bytes.
        "Head\n9944\n",
        f"\n9944\n{ROOT64}\n",
        f"Log\n123\n{ROOT64}",
        f"Log\nbananas\n{ROOT64}\n",
        f"Log\n-34\n{ROOT64}\n",
        f"Log\n3438945738945739845734895735\n{ROOT64}\n",
        "Log\n123\nThisIsn'tBase64\n",
        "Log\n123\nYmFuYW5hcw==\n",  # that package leaves the length to its users
        f"Log\n9944\n{ROOT64}\n\n\n\n",  # and empty lines too, which the specification does not allow
        # golang.org/x/mod, sumdb/tlog/note_test.go, TestParseTree.
        f"go.sum database tree\n0xabcdef\n{ROOT64}\n",
        "go.sum database tree\n123456789012\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBTOOBIG=\n",
        # And others.
        "",
        "\n",
        "\n\n\n",
        f"o\n1\n{ROOT64}\nextension",
        f"o\n1\n{ROOT64}\n\nextension\n",
        f"o\n1\n{ROOT64}\nextension\n\n",
        f"o\n\n{ROOT64}\n",
        "o\n1\n\n",
        f"o\n01\n{ROOT64}\n",
        f"o\n00\n{ROOT64}\n",
        f"o\n+1\n{ROOT64}\n",
        f"o\n-0\n{ROOT64}\n",
        f"o\n 1\n{ROOT64}\n",
        f"o\n1 \n{ROOT64}\n",
        f"o\n1_0\n{ROOT64}\n",
        f"o\n1.0\n{ROOT64}\n",
        f"o\n1e3\n{ROOT64}\n",
        f"o\n\u0661\n{ROOT64}\n",
        f"o\n9223372036854775808\n{ROOT64}\n",
        f"o\n{'9' * 5000}\n{ROOT64}\n",
        f"o\n1\n{ROOT64[:-1]}\n",
        f"o\n1\n{ROOT64}=\n",
        f"o\n1\n {ROOT64}\n",
        f"o\n1\n{ROOT64} \n",
        f"o\n1\n{ROOT64[:-2]}9=\n",  # set bits behind the last byte
        f"o\n1\n{base64.b64encode(bytes(31)).decode()}\n",
        f"o\n1\n{base64.b64encode(bytes(33)).decode()}\n",
        f"o\n1\n{base64.urlsafe_b64encode(bytes([255] * 32)).decode()}\n",
        f"o\n1\n{ROOT.hex()}\n",
        f"o\n1\né{ROOT64[1:]}\n",
        f"o\r\n1\r\n{ROOT64}\r\n",
        f"o\t\n1\n{ROOT64}\n",
        f"o\n1\n{ROOT64}\n\x00\n",
        f"\ud800\n1\n{ROOT64}\n",
    ],
)
def test_a_malformed_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        parse_checkpoint(text)
    with pytest.raises(NoteError):
        cosign(text, name="w", key=KEY, timestamp_s=1)


LINE = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1)


@given(LINE, st.integers(min_value=0, max_value=NUMBER_MAX), st.binary(min_size=32, max_size=32), st.lists(LINE))
def test_a_checkpoint_is_read_as_it_was_written(origin: str, size: int, root: bytes, extensions: list[str]) -> None:
    text = format_checkpoint(origin, size, root, extensions)
    assert parse_checkpoint(text) == Checkpoint(origin, size, root, tuple(extensions))


@given(st.text(alphabet="o0123456789+/=Aé\n \t", max_size=90))
def test_what_is_read_as_a_checkpoint_is_written_the_same(text: str) -> None:
    for candidate in (text, f"o\n{text}\n{ROOT64}\n", f"o\n1\n{text}\n"):
        try:
            checkpoint = parse_checkpoint(candidate)
        except NoteError:
            continue
        assert format_checkpoint(*checkpoint, checkpoint.extensions) == candidate  # type: ignore[misc]


@pytest.mark.parametrize(
    ("origin", "size", "root", "extensions"),
    [
        ("", 1, ROOT, ()),
        ("a\nb", 1, ROOT, ()),
        ("a\n7", 1, ROOT, ()),
        ("a\rb", 1, ROOT, ()),
        ("o", -1, ROOT, ()),
        ("o", NUMBER_MAX + 1, ROOT, ()),
        ("o", True, ROOT, ()),
        ("o", 1, ROOT[1:], ()),
        ("o", 1, b"", ()),
        ("o", 1, ROOT, ("",)),
        ("o", 1, ROOT, ("a", "b\nc")),
        ("o", 1, ROOT, ("a\n",)),
    ],
)
def test_what_no_checkpoint_may_state_is_not_written(origin: str, size: int, root: bytes, extensions: Any) -> None:
    with pytest.raises(NoteError):
        format_checkpoint(origin, size, root, extensions)


def test_the_checkpoints_of_a_growing_log_are_consistent() -> None:
    """github.com/FiloSottile/torchwood, internal/witness/witness_test.go, TestRace."""
    key = str(VerifierKey(notes.RACE_ORIGIN, Kind.ED25519, notes.RACE_PUBLIC_KEY))
    heads = {size: parse_checkpoint(open_note(note.encode(), [key]).text) for size, note in notes.RACE_NOTES.items()}
    for size, proof in notes.RACE_PROOFS_FROM_1.items():
        assert heads[size].origin == notes.RACE_ORIGIN
        verify_consistency(1, size, heads[1].root, heads[size].root, [base64.b64decode(line) for line in proof])


# Witnesses


def test_the_cosignatures_of_real_witnesses_are_verified() -> None:
    """A log's key, four witnesses', and of the same log one of a type that is not known and ignored."""
    keys = {name: parse_vkey(vkey) for name, vkey in notes.ARCHE_WITNESSES.items()}
    log = parse_vkey(notes.ARCHE_VKEY)
    note = verify_note(notes.ARCHE_NOTE.encode(), [log, *keys.values()])
    assert note.text == notes.ARCHE_TEXT
    assert [(signature.key, signature.timestamp_s) for signature in note.signatures] == [
        (log, None),
        *((key, notes.ARCHE_COSIGNED_S) for key in keys.values()),
    ]
    for vkey in notes.ARCHE_WITNESSES.values():
        assert open_note(notes.ARCHE_NOTE.encode(), [vkey]).names == [parse_vkey(vkey).name]


def test_a_cosignature_is_made_as_published() -> None:
    """github.com/sigsum/sigsum-go, pkg/checkpoint/checkpoint_test.go, TestCheckpointVerifyCosignatureByKey."""
    line = cosign(notes.SIGSUM_WITNESSED_TEXT, name=notes.SIGSUM_WITNESS, key=KEY, timestamp_s=1234)
    assert line == notes.SIGSUM_WITNESS_LINE
    key = key_of(notes.SIGSUM_WITNESS, Kind.COSIGNATURE, KEY)
    (signature,) = verify_note(assemble(notes.SIGSUM_WITNESSED_TEXT, [line]), [key]).signatures
    assert (signature.key, signature.timestamp_s) == (key, 1234)


def test_the_key_id_of_a_cosignature_is_that_of_type_4() -> None:
    """tlog-cosignature, "Format": SHA-256(<name> || "\\n" || 0x04 || 32-byte Ed25519 cosigner public key)[:4]."""
    both = [key_of("w", Kind.ED25519, KEY), WITNESS]
    assert both[0].key_id != both[1].key_id
    line = cosign(TEXT, name="w", key=KEY, timestamp_s=7)
    with pytest.raises(NoteError, match="no known key"):
        open_note(assemble(TEXT, [line]), [str(both[0])])
    assert len(verify_note(assemble(TEXT, [line, sign(TEXT, name="w", key=KEY)]), both).signatures) == 2
    assert open_note(assemble(TEXT, [line, sign(TEXT, name="w", key=KEY)]), list(map(str, both))).names == ["w"]


@given(st.integers(min_value=0, max_value=NUMBER_MAX), st.binary(min_size=32, max_size=32))
def test_a_cosignature_is_verified_with_its_time(timestamp_s: int, seed: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    note = assemble(TEXT, [cosign(TEXT, name="w", key=key, timestamp_s=timestamp_s)])
    (signature,) = verify_note(note, [key_of("w", Kind.COSIGNATURE, key)]).signatures
    assert signature.timestamp_s == timestamp_s


def forged(timestamp_s: int, signed: bytes) -> bytes:
    blob = WITNESS.key_id + timestamp_s.to_bytes(8, "big") + KEY.sign(signed)
    return assemble(TEXT, [f"— w {base64.b64encode(blob).decode()}\n"])


@pytest.mark.parametrize(
    ("timestamp_s", "signed"),
    [
        (8, f"cosignature/v1\ntime 7\n{TEXT}"),  # another time
        (7, f"cosignature/v1\ntime 07\n{TEXT}"),
        (7, f"cosignature/v1\ntime 7\n{TEXT}more\n"),  # other lines
        (7, f"cosignature/v1\ntime 7\n{TEXT.replace('42', '43')}"),
        (7, f"cosignature/v1\r\ntime 7\n{TEXT}"),
        (7, f"cosignature/v1\n{TEXT}"),
        (7, f"time 7\n{TEXT}"),
        (7, TEXT),
    ],
)
def test_a_cosignature_on_anything_else_is_false(timestamp_s: int, signed: str) -> None:
    assert open_note(forged(7, f"cosignature/v1\ntime 7\n{TEXT}".encode()), [str(WITNESS)]).names == ["w"]
    with pytest.raises(NoteError, match=r"the signature of 'w' \([0-9a-f]{8}\) is false"):
        open_note(forged(timestamp_s, signed.encode()), [str(WITNESS)])


def test_a_cosignature_covers_the_extension_lines() -> None:
    """transparency-dev/formats, note/note_cosigv1_test.go, TestSigCoversExtensionLines."""
    note = assemble(f"{TEXT}Extendo\n", [cosign(f"{TEXT}Extendo\n", name="w", key=KEY, timestamp_s=7)])
    assert open_note(note, [str(WITNESS)]).text == f"{TEXT}Extendo\n"
    for other in (b"Extend@", b"Extendo\nmore"):
        with pytest.raises(NoteError, match="is false"):
            open_note(note.replace(b"Extendo", other), [str(WITNESS)])


def test_a_time_beyond_63_bits_is_refused() -> None:
    """tlog-cosignature, "Format": the timestamp MUST NOT exceed 2^63 - 1."""
    last = forged(NUMBER_MAX, f"cosignature/v1\ntime {NUMBER_MAX}\n{TEXT}".encode())
    assert verify_note(last, [WITNESS]).signatures[0].timestamp_s == NUMBER_MAX
    beyond = forged(NUMBER_MAX + 1, f"cosignature/v1\ntime {NUMBER_MAX + 1}\n{TEXT}".encode())
    with pytest.raises(NoteError, match="does not begin with a time"):
        open_note(beyond, [str(WITNESS)])
    for timestamp_s in (-1, NUMBER_MAX + 1):
        with pytest.raises(NoteError, match="is not a time"):
            cosign(TEXT, name="w", key=KEY, timestamp_s=timestamp_s)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 64, 71, 73])
def test_a_cosignature_of_another_length_is_refused(length: int) -> None:
    line = f"— w {base64.b64encode(WITNESS.key_id + bytes(length)).decode()}\n"
    with pytest.raises(NoteError):
        open_note(assemble(TEXT, [line]), [str(WITNESS)])


def test_a_log_cannot_be_made_to_sign_what_a_witness_signs() -> None:
    """signed-note, "Signatures": a key may be reused for another type if the two are told apart."""
    with pytest.raises(NoteError, match="looks like what a witness signs"):
        sign(f"cosignature/v1\ntime 7\n{TEXT}", name="w", key=KEY)
    as_witness = f"— w {base64.b64encode(WITNESS.key_id + KEY.sign(TEXT.encode())).decode()}\n"
    with pytest.raises(NoteError):
        open_note(assemble(TEXT, [as_witness]), [str(WITNESS)])


def test_a_witnesses_line_may_simply_be_put_behind_the_note() -> None:
    """tlog-witness, "add-checkpoint": the client MAY concatenate the response to the checkpoint."""
    log = key_of("example.com/log", Kind.ED25519, KEY)
    note = assemble(TEXT, [sign(TEXT, name="example.com/log", key=KEY)])
    cosigned = note + cosign(TEXT, name="w", key=KEY, timestamp_s=7).encode()
    assert open_note(cosigned, [str(log), str(WITNESS)]) == (TEXT, ["example.com/log", "w"])
