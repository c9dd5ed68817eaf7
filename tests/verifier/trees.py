"""
The tree, its proofs and its tiles exactly as the documents define them: slow, obviously right, and without a line of the
verifier's. The verifier is compared with it.
"""

import re
from functools import cache
from hashlib import sha256


def leaf(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def leaves(size: int) -> list[bytes]:
    """Different leaf hashes, the same in every run."""
    return [leaf(b"%d" % index) for index in range(size)]


def head(d: list[bytes]) -> bytes:
    """MTH(D[n]) of RFC 6962, section 2.1, over leaf hashes."""
    if not d:
        return sha256(b"").digest()
    if len(d) == 1:
        return d[0]
    k = split(len(d))
    return sha256(b"\x01" + head(d[:k]) + head(d[k:])).digest()


def path(m: int, d: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]) of RFC 6962, section 2.1.1."""
    if len(d) == 1:
        return []
    k = split(len(d))
    if m < k:
        return [*path(m, d[:k]), head(d[k:])]
    return [*path(m - k, d[k:]), head(d[:k])]


def proof(m: int, d: list[bytes]) -> list[bytes]:
    """PROOF(m, D[n]) of RFC 6962, section 2.1.2."""
    return subproof(m, d, b=True)


def subproof(m: int, d: list[bytes], *, b: bool) -> list[bytes]:
    if m == len(d):
        return [] if b else [head(d)]
    k = split(len(d))
    if m <= k:
        return [*subproof(m, d[:k], b=b), head(d[k:])]
    return [*subproof(m - k, d[k:], b=False), head(d[:k])]


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def number(n: int) -> str:
    """An index as tlog-tiles spells it, digit by digit."""
    digits = str(n)
    while len(digits) % 3:
        digits = "0" + digits
    parts = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    return "/".join(["x" + part for part in parts[:-1]] + parts[-1:])


def files(entries: list[bytes]) -> dict[str, bytes]:
    """Every file of the log of these entries, by path, from the formula of tlog-tiles: MTH(D[(n * 256 + i) * 256**l :…])."""
    d = [leaf(entry) for entry in entries]
    found: dict[str, bytes] = {}
    level = 0
    while 256**level <= len(d):
        span = 256**level
        hashes = [head(d[at : at + span]) for at in range(0, len(d) - span + 1, span)]
        for n in range(0, len(hashes), 256):
            tile = hashes[n : n + 256]
            found[f"tile/{level}/{number(n // 256)}{part(tile)}"] = b"".join(tile)
        level += 1
    for n in range(0, len(entries), 256):
        bundle = entries[n : n + 256]
        found[f"tile/entries/{number(n // 256)}{part(bundle)}"] = b"".join(
            len(entry).to_bytes(2, "big") + entry for entry in bundle
        )
    return found


def part(of: list[bytes]) -> str:
    return f".p/{len(of)}" if len(of) < 256 else ""


class Periodic:
    """The tree and tiles of a log in which the same 65,536 leaves come again and again, so that millions cost no more."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.fetched: list[str] = []
        self.levels = [leaves(1 << 16)]
        while len(self.levels[-1]) > 1:
            below = self.levels[-1]
            self.levels.append([head(below[at : at + 2]) for at in range(0, len(below), 2)])
        self.head = cache(self._head)

    def subtree(self, height: int, index: int) -> bytes:
        """Of 2^height leaves, complete."""
        if height <= 16:
            level = self.levels[height]
            return level[index % len(level)]
        return head(2 * [self.subtree(height - 1, 0)])

    def _head(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]) by the definition, except that it is known for complete subtrees."""
        n = end - start
        if n & n - 1 == 0 and start % n == 0:
            return self.subtree(n.bit_length() - 1, start // n)
        k = split(n)
        return head([self._head(start, start + k), self._head(start + k, end)])

    def fetch(self, path: str) -> bytes:
        """A tile of the tree of this size, and of no other."""
        self.fetched.append(path)
        match = re.fullmatch(r"tile/(\d+)/([x\d/]+)(?:\.p/(\d+))?", path)
        assert match is not None
        level, index, width = int(match[1]), int(re.sub("[x/]", "", match[2])), int(match[3] or 256)
        there = self.size // 256**level - 256 * index
        assert width == min(there, 256)
        return b"".join(self.subtree(8 * level, 256 * index + i) for i in range(width))
