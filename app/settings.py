"""
What a service is told by its environment. This is the only module that reads it.

Invariant: every address and secret comes from here; nothing has a default that would work by accident in production.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from app.private import exposed, secrets_named_in
from policies import residency
from policies.rates import HOUSE, Rate
from policies.residency import PARTITIONS, Residency


class SettingsError(Exception):
    """The environment does not say what a service needs."""


class Settings(NamedTuple):
    """One region's services. `regions` are all regions of the deployment, in the order that shares out the partitions; those that
    have `joined` since own nothing from the beginning. `closed` are logs that regions among them went on from (`eu` from which `eu.2`):
    copies, which nobody writes any more. `continues` (a folder: app.closing) is told to a region that goes on with one.

    `signer` (a folder) is told to the checkpointer alone, `witness` (a folder) and `policy` (C2SP tlog-policy: keys of all
    logs and witnesses) to whoever plays those roles. `providers` (a file: providers.known) and `registers` (registers.known) to
    the api and the reactor, and so is `residency` (policies.residency). `oidc` (a file: access.identity_providers) and `public`
    (scheme, host and port, as people's browsers know this region) are told to the api, and so are `password_words` and
    `breached_passwords` (files: access.common_passwords). `custody` (a folder: replication.keys), with
    `policy` and `residency`, is told to the custodian.
    """

    deployment: str
    region: str
    regions: tuple[str, ...]
    postgres: str
    redis: str
    nats: str
    nats_seeds: Path
    api_host: str
    api_port: int
    region_key: Path
    fingerprint_key: Path
    tokens: Path
    peers: Mapping[str, str]
    signer: Path | None = None
    witness: Path | None = None
    policy: Path | None = None
    providers: Path | None = None
    registers: Path | None = None
    residency: Path | None = None
    custody: Path | None = None
    oidc: Path | None = None
    password_words: Path | None = None
    breached_passwords: Path | None = None
    public: str = ""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    proxies: tuple[str, ...] = ()
    rates: Mapping[str, Rate | None] = MappingProxyType({})
    adopted_only: bool = False
    joined: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    continues: Path | None = None

    @property
    def logs(self) -> tuple[str, ...]:
        """All that are held in each region."""
        return (*self.regions, *self.closed)

    @property
    def tls(self) -> tuple[Path, Path] | None:
        """Certificate chain and key, where the API speaks TLS itself."""
        return (self.tls_certificate, self.tls_key) if self.tls_certificate and self.tls_key else None

    @property
    def url(self) -> str:
        """Of the region's own API, as it listens."""
        return f"{'https' if self.tls else 'http'}://{self.api_host}:{self.api_port}"

    @property
    def site(self) -> str:
        """Where browsers find this region."""
        return self.public.rstrip("/") or self.url

    @property
    def secrets(self) -> list[Path]:
        """Files and folders that nobody but their owner may read. (Tokens and policy are none: digests and public keys.)"""
        found = (
            self.region_key,
            self.fingerprint_key,
            self.nats_seeds,
            self.signer,
            self.witness,
            self.custody,
            self.providers,
            self.registers,
            self.oidc,
            self.tls_key,
            self.continues,
        )
        named = [
            each for file in (self.providers, self.registers, self.oidc) if file for each in secrets_named_in(file)
        ]
        return [path for path in found if path] + named

    @property
    def origin(self) -> str:
        return self.origin_of(self.region)

    def origin_of(self, region: str) -> str:
        return f"countroom.{self.deployment}/{region}"

    def partitions_of(self, region: str) -> range:
        """The partitions that a region owns from the beginning: an even share of 0 to 255; none if it has joined since."""
        return shares_of(self.regions, self.joined).get(region, range(0))

    def who_may_hold(self) -> Residency:
        """Whose keys, as the file of residency says, and which partitions new players are given. Raises ResidencyUnreadable."""
        return residency.load(self.residency, self.regions, shares_of(self.regions, self.joined))

    def environment(self) -> dict[str, str]:
        """The same settings, for a child process."""
        return {
            "COUNTROOM_DEPLOYMENT": self.deployment,
            "COUNTROOM_REGION": self.region,
            "COUNTROOM_REGIONS": ",".join(self.regions),
            "COUNTROOM_POSTGRES": self.postgres,
            "COUNTROOM_REDIS": self.redis,
            "COUNTROOM_NATS": self.nats,
            "COUNTROOM_NATS_SEEDS": str(self.nats_seeds),
            "COUNTROOM_API": f"{self.api_host}:{self.api_port}",
            "COUNTROOM_REGION_KEY": str(self.region_key),
            "COUNTROOM_FINGERPRINT_KEY": str(self.fingerprint_key),
            "COUNTROOM_TOKENS": str(self.tokens),
            "COUNTROOM_PEERS": ",".join(f"{name}={url}" for name, url in self.peers.items()),
            **({"COUNTROOM_JOINED": ",".join(self.joined)} if self.joined else {}),
            **({"COUNTROOM_CLOSED": ",".join(self.closed)} if self.closed else {}),
            **({"COUNTROOM_PUBLIC": self.public} if self.public else {}),
            **({"COUNTROOM_PROXIES": ",".join(self.proxies)} if self.proxies else {}),
            **({"COUNTROOM_RATES": _rates_said(self.rates)} if self.rates else {}),
            **({"COUNTROOM_ADOPTED_ONLY": "yes"} if self.adopted_only else {}),
            **{name: str(path) for name, path in self._folders().items() if path},
        }

    def _folders(self) -> dict[str, Path | None]:
        return {
            "COUNTROOM_SIGNER": self.signer,
            "COUNTROOM_WITNESS": self.witness,
            "COUNTROOM_POLICY": self.policy,
            "COUNTROOM_PROVIDERS": self.providers,
            "COUNTROOM_REGISTERS": self.registers,
            "COUNTROOM_OIDC": self.oidc,
            "COUNTROOM_PASSWORD_WORDS": self.password_words,
            "COUNTROOM_BREACHED_PASSWORDS": self.breached_passwords,
            "COUNTROOM_RESIDENCY": self.residency,
            "COUNTROOM_CUSTODY": self.custody,
            "COUNTROOM_CONTINUES": self.continues,
            "COUNTROOM_TLS_CERT": self.tls_certificate,
            "COUNTROOM_TLS_KEY": self.tls_key,
        }

    def needed(self, role: str, *names: str) -> list[Path]:
        """Paths that a role cannot do without. Raises SettingsError."""
        folders = self._folders()
        if missing := [name for name in names if folders[name] is None]:
            raise SettingsError(f"the role {role} needs {' and '.join(missing)}")
        return [path for name in names if (path := folders[name])]


def shares_of(regions: Sequence[str], joined: Collection[str]) -> dict[str, range]:
    """Partitions from the beginning, by region: even shares of 0 to 255 for all but those that have joined since."""
    founders = [each for each in regions if each not in joined]
    count, total = len(founders), len(PARTITIONS)
    return {region: range(total * n // count, total * (n + 1) // count) for n, region in enumerate(founders)}


def from_environment() -> Settings:
    """Raises SettingsError, naming what is missing."""
    host, _, port = _required("COUNTROOM_API").rpartition(":")
    if not port.isdigit():
        raise SettingsError("COUNTROOM_API must be HOST:PORT")
    regions = tuple(_required("COUNTROOM_REGIONS").split(","))
    region = _required("COUNTROOM_REGION")
    if region not in regions:
        raise SettingsError(f"COUNTROOM_REGION={region} is not one of COUNTROOM_REGIONS={','.join(regions)}")
    joined = tuple(each for each in os.environ.get("COUNTROOM_JOINED", "").split(",") if each)
    if not set(joined) < set(regions):
        raise SettingsError("COUNTROOM_JOINED names some of COUNTROOM_REGIONS, and not all")
    closed = tuple(each for each in os.environ.get("COUNTROOM_CLOSED", "").split(",") if each)
    if set(closed) & set(regions):
        raise SettingsError("COUNTROOM_CLOSED names logs that were closed, and none of COUNTROOM_REGIONS")
    found = Settings(
        deployment=_required("COUNTROOM_DEPLOYMENT"),
        region=region,
        regions=regions,
        postgres=_required("COUNTROOM_POSTGRES"),
        redis=_required("COUNTROOM_REDIS"),
        nats=_required("COUNTROOM_NATS"),
        nats_seeds=Path(_required("COUNTROOM_NATS_SEEDS")),
        api_host=host or "127.0.0.1",
        api_port=int(port),
        region_key=Path(_required("COUNTROOM_REGION_KEY")),
        fingerprint_key=Path(_required("COUNTROOM_FINGERPRINT_KEY")),
        tokens=Path(_required("COUNTROOM_TOKENS")),
        peers=dict(_pair(peer) for peer in os.environ.get("COUNTROOM_PEERS", "").split(",") if peer),
        signer=_path("COUNTROOM_SIGNER"),
        witness=_path("COUNTROOM_WITNESS"),
        policy=_path("COUNTROOM_POLICY"),
        providers=_path("COUNTROOM_PROVIDERS"),
        registers=_path("COUNTROOM_REGISTERS"),
        oidc=_path("COUNTROOM_OIDC"),
        password_words=_path("COUNTROOM_PASSWORD_WORDS"),
        breached_passwords=_path("COUNTROOM_BREACHED_PASSWORDS"),
        public=os.environ.get("COUNTROOM_PUBLIC", ""),
        residency=_path("COUNTROOM_RESIDENCY"),
        custody=_path("COUNTROOM_CUSTODY"),
        tls_certificate=_path("COUNTROOM_TLS_CERT"),
        tls_key=_path("COUNTROOM_TLS_KEY"),
        proxies=tuple(proxy.strip() for proxy in os.environ.get("COUNTROOM_PROXIES", "").split(",") if proxy.strip()),
        rates=_rates(os.environ.get("COUNTROOM_RATES", "")),
        adopted_only=os.environ.get("COUNTROOM_ADOPTED_ONLY", "") == "yes",
        joined=joined,
        closed=closed,
        continues=_path("COUNTROOM_CONTINUES"),
    )
    if bool(found.tls_certificate) != bool(found.tls_key):
        raise SettingsError("COUNTROOM_TLS_CERT and COUNTROOM_TLS_KEY are given together or not at all")
    if open_ := exposed(found.secrets):
        raise SettingsError(f"{open_[0]} holds a secret, and others than its owner can read it; chmod 600 {open_[0]}")
    return found


def _rates(said: str) -> dict[str, Rate | None]:
    """`person=20/200,machine=-`: a second, and at once; `-`: as often as they like. Raises SettingsError."""
    found: dict[str, Rate | None] = {}
    for name, _, figure in (each.strip().partition("=") for each in said.split(",") if each.strip()):
        per_second, _, burst = figure.partition("/")
        is_rate = re.fullmatch(r"\d{1,6}(\.\d{1,3})?", per_second) and re.fullmatch(r"[1-9]\d{0,6}", burst)
        if name not in HOUSE or not (figure == "-" or (is_rate and float(per_second))):
            known = ", ".join(HOUSE)
            raise SettingsError(f"COUNTROOM_RATES: {name}={figure} is no NAME=RATE/BURST or NAME=- ({known})")
        found[name] = None if figure == "-" else Rate(float(per_second), int(burst))
    return found


def _rates_said(said: Mapping[str, Rate | None]) -> str:
    return ",".join(f"{name}={f'{rate.per_second}/{rate.burst}' if rate else '-'}" for name, rate in said.items())


def _path(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value) if value else None


class Existing(NamedTuple):
    """Servers of a region that `countroom up` shall use instead of starting its own."""

    postgres: str | None
    redis: str | None
    nats: str | None
    nats_seeds: Path | None


def existing_servers(region: str) -> Existing:
    """COUNTROOM_UP_<REGION>_POSTGRES, …_REDIS, …_NATS with …_NATS_SEEDS."""
    prefix = f"COUNTROOM_UP_{region.upper().replace('.', '_')}_"
    seeds = os.environ.get(prefix + "NATS_SEEDS")
    return Existing(
        os.environ.get(prefix + "POSTGRES"),
        os.environ.get(prefix + "REDIS"),
        os.environ.get(prefix + "NATS"),
        Path(seeds) if seeds else None,
    )


def client_token() -> str | None:
    """The bearer token for commands that call the API."""
    return os.environ.get("COUNTROOM_TOKEN")


def policy_file() -> Path | None:
    """The region's policy, for commands that run beside its services."""
    return _path("COUNTROOM_POLICY")


def wants_traces() -> bool:
    """Whether OpenTelemetry's own variables say where to send traces; they are read by its SDK (app.tracing)."""
    if os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(os.environ.get(f"OTEL_EXPORTER_OTLP_{which}ENDPOINT") for which in ("", "TRACES_"))


def inherited() -> dict[str, str]:
    """The environment that child processes start from."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COUNTROOM_")}


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "countroom"


def _required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise SettingsError(f"{name} is not set; docs/reference/settings.md says what it means")
    return value


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value
