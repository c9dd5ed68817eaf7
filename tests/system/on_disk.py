"""All that regions keep in files, while they run or after."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import redis

from tests.system.conftest import Deployment


def written_out(deployment: Deployment) -> None:
    """What the servers have in memory stands in their files now."""
    for settings in deployment.local.settings.values():
        with psycopg.connect(settings.postgres, autocommit=True) as connection:
            connection.execute("CHECKPOINT")
        with redis.Redis.from_url(settings.redis) as client:
            client.save()


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file. What a server removes meanwhile is not there any more."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink():
                    yield name, path.read_bytes()
