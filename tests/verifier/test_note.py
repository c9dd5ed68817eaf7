"""Signed notes: who is believed to have signed what, and that anything malformed or changed is refused."""

import base64
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.verifier import notes
from verifier.note import (
    Kind,
    NoteError,
    VerifierKey,
    assemble,
    key_of,
    open_note,
    parse_vkey,
    sign,
    verify_note,
)

PETER = notes.PROBLEM_TEXT + "\n" + notes.PETER_LINE
BOTH = PETER + notes.ENOCH_LINE
KEYS = [notes.PETER_VKEY, notes.ENOCH_VKEY]


def private(seed: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(seed)


def blob(line: str) -> str:
    """The base64 of a signature's line."""
    return line.rstrip("\n").rpartition(" ")[2]


# Keys

PUBLISHED_KEYS = [
    (notes.PETER_VKEY, "PeterNeumann", Kind.ED25519),
    (notes.FOO_VKEY, "example.com/foo", Kind.ED25519),
    (notes.SUMDB_VKEY, "sum.golang.org", Kind.ED25519),
    (notes.ARCHE_WITNESSES["remora"], "remora.n621.de", Kind.COSIGNATURE),
    # Its base64 holds a plus: transparency-dev/formats, note/note_cosigv1_test.go, TestCoSigV1NewVerifier.
    ("TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6", "TEST", Kind.ED25519),
]


@pytest.mark.parametrize(("vkey", "name", "kind"), PUBLISHED_KEYS)
def test_a_published_key_is_read_and_spelled_the_same(vkey: str, name: str, kind: Kind) -> None:
    key = parse_vkey(vkey)
    assert (key.name, key.kind, str(key)) == (name, kind, vkey)
    assert key.key_id.hex() == vkey.split("+")[1]


def test_a_key_of_the_specification_has_the_public_key_that_others_read_from_it() -> None:
    assert parse_vkey(notes.FOO_VKEY) == VerifierKey("example.com/foo", Kind.ED25519, notes.FOO_PUBLIC_KEY)


def test_the_private_key_of_a_published_pair_has_its_public_key() -> None:
    assert str(key_of("PeterNeumann", Kind.ED25519, private(notes.PETER_SEED))) == notes.PETER_VKEY
    public = private(notes.PETER_SEED).public_key()
    assert str(key_of("PeterNeumann", Kind.ED25519, public)) == notes.PETER_VKEY


def test_no_part_of_a_key_is_a_key() -> None:
    """golang.org/x/mod, sumdb/note/note_test.go, TestNewVerifier."""
    vkey = notes.PETER_VKEY
    for start in range(len(vkey) + 1):
        for end in range(start + 1, len(vkey) + 1):
            if (start, end) != (0, len(vkey)):
                with pytest.raises(NoteError):
                    parse_vkey(vkey[start:end])


@pytest.mark.parametrize("vkey", [notes.PETER_VKEY, notes.ARCHE_WITNESSES["garden"]])
def test_no_key_with_one_character_changed_is_a_key(vkey: str) -> None:
    for at, character in enumerate(vkey):
        for other in {chr(ord(character) + 1), chr(ord(character) - 1), character.swapcase(), "+", " ", "", "é", "="}:
            if other != character:
                with pytest.raises(NoteError):
                    parse_vkey(vkey[:at] + other + vkey[at + 1 :])


@pytest.mark.parametrize(
    ("vkey", "why"),
    [
        # The same test of golang.org/x/mod: of another length, and of another type, each with the id to match.
        ("PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==", "not the one base64"),
        ("PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "of type 0x65; known are"),
        # transparency-dev/formats, note/note_cosigv1_test.go and note_verifier_test.go.
        ("bananas.sigstore.dev+12344556", "lower-case hex"),
        ("rekor.sigstore.dev+12345678+THIS_IS_NOT_BASE64!", "not base64"),
        ("rekor.sigstore.dev+12345678+AwEB", "of type 0x03"),
        (
            (
                "rekor.sigstore.dev+c0d23d6a+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNhtmPtrWm3U1eQXBogSMdGvXwBcK5AW5i0hrZLO"
                "C96l+smGNM7nwZ4QvFK/4sueRoVj//QP22Ni4Qt9DPfkWLc="
            ),
            "of type 0x02",
        ),
        ("TEST+00000000+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6", "another id"),
        ("TEST+7997405C+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6", "lower-case hex"),
        ("TEST+7997405+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6", "lower-case hex"),
        ("TEST+NOT_A_NO+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6", "lower-case hex"),
        ("TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6\n", "not base64"),
        ("TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr7", "another id"),
        ("TEST+7997405c+AQcC", "has 32 bytes, not 2"),
        ("TEST+7997405c+AQ==", "has 32 bytes, not 0"),
        ("TEST+7997405c+", "lower-case hex"),
        ("TE ST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6", "cannot be a key's name"),
        ("+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6", "cannot be a key's name"),
        ("\ud800+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6", "half a character"),
        ("", "lower-case hex"),
    ],
)
def test_a_malformed_key_is_refused_and_told_why(vkey: str, why: str) -> None:
    with pytest.raises(NoteError, match=why):
        parse_vkey(vkey)
    with pytest.raises(NoteError, match=why):
        open_note(PETER.encode(), [notes.PETER_VKEY, vkey])


# The White_Space characters of Unicode (PropList.txt), and of the ASCII controls some.
BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2005\u200a\u2028\u2029\u202f\u205f\u3000"


@pytest.mark.parametrize("character", [*BLANKS, "+", "\x00", "\x1f", "\ud800"])
def test_a_name_with_a_blank_a_plus_or_a_control_is_no_name(character: str) -> None:
    for name in (character, f"a{character}", f"{character}b", f"a{character}b"):
        with pytest.raises(NoteError):
            VerifierKey(name, Kind.ED25519, bytes(32))
        with pytest.raises(NoteError):
            sign("text\n", name=name, key=private(notes.PETER_SEED))


@pytest.mark.parametrize("name", ["é", "\u200b", "\u2014", "a/b:c", "\x7f", "😀"])
def test_a_name_may_hold_anything_else(name: str) -> None:
    key = key_of(name, Kind.ED25519, private(notes.PETER_SEED))
    assert parse_vkey(str(key)) == key
    line = sign("text\n", name=name, key=private(notes.PETER_SEED))
    assert open_note(assemble("text\n", [line]), [str(key)]) == ("text\n", [name])


# Opening


def test_a_published_note_is_opened() -> None:
    assert open_note(notes.FOO_NOTE.encode(), [notes.FOO_VKEY]) == (
        "This is an example message.\n",
        ["example.com/foo"],
    )
    text, names = open_note(notes.SUMDB_NOTE.encode(), [notes.SUMDB_VKEY])
    assert (text, names) == (notes.SUMDB_NOTE.partition("\n\n")[0] + "\n", ["sum.golang.org"])


def test_the_known_signers_are_named_and_the_unknown_ignored() -> None:
    """golang.org/x/mod, sumdb/note/note_test.go, TestOpen."""
    assert open_note(BOTH.encode(), [notes.PETER_VKEY]) == (notes.PROBLEM_TEXT, ["PeterNeumann"])
    assert open_note(BOTH.encode(), KEYS) == (notes.PROBLEM_TEXT, ["PeterNeumann", "EnochRoot"])
    assert open_note(BOTH.encode(), [*KEYS, *KEYS]).names == ["PeterNeumann", "EnochRoot"]
    many = PETER + notes.PETER_LINE + 2 * notes.ENOCH_LINE
    assert open_note(many.encode(), [notes.PETER_VKEY]).names == ["PeterNeumann"]
    assert open_note(many.encode(), KEYS).names == ["PeterNeumann", "EnochRoot"]
    odd = f"{PETER}— EnochRoot {blob(notes.ENOCH_LINE)[:48]}ABCD{blob(notes.ENOCH_LINE)[48:]}\n"
    assert open_note(odd.encode(), [notes.PETER_VKEY]).names == ["PeterNeumann"]


@pytest.mark.parametrize("vkeys", [[], [notes.ENOCH_VKEY]])
def test_a_note_that_no_known_key_signed_is_refused(vkeys: list[str]) -> None:
    with pytest.raises(NoteError, match="no known key signed the note"):
        open_note(PETER.encode(), vkeys)


def test_the_first_example_of_the_specification_is_well_formed() -> None:
    with pytest.raises(NoteError, match="no known key signed the note"):
        open_note(notes.QUASIMODO_NOTE.encode(), KEYS)


def test_a_text_may_hold_empty_lines() -> None:
    """The last empty line of the note is the one that divides it (signed-note, "Format")."""
    for text in ("\n", "\n\n", "a\n\nb\n", "a\n\n\n\n", "— not a line of a signature\n\nb\n"):
        note = assemble(text, [sign(text, name="n", key=private(notes.PETER_SEED))])
        assert open_note(note, [str(key_of("n", Kind.ED25519, private(notes.PETER_SEED)))]).text == text


@pytest.mark.parametrize(
    "note",
    [
        # golang.org/x/mod, sumdb/note/note_test.go, TestOpen, badMsgs.
        notes.PROBLEM_TEXT,
        notes.PROBLEM_TEXT + "\n",
        PETER[:-1],
        "\x01" + PETER,
        notes.PROBLEM_TEXT + "\n— Bad Name " + blob(notes.PETER_LINE),
        notes.PROBLEM_TEXT + "\n— Bad Name " + blob(notes.PETER_LINE) + "\n",
        PETER + "Unexpected line.\n",
        # sigsum-go, pkg/checkpoint: checkpoint_test.go (badSig) and signature_test.go.
        PETER + "— example.org/log DEADB\n",
        notes.PROBLEM_TEXT + "\n—  PeterNeumann " + blob(notes.PETER_LINE) + "\n",
        # And others.
        "",
        "\n",
        "\n\n",
        notes.PETER_LINE,
        "\n" + notes.PETER_LINE,
        PETER + "\n",
        PETER + "\n" + notes.PETER_LINE.replace("— ", "- "),
        PETER.replace("\n", "\r\n"),
        PETER.replace("problem", "pro\tblem"),
        PETER.replace("problem", "pro\x00blem"),
        PETER.replace("problem", "pro\x1fblem"),
        PETER + "— EnochRoot\n",
        PETER + "— EnochRoot \n",
        PETER + "— EnochRoot ====\n",
        PETER + "— EnochRoot rwz+eA==\n",  # a key id and nothing signed
        PETER + "— EnochRoot DEAD\n",
        PETER + "—EnochRoot " + blob(notes.ENOCH_LINE) + "\n",
        PETER + "\u2013 EnochRoot " + blob(notes.ENOCH_LINE) + "\n",
        PETER + " — EnochRoot " + blob(notes.ENOCH_LINE) + "\n",
        PETER + "— Enoch+Root " + blob(notes.ENOCH_LINE) + "\n",
        PETER + "— Enoch\xa0Root " + blob(notes.ENOCH_LINE) + "\n",
        PETER + "— EnochRoot " + blob(notes.ENOCH_LINE) + " \n",
        PETER + "— EnochRoot " + blob(notes.ENOCH_LINE).rstrip("=") + "\n",
        PETER + "— EnochRoot " + blob(notes.ENOCH_LINE) + "=\n",
        PETER + "— EnochRoot " + blob(notes.ENOCH_LINE).replace("QQ=", "QR=") + "\n",  # bits behind the last byte
        PETER + "— EnochRoot " + blob(notes.ENOCH_LINE).replace("+", "-") + "\n",
        PETER + "— EnochRoot é" + blob(notes.ENOCH_LINE)[1:] + "\n",
    ],
)
def test_a_malformed_note_is_refused(note: str) -> None:
    for vkeys in (KEYS, [notes.PETER_VKEY]):
        with pytest.raises(NoteError) as refused:
            open_note(note.encode(), vkeys)
        assert "no known key" not in str(refused.value)


@pytest.mark.parametrize("bytes_", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x80"])
def test_a_note_that_is_not_utf_8_is_refused(bytes_: bytes) -> None:
    for note in (bytes_ + PETER.encode(), PETER.encode() + bytes_):
        with pytest.raises(NoteError, match="not UTF-8"):
            open_note(note, KEYS)


def test_a_false_signature_of_a_known_key_spoils_the_note() -> None:
    false = notes.PETER_LINE.replace("AcElZIn", "AcElZIm")
    for note in (false, false + notes.PETER_LINE, notes.PETER_LINE + false, notes.ENOCH_LINE + false):
        with pytest.raises(NoteError, match="the signature of 'PeterNeumann' \\(c74f20a3\\) is false"):
            open_note(f"{notes.PROBLEM_TEXT}\n{note}".encode(), KEYS)
    longer = notes.PETER_LINE[:60] + "ABCD" + notes.PETER_LINE[60:]  # note_test.go, TestOpen
    with pytest.raises(NoteError, match="is false"):
        open_note(f"{notes.PROBLEM_TEXT}\n{longer}".encode(), [notes.PETER_VKEY])


@pytest.mark.parametrize("length", [1, 63, 65, 72, 128])
def test_a_signature_of_a_known_key_of_another_length_spoils_the_note(length: int) -> None:
    line = f"— PeterNeumann {base64.b64encode(bytes.fromhex('c74f20a3') + bytes(length)).decode()}\n"
    with pytest.raises(NoteError, match="is false"):
        open_note((PETER + line).encode(), KEYS)


def test_a_signature_counts_for_the_key_of_that_name_and_that_id_only() -> None:
    misnamed = notes.PETER_LINE.replace("PeterNeumann", "CarmenSandiego")
    wrong_id = notes.PETER_LINE.replace("x08g", "xxxx")
    for line in (misnamed, wrong_id):
        with pytest.raises(NoteError, match="no known key"):
            open_note(f"{notes.PROBLEM_TEXT}\n{line}".encode(), [notes.PETER_VKEY])
        assert open_note((PETER + line).encode(), [notes.PETER_VKEY]).names == ["PeterNeumann"]


def test_two_keys_with_one_name_and_one_id_are_refused() -> None:
    class Collision(VerifierKey):
        key_id = parse_vkey(notes.PETER_VKEY).key_id  # type: ignore[assignment]

    other = Collision("PeterNeumann", Kind.ED25519, bytes(32))
    with pytest.raises(NoteError, match="two known keys have the name 'PeterNeumann' and the id c74f20a3"):
        verify_note(PETER.encode(), [parse_vkey(notes.PETER_VKEY), other])


def test_up_to_100_signatures_are_accepted() -> None:
    """The specification wants 16 at least; golang.org/x/mod accepts 100 too."""
    for number in (16, 100):
        assert open_note((notes.PROBLEM_TEXT + "\n" + number * notes.PETER_LINE).encode(), KEYS).names == [
            "PeterNeumann"
        ]
    for vkeys in (KEYS, []):
        with pytest.raises(NoteError, match="101 signatures, of at most 100"):
            open_note((notes.PROBLEM_TEXT + "\n" + 101 * notes.PETER_LINE).encode(), vkeys)


def test_a_signature_may_be_as_long_as_those_that_withstand_quantum_computers() -> None:
    long = f"— some {base64.b64encode(bytes(5000)).decode()}\n"
    assert open_note((PETER + 16 * long).encode(), KEYS).names == ["PeterNeumann"]


def test_a_note_of_more_than_a_mebibyte_is_refused() -> None:
    with pytest.raises(NoteError, match="of at most 1048576"):
        open_note(b"a" * (1 << 20) + PETER.encode(), KEYS)


# Changes


def assert_nothing_new(note: bytes, vkeys: list[str], original: tuple[str, list[str]]) -> None:
    """Refused, or the same text, signed by no more than before: what nobody known signed is not trusted anyway."""
    try:
        text, names = open_note(note, vkeys)
    except NoteError:
        return
    assert text == original[0]
    assert set(names) <= set(original[1])


CHANGES: list[Callable[[int, int], list[int]]] = [
    lambda at, byte: [byte ^ 1 << (at + bit) % 8 for bit in (0, 3)],
    lambda _at, _byte: [0x0A, 0x20, 0x2B, 0x3D, 0x41],
]


@pytest.mark.parametrize("note", [BOTH, notes.FOO_NOTE, notes.ARCHE_NOTE], ids=["both", "foo", "arche"])
def test_no_note_with_one_byte_changed_says_anything_else(note: str) -> None:
    vkeys = [*KEYS, notes.FOO_VKEY, notes.ARCHE_VKEY, notes.ARCHE_WITNESSES["remora"]]
    original = open_note(note.encode(), vkeys)
    data = note.encode()
    for at, byte in enumerate(data):
        for change in CHANGES:
            for other in change(at, byte):
                assert_nothing_new(data[:at] + bytes([other]) + data[at + 1 :], vkeys, original)
        assert_nothing_new(data[:at] + data[at + 1 :], vkeys, original)
        assert_nothing_new(data[:at] + data[at : at + 1] + data[at:], vkeys, original)


def test_no_change_of_a_byte_of_what_a_known_key_signed_is_accepted_at_all() -> None:
    data = PETER.encode()
    signed = len(notes.PROBLEM_TEXT.encode())
    for at in range(len(data)):
        for bit in range(8):
            changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            with pytest.raises(NoteError) as refused:
                open_note(changed, [notes.PETER_VKEY])
            if at < signed - 1:
                assert (
                    "is false" in str(refused.value) or "control" in str(refused.value) or "UTF" in str(refused.value)
                )


@given(st.binary(max_size=60), st.integers(min_value=0, max_value=len(BOTH)), st.integers(min_value=0, max_value=20))
def test_no_note_with_a_part_replaced_says_anything_else(other: bytes, at: int, length: int) -> None:
    data = BOTH.encode()
    assert_nothing_new(
        data[:at] + other + data[at + length :], KEYS, (notes.PROBLEM_TEXT, ["PeterNeumann", "EnochRoot"])
    )


@given(st.binary(max_size=300))
def test_no_bytes_are_a_note_by_chance(data: bytes) -> None:
    for note in (data, data + b"\n\n" + notes.PETER_LINE.encode(), notes.PROBLEM_TEXT.encode() + b"\n" + data):
        with pytest.raises(NoteError):
            open_note(note, KEYS)


# Signing


def test_a_note_is_signed_as_published() -> None:
    """Ed25519 is deterministic: golang.org/x/mod, TestSign; sigsum-go, TestCheckpointSigned."""
    assert sign(notes.PROBLEM_TEXT, name="PeterNeumann", key=private(notes.PETER_SEED)) == notes.PETER_LINE
    assert assemble(notes.PROBLEM_TEXT, [notes.PETER_LINE]) == PETER.encode()
    assert sign(notes.SIGSUM_TEXT, name=notes.SIGSUM_NAME, key=private(notes.SIGSUM_SEED)) == notes.SIGSUM_LINE


TEXTS = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.just("\n")).map("{}\n".format)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="+"), min_size=1).filter(
    lambda name: not any(character.isspace() or character < " " for character in name)
)


