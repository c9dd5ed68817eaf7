"""
The Merkle tree over a log: one hash of 32 bytes that stands for every entry up to a position.

It is the tree of RFC 6962, section 2.1 (unchanged in RFC 9162): leaves and inner nodes are hashed under different
prefixes, so that no entry can pose as a subtree; the left subtree of n leaves holds the largest power of two below n.

Invariant: memory grows with the logarithm of the number of leaves.
"""

from collections.abc import Iterable
from hashlib import sha256

HASH_BYTES = 32


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry)."""
    return sha256(b"\x00" + entry).digest()


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """
    The tree's head (MTH). Of no leaves it is SHA-256 of the empty string, of one leaf that leaf.

    Raises ValueError when a leaf hash is not 32 bytes long.
    """
    # Complete subtrees, largest first: as many, and of such sizes, as the binary digits of the number of leaves.
    subtrees: list[bytes] = []
    for size, leaf in enumerate(leaf_hashes, start=1):
        if len(leaf) != HASH_BYTES:
            raise ValueError(f"leaf hash {size - 1} has {len(leaf)} bytes instead of {HASH_BYTES}")
        subtree, carry = leaf, size
        while carry % 2 == 0:
            subtree = _node(subtrees.pop(), subtree)
            carry //= 2
        subtrees.append(subtree)

    if not subtrees:
        return sha256(b"").digest()
    head = subtrees.pop()
    while subtrees:
        head = _node(subtrees.pop(), head)
    return head


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()
