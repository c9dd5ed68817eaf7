"""Logs with published heads, for tests of those who read them."""

from __future__ import annotations

from eventstore.note import SigningKey, checkpoint_text, signed
from tests.ledger import EU, US, Ledger, command
from verifier import merkle
from verifier.policy import Policy, parse_policy

KEYS = {"eu": SigningKey.generate(EU), "us": SigningKey.generate(US)}


def append(ledger: Ledger, entries: int, version: int = 1) -> None:
    """Entries of one stream of eu, from this version on."""
    for first in range(version, version + entries, 400):
        last = min(first + 400, version + entries)
        assert ledger.append(command(*[("wallet 1", each) for each in range(first, last)])) == [0]


def leaves(ledger: Ledger, log: str = "eu") -> list[bytes]:
    return [
        bytes(leaf)
        for (leaf,) in ledger.sql(
            "SELECT e.leaf FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log WHERE l.name = %s ORDER BY e.position",
            log,
        )
    ]


def head(log: str, leaf_hashes: list[bytes]) -> bytes:
    """The note of a tree of these leaves."""
    return signed(checkpoint_text(KEYS[log].name, len(leaf_hashes), merkle.root(leaf_hashes)), [KEYS[log]])


def publish(ledger: Ledger, *sizes: int, log: str = "eu", published: bool = True) -> None:
    """Sign and keep heads of the log as it is, of these sizes."""
    known = leaves(ledger, log)
    [(number,)] = ledger.sql("SELECT id FROM ledger.log WHERE name = %s", log)
    for size in sizes:
        ledger.sql(
            "SELECT ledger.keep_checkpoint(%s::smallint, %s::bigint, %s, %s, %s)",
            *(number, size, merkle.root(known[:size]), head(log, known[:size]), published),
            role="heads",
        )


def trusting(log: str) -> Policy:
    """A policy that accepts what the log alone has signed."""
    return parse_policy(f"log {KEYS[log].vkey}\nquorum none\n".encode())
