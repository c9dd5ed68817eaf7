"""
The Merkle tree over a log: one hash of 32 bytes, the root, that stands for every entry up to a position; and the proofs
that an entry is among them, and that one tree begins with another.

It is the tree of RFC 6962, section 2.1 (unchanged in RFC 9162): leaves and inner nodes are hashed under different
prefixes, so that no entry can pose as a subtree; the left subtree of n leaves holds the largest power of two below n.

Invariants:
    - memory grows with the logarithm of the number of leaves;
    - a proof is accepted only if it has exactly the hashes that index and sizes ask for, and each of them was used.

Hashes are 32 bytes, proofs lists of them, an index counts leaves from 0 (a log's position less 1).
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

HASH_BYTES = 32
SIZE_MAX = 2**64 - 1  # as in RFC 6962, section 3.5
EMPTY_ROOT = sha256(b"").digest()


class ProofError(Exception):
    """A proof does not prove what it is offered for."""


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right), of two hashes."""
    return sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """
    The tree's head (MTH). Of no leaves it is SHA-256 of the empty string, of one leaf that leaf.

    Raises ValueError when a leaf hash is not 32 bytes long.
    """
    tree = Tree()
    for leaf in leaf_hashes:
        tree.append(leaf)
    return tree.root()


class Tree:
    """
    A tree that grows leaf by leaf, and of all its leaves keeps only the frontier: the root of each complete subtree.

    The frontier is as long, and its subtrees are as large, as the binary digits of the size; the largest comes first.
    With size and frontier, a later process goes on where an earlier one stopped.
    """

    __slots__ = ("_frontier", "_size")

    def __init__(self, size: int = 0, frontier: Iterable[bytes] = ()) -> None:
        """Go on from `size` leaves. Raises ValueError for a frontier that no tree of that size has."""
        self._size = size
        self._frontier = list(frontier)
        if not _is_number(size) or len(self._frontier) != size.bit_count() or not all(map(_is_hash, self._frontier)):
            raise ValueError(f"a tree of {size} leaves has no such frontier")

    @property
    def size(self) -> int:
        """The number of leaves."""
        return self._size

    @property
    def frontier(self) -> tuple[bytes, ...]:
        return tuple(self._frontier)

    def append(self, leaf_hash: bytes) -> None:
        """Add the next leaf; one inner node is hashed on average. Raises ValueError when it is not 32 bytes."""
        size, frontier = self._size, self._frontier
        if not isinstance(leaf_hash, bytes) or len(leaf_hash) != HASH_BYTES:
            raise ValueError(f"leaf hash {size} is not {HASH_BYTES} bytes long")
        self._size = size + 1
        subtree = leaf_hash
        while size & 1:  # as in counting: where a digit is carried, two subtrees become one
            subtree = sha256(b"\x01" + frontier.pop() + subtree).digest()
            size >>= 1
        frontier.append(subtree)

    def root(self) -> bytes:
        """The root of the tree as it is now; at most one hash for each digit of its size."""
        if not self._frontier:
            return EMPTY_ROOT
        *left, head = self._frontier
        for subtree in reversed(left):
            head = node_hash(subtree, head)
        return head

    def roots(self, leaf_hashes: Iterable[bytes], sizes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """
        Append these leaves as they come, and whenever the tree has one of these sizes, give the size and the root.

        Sizes rise, from that of the tree. Behind the last one no further leaf is taken. Raises ProofError when the
        leaves end before a size is reached, since a head of that size is then about leaves that nobody saw; ValueError
        for a size that is already passed.
        """
        leaves = iter(leaf_hashes)
        for size in sizes:
            if size < self._size:
                raise ValueError(f"the root at {size} was to be given before that at {self._size}")
            while self._size < size:
                leaf = next(leaves, None)
                if leaf is None:
                    raise ProofError(f"the leaves end at {self._size}, before the size {size}")
                self.append(leaf)
            yield size, self.root()


def verify_inclusion(index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """
    Check that the leaf at `index` of the tree with this size and root is this one (RFC 9162, section 2.1.3.2).

    Raises ProofError, also for whatever is malformed: an index outside of the tree, a hash that is not 32 bytes, a proof
    that is too short or too long.
    """
    _demand(_is_number(index) and _is_number(size), "an index and a size are integers from 0 to 2^64 - 1")
    _demand(index < size, f"a tree of {size} leaves has no leaf at index {index}")
    _demand_hashes(proof, leaf_hash, root)
    node, last = index, size - 1  # where the path is, and where the tree ends, at one level after the other
    computed = leaf_hash
    for sibling in proof:
        _demand(last > 0, "the proof is too long")
        if node & 1 or node == last:
            computed = node_hash(sibling, computed)
            while not node & 1 and node:  # the end of the tree has no sibling at these levels
                node >>= 1
                last >>= 1
        else:
            computed = node_hash(computed, sibling)
        node >>= 1
        last >>= 1
    _demand(last == 0, "the proof is too short")
    _demand(computed == root, f"the proof leads from the leaf to another root, {computed.hex()}")


def verify_consistency(size1: int, size2: int, root1: bytes, root2: bytes, proof: Sequence[bytes]) -> None:
    """
    Check that the second tree begins with all leaves of the first, in their order (RFC 9162, section 2.1.4.2).

    Of equal sizes the roots are equal and the proof is empty. A first size of 0 is refused: every tree begins with no
    leaves, so it proves nothing.

    Raises ProofError, also for whatever is malformed: a first size beyond the second, a hash that is not 32 bytes, a
    proof that is too short or too long.
    """
    _demand(_is_number(size1) and _is_number(size2), "sizes are integers from 0 to 2^64 - 1")
    _demand(size1 > 0, "an empty tree is consistent with every tree, so this proves nothing")
    _demand(size1 <= size2, f"a tree of {size2} leaves cannot begin with one of {size1}")
    _demand_hashes(proof, root1, root2)
    if size1 == size2:
        _demand(not proof, "the proof is too long")
        _demand(root1 == root2, "trees of equal size have different roots")
        return
    _demand(len(proof) > 0, "the proof is too short")
    node, last = size1 - 1, size2 - 1
    while node & 1:  # up to the largest complete subtree that ends where the first tree ends
        node >>= 1
        last >>= 1
    hashes = iter(proof)
    computed1 = computed2 = root1 if node == 0 else next(hashes)
    for sibling in hashes:
        _demand(last > 0, "the proof is too long")
        if node & 1 or node == last:
            computed1 = node_hash(sibling, computed1)
            computed2 = node_hash(sibling, computed2)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            computed2 = node_hash(computed2, sibling)
        node >>= 1
        last >>= 1
    _demand(last == 0, "the proof is too short")
    _demand(computed1 == root1, f"the proof leads to another first root, {computed1.hex()}")
    _demand(computed2 == root2, f"the proof leads to another second root, {computed2.hex()}")


def _is_hash(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == HASH_BYTES


def _is_number(value: object) -> bool:
    # By its exact type: Python counts true and false among the integers.
    return type(value) is int and 0 <= value <= SIZE_MAX


def _demand_hashes(proof: object, *others: object) -> None:
    if not isinstance(proof, list | tuple):
        raise ProofError("a proof is a list of hashes")
    _demand(all(map(_is_hash, (*others, *proof))), f"a hash is {HASH_BYTES} bytes")


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ProofError(otherwise)
