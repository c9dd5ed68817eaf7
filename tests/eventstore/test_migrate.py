"""The SQL of a database is applied in order, once, whoever asks and however many."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from eventstore import schema
from eventstore.schema import SchemaChanged, migrate
from tests.ledger import Ledger
from tests.stack import Servers

LEDGER = [("ledger", schema.HERE)]


@pytest.fixture
def dsn(servers: Servers) -> str:
    return servers.fresh_database("migrate")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE public.one (a int)")
    (tmp_path / "0002_second.sql").write_text("CREATE TABLE public.two (a int); INSERT INTO public.one VALUES (1)")
    (tmp_path / "notes.md").write_text("not SQL")
    return tmp_path


def test_what_was_applied_is_not_applied_again(dsn: str, folder: Path) -> None:
    assert migrate(dsn, [("test", folder)]) == ["test/0001_first", "test/0002_second"]
    assert migrate(dsn, [("test", folder)]) == []
    (folder / "0003_third.sql").write_text("INSERT INTO public.one VALUES (2)")
    assert migrate(dsn, [("test", folder)]) == ["test/0003_third"]
    assert Ledger(dsn).sql("SELECT a FROM public.one ORDER BY a") == [(1,), (2,)]


def test_several_processes_may_migrate_at_once(dsn: str) -> None:
    with ThreadPoolExecutor(3) as threads:
        applied = list(threads.map(lambda _: migrate(dsn, LEDGER), range(3)))
    names = [f"ledger/{file.stem}" for file in sorted(schema.HERE.glob("0*.sql"))]
    assert sorted(applied, key=len) == [[], [], names]


def test_a_file_that_was_applied_may_not_change(dsn: str, folder: Path) -> None:
    migrate(dsn, [("test", folder)])
    (folder / "0001_first.sql").write_text("CREATE TABLE public.one (a int) -- as it should have been")
    (folder / "0003_third.sql").write_text("CREATE TABLE public.three (a int)")
    with pytest.raises(SchemaChanged, match="test/0001_first"):
        migrate(dsn, [("test", folder)])
    assert Ledger(dsn).sql("SELECT to_regclass('public.three') IS NULL") == [(True,)]


def test_a_file_that_fails_leaves_nothing_behind(dsn: str, folder: Path) -> None:
    (folder / "0002_second.sql").write_text("CREATE TABLE public.two (a int); SELECT 1 / 0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(dsn, [("test", folder)])
    assert Ledger(dsn).sql("SELECT to_regclass('public.one') IS NULL, to_regclass('public.two') IS NULL") == [
        (True, True)
    ]


def test_two_folders_may_use_the_same_numbers(dsn: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "0001_first.sql").write_text("CREATE TABLE public.three (a int)")
    assert migrate(dsn, [("test", folder), ("other", other)]) == [
        "test/0001_first",
        "test/0002_second",
        "other/0001_first",
    ]
