"""What the services log in as."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app import bootstrap, local
from app.local import PROCESSES
from app.settings import Settings
from tests.ledger import Ledger
from tests.stack import Servers, free_port_base, running_stack
from tests.system.conftest import Deployment

LOGINS = {f"service_{roles[0]}" for roles in PROCESSES}
_WHO = """
    SELECT DISTINCT a.usename, r.rolsuper FROM pg_stat_activity AS a JOIN pg_roles AS r ON r.rolname = a.usename
     WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'"""


def asked(dsn: str, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query.encode(), arguments).fetchall()


def test_each_service_logs_in_as_itself_and_none_as_a_superuser(deployment: Deployment) -> None:
    wanted = {(name, False) for name in LOGINS}
    for settings in deployment.local.settings.values():
        end = time.monotonic() + 60  # connections of earlier tests may still be closing
        while (found := set(asked(settings.postgres, _WHO))) != wanted and time.monotonic() < end:
            time.sleep(0.1)
        assert found == wanted


def test_no_service_knows_the_administrators_password(deployment: Deployment) -> None:
    ours = {"+".join(roles) for roles in PROCESSES}
    passwords = [str(conninfo_to_dict(s.postgres)["password"]).encode() for s in deployment.local.settings.values()]
    seen = 0
    for (_, role), pid in deployment.local.stack.pids().items():
        if role in ours:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"COUNTROOM_POSTGRES" in environment
            assert not any(password in environment for password in passwords)
            seen += 1
    assert seen == 2 * len(ours)


def test_a_login_has_the_role_of_its_service_and_may_read(deployment: Deployment) -> None:
    dsn = deployment.local.settings["eu"].postgres
    for roles, role in PROCESSES.items():
        name = f"service_{roles[0]}"
        found = asked(
            dsn, "SELECT rolname FROM pg_roles WHERE pg_has_role(%s, oid, 'member') AND rolname <> %s", name, name
        )
        assert {member for (member,) in found} == {role, "countroom_reader"}


def test_passwords_lie_in_files_that_nobody_else_may_read(deployment: Deployment) -> None:
    for region in deployment.local.settings:
        folder = deployment.local.stack.data / region / "postgres"
        files = {file.stem: file for file in folder.glob("service_*.password")}
        assert files.keys() == LOGINS
        for file in files.values():
            assert file.stat().st_mode & 0o777 == 0o600
            assert len(file.read_text()) == 64


def test_a_login_whose_password_was_lost_gets_another(ledger: Ledger) -> None:
    dsns = [bootstrap.login(ledger.dsn, "service_test", "countroom_projector", password) for password in ("one", "two")]
    assert asked(dsns[1], "SELECT session_user") == [("service_test",)]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(dsns[0])


def test_a_postgresql_that_was_given_is_used_as_it_was_given(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = servers.fresh_database("given")
    monkeypatch.setenv("COUNTROOM_UP_EU_POSTGRES", dsn)
    with local.running(tmp_path, ["eu"], free_port_base(1)):
        assert asked(dsn, _WHO) == [(conninfo_to_dict(dsn)["user"], True)]


def test_two_databases_of_one_new_cluster_may_be_opened_at_once(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        settings = []
        for region in ("eu", "us"):
            asked_at = stack.endpoints("eu").postgres
            with psycopg.connect(asked_at, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {region}".encode())
            settings.append(made(region, make_conninfo(asked_at, dbname=region)))

        async def both() -> None:
            await asyncio.gather(*(bootstrap.open_region(each) for each in settings))

        asyncio.run(both())
        for each in settings:
            heads = "SELECT l.name FROM ledger.log AS l JOIN ledger.entry AS e ON e.log = l.id"
            assert asked(each.postgres, heads) == [(each.region,)]


def made(region: str, dsn: str) -> Settings:
    nowhere = Path("/nonexistent")
    return Settings(
        "test", region, ("eu", "us"), dsn, "", "", nowhere, "127.0.0.1", 1, nowhere, nowhere, nowhere, {}
    )  # fmt: skip
