"""
What signs a log's heads: the key, and beside it the tree that was signed last, in a folder of its own.

A head that was signed and then contradicted is a fork, which nobody can take back. So the signer does not believe whoever
asks: it holds a tree that only grows by leaves, and signs nothing but the root of that.

Invariants:
    - each tree that is signed begins with all that were signed before, by construction;
    - a signature is given out after the tree that it is about is on the disk: a process that dies in between signs the same again;
    - one process at a time: the folder is locked, and what it holds is compared before it is written.

What it cannot notice: the folder put back from a backup while no signer has it open. The old tree is then sound in itself.
Whoever extends it compares its size with the newest head that the ledger keeps, and its witnesses refuse a smaller one.

The folder, which only its owner may read:
    head.json       {"origin", "size", "frontier" (hex), "note"}: the tree that was signed last, and its signed note
    keys/           private keys, each a file that is named by its key id
    active.json     the ids of those that sign; during a rotation two
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from eventstore.note import NoteError, SigningKey, checkpoint_text, signed, text_of
from eventstore.tree import Tree

_HEAD, _ACTIVE, _KEYS = "head.json", "active.json", "keys"


class SignerError(Exception):
    """The folder cannot be used: another process has it, or what stands in it is damaged or not of this log."""


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    origin: str
    size: int
    frontier: list[str]
    note: str | None


class Signer:
    """The one signer of a log. Not for two tasks at once."""

    def __init__(self, folder: Path, origin: str, lock: int) -> None:
        """See `open`; `lock` is a descriptor of the folder, which is closed with the signer."""
        self.origin = origin
        self._folder = folder
        self._lock = lock
        self._stored = _read(folder / _HEAD)
        self._tree, self._note = _sound(self._stored, origin, keys_of(folder, origin))

    @classmethod
    def open(cls, folder: Path, origin: str) -> Signer:
        """Take the folder that `create` made. Raises SignerError."""
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise SignerError(f"there is no folder of a signer: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cls(folder, origin, lock)
        except BlockingIOError:
            os.close(lock)
            raise SignerError(f"another process signs with {folder}") from None
        except BaseException:
            os.close(lock)
            raise

    @property
    def size(self) -> int:
        """Leaves, those included that are not signed yet."""
        return self._tree.size

    @property
    def root(self) -> bytes:
        return self._tree.root()

    @property
    def note(self) -> bytes | None:
        """The newest signed note."""
        return self._note

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add the leaf hashes that follow. They last once they are signed. Raises ValueError at one that is no hash."""
        self._tree.extend(leaves)

    def sign(self) -> bytes:
        """
        The signed note of the tree as it is, by all active keys. Of the same tree and keys it is the same note.

        Durable once it returns. Raises SignerError when the folder was changed by anybody else since this signer read or
        wrote it, and OSError when it cannot be written; after either, open it again.
        """
        text = checkpoint_text(self.origin, self.size, self.root)
        note = signed(text, active(self._folder, self.origin))
        if _read(self._folder / _HEAD) != self._stored:
            raise SignerError(f"{self._folder / _HEAD} was changed by somebody else")
        head = _Head(self.origin, self.size, [root.hex() for root in self._tree.frontier], note.decode())
        if note != self._note:
            self._stored = _replace(self._folder, _HEAD, head)
            self._note = note
        return note

    def close(self) -> None:
        """Let another process sign."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def create(folder: Path, origin: str) -> str:
    """
    Make a signer's folder with its first key and no tree, and return the key's vkey. Again, it changes nothing.

    The store comes first and the key that is listed last: a folder that was begun is completed, and one that has signed
    but lost its store is not taken for a new one. Raises SignerError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / _ACTIVE).exists():
        if not (folder / _HEAD).exists():
            _replace(folder, _HEAD, _Head(origin, 0, [], None))
        if _sound(_read(folder / _HEAD), origin, [])[0].size:
            raise SignerError(f"{folder} has signed, and has lost {_ACTIVE}")
        add_key(folder, SigningKey.generate(origin))
    _sound(_read(folder / _HEAD), origin, keys_of(folder, origin))
    return active(folder, origin)[0].vkey


def signed_size(folder: Path) -> int:
    """The size of the tree that was signed last; 0 where there is no signer, or it has signed none. Raises SignerError."""
    if not (folder / _HEAD).exists():
        return 0
    try:
        return msgspec.json.decode(_read(folder / _HEAD), type=_Head).size
    except msgspec.DecodeError as error:
        raise SignerError(f"{folder / _HEAD} is damaged: {error}") from error


