"""
Signed notes: a text, and below it the signatures of those who vouch for it; and checkpoints, the notes in which a log
states its size and root, and a witness that it saw the log only grow.

The forms are C2SP's signed-note, tlog-checkpoint and tlog-cosignature. Of the types of signature two are known, both
Ed25519: 0x01 over the text (a log's), and 0x04 over time and text (a witness's, "cosignature/v1").

Invariants:
    - a note is given out only if a known key signed it, and no signature that claims to be of a known key is false;
    - everything has one spelling: a note that was changed in any byte is refused, or was changed where nobody known signed;
    - a signature over a note cannot be taken for one over a time and a note, even if one key makes both.

Times are seconds since 1970 UTC.
"""

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from verifier.encoding import NUMBER_MAX, read_base64, read_decimal, write_base64
from verifier.faults import quoted
from verifier.merkle import HASH_BYTES

NOTE_BYTES_MAX = 1 << 20
SIGNATURES_MAX = 100  # the specification wants at least 16 to be accepted
PUBLIC_KEY_BYTES = 32
KEY_ID_BYTES = 4

_DASH = "\u2014 "  # begins a signature's line
_COSIGNATURE_HEADER = "cosignature/v1\n"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_KEY_ID = re.compile(r"[0-9a-f]{8}")
_time = struct.Struct(">Q")


class NoteError(Exception):
    """A note, a checkpoint or a verifier key is malformed, or a note is not signed as it should be."""


class Kind(IntEnum):
    """What a key signs: the type of signature, as signed-note assigns its byte."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key under its name; as text it is a vkey, <name>+<key id in hex>+<base64 of kind and key>."""

    name: str
    kind: Kind
    public_key: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.public_key) != PUBLIC_KEY_BYTES:
            raise NoteError(f"an Ed25519 public key has {PUBLIC_KEY_BYTES} bytes, not {len(self.public_key)}")

    @property
    def key_id(self) -> bytes:
        """SHA-256(name ‖ LF ‖ kind ‖ public key), the first four bytes (signed-note, "Signatures")."""
        return sha256(self.name.encode() + b"\n" + self._material).digest()[:KEY_ID_BYTES]

    @property
    def _material(self) -> bytes:
        return bytes([self.kind]) + self.public_key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{write_base64(self._material)}"


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that was verified. Only a witness states a time: when it signed, and saw no larger tree."""

    key: VerifierKey
    timestamp_s: int | None


@dataclass(frozen=True, slots=True)
class Note:
    """A text, and who of the known signed it: at least one, in the order of their lines."""

    text: str
    signatures: tuple[Signature, ...]


class Opened(NamedTuple):
    """The text of a note, and the names of those known who signed it, each once."""

    text: str
    names: list[str]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log states: its tree has this size and this root. Iterating gives origin, size and root."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str | int | bytes]:
        return iter((self.origin, self.size, self.root))


def parse_vkey(text: str) -> VerifierKey:
    """
    The key that a vkey spells (signed-note, "Verifier keys").

    Raises NoteError when it is malformed, when its id is not that of name and key, and for any type of signature but
    the two known ones.
    """
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        material = read_base64(encoded)
    except ValueError as error:
        raise NoteError(f"the key of {quoted(text)} is malformed: {error}") from None
    if not _KEY_ID.fullmatch(key_id) or not material:
        raise NoteError(f"{quoted(text)} is not <name>+<key id, 8 digits of lower-case hex>+<base64 of type and key>")
    try:
        kind = Kind(material[0])
    except ValueError:
        raise NoteError(f"{quoted(text)} is of type 0x{material[0]:02x}; known are 0x01 and 0x04") from None
    key = VerifierKey(name, kind, material[1:])
    if key.key_id.hex() != key_id:
        raise NoteError(f"{quoted(text)} has another id than its name and key, which have {key.key_id.hex()}")
    return key


def key_of(name: str, kind: Kind, key: Ed25519PrivateKey | Ed25519PublicKey) -> VerifierKey:
    """The verifier key that belongs to a private or public key. Raises NoteError for a name that no key may have."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return VerifierKey(name, kind, public.public_bytes_raw())


