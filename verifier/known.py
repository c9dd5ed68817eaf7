"""
Heads that somebody knows from elsewhere: from the record of a witness, from another region, from an earlier check.

A source that cut off its end, or was put back from a backup, is consistent in itself. Whoever knows a later head of the log
sees that it is missing.

Invariant: a known head is treated as if the source showed it, and goes before one of the same size that says something else.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from verifier.faults import CouldNotCheck, Reason, quoted
from verifier.note import NoteError, parse_checkpoint
from verifier.sheet import Entries, Pages

Known = Mapping[str, Mapping[int, bytes]]
"""The signed notes of heads, by origin and size."""

_SEAL = b"sha256 "  # how a file of a witness's record begins (verifier.witness.FileStore)


def read_heads(files: Iterable[str]) -> Known:
    """Each file holds one signed note, or is one of a witness's record. Raises CouldNotCheck."""
    known: dict[str, dict[int, bytes]] = {}
    for file in files:
        try:
            note = Path(file).read_bytes()
            if note.startswith(_SEAL):
                note = note.partition(b"\n")[2]
            checkpoint = parse_checkpoint(_text(note))
        except OSError as error:
            raise CouldNotCheck(f"the head {quoted(file)} cannot be read: {error.strerror}") from None
        except (NoteError, UnicodeDecodeError) as error:
            raise CouldNotCheck(f"{quoted(file)} is no signed head: {error}") from None
        before = known.setdefault(checkpoint.origin, {}).setdefault(checkpoint.size, note)
        if _text(before) != _text(note):
            raise CouldNotCheck(f"two known heads of {quoted(checkpoint.origin)} have the size {checkpoint.size}")
    return known


class WithKnown:
    """What a source shows of a log, together with heads of it that are known (verifier.sheet.Pages)."""

    def __init__(self, pages: Pages, known: Mapping[int, bytes]) -> None:
        self.differing: Reason = pages.differing
        self._pages = pages
        self._known = known

    def length(self) -> int:
        return self._pages.length()

    def entries(self, first: int, last: int) -> Iterable[Entries]:
        return self._pages.entries(first, last)

    def hashes(self, level: int, index: int, width: int) -> list[bytes | None]:
        return self._pages.hashes(level, index, width)

    def heads(self) -> Iterator[tuple[int, bytes]]:
        left = sorted(self._known.items(), reverse=True)
        for size, note in self._pages.heads():
            while left and left[-1][0] < size:
                yield left.pop()
            known = left.pop()[1] if left and left[-1][0] == size else note
            yield size, note if _says_the_same(note, known) else known
        yield from reversed(left)


def _says_the_same(note: bytes, other: bytes) -> bool:
    return note.rpartition(b"\n\n")[0] == other.rpartition(b"\n\n")[0]


def _text(note: bytes) -> str:
    return note.decode().rpartition("\n\n")[0] + "\n"
