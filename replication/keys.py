"""
Data keys by question and answer: a region asks the one that made them, and gets them encrypted to itself.

The asker makes an X25519 key for this one question, and signs the question with its custody key, of which a note that its log's
key has signed says that it speaks for that log. The answer is one HPKE message (RFC 9180, base mode: X25519, HKDF-SHA-256,
AES-256-GCM) to the question's key, whose info is bound to the whole question: origin, asker and key ids.

Why not with the log's key itself: it lies with the checkpointer alone, which cannot open the vault. What holds region keys should
not be able to sign heads.

Invariants:
    - neither a NATS server nor a third region learns a key, whatever it records, repeats, changes or makes up: without the custody
      key nothing is answered, and without the question's own key, which is never stored, no answer opens;
    - whoever is asked looks who asks, and when, before it looks at anything else;
    - what an answer holds is not believed: the asker compares each key with what the log commits to.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from eventstore.note import SigningKey
from replication.asking import Answer, Peer, Verb
from replication.errors import Interrupted
from replication.wire import ERROR_CODE, ERROR_TEXT
from verifier.note import Kind, NoteError, VerifierKey, parse_vkey, verify_note

VERB = "keys"
KEYS_MAX = 256
KEY_FILE, NOTE_FILE = "custody.key", "custody.note"
SKEW_MAX_S = 300
"""How far the clocks of two regions may be apart. (It is no guard against a repeated question: that is the question's own key.)"""

REFUSED, UNREADY = "403", "503"
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_CUSTODY = "countroom/custody/v1"
_QUESTION = b"countroom/keys/question/v1\n"
_ANSWER = b"countroom/keys/answer/v1\n"
_ID_BYTES, _KEY_BYTES = 16, 32
_PAIR_BYTES = _ID_BYTES + _KEY_BYTES


class QuestionRefused(Exception):
    """Whoever asks is not who they say, or asks what is no question."""


class AnswerUnusable(Exception):
    """What came does not open, or is not what was asked for."""


class Custody(NamedTuple):
    """By what a region asks: its custody key, and the note of its log that names it."""

    key: SigningKey
    note: bytes

    @classmethod
    def from_folder(cls, folder: Path) -> Custody:
        """Raises OSError, NoteError (of eventstore.note)."""
        return cls(SigningKey.from_file(folder / KEY_FILE), (folder / NOTE_FILE).read_bytes())


def custody_name(origin: str) -> str:
    return f"{origin}/custody"


def custody_text(origin: str, vkey: str) -> str:
    """What a log's key signs: this key asks for data keys on behalf of the region."""
    return f"{_CUSTODY}\n{origin}\n{vkey}\n"


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`origin` and `asker`: full names of the logs. `keys`: UUIDs in their canonical text. `public`: X25519, 32 bytes. `at`: s since 1970."""

    origin: str
    asker: str
    keys: list[str]
    public: bytes
    at: int


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`question`: the bytes that were signed."""

    question: bytes
    signature: bytes
    custody: bytes


class _Answered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`sealed`: pairs of key id (16 bytes) and key (32 bytes). `refused`: by key id, a word that says why there is none."""

    sealed: bytes
    refused: dict[str, str]


class Found(NamedTuple):
    """By id, data keys, and why others are not given."""

    keys: Mapping[str, bytes]
    refused: Mapping[str, str]


_encode = msgspec.json.Encoder().encode
_question = msgspec.json.Decoder(Question)
_asked = msgspec.json.Decoder(_Asked)
_answered = msgspec.json.Decoder(_Answered)


class Asking:
    """A question to be sent as `data`, and what alone opens its answer."""

    def __init__(self, custody: Custody, *, asker: str, origin: str, keys: Sequence[str], at: int) -> None:
        self._private = X25519PrivateKey.generate()
        self._asked = frozenset(keys)
        public = self._private.public_key().public_bytes_raw()
        self._question = _encode(Question(origin, asker, list(keys), public, at))
        signature = custody.key.key.sign(_QUESTION + self._question)
        self.data = _encode(_Asked(self._question, signature, custody.note))

    def open(self, data: bytes) -> Found:
        """Raises AnswerUnusable."""
        try:
            answered = _answered.decode(data)
            opened = _SUITE.decrypt(answered.sealed, self._private, info=_info(self._question))
        except (msgspec.DecodeError, InvalidTag, ValueError) as error:
            raise AnswerUnusable(
                f"the answer is not one to this question: {str(error) or 'it does not open'}"
            ) from None
        if len(opened) % _PAIR_BYTES:
            raise AnswerUnusable("the answer ends within a key")
        pairs = [opened[place : place + _PAIR_BYTES] for place in range(0, len(opened), _PAIR_BYTES)]
        keys = {str(uuid.UUID(bytes=pair[:_ID_BYTES])): pair[_ID_BYTES:] for pair in pairs}
        if not keys.keys() <= self._asked:
            raise AnswerUnusable("the answer holds keys that were not asked for")
        return Found(keys, {id_: why for id_, why in answered.refused.items() if id_ in self._asked - keys.keys()})


def _info(question: bytes) -> bytes:
    return _ANSWER + hashlib.sha256(question).digest()


class Heard(NamedTuple):
    """A question of whom it says, and its bytes."""

    question: Question
    raw: bytes

    def answer(self, found: Found) -> bytes:
        """Keys encrypted to whoever made the question."""
        pairs = b"".join(uuid.UUID(id_).bytes + key for id_, key in sorted(found.keys.items()))
        to = X25519PublicKey.from_public_bytes(self.question.public)
        return _encode(_Answered(_SUITE.encrypt(pairs, to, info=_info(self.raw)), dict(found.refused)))


def hear(data: bytes, *, origin: str, asker: str, logs: Sequence[VerifierKey], now: int) -> Heard:
    """A question of the region whose log is `asker` to this one, `origin`. `logs`: the keys of all logs. Raises QuestionRefused."""
    try:
        asked = _asked.decode(data)
        _custody_key(asked.custody, asker, logs).verify(asked.signature, _QUESTION + asked.question)
        question = _question.decode(asked.question)
        X25519PublicKey.from_public_bytes(question.public)
        canonical = [str(uuid.UUID(id_)) for id_ in question.keys]
    except InvalidSignature:
        raise QuestionRefused(f"it was not signed by the custody key of {asker}") from None
    except (msgspec.DecodeError, NoteError, ValueError) as error:
        raise QuestionRefused(str(error)) from None
    if (question.origin, question.asker) != (origin, asker):
        raise QuestionRefused(f"{question.asker} asks {question.origin} in it, not {asker} {origin}")
    if abs(now - question.at) > SKEW_MAX_S:
        raise QuestionRefused(f"it was made {now - question.at} s ago")
    if canonical != question.keys or not 0 < len(set(canonical)) == len(canonical) <= KEYS_MAX:
        raise QuestionRefused(f"it does not name 1 to {KEYS_MAX} keys, each once")
    return Heard(question, asked.question)


def _custody_key(note: bytes, asker: str, logs: Sequence[VerifierKey]) -> Ed25519PublicKey:
    """The key that speaks for the asker, as one of its log's keys has signed. Raises NoteError."""
    text = verify_note(note, [key for key in logs if (key.name, key.kind) == (asker, Kind.ED25519)]).text
    vkey = text.removesuffix("\n").rpartition("\n")[2]
    if text != custody_text(asker, vkey):
        raise NoteError("the note does not name a custody key of that log")
    key = parse_vkey(vkey)
    if (key.name, key.kind) != (custody_name(asker), Kind.ED25519):
        raise NoteError(f"{key.name} is not called {custody_name(asker)}")
    return Ed25519PublicKey.from_public_bytes(key.public_key)


async def ask(peer: Peer, custody: Custody, *, asker: str, origin: str, keys: Sequence[str]) -> Found:
    """The keys of that origin, as it gives them: nothing is compared yet. Raises Interrupted if it does not answer, or with
    something else.
    """
    asking = Asking(custody, asker=asker, origin=origin, keys=keys, at=int(time.time()))
    answer = await peer.ask(VERB, asking.data)
    if code := answer.headers.get(ERROR_CODE):
        raise Interrupted(f"{peer.region} refuses the question ({code}): {answer.headers.get(ERROR_TEXT)}")
    try:
        return asking.open(answer.data)
    except AnswerUnusable as error:
        raise Interrupted(f"{peer.region}: {error}") from None


class Unready(Exception):
    """Nothing can be given at the moment."""


Give = Callable[[Sequence[str]], Awaitable[Found]]
"""What this region gives of these keys to a region that has shown who it is. Raises Unready."""


def answering(
    give: Give, *, origin: str, asker: str, logs: Sequence[VerifierKey], refused: Callable[[str], None]
) -> Verb:
    """Answers the questions of one region. `refused` is told why one was not answered."""

    async def answer(data: bytes) -> Answer:
        try:
            heard = hear(data, origin=origin, asker=asker, logs=logs, now=int(time.time()))
            return Answer(heard.answer(await give(heard.question.keys)), {})
        except QuestionRefused as error:
            refused(str(error))
            return Answer(b"", {ERROR_CODE: REFUSED, ERROR_TEXT: "this is no question of that region"})
        except Unready as error:
            return Answer(b"", {ERROR_CODE: UNREADY, ERROR_TEXT: str(error)})

    return answer