def open_note(note: bytes, vkeys: Sequence[str]) -> Opened:
    """
    The text of a signed note, and the names of the known keys that signed it; `vkeys` are the known ones.

    Raises NoteError when a vkey or the note is malformed, when no known key signed it, and when a signature that claims
    to be of a known key is false. Signatures of unknown keys are ignored.
    """
    opened = verify_note(note, map(parse_vkey, vkeys))
    return Opened(opened.text, list(dict.fromkeys(signature.key.name for signature in opened.signatures)))


def verify_note(note: bytes, keys: Iterable[VerifierKey]) -> Note:
    """`open_note` with keys that are parsed, and with what is known of each signature. Raises NoteError."""
    known = _by_name_and_id(keys)
    text, lines = _split(note)
    signatures = []
    for line in lines:
        name, key_id, blob = _parse_line(line)
        key = known.get((name, key_id))
        if key is not None:
            signatures.append(_verified(text, key, blob))
    if not signatures:
        raise NoteError("no known key signed the note")
    return Note(text, tuple(signatures))


def sign(text: str, *, name: str, key: Ed25519PrivateKey) -> str:
    """
    The line, with its line feed, that signs a note's text (signed-note, "Ed25519 signatures").

    Raises NoteError for a text or a name that no note may have, and for a text that would make the signature one of a
    time and a note.
    """
    _check_text(text)
    if text.startswith(_COSIGNATURE_HEADER):
        raise NoteError("a text that looks like what a witness signs is not signed")
    return _line(key_of(name, Kind.ED25519, key), key.sign(text.encode()))


def cosign(text: str, *, name: str, key: Ed25519PrivateKey, timestamp_s: int) -> str:
    """
    The line, with its line feed, by which a witness signs a checkpoint's text (tlog-cosignature, "Format").

    It states that at this time no larger tree of that origin was known, and that the tree only ever grew; to make sure
    of that is the caller's part. Raises NoteError when the text is no checkpoint, or the time beyond 2^63 - 1.
    """
    parse_checkpoint(text)
    if not 0 <= timestamp_s <= NUMBER_MAX:
        raise NoteError(f"{timestamp_s} is not a time that a cosignature can state")
    signature = key.sign(_cosigned(text, timestamp_s))
    return _line(key_of(name, Kind.COSIGNATURE, key), _time.pack(timestamp_s) + signature)


def assemble(text: str, lines: Iterable[str]) -> bytes:
    """
    The signed note of a text and the lines that sign it. Further lines may simply be put behind it.

    Raises NoteError when text or lines are malformed; whether a line really signs the text is not looked at.
    """
    _check_text(text)
    note = f"{text}\n{''.join(lines)}".encode()
    read, signatures = _split(note)
    for line in signatures:
        _parse_line(line)
    if read != text:
        raise NoteError("the lines of the signatures hold an empty line")
    return note


def parse_checkpoint(text: str) -> Checkpoint:
    """
    Origin, size, root, and whatever lines follow, of a checkpoint's text (tlog-checkpoint, "Note text").

    Nothing says that they are true: see `open_note`. Raises NoteError when it is malformed: fewer than three lines, an
    empty line, a size with leading zeroes or beyond 2^63 - 1, a root that is not 32 bytes in base64.
    """
    _check_text(text)
    origin, *rest = text[:-1].split("\n")
    if len(rest) < 2 or not all((origin, *rest)):  # noqa: PLR2004 - size and root
        raise NoteError("a checkpoint has three lines or more, and none of them is empty")
    try:
        size = read_decimal(rest[0])
    except ValueError as error:
        raise NoteError(f"the checkpoint's size is {quoted(rest[0])}: {error}") from None
    try:
        root = read_base64(rest[1])
    except ValueError as error:
        raise NoteError(f"the checkpoint's root is {quoted(rest[1])}: {error}") from None
    if len(root) != HASH_BYTES:
        raise NoteError(f"the checkpoint's root has {len(root)} bytes instead of {HASH_BYTES}")
    return Checkpoint(origin, size, root, tuple(rest[2:]))


