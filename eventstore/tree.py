"""
The Merkle tree over a log, as its writer computes it: the root that stands for all entries, and what proofs consist of.

It is the tree of RFC 6962, section 2.1. The verifier has its own reading of that section (verifier/merkle.py), so that one
mistake is not made twice.

Invariants:
    - a tree only grows, and of its leaves it keeps no more than the roots of its complete subtrees;
    - nothing here reads or writes: whoever stores hashes looks up the nodes that are named here.

Hashes are 32 bytes. Leaves are counted from 0: the entry at position p is leaf p - 1. A range is [start, end).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


class Range(NamedTuple):
    """The leaves from `start` to before `end`."""

    start: int
    end: int


class Node(NamedTuple):
    """The `number`-th complete subtree of 2^height leaves."""

    height: int
    number: int


class Tree:
    """A tree that grows. `frontier`: the roots of the complete subtrees of its leaves, the largest first."""

    __slots__ = ("_frontier", "_size")

    def __init__(self, size: int = 0, frontier: Sequence[bytes] = ()) -> None:
        """Go on from `size` leaves. Raises ValueError for a frontier that no tree of that size has."""
        if size < 0 or len(frontier) != size.bit_count() or any(len(root) != HASH_BYTES for root in frontier):
            raise ValueError(f"a tree of {size} leaves has no such frontier")
        self._size = size
        self._frontier = list(frontier)

    @property
    def size(self) -> int:
        return self._size

    @property
    def frontier(self) -> tuple[bytes, ...]:
        return tuple(self._frontier)

    def append(self, leaf: bytes) -> None:
        """Add the leaf hash of the next entry. Raises ValueError when it is not 32 bytes."""
        self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaf hashes; a hash more for each. Raises ValueError at one that is not 32 bytes: those before it were added."""
        frontier, size, hashed = self._frontier, self._size, sha256
        try:
            for leaf in leaves:
                if len(leaf) != HASH_BYTES:
                    raise ValueError(f"leaf {size} has {len(leaf)} bytes instead of {HASH_BYTES}")
                root = leaf
                for _ in range(
                    (~size & size + 1).bit_length() - 1
                ):  # the ones at the end of its size: subtrees it completes
                    root = hashed(b"\x01" + frontier.pop() + root).digest()
                frontier.append(root)
                size += 1
        finally:
            self._size = size

    def root(self) -> bytes:
        """MTH of the leaves so far; SHA-256 of nothing for an empty tree."""
        return joined(self._frontier)


def joined(roots: Sequence[bytes]) -> bytes:
    """The root over neighbouring complete subtrees, of which each is smaller than the one before."""
    if not roots:
        return EMPTY_ROOT
    *others, root = roots
    for left in reversed(others):
        root = sha256(b"\x01" + left + root).digest()
    return root


def folded(hashes: bytes) -> bytes:
    """The root of a complete subtree, from all the hashes of one of its levels, one behind the other."""
    while len(hashes) > HASH_BYTES:
        pairs = range(0, len(hashes), 2 * HASH_BYTES)
        hashes = b"".join([sha256(b"\x01" + hashes[at : at + 2 * HASH_BYTES]).digest() for at in pairs])
    return hashes


def complete(leaves: Range) -> list[Node]:
    """The complete subtrees of a range that is itself a subtree, the largest first: `joined`, their roots are its root."""
    nodes = []
    start, end = leaves
    while start < end:
        height = (end - start).bit_length() - 1
        nodes.append(Node(height, start >> height))
        start += 1 << height
    return nodes


def inclusion(index: int, size: int) -> list[Range]:
    """
    The subtrees whose roots prove that leaf `index` is in the tree of `size` leaves: PATH of RFC 6962, section 2.1.1.

    Raises ValueError unless 0 ≤ index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    return _path(index, Range(0, size))


def consistency(size1: int, size2: int) -> list[Range]:
    """
    The subtrees whose roots prove that the tree of `size2` leaves begins with that of `size1`: PROOF of RFC 6962, 2.1.2.

    From size 0 there is nothing to prove, and the proof is empty. Raises ValueError unless 0 ≤ size1 ≤ size2.
    """
    if not 0 <= size1 <= size2:
        raise ValueError(f"a tree of {size2} leaves does not begin with one of {size1}")
    return _subproof(size1, Range(0, size2), known=True) if size1 else []


def _path(index: int, leaves: Range) -> list[Range]:
    if leaves.end - leaves.start == 1:
        return []
    left, right = _halves(leaves)
    return [*_path(index, left), right] if index < left.end else [*_path(index, right), left]


def _subproof(size1: int, leaves: Range, *, known: bool) -> list[Range]:
    """`known`: the range begins where the tree does, so that the verifier has the root of the first tree."""
    if leaves.end == size1:
        return [] if known else [leaves]
    left, right = _halves(leaves)
    if size1 <= left.end:
        return [*_subproof(size1, left, known=known), right]
    return [*_subproof(size1, right, known=False), left]


def _halves(leaves: Range) -> tuple[Range, Range]:
    """The left subtree has the largest power of two of leaves that is below their number."""
    start, end = leaves
    middle = start + (1 << (end - start - 1).bit_length() - 1)
    return Range(start, middle), Range(middle, end)
