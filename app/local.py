"""
Whole regions on this machine: servers from devstack, keys and tokens made once, our own processes beside them.

Invariants:
    - everything lies in one data folder, which is kept between runs; nobody else may read its secrets;
    - no process of ours is told the password of a PostgreSQL administrator: each has a login with just the role that it
      needs. (A PostgreSQL that was given is used as it was given.)
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from access.policy import ROLES
from access.tokens import TokenRecord, new_token, record
from app import heads
from app.settings import Settings, existing_servers, inherited, shares_of
from domain.logs import next_name
from policies import residency
from providers import known as providers
from registers import known as registers

if TYPE_CHECKING:
    from devstack.stack import Stack

DEPLOYMENT = "demo"
PROCESSES = {
    ("api",): "countroom_writer",
    ("projector",): "countroom_projector",
    ("reactor",): "countroom_writer",
    ("relay", "applier"): "countroom_applier",
    ("checkpointer", "witness"): "countroom_heads",
    ("custodian",): "countroom_writer",
}
"""The processes of a region: what each plays, and as which role of the database (all of them may read)."""
POLICY = "trust.policy"
_PROVIDERS = "providers.json"
_REGISTERS = "registers.json"
_RESIDENCY = "residency.json"
_FOUNDERS = "founders.json"
_CLOSED = "closed.json"
CONTINUES = "continues"
"""The folder of a region's that goes on with a closed log (app.closings)."""
_OIDC = "oidc.json"
_CHECKOUT = Path(__file__).parent.parent
_STRAIGHT: Mapping[tuple[str, str], int] = MappingProxyType({})
_THIS_RELEASE: Mapping[str, Path] = MappingProxyType({})


class NoDevstack(Exception):
    """The embedded servers are not installed."""


class Local(NamedTuple):
    """Regions that run. `tokens`: a development token for each role."""

    stack: Stack
    settings: dict[str, Settings]
    tokens: dict[str, str]

    def url(self, region: str) -> str:
        return self.settings[region].url


@contextmanager
def running(
    data: Path,
    regions: Sequence[str],
    port_base: int,
    *,
    via: Mapping[tuple[str, str], int] = _STRAIGHT,
    added: Callable[[str, str], Mapping[str, str]] | None = None,
    checkouts: Mapping[str, Path] = _THIS_RELEASE,
    idle: Collection[str] = (),
    wait: bool = True,
) -> Iterator[Local]:
    """Start the regions, `wait` until they take commands, stop them at the end. `via`, `added`: of the stack. Of those that are `idle`
    only the servers run, and nothing is written there; the others may have to wait for them, and are not waited for.

    `checkouts`: of another release of ours, by the region that runs it, in this environment.

    Raises NoDevstack, LogClosed, ProvidersUnreadable, RegistersUnreadable and devstack's errors.
    """
    closed = closed_logs(data)
    for region in regions:
        if region in closed:
            raise LogClosed(
                f"the log {region} was closed, and goes on as {next_name(region)}: name that one among the regions"
            )
    try:
        from devstack.region import Given
        from devstack.stack import Stack
    except ImportError as error:
        raise NoDevstack("the embedded servers are not installed: pip install 'countroom[devstack]'") from error
    providers.load(
        _if_there(data / _PROVIDERS)
    )  # each process reads them; here a mistake is told before anything starts
    registers.load(_if_there(data / _REGISTERS))
    founders = _founders(data, regions)
    joined = tuple(region for region in regions if region not in founders)
    residency.load(_if_there(data / _RESIDENCY), regions, shares_of(regions, joined))
    given = {}
    for region in regions:
        there = existing_servers(region)
        given[region] = Given(postgres=there.postgres, nats=there.nats, seeds=there.nats_seeds, redis=there.redis)
    with Stack(data=data, regions=regions, port_base=port_base, given=given, via=via, added=added) as stack:
        stack.start_servers()
        write_private(stack.data / _FOUNDERS, msgspec.json.encode(founders).decode())
        tokens = _tokens(stack.data)
        settings = {region: _settings(stack, region, regions, joined)._replace(closed=closed) for region in regions}
        heads.make_keys(list(settings.values()))
        asyncio.run(_open([each for each in settings.values() if each.region not in {*checkouts, *idle}]))
        for region in regions:
            if region in idle:
                continue
            if region in checkouts:
                _open_as(checkouts[region], settings[region])
            _start(stack, settings[region], checkouts.get(region, _CHECKOUT))
        if wait and not idle:
            stack.wait_ready()
        yield Local(stack, settings, tokens)


def _founders(data: Path, regions: Sequence[str]) -> list[str]:
    """The regions with which the data folder began. They share the partitions; who has joined since owns what is handed over."""
    file = data / _FOUNDERS
    if file.exists():
        return msgspec.json.decode(file.read_bytes(), type=list[str])
    return [region for region in regions if (data / region).exists()] or list(regions)


async def _open(settings: Sequence[Settings]) -> None:
    from app.bootstrap import open_region

    await asyncio.gather(*(open_region(region) for region in settings))


def _open_as(checkout: Path, settings: Settings) -> None:
    """Open a region as another release does. Raises CalledProcessError."""
    command = [sys.executable, "-m", "app", "migrate"]
    subprocess.run(command, cwd=checkout, env={**inherited(), **settings.environment()}, check=True)  # noqa: S603


