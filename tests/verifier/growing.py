"""A log that signs its heads, and on request signs another history too; its proofs are those of `trees`. And a witness of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.verifier import trees
from verifier.note import Kind, VerifierKey, assemble, format_checkpoint, key_of, parse_checkpoint, sign, verify_note
from verifier.witness import Acceptable, Answer, FileStore, Witness, format_request

ORIGIN = "countroom.test/eu"
WITNESS = "regulator.test/witness"
LOG_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOW_S = 1_763_164_800
WITNESS_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
WITNESS_VKEY = key_of(WITNESS, Kind.COSIGNATURE, WITNESS_KEY)

Submit = Callable[[bytes], Answer]


@dataclass
class Log:
    leaves: list[bytes] = field(default_factory=lambda: trees.leaves(40))
    key: Ed25519PrivateKey = LOG_KEY
    origin: str = ORIGIN

    @cached_property
    def vkey(self) -> VerifierKey:
        return key_of(self.origin, Kind.ED25519, self.key)

    def forked(self, at: int) -> "Log":
        """The same log, which signs another history from this size on."""
        other = [trees.leaf(b"rewritten %d" % index) for index in range(at, len(self.leaves))]
        return Log(self.leaves[:at] + other, self.key, self.origin)

    def root(self, size: int) -> bytes:
        return trees.head(self.leaves[:size])

    def text(self, size: int) -> str:
        return format_checkpoint(self.origin, size, self.root(size))

    def note(self, size: int) -> bytes:
        text = self.text(size)
        return assemble(text, [sign(text, name=self.origin, key=self.key)])

    def proof(self, size1: int, size2: int) -> list[bytes]:
        return trees.proof(size1, self.leaves[:size2]) if 0 < size1 < size2 else []

    def request(self, size1: int, size2: int) -> bytes:
        return format_request(size1, self.proof(size1, size2), self.note(size2))


LOG = Log()


def submitting(witness: Witness) -> Submit:
    def submit(body: bytes) -> Answer:
        outcome = witness.judge(body)
        return witness.cosign(outcome) if isinstance(outcome, Acceptable) else outcome

    return submit


def make(store: FileStore, *logs: VerifierKey) -> Witness:
    return Witness(WITNESS, WITNESS_KEY, logs or [LOG.vkey], store, now_s=lambda: NOW_S, evidence=store.keep)


def heads_in(store: FileStore, origin: str = ORIGIN) -> tuple[int, bytes] | None:
    """What stands in the record: checked to carry the log's signature and the witness's, and no other."""
    note = store.load(origin)
    if note is None:
        return None
    opened = verify_note(note, [LOG.vkey, WITNESS_VKEY])
    assert [signature.key for signature in opened.signatures] == [LOG.vkey, WITNESS_VKEY]
    assert len(note.rpartition(b"\n\n")[2].splitlines()) == 2
    checkpoint = parse_checkpoint(opened.text)
    return checkpoint.size, checkpoint.root


def is_cosigned(answer: Answer, note: bytes) -> bool:
    """Whether the answer is the witness's cosignature over this note, as a client would find out (tlog-witness)."""
    if answer.status != 200:
        return False
    (signature,) = verify_note(note + answer.body, [WITNESS_VKEY]).signatures
    return signature.timestamp_s == NOW_S
