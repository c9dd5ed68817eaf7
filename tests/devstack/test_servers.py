"""How the servers are run."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack import Stack, postgres, read_state
from devstack.memory import family, pss_bytes
from devstack.stack import SERVER_ROLES
from tests.stack import Servers


def asked(dsn: str, question: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(question).fetchone()
        assert row
        return row[0]


def test_every_region_has_a_database_of_its_own(stack: Stack) -> None:
    clusters = {asked(stack.endpoints(r.name).postgres, "SHOW cluster_name") for r in stack.regions[:2]}
    assert clusters == {"countroom-eu", "countroom-us"}
    assert asked(stack.endpoints("eu").postgres, "SELECT current_user || '@' || current_database()") == (
        "countroom_admin@countroom"
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("server_version_num", "18"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("wal_level", "replica"),
        ("jit", "off"),
        ("password_encryption", "scram-sha-256"),
        ("unix_socket_directories", ""),
        ("TimeZone", "UTC"),
    ],
)
def test_postgresql_is_set_for_durability(stack: Stack, setting: str, value: str) -> None:
    assert str(asked(stack.endpoints("eu").postgres, f"SHOW {setting}")).startswith(value)


def test_postgresql_sorts_text_alike_on_every_machine(stack: Stack) -> None:
    question = "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = 'countroom'"
    assert asked(stack.endpoints("eu").postgres, question) == "bC.UTF-8"


def test_postgresql_lets_nobody_in_without_the_password(stack: Stack) -> None:
    dsn = stack.endpoints("eu").postgres
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(psycopg.conninfo.make_conninfo(dsn, password="guessed"))


def test_valkey_wants_its_password_and_never_evicts(stack: Stack) -> None:
    at = stack.endpoints("eu")
    with redis.Redis.from_url(at.redis, decode_responses=True) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
    at_once = Retry(NoBackoff(), 0)  # by default, redis-py tries a wrong password again for seconds
    stranger = redis.Redis(port=stack.regions[0].ports.valkey, retry=at_once)
    with stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_given_servers_are_used_and_not_started(stack: Stack) -> None:
    assert [role for region, role in stack.pids() if region == "ca.2"] == ["nats"]
    assert stack.endpoints("ca.2").postgres == "postgresql://elsewhere/countroom"
    assert stack.endpoints("ca.2").redis == "redis://elsewhere"


def test_nothing_listens_anywhere_but_on_the_loopback(stack: Stack) -> None:
    ours = {port for region in stack.regions for port in region.wanted_ports()}
    listening = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if int(port, 16) in ours and line.split()[3] == "0A":
                listening.add((address, int(port, 16)))
    assert listening == {("0100007F", port) for port in ours - {r.ports.api for r in stack.regions}}


def test_secrets_are_readable_by_their_owner_only(stack: Stack) -> None:
    for region in stack.regions:
        for path in region.folder.glob("*/*"):
            if path.suffix in {".seed", ".conf", ".password"} or path.name == "password":
                assert path.stat().st_mode & 0o777 == 0o600, path
    assert (stack.data / "countroom.json").stat().st_mode & 0o777 == 0o600


def test_no_password_stands_on_a_command_line(stack: Stack) -> None:
    lines = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in stack.pids().values())
    for region in stack.regions[:2]:
        assert region.postgres_password_file.read_bytes() not in lines
        assert region.valkey_password_file.read_bytes() not in lines


def test_the_state_file_says_what_runs(stack: Stack) -> None:
    state = read_state(stack.data)
    assert state == json.loads((stack.data / "countroom.json").read_text())
    assert state
    assert [region["name"] for region in state["regions"]] == ["eu", "us", "ca.2"]
    eu = state["regions"][0]
    assert (eu["api"], eu["postgres"]) == (stack.endpoints("eu").api, stack.endpoints("eu").postgres)
    pids = stack.pids()
    assert {process["role"]: process["pid"] for process in eu["processes"]} == {
        role: pid for (region, role), pid in pids.items() if region == "eu"
    }
    assert pids.keys() >= {("eu", "postgres"), ("eu", "nats"), ("eu", "valkey")}


def test_without_a_supervisor_there_is_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None


def test_the_servers_of_a_region_fit_into_eighty_megabytes_when_idle(stack: Stack) -> None:
    ours = [pid for (_, role), pid in stack.pids().items() if role in SERVER_ROLES]
    assert pss_bytes(ours) < 2 * 80 * 2**20


def test_a_family_includes_the_postmasters_children(stack: Stack) -> None:
    postmaster = stack.pids()["eu", postgres.ROLE]
    assert len(family([postmaster])) > 3
    assert pss_bytes([postmaster]) > 2**20


def test_a_fresh_database_is_empty_and_a_different_one_each_time(stack: Stack) -> None:
    servers = Servers(stack)
    first, second = servers.fresh_database("Recorder!"), servers.fresh_database("Recorder!")
    assert first != second
    assert asked(first, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0