def keep_key(folder: Path, key: SigningKey) -> None:
    """Keep a private key that does not sign yet. Again, it changes nothing. Raises OSError."""
    (folder / _KEYS).mkdir(mode=0o700, exist_ok=True)
    path = folder / _KEYS / key.key_id
    if not path.exists():
        key.write(path)
        _settle(folder / _KEYS)


def add_key(folder: Path, key: SigningKey) -> None:
    """Let one more key sign, from the next head on. Raises SignerError when its name is not that of the others."""
    others = active(folder, key.name) if (folder / _ACTIVE).exists() else []
    keep_key(folder, key)
    _replace(folder, _ACTIVE, list(dict.fromkeys([*(other.key_id for other in others), key.key_id])))


def retire_key(folder: Path, origin: str, vkey: str) -> None:
    """Let this key sign no more, from the next head on. It stays in keys/. Raises SignerError for the last one."""
    remaining = [key.key_id for key in active(folder, origin) if key.vkey != vkey]
    if not remaining:
        raise SignerError(f"{vkey} is the only key that signs")
    _replace(folder, _ACTIVE, remaining)


def keys_of(folder: Path, origin: str) -> list[SigningKey]:
    """All keys that the folder holds: first those that sign, in their order. Raises SignerError."""
    signing = active(folder, origin)
    known = {key.key_id for key in signing}
    return [*signing, *(_key(path, origin) for path in sorted((folder / _KEYS).iterdir()) if path.name not in known)]


def active(folder: Path, origin: str) -> list[SigningKey]:
    """The keys that sign, the oldest first. Raises SignerError."""
    try:
        ids = msgspec.json.decode(_read(folder / _ACTIVE), type=list[str])
    except msgspec.DecodeError as error:
        raise SignerError(f"{folder / _ACTIVE} is damaged: {error}") from error
    if not ids:
        raise SignerError(f"{folder / _ACTIVE} names no key")
    return [_key(folder / _KEYS / id_, origin) for id_ in ids]


def _key(path: Path, origin: str) -> SigningKey:
    try:
        key = SigningKey.from_file(path)
    except (OSError, ValueError, NoteError) as error:
        raise SignerError(f"{path} is no key that signs: {error}") from error
    if (key.name, key.key_id) != (origin, path.name):
        raise SignerError(f"{path} is a key of {key.name}, {key.key_id}, and not of {origin}")
    return key


def _sound(stored: bytes, origin: str, keys: list[SigningKey]) -> tuple[Tree, bytes | None]:
    """
    The tree and the note of a store. The note is signed, it states the root, and the root is that of the frontier: a byte
    that was changed is noticed. Raises SignerError.
    """
    try:
        head = msgspec.json.decode(stored, type=_Head)
        tree = Tree(head.size, [bytes.fromhex(root) for root in head.frontier])
        if head.origin != origin:
            raise SignerError(f"the store is that of {head.origin}, not of {origin}")
        if _encoded(head) != stored or [root.hex() for root in tree.frontier] != head.frontier:
            raise SignerError("the store is spelt otherwise than it was written")
        if head.note is None:
            if head.size:
                raise SignerError(f"a tree of {head.size} leaves was stored, and never signed")
            return tree, None
        note = head.note.encode()
        if text_of(note) != checkpoint_text(origin, head.size, tree.root()):
            raise SignerError("the note that was signed last is about another tree than the stored one")
        signers = [key for key in keys if key.signed(note)]
        if keys and not (signers and sorted(note.splitlines()) == sorted(signed(text_of(note), signers).splitlines())):
            raise SignerError("the note that was signed last is signed by others than the keys")
    except (msgspec.DecodeError, ValueError, NoteError) as error:
        raise SignerError(f"the store is damaged: {error}") from error
    return tree, note


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SignerError(f"the folder of the signer is damaged: {error}") from error


def _replace(folder: Path, name: str, content: object) -> bytes:
    """Write a file as a whole: after a crash there is the old one or the new one. Durable once it returns."""
    data = _encoded(content)
    made = folder / f"{name}.new"
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    made.rename(folder / name)
    _settle(folder)
    return data


def _encoded(content: object) -> bytes:
    return msgspec.json.encode(content) + b"\n"


def _settle(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
