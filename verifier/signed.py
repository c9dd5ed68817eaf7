"""
What the keeper of a log signed: every head, held against the log as it was read, against the keys that are trusted, and
against the times at which witnesses signed.

Keys may change: an event `log.key_rotated`, signed by the old and by the new key, extends trust from either to the other
(docs/reference/log-interface.md).

Invariants:
    - nothing is signed by a trusted key unless that signature was verified here;
    - without a policy no signature is looked at, and the report says so;
    - a signature of a key that is not known is counted, and otherwise ignored.
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate, islice
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from verifier.encoding import read_base64
from verifier.faults import CouldNotCheck, Fault, Reason, quoted
from verifier.growth import Marks
from verifier.note import Kind, NoteError, VerifierKey, assemble, parse_checkpoint, parse_vkey, verify_note
from verifier.parallel import in_order
from verifier.policy import Policy
from verifier.sheet import Pages

PLAUSIBLE_US = 60_000_000  # how far the clocks of a log and of a witness may be apart
BATCH = 64  # heads
_NEVER = 2**63 - 1


class Rotation(NamedTuple):
    """An event by which a log changes its key: where it stands, and what it says."""

    position: int
    stream: str
    data: dict[str, Any]


class Examined(NamedTuple):
    """A head by itself. `signers` and `cosigned_s` (seconds since 1970) are by the numbers of the keys that were given."""

    size: int
    root: bytes
    signers: tuple[int, ...]
    cosigned_s: dict[int, int]
    unknown: int
    fault: tuple[Reason, str] | None


@dataclass(slots=True)
class Signed:
    """What was found of the heads. `size` and `root` are the newest one's; `witnessed_by` says who, and when (s)."""

    size: int = 0
    root: str | None = None
    heads: int = 0
    signatures: int = 0
    cosignatures: int = 0
    unknown_signatures: int = 0
    witnessed_size: int | None = None
    witnessed_by: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        return {
            "size": self.size,
            "root": self.root,
            "heads": self.heads,
            "signatures": self.signatures,
            "cosignatures": self.cosignatures,
            "unknown_signatures": self.unknown_signatures,
        }

    def witnessed_to_json(self) -> dict[str, object] | None:
        if self.witnessed_size is None:
            return None
        return {
            "size": self.witnessed_size,
            "by": {name: rfc3339(at) for name, at in sorted(self.witnessed_by.items())},
        }


