"""The SQL of what replication remembers; eventstore.schema applies it, after the ledger's."""

from pathlib import Path

HERE = Path(__file__).parent
