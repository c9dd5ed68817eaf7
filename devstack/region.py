"""
Where the servers of one region are: its ports, folders and addresses.

Region i of a stack owns the ports from port_base + 100·i:

    +0 API   +1 PostgreSQL   +2 NATS clients   +3 NATS leaf nodes   +4 Valkey

and the folder <data>/<name>/ with postgres/, nats/, valkey/ and logs/, all kept between runs.
A server that somebody else runs (`Given`) is used by its address and neither started nor stopped.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from devstack.files import secret

PORTS_PER_REGION = 100
ADMIN = "countroom_admin"
DATABASE = "countroom"
_NAME = re.compile(r"[a-z][a-z0-9]*(\.[1-9][0-9]*)?")
_PORT_MAX = 65535


@dataclass(frozen=True, slots=True)
class Ports:
    api: int
    postgres: int
    nats: int
    leaf: int
    valkey: int


@dataclass(frozen=True, slots=True)
class Given:
    """Servers that run elsewhere, by address. A NATS server comes with its folder of seeds (see `nats`)."""

    postgres: str | None = None
    nats: str | None = None
    seeds: Path | None = None
    redis: str | None = None

    def __post_init__(self) -> None:
        if (self.nats is None) != (self.seeds is None):
            raise ValueError("an existing NATS server needs both its URL and its folder of seeds")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """All that a process of the region needs to reach its servers. Holds passwords: log it nowhere."""

    api: str  # http://127.0.0.1:<port>, where the region's API is to listen
    api_port: int
    postgres: str  # the administrator's DSN of the database `countroom`
    nats: str
    seeds: Path  # own.seed: the service user of our realm; in-<region>.seed: ours on the local side of theirs
    redis: str  # with password


@dataclass(frozen=True, slots=True)
class Region:
    name: str
    index: int
    data: Path
    port_base: int
    given: Given = Given()
    via: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Through which port it reaches another region's leaf port, and its processes their own NATS, where not straight."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a region is named like eu or eu.2, not {self.name!r}")
        if self.ports.valkey > _PORT_MAX:
            raise ValueError(f"port base {self.port_base} leaves no ports for region {self.name}")

    @property
    def token(self) -> str:
        """The name inside NATS, where dots separate and streams forbid them: `eu.2` → `EU_2`."""
        return self.name.upper().replace(".", "_")

    @property
    def ports(self) -> Ports:
        first = self.port_base + PORTS_PER_REGION * self.index
        return Ports(api=first, postgres=first + 1, nats=first + 2, leaf=first + 3, valkey=first + 4)

    @property
    def folder(self) -> Path:
        return self.data / self.name

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def postgres_password_file(self) -> Path:
        return self.folder / "postgres" / "admin.password"

    @property
    def valkey_password_file(self) -> Path:
        return self.folder / "valkey" / "password"

    def wanted_ports(self) -> dict[int, str]:
        """Port → what it is for. A given server wants none here; the API's is wanted always."""
        wanted = {self.ports.api: f"the API of {self.name}"}
        if not self.given.postgres:
            wanted[self.ports.postgres] = f"PostgreSQL of {self.name}"
        if not self.given.nats:
            wanted[self.ports.nats] = f"NATS clients of {self.name}"
            wanted[self.ports.leaf] = f"NATS leaf nodes of {self.name}"
        if not self.given.redis:
            wanted[self.ports.valkey] = f"Valkey of {self.name}"
        return wanted

    def dsn(self, database: str = DATABASE) -> str:
        """The administrator's DSN of a database on the embedded PostgreSQL."""
        password = secret(self.postgres_password_file)
        return f"postgresql://{ADMIN}:{password}@127.0.0.1:{self.ports.postgres}/{database}"

    def endpoints(self) -> Endpoints:
        """Needs the folders (`Stack` makes them), since passwords are made up at the first call."""
        given, ports = self.given, self.ports
        return Endpoints(
            api=f"http://127.0.0.1:{ports.api}",
            api_port=ports.api,
            postgres=given.postgres or self.dsn(),
            nats=given.nats or f"nats://127.0.0.1:{self.via.get(self.name, ports.nats)}",
            seeds=given.seeds or self.folder / "nats",
            redis=given.redis or f"redis://:{secret(self.valkey_password_file)}@127.0.0.1:{ports.valkey}/0",
        )