def _start(stack: Stack, settings: Settings, checkout: Path) -> None:
    url = f"{settings.url}/readyz"
    for roles, acts_as in PROCESSES.items():
        own = settings._replace(
            postgres=_login(stack, settings, f"service_{roles[0]}", acts_as),
            signer=settings.signer if "checkpointer" in roles else None,
            witness=settings.witness if "witness" in roles else None,
            custody=settings.custody if "custodian" in roles else None,
            providers=settings.providers if {"api", "reactor"} & set(roles) else None,
            registers=settings.registers if {"api", "reactor"} & set(roles) else None,
            oidc=settings.oidc if {"api", "reactor"} & set(roles) else None,
            continues=None,
        )
        stack.start_process(
            region=settings.region,
            role="+".join(roles),
            argv=[sys.executable, "-m", "app", "serve", *roles],
            env={**inherited(), **own.environment()},
            cwd=checkout,
            ready=(lambda: _answers(url)) if "api" in roles else None,
        )


def _login(stack: Stack, settings: Settings, name: str, role: str) -> str:
    from app.bootstrap import login

    if existing_servers(settings.region).postgres:
        return settings.postgres
    password = _secret(stack.data / settings.region / "postgres" / f"{name}.password")
    return login(settings.postgres, name, role, password.read_text())


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310 — our own loopback address
            return bool(response.status == 200)  # noqa: PLR2004
    except (urllib.error.URLError, OSError):
        return False


def _settings(stack: Stack, region: str, regions: Sequence[str], joined: tuple[str, ...]) -> Settings:
    here = stack.endpoints(region)
    return Settings(
        deployment=DEPLOYMENT,
        region=region,
        regions=tuple(regions),
        postgres=here.postgres,
        redis=here.redis,
        nats=here.nats,
        nats_seeds=here.seeds,
        api_host="127.0.0.1",
        api_port=here.api_port,
        region_key=_secret(stack.data / region / "region.key"),
        fingerprint_key=_secret(stack.data / "fingerprint.key"),
        tokens=stack.data / "tokens.json",
        peers={other: stack.endpoints(other).api for other in regions if other != region},
        signer=stack.data / region / "signer",
        witness=stack.data / region / "witness",
        custody=stack.data / region / "custody",
        policy=stack.data / POLICY,
        providers=_if_there(stack.data / _PROVIDERS),
        registers=_if_there(stack.data / _REGISTERS),
        residency=_if_there(stack.data / _RESIDENCY),
        joined=joined,
        oidc=_if_there(stack.data / _OIDC),
        continues=_if_there(stack.data / region / CONTINUES),
    )


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None


def _secret(path: Path) -> Path:
    """A file with 32 random bytes in hex, made once."""
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    return path


def _tokens(data: Path) -> dict[str, str]:
    """Development tokens, one for each role, made once; services see digests only."""
    file = data / "dev-tokens.json"
    known: dict[str, str] = msgspec.json.decode(file.read_bytes()) if file.exists() else {}
    tokens = {role: known.get(role) or new_token() for role in ROLES}
    if tokens != known:
        write_private(file, msgspec.json.encode(tokens).decode())
    digests = [record(token, f"{role}:dev", [role]) for role, token in tokens.items()]
    write_private(data / "tokens.json", msgspec.json.encode(digests + _added(data, digests)).decode())
    return tokens


def _added(data: Path, ours: Sequence[TokenRecord]) -> list[TokenRecord]:
    """Tokens that `countroom token` has added to the file."""
    file = data / "tokens.json"
    there = msgspec.json.decode(file.read_bytes(), type=list[TokenRecord]) if file.exists() else []
    known = {record.sha256 for record in ours}
    return [record for record in there if record.sha256 not in known]


def write_private(path: Path, text: str) -> None:
    """Write a file that only we may read, whole or not at all."""
    draft = path.with_suffix(path.suffix + ".new")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(path)


def free_port_base(regions: int, *, first: int = 8100) -> int:
    """The first port base from `first` on at which no port of the regions is taken."""
    from devstack.stack import is_free

    for base in range(first, 60_000, 100 * regions):
        if all(is_free(base + 100 * i + port) for i in range(regions) for port in range(5)):
            return base
    raise NoDevstack("no ports are free for the regions")


def closed_logs(data: Path) -> tuple[str, ...]:
    """The logs of the data folder that were closed."""
    file = data / _CLOSED
    return tuple(msgspec.json.decode(file.read_bytes(), type=list[str])) if file.exists() else ()


def close_log(data: Path, name: str) -> None:
    """From now on the log is a copy in every region, and the next one of its region has its place among those that share the
    partitions.
    """
    file = data / _FOUNDERS
    founders = msgspec.json.decode(file.read_bytes(), type=list[str]) if file.exists() else []
    there = [next_name(name) if each == name else each for each in founders]
    write_private(file, msgspec.json.encode(there).decode())
    write_private(data / _CLOSED, msgspec.json.encode(list(dict.fromkeys([*closed_logs(data), name]))).decode())


class LogClosed(Exception):
    """A region is to be run under the name of a log that was closed."""


class NothingRuns(Exception):
    """No regions run in the data folder."""