def rfc3339(seconds: int) -> str:
    """RFC 3339. A time that no calendar has stays a number."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


@dataclass(frozen=True, slots=True)
class _Term:
    """Which heads a key of the log may sign alone: of sizes from `first`, whose last entry was recorded up to `until_us`."""

    first: int
    until_us: int = _NEVER


class Trust:
    """The keys by which the heads of one log are judged: those of a policy, and those that its log changed to."""

    def __init__(self, policy: Policy, origin: str, region: str | None, rotations: Iterable[Rotation]) -> None:
        """Raises CouldNotCheck when the policy has no key of this log."""
        self.policy = policy
        self.terms = {log.key: _Term(0) for log in policy.logs if log.key.name == origin}
        if not self.terms:
            raise CouldNotCheck(f"the policy lists no key of the log {quoted(origin)}, so its signatures mean nothing")
        self.faults: list[Fault] = []
        changes: list[tuple[int, VerifierKey, VerifierKey, int]] = []
        for rotation in rotations:
            try:
                changes.append((rotation.position, *_read_rotation(rotation, origin, region)))
            except (NoteError, ValueError, InvalidSignature) as error:
                why = str(error) or "a signature is false"
                self.faults.append(
                    Fault(rotation.position, Reason.ROTATION_INVALID, f"the log's key is changed in a wrong way: {why}")
                )
        for position, old, new, until_us in changes:
            if old in self.terms:
                self.terms.setdefault(new, _Term(position))
                self.terms[old] = _Term(self.terms[old].first, until_us)
        for _, old, new, until_us in reversed(changes):  # the regulator may have been given a later key
            if new in self.terms:
                self.terms.setdefault(old, _Term(0, until_us))
        self.keys = [*self.terms, *(witness.key for witness in policy.witnesses)]
        self._names = [witness.name for witness in policy.witnesses]

    def judge(self, head: Examined, recorded_us: int) -> tuple[Reason, str] | None:
        """What is wrong with its signatures, each of which is true."""
        log_keys = list(self.terms.values())
        terms = [log_keys[number] for number in head.signers]
        if any(head.size >= term.first and recorded_us <= term.until_us for term in terms):
            return None
        if any(head.size >= term.first for term in terms):
            return Reason.KEY_RETIRED, "the head is signed only by a key that was to be used no more at that time"
        return Reason.HEAD_UNSIGNED, "the head is signed by no key of the log that is trusted at this size"

    def is_quorum(self, head: Examined) -> bool:
        return self.policy.is_quorum(self.keys[number] for number in head.cosigned_s)

    def by_name(self, head: Examined) -> dict[str, int]:
        return {self._names[number - len(self.terms)]: at for number, at in head.cosigned_s.items()}


def _read_rotation(rotation: Rotation, origin: str, region: str | None) -> tuple[VerifierKey, VerifierKey, int]:
    """Old key, new key, and until when the old one may sign alone (µs). Raises NoteError, ValueError, InvalidSignature."""
    if rotation.stream != f"region-{region}-log":
        raise ValueError("it does not stand on the log's own stream")
    texts = [rotation.data.get(name) for name in ("old", "new", "until", "by_old", "by_new")]
    old_text, new_text, until, by_old, by_new = (text if isinstance(text, str) else "" for text in texts)
    old, new = parse_vkey(old_text), parse_vkey(new_text)
    if {old.name, new.name} != {origin} or {old.kind, new.kind} != {Kind.ED25519} or old == new:
        raise ValueError("these are not two keys of this log")
    ends = datetime.fromisoformat(until)
    if ends.tzinfo is None:
        raise ValueError("its end has no time zone")
    said = f"countroom/key-rotation/v1\n{origin}\n{old_text}\n{new_text}\n{until}\n".encode()
    for key, signature in ((old, by_old), (new, by_new)):
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(read_base64(signature), said)
    return old, new, int(ends.timestamp()) * 1_000_000 + ends.microsecond


def sizes_of(pages: Pages) -> Iterator[int]:
    """Of every head, rising. Raises CouldNotCheck."""
    newest = -1
    for size, _ in pages.heads():
        if size <= newest:
            raise CouldNotCheck(f"the heads do not come by size: {size} stands behind {newest}")
        newest = size
        yield size


def examine(keys: list[VerifierKey] | None, origin: str, heads: list[tuple[int, bytes]]) -> list[Examined]:
    """Each head by itself, its signatures verified; without keys only what its text says."""
    return [_examine(size, note, keys, origin) for size, note in heads]


def _examine(size: int, note: bytes, keys: list[VerifierKey] | None, origin: str) -> Examined:
    try:
        text, _, lines = note.decode().rpartition("\n\n")
        checkpoint = parse_checkpoint(text + "\n")
        assemble(text + "\n", [lines])
    except (NoteError, UnicodeDecodeError) as error:
        return Examined(size, b"", (), {}, 0, (Reason.HEAD_MALFORMED, f"the head cannot be read: {error}"))
    total = lines.count("\n")
    blank = Examined(size, checkpoint.root, (), {}, total, None)
    wrong: tuple[Reason, str] | None = None
    if checkpoint.origin != origin:
        wrong = Reason.HEAD_FOREIGN, f"the head is one of the log {quoted(checkpoint.origin)}"
    elif checkpoint.size != size:
        wrong = (
            Reason.HEAD_MALFORMED,
            f"the head kept for the size {size} says that there are {checkpoint.size} entries",
        )
    if wrong is not None or keys is None:
        return blank._replace(fault=wrong)
    try:
        signatures = verify_note(note, keys).signatures
    except NoteError as error:
        if any(_claims(lines, key) for key in keys):
            return blank._replace(fault=(Reason.SIGNATURE_FALSE, str(error)))
        return blank
    number = {key: place for place, key in enumerate(keys)}
    cosigned: dict[int, int] = {}
    for signature in signatures:
        if signature.timestamp_s is not None:
            place = number[signature.key]
            cosigned[place] = max(signature.timestamp_s, cosigned.get(place, 0))
    signers = tuple(number[signature.key] for signature in signatures if signature.timestamp_s is None)
    return blank._replace(signers=signers, cosigned_s=cosigned, unknown=total - len(signatures))


def _claims(lines: str, key: VerifierKey) -> bool:
    """Whether a line claims to be signed by this key."""
    beginning = f"\u2014 {key.name} "
    return any(
        line.startswith(beginning) and read_base64(line.removeprefix(beginning))[:4] == key.key_id
        for line in lines.splitlines()
    )


def check(pages: Pages, marks: Marks, origin: str, trust: Trust | None, workers: int) -> tuple[Signed, "array[int]"]:
    """
    Every head up to what was read. The times are those of the earliest cosignature of each (s), 0: there is none.

    Raises CouldNotCheck.
    """
    found = Signed(faults=[*trust.faults] if trust else [])
    times = array("q", bytes(8 * len(marks.sizes)))
    work = partial(examine, trust.keys if trust else None, origin)
    enough = workers if len(marks.sizes) > 4 * BATCH else 1
    number = 0
    for batch in in_order(work, _batches(pages.heads(), marks), enough):
        for head in batch:
            if marks.sizes[number] != head.size:
                raise CouldNotCheck(f"the head of size {marks.sizes[number]} has gone meanwhile")
            _judge(head, number, marks, trust, found)
            if head.fault is None and head.cosigned_s and head.root == marks.root(number):
                times[number] = min(head.cosigned_s.values())
            number += 1
    if number != marks.covered:
        raise CouldNotCheck(f"the head of size {marks.sizes[number]} has gone meanwhile")
    return found, times


def _batches(heads: Iterable[tuple[int, bytes]], marks: Marks) -> Iterator[list[tuple[int, bytes]]]:
    """Those that were there at first, and lie in what was read."""
    newest = marks.sizes[marks.covered - 1] if marks.covered else -1
    wanted = (head for head in heads if head[0] <= newest and marks.within(head[0], head[0]))
    while batch := list(islice(wanted, BATCH)):
        yield batch


def _judge(head: Examined, number: int, marks: Marks, trust: Trust | None, found: Signed) -> None:
    found.heads += 1
    found.signatures += len(head.signers)
    found.cosignatures += len(head.cosigned_s)
    found.unknown_signatures += head.unknown
    wrong = head.fault
    if wrong is None and trust is not None:
        wrong = trust.judge(head, marks.recorded_us[number])
    if wrong is None and head.root != marks.root(number):
        before = marks.sizes[number - 1] if number else 0
        said = (
            f"the head of size {head.size} has the root {head.root.hex()}, but the first {head.size} entries have "
            f"{marks.root(number).hex()}; the next smaller head is of size {before}"
        )
        wrong = Reason.ROOT_MISMATCH, said
    if wrong is not None:
        found.faults.append(Fault(max(head.size, 1), *wrong))
        return
    found.size, found.root = head.size, head.root.hex()
    if trust is not None and trust.is_quorum(head):
        found.witnessed_size, found.witnessed_by = head.size, trust.by_name(head)


def implausible(pages: Pages, marks: Marks, times: "array[int]", last: int, recorded_last_us: int) -> Fault | None:
    """
    The first entry that was recorded at a time at which, as witnesses saw, the log was shorter or longer already.

    The first cosignature over a head of size s, at the time t, says that the entries up to s had been recorded by t, and
    those behind s not long before, since witnesses are asked about the newest head. `last` is the last entry that was
    read. Since `recorded` increases, it is enough to look at the ends of each stretch between two heads. Raises
    CouldNotCheck.
    """
    seen = [number for number in range(marks.covered) if times[number]]
    not_after = [*accumulate((times[number] * 1_000_000 + PLAUSIBLE_US for number in reversed(seen)), min)][::-1]
    ends = [(marks.sizes[number], marks.recorded_us[number], marks.recorded_next_us[number]) for number in seen]
    first, begins_us, not_before, wrong = 1, 0, 0, 0
    found: tuple[int, int, int, int] | None = None
    for place, (end, end_us, next_us) in enumerate([*ends, (last, recorded_last_us, 0)]):
        latest = not_after[place] if place < len(seen) else _NEVER
        if first <= end and (end_us > latest or (place and begins_us < not_before)):
            for position, recorded_us in _times(pages, first, end):
                if not not_before <= recorded_us <= latest:
                    wrong += 1
                    found = found or (position, recorded_us, not_before, latest)
        if place < len(seen):
            first, begins_us = end + 1, next_us
            not_before = max(not_before, times[seen[place]] * 1_000_000 - PLAUSIBLE_US)
    if found is None:
        return None
    position, recorded_us, not_before, latest = found
    said = f"the entry was recorded at {recorded_us} microseconds; as witnesses saw the log, that is "
    said += (
        f"too late by {recorded_us - latest}" if recorded_us > latest else f"too early by {not_before - recorded_us}"
    )
    return Fault(position, Reason.RECORDED_IMPLAUSIBLE, f"{said}, a minute allowed for; {wrong} entries in all")


def _times(pages: Pages, first: int, last: int) -> Iterator[tuple[int, int]]:
    for part in pages.entries(first, last):
        for position, entry in zip(part.positions, part.entries, strict=True):
            yield position, int.from_bytes(entry[40:48])
