"""
Signed notes as a log writes them: the text of a tree head, and below it the lines of the keys that signed it.

The forms are C2SP signed-note and tlog-checkpoint, the keys those of golang.org/x/mod/sumdb/note. This is the signing side
only; the verifier reads notes with code of its own (verifier/note.py).

Invariants:
    - no text is signed that a witness could sign too, whose texts begin with cosignature/v1 (tlog-cosignature);
    - a private key is shown by `skey` alone: printing a key shows its name.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_ED25519 = b"\x01"
_ID_BYTES = 4
_SEED_BYTES = 32
_WITNESSED = "cosignature/v1\n"
_NAME = re.compile(r"[^\s+\x00-\x1f]+")
_SKEY = re.compile(r"PRIVATE\+KEY\+(?P<name>[^+]+)\+(?P<id>[0-9a-f]{8})\+(?P<key>[A-Za-z0-9+/]+=*)")
_LINE = re.compile(r"— (?P<name>[^\s+]+) (?P<blob>[A-Za-z0-9+/]+=*)\n")


class NoteError(Exception):
    """A key, a note or a line of a signature is malformed."""


class SigningKey:
    """An Ed25519 key under the name that stands beside its signatures."""

    __slots__ = ("_id", "key", "name")

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        """Raises NoteError for a name that no key may have: an empty one, or with white space, a plus or a control."""
        if not _NAME.fullmatch(name):
            raise NoteError(f"{name!r} cannot be a key's name")
        self.name = name
        self.key = key
        self._id = sha256(name.encode() + b"\n" + self._public).digest()[:_ID_BYTES]

    @classmethod
    def generate(cls, name: str) -> SigningKey:
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, text: str) -> SigningKey:
        """The key that an skey spells. Raises NoteError when it is malformed, or its id is that of another key."""
        match = _SKEY.fullmatch(text)
        try:
            material = b64decode(match["key"], validate=True) if match else b""
        except ValueError:
            material = b""
        if match is None or material[:1] != _ED25519 or len(material) != 1 + _SEED_BYTES:
            raise NoteError("this is no PRIVATE+KEY+<name>+<key id>+<base64 of type and key> of an Ed25519 key")
        key = cls(match["name"], Ed25519PrivateKey.from_private_bytes(material[1:]))
        if key.key_id != match["id"]:
            raise NoteError(f"the private key of {key.name} has the id {key.key_id}, not {match['id']}")
        return key

    @classmethod
    def from_file(cls, path: Path) -> SigningKey:
        """Raises OSError, and NoteError when the file holds no key."""
        return cls.parse(path.read_text().removesuffix("\n"))

    def write(self, path: Path) -> None:
        """Write the private key to a new file, which only its owner may read. Durable once it returns."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{self.skey}\n")
            file.flush()
            os.fsync(file.fileno())

    @property
    def key_id(self) -> str:
        """The first four bytes of SHA-256(name ‖ LF ‖ type ‖ public key), in hex (signed-note, "Signatures")."""
        return self._id.hex()

    @property
    def vkey(self) -> str:
        """The public key, <name>+<key id>+<base64 of type and key>."""
        return f"{self.name}+{self.key_id}+{_base64(self._public)}"

    @property
    def skey(self) -> str:
        """The private key, in Go's form."""
        return f"PRIVATE+KEY+{self.name}+{self.key_id}+{_base64(_ED25519 + self.key.private_bytes_raw())}"

    def __repr__(self) -> str:
        return f"SigningKey({self.name}+{self.key_id})"

    def line(self, text: str) -> str:
        """The line, with its line feed, by which this key signs a note's text. Raises NoteError for what is no text of a log."""
        if not text.endswith("\n") or text.startswith(_WITNESSED):
            raise NoteError("a log signs a text that ends in a line feed, and not what a witness signs")
        return f"— {self.name} {_base64(self._id + self.key.sign(text.encode()))}\n"

    def signed(self, note: bytes) -> bool:
        """Whether this key signed the note. Raises NoteError when a signature that claims to be of this key is false."""
        text, lines = _split(note)
        blobs = [blob for name, blob in map(_parsed, lines) if (name, blob[:_ID_BYTES]) == (self.name, self._id)]
        for blob in blobs:
            try:
                self.key.public_key().verify(blob[_ID_BYTES:], text.encode())
            except InvalidSignature:
                raise NoteError(f"the signature of {self!r} is false") from None
        return bool(blobs)

    @property
    def _public(self) -> bytes:
        return _ED25519 + self.key.public_key().public_bytes_raw()


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    """What a log states: its tree of `size` leaves has this root (tlog-checkpoint, "Note text")."""
    if not _NAME.fullmatch(origin) or size < 0 or len(root) != 32:  # noqa: PLR2004 - a hash of SHA-256
        raise NoteError(f"{origin!r} cannot state a root of {len(root)} bytes for {size} leaves")
    return f"{origin}\n{size}\n{_base64(root)}\n"


def signed(text: str, keys: Sequence[SigningKey]) -> bytes:
    """The note of a checkpoint's text, signed by each of the keys. The same text and keys make the same note."""
    if not keys:
        raise NoteError("a note has a signature")
    return f"{text}\n{''.join(key.line(text) for key in keys)}".encode()


def text_of(note: bytes) -> str:
    """The text of a signed note. Raises NoteError when it is none; whether it is signed truly is not looked at."""
    return _split(note)[0]


def with_signatures(note: bytes, lines: Iterable[str]) -> bytes:
    """
    The note with these lines behind its own, except those of keys (by name and id) that signed it already.

    Lines end in a line feed. Raises NoteError when one is malformed; whether it is true is not looked at.
    """
    text, kept = _split(note)
    known = {(name, blob[:_ID_BYTES]) for name, blob in map(_parsed, kept)}
    for line in lines:
        name, blob = _parsed(line)
        if (name, blob[:_ID_BYTES]) not in known:
            known.add((name, blob[:_ID_BYTES]))
            kept.append(line)
    return f"{text}\n{''.join(kept)}".encode()


def _split(note: bytes) -> tuple[str, list[str]]:
    """The text, and the lines of the signatures (signed-note, "Format")."""
    try:
        text, blank, lines = note.decode().rpartition("\n\n")
    except UnicodeDecodeError as error:
        raise NoteError(f"the note is not UTF-8: {error}") from None
    if not blank or not lines.endswith("\n"):
        raise NoteError("a note is a text, an empty line, and lines of signatures, each ending in a line feed")
    return text + "\n", [f"{line}\n" for line in lines[:-1].split("\n")]


def _parsed(line: str) -> tuple[str, bytes]:
    """Name, and what follows it: four bytes of key id, and the signature."""
    match = _LINE.fullmatch(line)
    try:
        blob = b64decode(match["blob"], validate=True) if match else b""
    except ValueError:
        blob = b""
    if (
        match is None or len(blob) <= _ID_BYTES or _base64(blob) != match["blob"]
    ):  # one spelling (RFC 4648, section 3.5)
        raise NoteError(f"{line!r} is not a line of a signature: dash, name, base64, line feed")
    return match["name"], blob


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
