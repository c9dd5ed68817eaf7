"""
The SQL of a region's database, applied in order, once each, under a lock.

Invariant: a file that was applied never changes (its digest is compared at each start); a change is a new file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psycopg
from psycopg import errors

ROLES = ("ledger", "reader", "writer", "applier", "projector", "heads", "vault")
HERE = Path(__file__).parent


class SchemaChanged(Exception):
    """A migration that was applied differs from the file of this release."""


def migrate(dsn: str, folders: Iterable[tuple[str, Path]]) -> list[str]:
    """Bring the database up to date and return what was applied. `folders`: (name, folder of NNNN_*.sql), in order.

    Needs a role that may create roles and schemas. Safe to run from several processes, and again.
    """
    _make_roles(dsn)
    applied: list[str] = []
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('countroom.migration'))")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS public.countroom_migration (name text PRIMARY KEY, digest text NOT NULL)"
        )
        done: dict[str, str] = dict(
            connection.execute("SELECT name, digest FROM public.countroom_migration").fetchall()
        )
        for context, folder in folders:
            for file in sorted(folder.glob("[0-9]*.sql")):
                name = f"{context}/{file.stem}"
                text = file.read_text()
                digest = hashlib.sha256(text.encode()).hexdigest()
                if name not in done:
                    connection.execute(text.encode())
                    connection.execute("INSERT INTO public.countroom_migration VALUES (%s, %s)", (name, digest))
                    applied.append(name)
                elif done[name] != digest:
                    raise SchemaChanged(f"{name} was applied in another form; a change needs a new file")
    return applied


def _make_roles(dsn: str) -> None:
    """Roles belong to the whole cluster, of which another database may be migrated at this moment: no lock covers both."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for role in ROLES:
            if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (f"countroom_{role}",)).rowcount:
                with suppress(errors.DuplicateObject, errors.UniqueViolation):
                    connection.execute(f"CREATE ROLE countroom_{role} NOLOGIN")
        for role in ("writer", "applier", "projector", "heads", "vault"):
            with suppress(errors.UniqueViolation):
                connection.execute(f"GRANT countroom_reader TO countroom_{role}")