@given(TEXTS, st.lists(NAMES, min_size=1, max_size=4, unique=True), st.data())
def test_whatever_is_signed_can_be_opened_with_any_of_the_keys(
    text: str, names: list[str], data: st.DataObject
) -> None:
    seeds = [data.draw(st.binary(min_size=32, max_size=32)) for _ in names]
    lines = [sign(text, name=name, key=private(seed)) for name, seed in zip(names, seeds, strict=True)]
    keys = [str(key_of(name, Kind.ED25519, private(seed))) for name, seed in zip(names, seeds, strict=True)]
    note = assemble(text, lines[:1]) + "".join(lines[1:]).encode()
    assert open_note(note, keys) == (text, names)
    assert open_note(note, keys[-1:]) == (text, names[-1:])


@pytest.mark.parametrize(
    "text", ["", "abc", "a\r\n", "a\tb\n", "\x00\n", "\ud800\n", "cosignature/v1\ntime 1\na\n1\nb\n"]
)
def test_a_text_that_no_note_may_have_is_not_signed(text: str) -> None:
    with pytest.raises(NoteError):
        sign(text, name="n", key=private(notes.PETER_SEED))


@pytest.mark.parametrize(
    "lines",
    [[], [""], ["\n"], [notes.PETER_LINE, "\n"], [notes.PETER_LINE[:-1]], [f"x\n\n{notes.PETER_LINE}"], ["— a b\n"]],
)
def test_no_note_is_put_together_from_malformed_lines(lines: list[str]) -> None:
    with pytest.raises(NoteError):
        assemble(notes.PROBLEM_TEXT, lines)
