"""Histories of the domain as logs that a verifier accepts, shown by a small region over HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.replaying.verified import Verified, verified
from domain.kernel import uuid7_texts
from eventstore.record import Entry, decode_body, encode_body, entry_bytes, genesis, leaf_hash
from eventstore.tree import Tree
from tests.projections.books import NOON, Book
from tests.verifier.region import TOKEN, Region, serving
from verifier.note import Kind, assemble, cosign, format_checkpoint, key_of, sign

KEYS = {name: Ed25519PrivateKey.from_private_bytes(bytes(32 * [n])) for n, name in enumerate(("eu", "us"), 1)}
WITNESSES = {name: Ed25519PrivateKey.from_private_bytes(bytes(32 * [n])) for n, name in enumerate(("eu", "us"), 11)}


def sound(book: Book) -> list[Entry]:
    """The book's log with event ids that are UUIDs, as the record format wants them."""
    entries: list[Entry] = []
    leaf = genesis(book.origin)
    for entry in book.entries:
        (id_,) = uuid7_texts(NOON, hashlib.sha256(f"{book.name}/{entry.position}".encode()).digest()[:10])
        body = encode_body(msgspec.structs.replace(decode_body(entry.body), id=id_))
        leaf = leaf_hash(leaf, entry.position, entry.recorded, body)
        entries.append(entry._replace(leaf=leaf, body=body))
    return entries


def origin(log: str) -> str:
    return f"countroom.test/{log}"


def raw(log: str, entries: Sequence[Entry]) -> list[tuple[int, bytes, bytes]]:
    """Position, bytes and leaf, as regions show them."""
    before = [genesis(origin(log)), *(entry.leaf for entry in entries)]
    return [
        (e.position, entry_bytes(prev, e.position, e.recorded, e.body), e.leaf)
        for prev, e in zip(before, entries, strict=False)
    ]


def head(log: str, entries: Sequence[Entry], size: int, witnessed: Mapping[str, int]) -> tuple[int, bytes]:
    """A head that the log signed, and these regions' witnesses at these times (s)."""
    tree = Tree()
    for entry in entries[:size]:
        tree.append(entry.leaf)
    text = format_checkpoint(origin(log), size, tree.root())
    lines = [sign(text, name=origin(log), key=KEYS[log])]
    lines += (
        cosign(text, name=f"{origin(by)}/witness", key=WITNESSES[by], timestamp_s=at) for by, at in witnessed.items()
    )
    return size, assemble(text, lines)


def policy() -> str:
    lines = [f"log {key_of(origin(log), Kind.ED25519, key)}" for log, key in KEYS.items()]
    lines += [f"witness {by} {key_of(f'{origin(by)}/witness', Kind.COSIGNATURE, key)}" for by, key in WITNESSES.items()]
    return "\n".join([*lines, "quorum none", ""])


def region(logs: Mapping[str, Sequence[Entry]], signed: Mapping[str, list[tuple[int, bytes]]] | None = None) -> Region:
    shown = Region({log: raw(log, entries) for log, entries in logs.items()})  # type: ignore[arg-type]
    shown.signed = dict(signed or {})
    return shown


@contextmanager
def replaying(logs: Mapping[str, Sequence[Entry]]) -> Iterator[Verified]:
    """The logs, verified at a region."""
    with serving(region(logs)) as shown:
        yield verified(shown.url, TOKEN, None, lambda *_: None, 1)
