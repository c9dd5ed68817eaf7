"""Proofs in files, checked without any connection."""

import base64
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.verifier import trees
from verifier.merkle import ProofError
from verifier.note import Kind, assemble, cosign, format_checkpoint, key_of, sign
from verifier.policy import Policy, parse_policy
from verifier.proof import Proof, format_proof, parse_proof, verify_proof
from verifier.tiles import TileReader

ORIGIN = "countroom.example/eu"
SIZE = 300
ENTRIES = [b"entry %d" % number for number in range(SIZE)]
LEAVES = [trees.leaf(entry) for entry in ENTRIES]
ROOT = trees.head(LEAVES)
LOG_KEY, US_KEY, REGULATOR_KEY = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))
POLICY_TEXT = f"""\
log {key_of(ORIGIN, Kind.ED25519, LOG_KEY)}
witness us {key_of("countroom.example/us", Kind.COSIGNATURE, US_KEY)}
witness regulator {key_of("regulator.example", Kind.COSIGNATURE, REGULATOR_KEY)}
group both all us regulator
quorum both
"""
POLICY = parse_policy(POLICY_TEXT.encode())


def checkpoint(*, size: int = SIZE, root: bytes = ROOT, witnesses: int = 2) -> bytes:
    text = format_checkpoint(ORIGIN, size, root)
    lines = [sign(text, name=ORIGIN, key=LOG_KEY)]
    lines.append(cosign(text, name="countroom.example/us", key=US_KEY, timestamp_s=1_763_164_800))
    lines.append(cosign(text, name="regulator.example", key=REGULATOR_KEY, timestamp_s=1_763_164_801))
    return assemble(text, lines[: 1 + witnesses])


def refused(data: bytes, leaf: bytes, policy: Policy = POLICY) -> str:
    with pytest.raises(ProofError) as error:
        verify_proof(data, leaf, policy)
    return str(error.value)


# The form

H1, H2 = sha256(b"hash1").digest(), sha256(b"hash2").digest()
H1_64, H2_64 = base64.b64encode(H1).decode(), base64.b64encode(H2).decode()
EXTRA_64 = base64.b64encode(b"extra information").decode()


@pytest.mark.parametrize(
    ("proof", "text"),
    [
        # transparency-dev/formats, proof/tlog_proof_test.go, TestMarshal.
        (
            Proof(5, (H1, H2), b"test checkpoint\n"),
            f"c2sp.org/tlog-proof@v1\nindex 5\n{H1_64}\n{H2_64}\n\ntest checkpoint\n",
        ),
        (
            Proof(10, (H1,), b"checkpoint data\n", b"extra information"),
            f"c2sp.org/tlog-proof@v1\nextra {EXTRA_64}\nindex 10\n{H1_64}\n\ncheckpoint data\n",
        ),
        (Proof(0, (), b"checkpoint\n"), "c2sp.org/tlog-proof@v1\nindex 0\n\ncheckpoint\n"),
    ],
)
def test_a_published_proof_is_written_and_read(proof: Proof, text: str) -> None:
    assert format_proof(proof.index, proof.hashes, proof.checkpoint, proof.extra) == text.encode()
    assert parse_proof(text.encode()) == proof


