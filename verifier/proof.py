"""
A proof in a file: that an entry stands in a log, with the log's checkpoint and the witnesses' signatures, to be checked
without any connection.

The form is C2SP tlog-proof; such files are called `*.tlog-proof`. They hold neither the entry nor any key that one
could trust: those come from elsewhere.

Invariant: what `verify_proof` gives was signed or hashed, except `extra`, for which nobody vouches.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from verifier.encoding import read_base64, read_decimal, write_base64
from verifier.faults import quoted
from verifier.merkle import HASH_BYTES, ProofError, verify_inclusion
from verifier.note import NOTE_BYTES_MAX, NoteError
from verifier.policy import Accepted, Policy

HEADER = "c2sp.org/tlog-proof@v1"
HASHES_MAX = 63  # of the largest tree, 2^63 - 1 leaves
PROOF_BYTES_MAX = 4 * NOTE_BYTES_MAX  # room for extra data, of which nothing is known


@dataclass(frozen=True, slots=True)
class Proof:
    """What a file claims: the leaf's index, from 0, the hashes from its sibling up, and a signed checkpoint."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""


@dataclass(frozen=True, slots=True)
class Proven:
    """The leaf stands at this index of the tree that `head` is about."""

    index: int
    head: Accepted
    extra: bytes


def parse_proof(data: bytes) -> Proof:
    """
    What a file claims (tlog-proof, "Format"). Its checkpoint is not looked at.

    Raises ProofError when it is malformed.
    """
    if len(data) > PROOF_BYTES_MAX:
        raise ProofError(f"the proof has {len(data)} bytes, of at most {PROOF_BYTES_MAX}")
    head, blank, checkpoint = data.partition(b"\n\n")
    try:
        header, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise ProofError("the proof holds other characters than ASCII above its checkpoint") from None
    if header != HEADER:
        raise ProofError(f"the proof begins with {quoted(header)} instead of {HEADER}")
    if not blank:
        raise ProofError("the proof has no empty line, and no checkpoint below it")
    extra = b""
    if lines and lines[0].startswith("extra "):
        extra = _base64(lines.pop(0).removeprefix("extra "), "extra data")
        if not extra:
            raise ProofError("the proof's extra data is empty: the line is to be left out")
    if not lines or not lines[0].startswith("index "):
        raise ProofError("the proof has no index where it should have one")
    try:
        index = read_decimal(lines[0].removeprefix("index "))
    except ValueError as error:
        raise ProofError(f"the proof's index is {quoted(lines[0])}: {error}") from None
    hashes = tuple(_base64(line, "hash") for line in lines[1:])
    if len(hashes) > HASHES_MAX or any(len(one) != HASH_BYTES for one in hashes):
        raise ProofError(f"a proof has at most {HASHES_MAX} hashes, of {HASH_BYTES} bytes each")
    return Proof(index, hashes, checkpoint, extra)


def format_proof(index: int, hashes: Iterable[bytes], checkpoint: bytes, extra: bytes = b"") -> bytes:
    """The file of a proof around a signed checkpoint, put there as it is. Raises ProofError if it could not be read."""
    lines = [HEADER, f"index {index}", *map(write_base64, hashes)]
    if extra:
        lines.insert(1, f"extra {write_base64(extra)}")
    data = "\n".join(lines).encode() + b"\n\n" + checkpoint
    parse_proof(data)
    return data


def verify_proof(data: bytes, leaf_hash: bytes, policy: Policy) -> Proven:
    """
    Check that the leaf stands in the tree of a checkpoint that satisfies the policy (tlog-proof, "Verifying").

    The hash is computed from the entry itself, never taken from whoever gave the proof: `merkle.leaf_hash(entry)`.
    Raises ProofError, with the first thing that is wrong.
    """
    proof = parse_proof(data)
    try:
        head = policy.check(proof.checkpoint)
    except NoteError as error:
        raise ProofError(f"the checkpoint of the proof is not accepted: {error}") from None
    verify_inclusion(proof.index, head.checkpoint.size, leaf_hash, proof.hashes, head.checkpoint.root)
    return Proven(proof.index, head, proof.extra)


def _base64(text: str, what: str) -> bytes:
    try:
        return read_base64(text)
    except ValueError as error:
        raise ProofError(f"the proof's {what} is {quoted(text)}: {error}") from None
