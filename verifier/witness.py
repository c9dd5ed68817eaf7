"""
A witness: it signs the heads of other people's logs, each only if the log grew since the last one and changed nothing.

Whoever wants to show two readers two versions of a log would need the witness to sign both. It is C2SP's tlog-witness,
the call add-checkpoint, without the network: bytes of a request in, status and bytes of the answer out.

Invariants:
    - of one log, whatever this key cosigned are heads of one tree that only grows, whichever requests come at once, and
      whenever the process is killed;
    - a head is on disk before its cosignature leaves;
    - evidence is kept only of what proves that the log lies, never of what a sender may have garbled, and is never
      overwritten.

The record is one file for each log. If it is lost, or an older one is put in its place, the witness may sign a second
history: then its key must not be used any more.
"""

import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from verifier.encoding import read_base64, read_decimal, write_base64
from verifier.faults import quoted
from verifier.merkle import EMPTY_ROOT, HASH_BYTES, ProofError, node_hash, verify_consistency
from verifier.note import Checkpoint, Kind, NoteError, VerifierKey, assemble, key_of, parse_checkpoint, verify_note
from verifier.note import cosign as cosignature

REQUEST_BYTES_MAX = 1 << 18  # 63 hashes, and a note with a good deal more than the 16 signatures that must be accepted
PROOF_HASHES_MAX = 63
SIZE_CONTENT_TYPE = "text/x.tlog.size"


class Malformed(Exception):
    """A request is not what tlog-witness says."""


class RecordDamaged(Exception):
    """A file of the record cannot be believed; the message says what to do."""


class Request(NamedTuple):
    """A head, and the proof that its tree begins with the `old_size` leaves of an earlier one."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes


class Answer(NamedTuple):
    """What goes over HTTP. The body of a 200 is the line of the cosignature, that of a refusal says why."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Acceptable:
    """
    A head that the record permits to cosign, as long as the record stays as it is.

    `note` holds the signatures of the log and no others; `kept` is the note in the record, None before the first.
    """

    checkpoint: Checkpoint
    old_size: int
    proof: tuple[bytes, ...]
    note: bytes
    kept: bytes | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """
    Two notes, both signed by the log, that no single log could sign. `why` says what is wrong with them.

    With the log's key and `disagreement`, anybody can check it.
    """

    origin: str
    why: str
    kept: bytes
    shown: bytes
    proof: tuple[bytes, ...]


class Store(Protocol):
    """The witness's record: the newest note that it cosigned, by origin."""

    def load(self, origin: str) -> bytes | None:
        """The newest note; None if there never was one."""
        ...

    def swap(self, origin: str, expected: bytes | None, note: bytes) -> bool:
        """
        Put `note` in the place of `expected`. False, and nothing is changed, if something else stands there.

        Durable once it returns True. If it raises, either of the two may stand there.
        """
        ...


def parse_request(body: bytes) -> Request:
    """
    The parts of a request's body (tlog-witness, "add-checkpoint"). Of the note nothing is looked at.

    Raises Malformed.
    """
    if len(body) > REQUEST_BYTES_MAX:
        raise Malformed(f"the request has {len(body)} bytes, of at most {REQUEST_BYTES_MAX}")
    head, blank, note = body.partition(b"\n\n")
    try:
        old, *hashes = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Malformed("the lines of old size and proof are ASCII") from None
    if not blank or not old.startswith("old "):
        raise Malformed("a request is 'old <size>', lines of a proof, an empty line, and a checkpoint")
    if len(hashes) > PROOF_HASHES_MAX:
        raise Malformed(f"the proof has {len(hashes)} lines, of at most {PROOF_HASHES_MAX}")
    try:
        request = Request(read_decimal(old.removeprefix("old ")), tuple(map(read_base64, hashes)), note)
    except ValueError as error:
        raise Malformed(f"old size or proof: {error}") from None
    if any(len(line) != HASH_BYTES for line in request.proof):
        raise Malformed(f"a line of the proof is {HASH_BYTES} bytes in base64")
    return request


