"""The tree over a log's leaves, and the proofs about it."""

import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verifier import trees
from verifier import merkle
from verifier.merkle import ProofError, Tree, verify_consistency, verify_inclusion

# Leaves, roots and proofs of RFC 6962's reference implementation, as github.com/transparency-dev/merkle still tests with
# them (proof/verify_test.go; first in certificate-transparency, merkle_tree_test.cc).
CT_LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
CT_ROOTS = [
    bytes.fromhex(text)
    for text in (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
CT_INCLUSION = [  # leaf counted from 1, size, proof
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (3, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        2,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CT_CONSISTENCY = [  # sizes, proof
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
    (
        6,
        7,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
]
ARGON = json.loads((Path(__file__).parent / "vectors" / "argon2020.json").read_text())

SIZES_MAX = 70
LEAVES = trees.leaves(SIZES_MAX)
HEADS = [trees.head(LEAVES[:size]) for size in range(SIZES_MAX + 1)]

Check = Callable[[list[bytes]], None]


def inclusion(index: int, size: int) -> tuple[list[bytes], Check]:
    """The proof that the definition gives, and the check of one."""
    return trees.path(index, LEAVES[:size]), lambda proof: verify_inclusion(
        index, size, LEAVES[index], proof, HEADS[size]
    )


def consistency(size1: int, size2: int) -> tuple[list[bytes], Check]:
    return trees.proof(size1, LEAVES[:size2]), lambda proof: verify_consistency(
        size1, size2, HEADS[size1], HEADS[size2], proof
    )


def flipped(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "big") ^ 1 << bit).to_bytes(len(data), "big")


def mutilated(proof: list[bytes], *more: bytes) -> Iterator[list[bytes]]:
    """The proof with one hash dropped, doubled, changed in one bit, in another place, cut off or added."""
    for i, one in enumerate(proof):
        before, after = proof[:i], proof[i + 1 :]
        yield [*before, *after]
        yield [*before, one, one, *after]
        yield [*before, flipped(one, 7 * i % 256), *after]
        yield [*before, one[:-1], *after]
        yield [*before, one + b"\x00", *after]
        yield [*before, b"", *after]
        for k in range(i + 1, len(proof)):
            yield [*before, proof[k], *proof[i + 1 : k], one, *proof[k + 1 :]]
    for extra in (bytes(32), b"", *more):
        yield [*proof, extra]
        yield [extra, *proof]


def assert_refused(check: Callable[..., None], *arguments: object) -> None:
    with pytest.raises(ProofError):
        check(*arguments)


# Roots


@pytest.mark.parametrize("size", range(1, 9))
def test_the_roots_are_those_of_certificate_transparency(size: int) -> None:
    leaves = [merkle.leaf_hash(entry) for entry in CT_LEAVES[:size]]
    assert merkle.root(leaves) == CT_ROOTS[size - 1]


def test_the_root_of_no_leaves_is_the_hash_of_nothing() -> None:
    assert merkle.root([]) == sha256(b"").digest() == Tree().root()


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=SIZES_MAX))
def test_the_root_is_the_one_that_the_rfc_defines(leaves: list[bytes]) -> None:
    assert merkle.root(iter(leaves)) == trees.head(leaves)


@pytest.mark.parametrize("bad", [bytes(31), bytes(33), b"", "a" * 32, None])
def test_a_leaf_hash_of_another_length_is_refused_and_leaves_the_tree_as_it_was(bad: Any) -> None:
    with pytest.raises(ValueError, match="leaf hash 1 is not 32 bytes long"):
        merkle.root([bytes(32), bad])
    tree = Tree()
    tree.append(bytes(32))
    with pytest.raises(ValueError):
        tree.append(bad)
    assert (tree.size, tree.root()) == (1, bytes(32))


# The tree that grows


@pytest.mark.parametrize("size", range(SIZES_MAX + 1))
def test_a_tree_goes_on_from_its_frontier(size: int) -> None:
    first = Tree()
    for leaf in LEAVES[:size]:
        first.append(leaf)
    assert len(first.frontier) == size.bit_count()
    second = Tree(first.size, first.frontier)
    for leaf in LEAVES[size:]:
        second.append(leaf)
    assert (second.size, second.root()) == (SIZES_MAX, HEADS[SIZES_MAX])
    assert first.root() == HEADS[size]


@pytest.mark.parametrize(
    ("size", "frontier"),
    [(1, []), (0, [bytes(32)]), (3, [bytes(32)]), (4, [bytes(32)] * 2), (1, [bytes(31)]), (1, ["a" * 32]), (-1, [])],
)
def test_a_frontier_that_no_tree_of_that_size_has_is_refused(size: int, frontier: Any) -> None:
    with pytest.raises(ValueError, match="has no such frontier"):
        Tree(size, frontier)


@given(st.sets(st.integers(min_value=0, max_value=SIZES_MAX)), st.integers(min_value=0, max_value=SIZES_MAX))
def test_the_roots_at_all_asked_sizes_are_given_in_passing(sizes: set[int], start: int) -> None:
    tree = Tree()
    assert list(tree.roots(LEAVES, [start])) == [(start, HEADS[start])]
    asked = sorted(size for size in sizes if size >= start)
    assert list(tree.roots(LEAVES[start:], asked)) == [(size, HEADS[size]) for size in asked]


def test_no_leaf_is_taken_behind_the_last_asked_size() -> None:
    leaves = iter(LEAVES)
    assert dict(Tree().roots(leaves, [3, 5])) == {3: HEADS[3], 5: HEADS[5]}
    assert next(leaves) == LEAVES[5]


def test_leaves_that_end_before_an_asked_size_are_no_proof_of_it() -> None:
    roots = Tree().roots(LEAVES[:9], [4, 10])
    assert next(roots) == (4, HEADS[4])
    with pytest.raises(ProofError, match="the leaves end at 9, before the size 10"):
        next(roots)


def test_a_size_that_is_already_passed_is_refused() -> None:
    with pytest.raises(ValueError, match="the root at 4 was to be given before that at 5"):
        list(Tree().roots(LEAVES, [5, 4]))


# Proofs of others


@pytest.mark.parametrize(("leaf", "size", "proof"), CT_INCLUSION)
def test_an_inclusion_proof_of_certificate_transparency_is_accepted(leaf: int, size: int, proof: list[str]) -> None:
    hashes = [bytes.fromhex(text) for text in proof]
    leaf_hash = merkle.leaf_hash(CT_LEAVES[leaf - 1])
    root = CT_ROOTS[size - 1]
    verify_inclusion(leaf - 1, size, leaf_hash, hashes, root)
    # What the reference implementation's own test tries: corruptInclusionProof in proof/verify_test.go.
    some, wrong = bytes.fromhex("abacaba000000000000000000000000000000000000000000060061e00123456"), b"WrongLeaf"
    for bad in (leaf - 2, leaf, leaf - 1 ^ 2):
        assert_refused(verify_inclusion, bad, size, leaf_hash, hashes, root)
    for bad in (2 * size, size // 2):
        assert_refused(verify_inclusion, leaf - 1, bad, leaf_hash, hashes, root)
    assert_refused(verify_inclusion, leaf - 1, size, wrong, hashes, root)
    for bad in (merkle.EMPTY_ROOT, some, wrong, b""):
        assert_refused(verify_inclusion, leaf - 1, size, leaf_hash, hashes, bad)
    for bad in mutilated(hashes, root, some):
        assert_refused(verify_inclusion, leaf - 1, size, leaf_hash, bad, root)


@pytest.mark.parametrize(("size1", "size2", "proof"), CT_CONSISTENCY)
def test_a_consistency_proof_of_certificate_transparency_is_accepted(size1: int, size2: int, proof: list[str]) -> None:
    hashes = [bytes.fromhex(text) for text in proof]
    root1, root2 = CT_ROOTS[size1 - 1], CT_ROOTS[size2 - 1]
    verify_consistency(size1, size2, root1, root2, hashes)
    # As corruptConsistencyProof in proof/verify_test.go, which leaves out empty proofs too.
    if hashes:
        for bad in (size1 - 1, size1 + 1, size1 ^ 2):
            assert_refused(verify_consistency, bad, size2, root1, root2, hashes)
        for bad in (2 * size2, size2 // 2):
            assert_refused(verify_consistency, size1, bad, root1, root2, hashes)
        assert_refused(verify_consistency, size1, size2, b"WrongRoot", root2, hashes)
        assert_refused(verify_consistency, size1, size2, root1, b"WrongRoot", hashes)
        assert_refused(verify_consistency, size1, size2, root2, root1, hashes)
        assert_refused(verify_consistency, size1, size2, root1, root2, [])
    for bad in mutilated(hashes, root1, root2):
        assert_refused(verify_consistency, size1, size2, root1, root2, bad)


def test_the_proofs_of_a_log_of_961_984_013_certificates_are_accepted() -> None:
    """Real answers of Google's Argon 2020, from golang.org/x/mod: sumdb/tlog/testdata/argon2020 and ct_test.go."""
    root, earlier = base64.b64decode(ARGON["root"]), base64.b64decode(ARGON["earlier_root"])
    leaf = merkle.leaf_hash(base64.b64decode(ARGON["entry"]))
    path = [base64.b64decode(one) for one in ARGON["inclusion"]]
    verify_inclusion(ARGON["index"], ARGON["size"], leaf, path, root)
    proof = [base64.b64decode(one) for one in ARGON["consistency"]]
    verify_consistency(ARGON["earlier_size"], ARGON["size"], earlier, root, proof)
    for bad in mutilated(path, root):
        assert_refused(verify_inclusion, ARGON["index"], ARGON["size"], leaf, bad, root)
    for bad in mutilated(proof, root, earlier):
        assert_refused(verify_consistency, ARGON["earlier_size"], ARGON["size"], earlier, root, bad)


# Every proof of a small tree


@pytest.mark.parametrize("size", range(1, SIZES_MAX + 1))
def test_every_inclusion_proof_is_accepted_and_no_mutilated_one(size: int) -> None:
    for index in range(size):
        proof, check = inclusion(index, size)
        check(proof)
        check(tuple(proof))  # type: ignore[arg-type]
        for bad in mutilated(proof, HEADS[size], LEAVES[index]):
            assert_refused(check, bad)


@pytest.mark.parametrize("size2", range(1, SIZES_MAX + 1))
def test_every_consistency_proof_is_accepted_and_no_mutilated_one(size2: int) -> None:
    for size1 in range(1, size2 + 1):
        proof, check = consistency(size1, size2)
        check(proof)
        for bad in mutilated(proof, HEADS[size1], HEADS[size2]):
            assert_refused(check, bad)


@pytest.mark.parametrize("make", [lambda: inclusion(4, 7), lambda: consistency(3, 7), lambda: consistency(4, 7)])
def test_a_proof_with_any_single_bit_flipped_is_refused(make: Callable[[], tuple[list[bytes], Check]]) -> None:
    proof, check = make()
    for i, one in enumerate(proof):
        for bit in range(256):
            assert_refused(check, [*proof[:i], flipped(one, bit), *proof[i + 1 :]])


@given(st.data())
def test_a_proof_with_one_bit_flipped_anywhere_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(min_value=2, max_value=SIZES_MAX))
    first = data.draw(st.integers(min_value=1, max_value=size - 1))
    bit = data.draw(st.integers(min_value=0, max_value=255))
    for proof, check in (inclusion(first, size), consistency(first, size)):
        i = data.draw(st.integers(min_value=0, max_value=len(proof) - 1))
        assert_refused(check, [*proof[:i], flipped(proof[i], bit), *proof[i + 1 :]])


@given(st.data())
def test_a_proof_is_of_one_leaf_and_of_one_root(data: st.DataObject) -> None:
    size = data.draw(st.integers(min_value=1, max_value=SIZES_MAX))
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    bit = data.draw(st.integers(min_value=0, max_value=255))
    path, _ = inclusion(index, size)
    leaf, root = LEAVES[index], HEADS[size]
    assert_refused(verify_inclusion, index, size, flipped(leaf, bit), path, root)
    assert_refused(verify_inclusion, index, size, leaf, path, flipped(root, bit))
    for other in range(size):
        if other != index:
            assert_refused(verify_inclusion, other, size, leaf, path, root)
    size1 = index + 1
    proof, _ = consistency(size1, size)
    root1 = HEADS[size1]
    assert_refused(verify_consistency, size1, size, flipped(root1, bit), root, proof)
    assert_refused(verify_consistency, size1, size, root1, flipped(root, bit), proof)


@given(st.integers(min_value=1, max_value=SIZES_MAX), st.integers(min_value=1, max_value=SIZES_MAX), st.data())
def test_a_tree_with_an_earlier_leaf_changed_is_consistent_with_nothing(size1: int, more: int, data: Any) -> None:
    size2 = size1 + more
    changed = trees.leaves(size2)
    old = trees.head(changed[:size1])
    at = data.draw(st.integers(min_value=0, max_value=size1 - 1))
    changed[at] = flipped(changed[at], 0)
    assert_refused(verify_consistency, size1, size2, old, trees.head(changed), trees.proof(size1, changed))


# Whatever is malformed

HASH = bytes(32)
TWO = merkle.node_hash(HASH, HASH)


def test_sizes_go_up_to_64_bits() -> None:
    for size, why in ((2**64 - 1, "too short"), (2**64, "integers from 0")):
        with pytest.raises(ProofError, match=why):
            verify_inclusion(0, size, HASH, [HASH], HASH)
        with pytest.raises(ProofError, match=why):
            verify_consistency(1, size, HASH, HASH, [HASH])


@pytest.mark.parametrize(
    ("index", "size", "leaf", "proof", "root"),
    [
        # These hash to the root, but have too few hashes for their sizes, or too many.
        (0, 1, HASH, [HASH], TWO),
        (0, 2, HASH, [], HASH),
        (1, 2, HASH, [HASH, HASH], merkle.node_hash(HASH, TWO)),
        (0, 2, HASH, [HASH, HASH], merkle.node_hash(HASH, TWO)),
        (0, 2, HASH, [HASH, HASH], merkle.node_hash(TWO, HASH)),
        (0, 3, HASH, [HASH], TWO),
        (0, 4, HASH, [HASH], TWO),
        (2, 4, HASH, [HASH], TWO),
        (3, 3, HASH, [HASH], TWO),
        (0, 0, HASH, [], HASH),
        (1, 1, HASH, [], HASH),
        (2, 1, HASH, [], HASH),
        (-1, 1, HASH, [], HASH),
        (0, -1, HASH, [], HASH),
        (False, 1, HASH, [], HASH),
        (0, True, HASH, [], HASH),
        (0.0, 1, HASH, [], HASH),
        ("0", 1, HASH, [], HASH),
        (None, 1, HASH, [], HASH),
        (0, 2**64, HASH, [], HASH),
        pytest.param(0, 10**5000, HASH, [], HASH, id="5000 digits"),
        (0, 1, HASH[1:], [], HASH[1:]),
        (0, 1, b"", [], b""),
        (0, 1, bytearray(32), [], bytearray(32)),
        (0, 1, "a" * 32, [], "a" * 32),
        (0, 1, HASH.hex(), [], HASH.hex()),
        (0, 1, None, [], None),
        (0, 1, HASH, None, HASH),
        (0, 1, HASH, b"", HASH),
        (0, 1, HASH, "", HASH),
        (0, 1, HASH, {}, HASH),
        (0, 2, HASH, HASH, merkle.node_hash(HASH, HASH)),
        (0, 2, HASH, [HASH.hex()], merkle.node_hash(HASH, HASH)),
        (0, 2, HASH, [bytearray(HASH)], merkle.node_hash(HASH, HASH)),
        (0, 2, HASH, [None], merkle.node_hash(HASH, HASH)),
        (0, 2, HASH, iter([HASH]), merkle.node_hash(HASH, HASH)),
        (0, 2**64 - 1, HASH, [HASH] * 100_000, HASH),
    ],
)
def test_a_malformed_inclusion_proof_is_refused(index: Any, size: Any, leaf: Any, proof: Any, root: Any) -> None:
    with pytest.raises(ProofError):
        verify_inclusion(index, size, leaf, proof, root)


@pytest.mark.parametrize(
    ("size1", "size2", "root1", "root2", "proof"),
    [
        # These hash to both roots, but have too few hashes for their sizes, or too many.
        (3, 2, HASH, TWO, [HASH, HASH]),
        (4, 2, HASH, TWO, [HASH]),
        (5, 4, HASH, merkle.node_hash(TWO, HASH), [HASH, HASH, HASH]),
        (1, 2, HASH, merkle.node_hash(HASH, TWO), [HASH, HASH]),
        (1, 2, HASH, merkle.node_hash(TWO, HASH), [HASH, HASH]),
        (1, 4, HASH, TWO, [HASH]),
        (1, 2, HASH, HASH, []),
        (3, 4, HASH, HASH, [HASH]),
        (3, 8, TWO, merkle.node_hash(HASH, TWO), [HASH, HASH, HASH]),
        (0, 0, merkle.EMPTY_ROOT, merkle.EMPTY_ROOT, []),
        (0, 1, merkle.EMPTY_ROOT, HASH, []),
        (0, 1, HASH, HASH, []),
        (1, 0, HASH, HASH, []),
        (2, 1, HASH, HASH, []),
        (3, 3, HASH, HASH, [HASH]),
        (3, 3, HASH, flipped(HASH, 0), []),
        (-1, 1, HASH, HASH, []),
        (1, -1, HASH, HASH, []),
        (True, 1, HASH, HASH, []),
        (1, True, HASH, HASH, []),
        (1.0, 1, HASH, HASH, []),
        pytest.param(1, 10**5000, HASH, HASH, [HASH], id="5000 digits"),
        pytest.param(10**5000, 10**5000, HASH, HASH, [], id="5000 digits twice"),
        (1, 1, HASH[1:], HASH[1:], []),
        (1, 1, "a" * 32, "a" * 32, []),
        (1, 1, None, None, []),
        (1, 1, HASH, HASH, None),
        (1, 1, HASH, HASH, b""),
        (1, 2, HASH, merkle.node_hash(HASH, HASH), HASH),
        (1, 2, HASH, merkle.node_hash(HASH, HASH), [HASH[1:]]),
        (1, 2, HASH, merkle.node_hash(HASH, HASH), [HASH.hex()]),
        (1, 2, HASH, merkle.node_hash(HASH, HASH), iter([HASH])),
    ],
)
def test_a_malformed_consistency_proof_is_refused(size1: Any, size2: Any, root1: Any, root2: Any, proof: Any) -> None:
    with pytest.raises(ProofError):
        verify_consistency(size1, size2, root1, root2, proof)


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.binary(max_size=40), st.just(HASH), st.lists(st.just(HASH), max_size=4)
)


@given(ANYTHING, ANYTHING, ANYTHING, st.one_of(ANYTHING, st.lists(ANYTHING)), ANYTHING)
def test_whatever_is_given_only_a_proof_error_comes_back(a: Any, b: Any, c: Any, d: Any, e: Any) -> None:
    for check in (lambda: verify_inclusion(a, b, c, d, e), lambda: verify_consistency(a, b, c, e, d)):
        with contextlib.suppress(ProofError):
            assert check() is None
