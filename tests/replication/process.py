"""A relay or an applier as a process of its own, to be killed: python -m tests.replication.process '{"region": …}' [ORIGIN]"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from replication.applier import run_applier
from replication.config import Config
from replication.relay import run_relay


def arguments(config: Config, origin: str | None = None) -> list[str]:
    given = {
        "region": config.region,
        "deployment": config.deployment,
        "postgres": config.postgres,
        "nats": config.nats,
        "seeds": str(config.seeds),
    }
    return [sys.executable, "-m", "tests.replication.process", json.dumps(given), *([origin] if origin else [])]


def main(given: str, origin: str = "") -> None:
    values = json.loads(given)
    config = Config(**values | {"seeds": Path(values["seeds"])})
    stop = asyncio.Event()
    asyncio.run(run_applier(config, origin, stop) if origin else run_relay(config, stop))


if __name__ == "__main__":
    main(*sys.argv[1:])