def format_request(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """The body of a request. Raises Malformed for what no request may hold."""
    lines = (f"old {old_size}", *map(write_base64, proof))
    body = "".join(f"{line}\n" for line in lines).encode() + b"\n" + note
    if parse_request(body) != (old_size, tuple(proof), note):
        raise Malformed(f"{old_size!r} is not a size")
    return body


def disagreement(kept: Checkpoint, shown: Checkpoint, proof: Sequence[bytes]) -> str | None:
    """
    What proves that no log that only grows has both heads; None if nothing proves it.

    `proof` came with the later head, to show that it extends the earlier one. Two things are proof:
    equal sizes with different roots; and hashes that do lead to the later root, but from another tree of the earlier
    size. A proof that leads nowhere shows nothing: whoever sent it may have garbled it. Nor does one from a size that is
    a power of two, since there it leaves out the earlier root, and begins with the very one that it should show.
    """
    if kept.size == shown.size:
        return None if kept.root == shown.root else f"two roots of the same size, {kept.size}"
    if not 0 < kept.size < shown.size:
        return None
    first = _first_root(kept.size, shown.size, shown.root, proof)
    if first in (None, kept.root):
        return None
    return f"the tree of size {shown.size} begins with another tree of size {kept.size}"


class Witness:
    """
    Cosigns for logs that it knows by their keys.

    A key's name is the origin that it may sign for; several keys of one name are all trusted. `now_s` is seconds since
    1970 UTC. `evidence` is called before the request is answered, and again whenever the same is shown again; if it
    raises, nothing is answered.
    """

    def __init__(
        self,
        name: str,
        key: Ed25519PrivateKey,
        logs: Iterable[VerifierKey],
        store: Store,
        *,
        now_s: Callable[[], int],
        evidence: Callable[[Evidence], None],
    ) -> None:
        """Raises NoteError for a name that no key may have."""
        self.key = key_of(name, Kind.COSIGNATURE, key)
        self._private = key
        self._logs: dict[str, list[VerifierKey]] = defaultdict(list)
        for log in logs:
            self._logs[log.name].append(log)
        self._store = store
        self._now_s = now_s
        self._evidence = evidence

    @property
    def origins(self) -> tuple[str, ...]:
        """The logs that it cosigns, in the order in which they were given."""
        return tuple(self._logs)

    def newest(self, origin: str) -> bytes | None:
        """The newest note of a log that was cosigned, with the cosignature. Raises RecordDamaged."""
        return self._store.load(origin)

    def judge(self, body: bytes) -> Answer | Acceptable:
        """
        Everything that can be said without a copy of the log, in the order of tlog-witness: a refusal, or a head that
        may be cosigned now.

        400 malformed, or an old size beyond the new one; 404 unknown log; 403 not signed by it, or falsely; 409 with the
        size in the record if the old size is another one; 422 the proof is wrong; 409 another root for the same size.
        """
        try:
            request = parse_request(body)
            text, lines = _read_note(request.note)
        except (Malformed, NoteError) as error:
            return _refusal(400, str(error))
        checkpoint = parse_checkpoint(text)
        keys = self._logs.get(checkpoint.origin)
        if keys is None:
            return _refusal(404, f"no log {quoted(checkpoint.origin)} is known here")
        try:
            verify_note(request.note, keys)
        except NoteError as error:
            return _refusal(403, str(error))
        if request.old_size > checkpoint.size:
            return _refusal(400, f"the old size {request.old_size} is beyond the checkpoint's, {checkpoint.size}")
        note = assemble(text, [line for line in lines if _is_by(keys, text, line)])
        return self._compared(Acceptable(checkpoint, request.old_size, request.proof, note))

    def cosign(self, acceptable: Acceptable) -> Answer:
        """
        Put the head in the record, and then give out the cosignature: 200, or the refusal that is due by now.

        When another head came first, this one is compared again, with that one.
        """
        outcome: Answer | Acceptable = acceptable
        while isinstance(outcome, Acceptable):
            # The time is read after the record was, and counts only if that is still the same: no larger head was known.
            text, _ = _read_note(outcome.note)
            line = cosignature(text, name=self.key.name, key=self._private, timestamp_s=self._now_s())
            note = outcome.note + line.encode()
            if self._store.swap(outcome.checkpoint.origin, outcome.kept, note):
                return Answer(200, line.encode())
            outcome = self._compared(outcome)
        return outcome

    def _compared(self, head: Acceptable) -> Answer | Acceptable:
        """The head against the record as it is now."""
        shown = head.checkpoint
        kept_note = self._store.load(shown.origin)
        kept = Checkpoint(shown.origin, 0, EMPTY_ROOT) if kept_note is None else _checkpoint_of(kept_note)
        if kept_note is not None and (why := disagreement(kept, shown, head.proof)):
            self._evidence(Evidence(shown.origin, why, kept_note, head.note, head.proof))
        if head.old_size != kept.size:
            return Answer(409, f"{kept.size}\n".encode(), SIZE_CONTENT_TYPE)
        if kept.size in (0, shown.size):
            if head.proof:
                return _refusal(422, f"the proof from size {kept.size} to {shown.size} has no hashes")
            if kept.size == shown.size and kept.root != shown.root:
                return _refusal(409, f"the root at size {kept.size} is another one here")
        else:
            try:
                verify_consistency(kept.size, shown.size, kept.root, shown.root, head.proof)
            except ProofError as error:
                return _refusal(422, str(error))
        return replace(head, kept=kept_note)


class FileStore:
    """
    A record in a folder: heads/<SHA-256 of the origin> for each log, and evidence/<SHA-256 of what disagrees>.json.

    Any number of threads and processes may use one folder: whoever writes holds a lock (flock), which ends with its
    process. A file is replaced by renaming, so that a reader or a crash sees the old or the new one, never a part.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder if it is not there. Raises OSError."""
        self.heads = folder / "heads"
        self.evidence = folder / "evidence"
        for path in (folder, self.heads, self.evidence):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_folder(path.parent)

    def load(self, origin: str) -> bytes | None:
        """As in `Store`. Raises RecordDamaged."""
        path = self._path(origin)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        seal, _, note = data.partition(b"\n")
        try:
            if seal != _seal(note) or _checkpoint_of(note).origin != origin:
                raise _damaged(path)
        except NoteError:
            raise _damaged(path) from None
        return note

    def swap(self, origin: str, expected: bytes | None, note: bytes) -> bool:
        """As in `Store`. Raises RecordDamaged."""
        path = self._path(origin)
        with locked(path.with_suffix(".lock")):
            if self.load(origin) != expected:
                return False
            write_durably(path, _seal(note) + b"\n" + note)
        return True

    def keep(self, evidence: Evidence) -> bool:
        """Write evidence down, durably. False if the same disagreement is kept already, which then stays as it is."""
        # Named by what was signed: further signatures, which anybody can add, make no new evidence.
        texts = (_read_note(note)[0].encode() for note in (evidence.kept, evidence.shown))
        name = sha256(b"\n".join(texts)).hexdigest()
        path = self.evidence / f"{name}.json"
        told = {
            "origin": evidence.origin,
            "why": evidence.why,
            "kept": evidence.kept.decode(),
            "shown": evidence.shown.decode(),
            "proof": [write_base64(line) for line in evidence.proof],
        }
        with locked(self.evidence / "lock"):
            if path.exists():
                return False
            write_durably(path, json.dumps(told, indent=2, ensure_ascii=False).encode() + b"\n")
        return True

    def kept(self) -> list[Path]:
        """All evidence, oldest first."""
        return sorted(self.evidence.glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))

    def _path(self, origin: str) -> Path:
        return self.heads / sha256(origin.encode()).hexdigest()


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file as a whole, readable by its owner only; it outlives a crash once this returns. One writer at a time."""
    draft = path.with_suffix(".new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123 - Path has no mode
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _sync_folder(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that this file stands for, against other threads and processes; it ends with the process."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # of this opening of the file, so that threads exclude each other too
        yield


def _first_root(size1: int, size2: int, root2: bytes, proof: Sequence[bytes]) -> bytes | None:
    """
    The root of the first `size1` leaves of the tree with this size and root, as PROOF of RFC 6962, section 2.1.2, shows
    it. None if the hashes do not lead to that root, or if a first root is not shown: `size1` is a power of two.
    """
    hashes = list(proof)

    def both(first: int, size: int) -> tuple[bytes, bytes]:
        """The roots of the first leaves and of all, from the top downwards: the last hash is that of the other side."""
        if first == size:
            return 2 * (hashes.pop(),)
        left, other = 1 << (size - 1).bit_length() - 1, hashes.pop()
        if first <= left:
            root1, all_left = both(first, left)
            return root1, node_hash(all_left, other)
        root1, all_right = both(first - left, size - left)
        return node_hash(other, root1), node_hash(other, all_right)

    if size1.bit_count() == 1:
        return None
    try:
        root1, computed = both(size1, size2)
    except IndexError:  # too few
        return None
    return root1 if computed == root2 and not hashes else None


def _read_note(note: bytes) -> tuple[str, list[str]]:
    """The text of a signed checkpoint, and its lines of signatures, whoever made them. Raises NoteError."""
    try:
        text, _, signatures = note.decode().rpartition("\n\n")
    except UnicodeDecodeError:
        raise NoteError("the checkpoint is not UTF-8") from None
    text += "\n"
    parse_checkpoint(text)
    assemble(text, [signatures])
    return text, [f"{line}\n" for line in signatures[:-1].split("\n")]


def _checkpoint_of(note: bytes) -> Checkpoint:
    return parse_checkpoint(_read_note(note)[0])


def _is_by(keys: Iterable[VerifierKey], text: str, line: str) -> bool:
    try:
        verify_note(assemble(text, [line]), keys)
    except NoteError:
        return False
    return True


def _refusal(status: int, why: str) -> Answer:
    return Answer(status, f"{why}\n".encode())


def _seal(note: bytes) -> bytes:
    return b"sha256 " + sha256(note).hexdigest().encode()


def _damaged(path: Path) -> RecordDamaged:
    return RecordDamaged(
        f"{path} is damaged, so it is not known any more what was cosigned. Do not remove it, and do not put back an older "
        "copy: the key could sign a second history. Make a new key in a new folder, and tell those who trust the old one."
    )


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