def format_checkpoint(origin: str, size: int, root: bytes, extensions: Iterable[str] = ()) -> str:
    """The text of a checkpoint. Raises NoteError for what no checkpoint may state."""
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    text = "".join(f"{line}\n" for line in (origin, size, write_base64(root), *checkpoint.extensions))
    if parse_checkpoint(text) != checkpoint:
        raise NoteError("origin and extensions of a checkpoint are one line each")
    return text


def _by_name_and_id(keys: Iterable[VerifierKey]) -> dict[tuple[str, bytes], VerifierKey]:
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.key_id), key) != key:
            raise NoteError(f"two known keys have the name {quoted(key.name)} and the id {key.key_id.hex()}")
    return known


def _split(note: bytes) -> tuple[str, list[str]]:
    """The text, and the lines of the signatures without their line feeds (signed-note, "Format")."""
    if len(note) > NOTE_BYTES_MAX:
        raise NoteError(f"the note has {len(note)} bytes, of at most {NOTE_BYTES_MAX}")
    try:
        characters = note.decode()
    except UnicodeDecodeError as error:
        raise NoteError(f"the note is not UTF-8: {error.reason} at byte {error.start}") from None
    if found := _CONTROL.search(characters):
        raise NoteError(f"the note holds the control character U+{ord(found.group()):04X}")
    text, blank, signatures = characters.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise NoteError("a note is a text, an empty line, and lines of signatures, each ending in a line feed")
    lines = signatures[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise NoteError(f"the note has {len(lines)} signatures, of at most {SIGNATURES_MAX}")
    return text + "\n", lines


def _parse_line(line: str) -> tuple[str, bytes, bytes]:
    """Name, key id, and what the key made of the text."""
    name, blank, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not blank:
        raise NoteError(f"{quoted(line)} is not a line of a signature: dash, name, base64")
    _check_name(name)
    try:
        blob = read_base64(encoded)
    except ValueError as error:
        raise NoteError(f"the signature of {quoted(name)} is malformed: {error}") from None
    if len(blob) <= KEY_ID_BYTES:
        raise NoteError(f"the signature of {quoted(name)} is too short")
    return name, blob[:KEY_ID_BYTES], blob[KEY_ID_BYTES:]


def _verified(text: str, key: VerifierKey, blob: bytes) -> Signature:
    timestamp_s: int | None = None
    if key.kind is Kind.ED25519:
        message, signature = text.encode(), blob
    else:
        stated, signature = blob[: _time.size], blob[_time.size :]
        timestamp_s = int.from_bytes(stated)
        if not signature or timestamp_s > NUMBER_MAX:
            raise NoteError(f"the cosignature of {quoted(key.name)} does not begin with a time")
        message = _cosigned(text, timestamp_s)
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, message)
    except InvalidSignature:
        raise NoteError(f"the signature of {quoted(key.name)} ({key.key_id.hex()}) is false") from None
    return Signature(key, timestamp_s)


def _cosigned(text: str, timestamp_s: int) -> bytes:
    """What a witness signs (tlog-cosignature, "Ed25519 signed message")."""
    return f"{_COSIGNATURE_HEADER}time {timestamp_s}\n{text}".encode()


def _line(key: VerifierKey, signature: bytes) -> str:
    return f"{_DASH}{key.name} {write_base64(key.key_id + signature)}\n"


def _check_name(name: str) -> None:
    if not name or "+" in name or any(map(str.isspace, name)) or _CONTROL.search(name):
        raise NoteError(f"{quoted(name)} cannot be a key's name: it is empty, or holds a blank, a plus or a control")
    _check_unicode(name)


def _check_text(text: str) -> None:
    if not text.endswith("\n") or _CONTROL.search(text):
        raise NoteError("a note's text ends in a line feed, and holds no other control character")
    _check_unicode(text)


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NoteError(f"{quoted(text)} holds half a character, which UTF-8 cannot write") from None
