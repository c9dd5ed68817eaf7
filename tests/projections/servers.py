"""Databases with logs and read models in them."""

from __future__ import annotations

from pathlib import Path

import projections
from eventstore import schema
from tests.stack import Servers

_READ_MODELS = Path(projections.__file__).parent / "schema"


def database(servers: Servers, name: str) -> str:
    """The administrator's DSN of a new database whose logs and read models are empty."""
    dsn = servers.fresh_database(name)
    schema.migrate(dsn, [("ledger", schema.HERE), ("read", _READ_MODELS)])
    return dsn