HEADER = "c2sp.org/tlog-proof@v1\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        # transparency-dev/formats, proof/tlog_proof_test.go, TestUnmarshalErrors; torchwood, its TestVerifyProof_….
        ("wrong-header\nindex 0\n\ncheckpoint\n", "begins with 'wrong-header' instead of"),
        ("index 0\n\ncheckpoint\n", "begins with 'index 0' instead of"),
        (f"{HEADER}extra !!notbase64!!\nindex 0\n\ncheckpoint\n", "extra data is '!!notbase64!!': it is not base64"),
        (f"{HEADER}\n\ncheckpoint\n", "no index"),
        (f"{HEADER}\ncheckpoint\n", "no index"),
        (f"{HEADER}index notanumber\n\ncheckpoint\n", "not a decimal"),
        (f"{HEADER}index -5\n\ncheckpoint\n", "not a decimal"),
        (f"{HEADER}index 0\n!!notbase64!!\n\ncheckpoint\n", "hash is '!!notbase64!!': it is not base64"),
        (f"{HEADER}index 0\n{base64.b64encode(bytes(64)).decode()}\n\ncheckpoint\n", "of 32 bytes each"),
        (f"{HEADER}index 0\n{base64.b64encode(bytes(16)).decode()}\n\ncheckpoint\n", "of 32 bytes each"),
        # And others.
        ("", "begins with '' instead of"),
        (HEADER, "no empty line"),
        (f"{HEADER}index 0\n", "no empty line"),
        (f"{HEADER}index 0\n{H1_64}\n", "no empty line"),
        (f"{HEADER}index 0\ncheckpoint\n", "no empty line"),
        (f" {HEADER}index 0\n\ncheckpoint\n", "instead of"),
        (f"{HEADER.upper()}index 0\n\ncheckpoint\n", "instead of"),
        (f"{HEADER[:-1]}\r\nindex 0\n\ncheckpoint\n", "instead of"),
        ("c2sp.org/tlog-proof@v2\nindex 0\n\ncheckpoint\n", "instead of"),
        (f"{HEADER}index 00\n\ncheckpoint\n", "not a decimal"),
        (f"{HEADER}index 01\n\ncheckpoint\n", "not a decimal"),
        (f"{HEADER}index  1\n\ncheckpoint\n", "not a decimal"),
        (f"{HEADER}index 1 \n\ncheckpoint\n", "not a decimal"),
        (f"{HEADER}index\n\ncheckpoint\n", "no index"),
        (f"{HEADER}Index 1\n\ncheckpoint\n", "no index"),
        (f"{HEADER}index 9223372036854775808\n\ncheckpoint\n", "not a decimal"),
        (f"{HEADER}extra \nindex 0\n\ncheckpoint\n", "extra data is empty"),
        (f"{HEADER}extra {EXTRA_64}\nextra {EXTRA_64}\nindex 0\n\ncheckpoint\n", "no index"),
        (f"{HEADER}index 0\nextra {EXTRA_64}\n\ncheckpoint\n", "hash is 'extra"),
        (f"{HEADER}extra Zh==\nindex 0\n\ncheckpoint\n", "not the one base64"),
        (f"{HEADER}index 0\nindex 0\n\ncheckpoint\n", "hash is 'index 0'"),
        (f"{HEADER}index 0\n{H1_64} \n\ncheckpoint\n", "hash is"),
        (f"{HEADER}index 0\n{H1_64[:-1]}\n\ncheckpoint\n", "hash is"),
        (f"{HEADER}index 0\n{64 * (H1_64 + chr(10))}\ncheckpoint\n", "at most 63 hashes"),
        (f"{HEADER}index 0\n{'a' * 65 * 1024}\n", "no empty line"),
        (f"{HEADER}index é\n\ncheckpoint\n", "other characters than ASCII"),
        (f"{HEADER}index 0\n\n{'a' * (1 << 22)}", "bytes, of at most"),
    ],
)
def test_a_malformed_proof_is_refused_and_told_why(text: str, why: str) -> None:
    with pytest.raises(ProofError, match=why):
        parse_proof(text.encode())
    assert why in refused(text.encode(), LEAVES[0])


@given(
    st.integers(min_value=0, max_value=2**63 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=63),
    st.binary(),
    st.binary(),
)
def test_a_proof_is_read_as_it_was_written(index: int, hashes: list[bytes], checkpoint: bytes, extra: bytes) -> None:
    data = format_proof(index, hashes, checkpoint, extra)
    assert parse_proof(data) == Proof(index, tuple(hashes), checkpoint, extra)


def test_a_proof_holds_as_many_hashes_as_the_largest_tree_needs() -> None:
    data = format_proof(2**63 - 1, [H1] * 63, b"checkpoint\n", bytes(1 << 20))
    assert parse_proof(data) == Proof(2**63 - 1, (H1,) * 63, b"checkpoint\n", bytes(1 << 20))


@given(st.binary(max_size=200))
def test_what_is_read_as_a_proof_is_written_the_same(data: bytes) -> None:
    for candidate in (data, HEADER.encode() + data, f"{HEADER}index 7\n".encode() + data):
        try:
            proof = parse_proof(candidate)
        except ProofError:
            continue
        assert format_proof(proof.index, proof.hashes, proof.checkpoint, proof.extra) == candidate


@pytest.mark.parametrize(("index", "hashes"), [(-1, []), (2**63, []), (0, [bytes(31)]), (0, [bytes(32)] * 64)])
def test_a_proof_that_could_not_be_read_is_not_written(index: int, hashes: list[bytes]) -> None:
    with pytest.raises(ProofError):
        format_proof(index, hashes, b"checkpoint\n")


# What it proves


@pytest.mark.parametrize("index", [0, 1, 255, 256, 299])
def test_a_proof_of_an_entry_is_accepted(index: int) -> None:
    data = format_proof(index, trees.path(index, LEAVES), checkpoint(), b"anything")
    proven = verify_proof(data, trees.leaf(ENTRIES[index]), POLICY)
    assert (proven.index, proven.extra) == (index, b"anything")
    assert (proven.head.checkpoint.origin, proven.head.checkpoint.size) == (ORIGIN, SIZE)
    assert proven.head.cosigned_s == {"us": 1_763_164_800, "regulator": 1_763_164_801}
    for other in (0, 1, 255, 256, 299):
        if other != index:
            assert "leads from the leaf to another root" in refused(data, LEAVES[other])


def test_a_proof_computed_from_tiles_is_accepted() -> None:
    tiles = TileReader(trees.files(ENTRIES).__getitem__, SIZE, ROOT)
    data = format_proof(299, tiles.inclusion_proof(299), checkpoint())
    assert verify_proof(data, LEAVES[299], POLICY).index == 299


def test_the_only_entry_of_a_log_is_proven_by_no_hashes() -> None:
    data = format_proof(0, [], checkpoint(size=1, root=LEAVES[0]))
    assert verify_proof(data, LEAVES[0], POLICY).head.checkpoint.size == 1


def test_a_proof_is_worth_no_more_than_its_checkpoint() -> None:
    path = trees.path(7, LEAVES)
    assert "is false" in refused(format_proof(7, path, checkpoint().replace(b"\n300\n", b"\n301\n")), LEAVES[7])
    assert "quorum 'both' is not reached: 'us' signed" in refused(
        format_proof(7, path, checkpoint(witnesses=1)), LEAVES[7]
    )
    nobodys = parse_policy(
        POLICY_TEXT.replace(str(POLICY.logs[0].key), str(key_of("x", Kind.ED25519, US_KEY))).encode()
    )
    assert "no log of the policy signed" in refused(format_proof(7, path, checkpoint()), LEAVES[7], nobodys)
    assert "not accepted" in refused(format_proof(7, path, b""), LEAVES[7])
    assert "not accepted" in refused(format_proof(7, path, b"\n\n" + checkpoint()), LEAVES[7])


def test_an_index_outside_of_the_tree_is_refused() -> None:
    assert "no leaf at index 300" in refused(format_proof(300, trees.path(299, LEAVES), checkpoint()), LEAVES[299])
    assert "no leaf at index 0" in refused(format_proof(0, [], checkpoint(size=0, root=trees.head([]))), LEAVES[0])


@pytest.mark.parametrize("leaf", [b"", bytes(31), ENTRIES[7]])
def test_a_leaf_that_is_no_hash_is_refused(leaf: bytes) -> None:
    assert "a hash is 32 bytes" in refused(format_proof(7, trees.path(7, LEAVES), checkpoint()), leaf)


def test_no_proof_with_one_bit_changed_proves_anything_else() -> None:
    """Each is refused, or the same is proven: an extra byte that nobody vouches for, or a line that nobody needs."""
    data = format_proof(7, trees.path(7, LEAVES), checkpoint(), b"nobody's")
    whole = verify_proof(data, LEAVES[7], POLICY)
    unsigned = range(data.index(b"extra "), data.index(b"index "))
    for at in range(len(data)):
        for bit in (at % 8, (at + 3) % 8):
            changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            try:
                proven = verify_proof(changed, LEAVES[7], POLICY)
            except ProofError:
                continue
            assert at in unsigned
            assert (proven.index, proven.head) == (whole.index, whole.head)


@given(st.binary(max_size=60), st.integers(min_value=0, max_value=2000), st.integers(min_value=0, max_value=100))
def test_no_proof_with_a_part_replaced_proves_anything_else(other: bytes, at: int, length: int) -> None:
    data = format_proof(7, trees.path(7, LEAVES), checkpoint())
    whole = verify_proof(data, LEAVES[7], POLICY)
    try:
        proven = verify_proof(data[:at] + other + data[at + length :], LEAVES[7], POLICY)
    except ProofError:
        return
    assert (proven.index, proven.head) == (whole.index, whole.head)
