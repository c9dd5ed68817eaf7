"""An older release is a commit whose product differs; a region that runs it is upgraded while it is asked for things."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

from app.bootstrap import MIGRATIONS
from chaos import releases
from chaos.releases import NoOlderRelease, differs, older
from chaos.runner import Run
from chaos.schedule import NotCarriedOut, Step, schedule
from chaos.site import Site, running_site
from eventstore import schema
from tests.ledger import EU, Ledger, command, opening
from tests.stack import PORTS, Servers

# Which commit


def git(repository: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *words], cwd=repository, capture_output=True, check=True, text=True).stdout


def commit(repository: Path, file: str, text: str) -> str:
    path = repository / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    git(repository, "add", "-A")
    git(repository, "commit", "-m", text)
    return git(repository, "rev-parse", "HEAD").strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    git(path, "init", "-q")
    return path


def test_the_newest_commit_whose_product_differs_is_the_older_release(repository: Path, tmp_path: Path) -> None:
    commit(repository, "app/api.py", "first")
    second = commit(repository, "app/api.py", "second")
    commit(repository, "app/api.py", "third")
    commit(repository, "docs/read.md", "no product")
    found = older(tmp_path / "releases", repository=repository)
    assert found.commit == second
    assert (found.folder / "app" / "api.py").read_text() == "second"
    assert not (found.folder / "docs").exists()


def test_files_that_differ_from_the_newest_commit_make_that_one_the_older_release(
    repository: Path, tmp_path: Path
) -> None:
    newest = commit(repository, "app/api.py", "first")
    (repository / "app" / "api.py").write_text("not committed")
    assert older(tmp_path / "releases", repository=repository).commit == newest
    assert differs(repository, newest)


def test_a_release_may_be_named(repository: Path, tmp_path: Path) -> None:
    first = commit(repository, "app/api.py", "first")
    commit(repository, "app/api.py", "second")
    commit(repository, "app/api.py", "third")
    assert older(tmp_path / "releases", "HEAD~2", repository=repository).commit == first


def test_a_clone_without_its_history_has_none_and_says_so(repository: Path, tmp_path: Path) -> None:
    commit(repository, "app/api.py", "first")
    commit(repository, "app/api.py", "second")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repository}", str(shallow))
    with pytest.raises(NoOlderRelease, match="none of the 1 newest commits"):
        older(tmp_path / "releases", repository=shallow)


def test_what_is_no_clone_or_no_commit_has_none_and_says_so(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(NoOlderRelease, match="git rev-list failed"):
        older(tmp_path / "releases", repository=repository)
    commit(repository, "app/api.py", "first")
    with pytest.raises(NoOlderRelease, match="git rev-parse failed"):
        older(tmp_path / "releases", "nowhere", repository=repository)


def test_a_run_leaves_out_an_upgrade_from_a_release_that_is_not_there_and_says_so(tmp_path: Path) -> None:
    steps = [Step(0, "upgrade", "us"), Step(1, "migrate", "us")]
    run = Run(tmp_path, steps, seed=1, regions=["eu", "us"], release="no-such-commit")
    assert run._checkouts() == {}
    assert run.steps == steps[1:]
    assert "git rev-parse failed" in run.left_out["upgrade"]


def test_an_upgrade_is_the_first_step_whatever_the_seed() -> None:
    for seed in range(20):
        steps = schedule(seed, 9, ["upgrade", "migrate", "link-cut"], ["eu", "us"], share=None)
        assert [step.fault for step in steps].index("upgrade") == 0


# A migration under load


class Writing:
    """Somebody who appends to the log, one command after another."""

    def __init__(self, ledger: Ledger) -> None:
        self.outcomes: list[int] = []
        self._ledger = ledger
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        self._thread.start()
        soon(lambda: len(self.outcomes) > 0)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _write(self) -> None:
        with psycopg.connect(self._ledger.dsn, autocommit=True) as connection:
            while not self._ending.is_set():
                self.outcomes += self._ledger.append(
                    command((f"wallet {len(self.outcomes)}", 1)), connection=connection
                )


@pytest.fixture
def ledger(servers: Servers) -> Iterator[Ledger]:
    made = Ledger(servers.fresh_database("releases"))
    schema.migrate(made.dsn, MIGRATIONS)
    made.sql("SELECT ledger.register_log('eu', %s, true)", EU)
    made.append(opening(EU, (0, 255)))
    yield made
    made.close()


def stands(ledger: Ledger) -> tuple[set[str], set[str], Any]:
    """The migrations of ours that the database says to have had, what there is of them, and the text of the function."""
    said = ledger.sql("SELECT name FROM countroom_migration WHERE name LIKE 'chaos/%%'")
    columns = ledger.sql(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'read.balance'::regclass AND attname LIKE 'chaos%%'"
    )
    indexes = ledger.sql("SELECT relname FROM pg_class WHERE relname LIKE 'chaos%%' AND relkind = 'I'")
    assert columns == indexes
    [text] = ledger.sql(
        "SELECT pg_get_functiondef(oid), proowner, proacl FROM pg_proc WHERE oid = 'ledger.append'::regproc"
    )
    return {name for (name,) in said}, {name for (name,) in columns}, text


def test_each_migration_under_load_is_new_and_whoever_appends_waits_for_it(ledger: Ledger, tmp_path: Path) -> None:
    _, _, before = stands(ledger)
    with Writing(ledger) as writing:
        for number in (1, 2):
            name = f"chaos/{number:04}_under_load"
            assert releases.migrate_under_load(ledger.dsn, tmp_path / "eu", hold_s=0.5) == [name]
    assert stands(ledger) == ({"chaos/0001_under_load", "chaos/0002_under_load"}, {"chaos_1", "chaos_2"}, before)
    assert set(writing.outcomes) == {0}
    assert schema.migrate(ledger.dsn, MIGRATIONS) == [], "a release that does not know them starts as before"


def test_a_migration_for_which_nobody_waits_was_not_carried_out(ledger: Ledger, tmp_path: Path) -> None:
    before = stands(ledger)
    with pytest.raises(NotCarriedOut, match="nobody who writes had to wait"):
        releases.migrate_under_load(ledger.dsn, tmp_path / "eu", hold_s=0.1, patience_s=1)
    assert stands(ledger) == before


def test_a_migration_that_the_database_has_had_was_not_carried_out(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Writing(ledger):
        releases.migrate_under_load(ledger.dsn, tmp_path / "eu", hold_s=0.3)
    [file] = (tmp_path / "eu").iterdir()
    monkeypatch.setattr(releases, "_UNDER_LOAD", file.read_text())
    with pytest.raises(NotCarriedOut, match="has had this migration"):
        releases.migrate_under_load(ledger.dsn, tmp_path / "another", hold_s=0.3)


# Two regions, one of which runs it


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("mixed")
    try:
        release = older(folder / "releases")
    except NoOlderRelease as reason:
        pytest.skip(str(reason))
    with running_site(folder / "site", seed=1, checkouts={"us": release.folder}, ports=PORTS) as site:
        yield site


class Asking:
    """Somebody who registers players in both regions, one after another, and says each again until there is an answer."""

    def __init__(self, site: Site) -> None:
        self.players: list[str] = []
        self.refused: list[tuple[int, Any]] = []
        self._site = site
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._ending.is_set():
            for region in self._site.regions:
                key = str(uuid.uuid4())
                status, answer = self._register(region, key)
                while status in (0, 202, 503):
                    self._ending.wait(0.2)
                    status, answer = self._register(region, key)
                if status == 201:
                    self.players.append(answer["player"])
                else:
                    self.refused.append((status, answer))

    def _register(self, region: str, key: str) -> tuple[int, Any]:
        body = json.dumps({"country": "AT", "currency": "EUR"}).encode()
        headers = {
            "Authorization": f"Bearer {self._site.local.tokens['operator']}",
            "Idempotency-Key": key,
            "Content-Type": "application/json",
        }
        request = urllib.request.Request(f"{self._site.local.url(region)}/v1/players", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())
        except (OSError, ValueError):
            return 0, None


def folders(site: Site, region: str) -> set[Path]:
    """Where the region's own processes run."""
    roles = site.processes()
    return {
        Path(f"/proc/{pid}/cwd").resolve()
        for (here, role), pid in site.pids().items()
        if here == region and role in roles
    }


def migrations(site: Site, region: str) -> list[Any]:
    with site.postgres(region) as connection:
        return connection.execute("SELECT name, digest FROM countroom_migration ORDER BY 1").fetchall()


def entries(site: Site, region: str) -> list[Any]:
    with site.postgres(region) as connection:
        return connection.execute(
            "SELECT l.name, e.position, e.leaf FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log ORDER BY 1, 2"
        ).fetchall()


def soon(condition: Callable[[], bool], *, within_s: float = 120.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


@pytest.mark.fault
@pytest.mark.timeout(400)
def test_a_region_is_upgraded_from_an_older_release_while_both_are_asked_for_things(mixed: Site) -> None:
    checkout = Path(releases.__file__).parent.parent
    assert folders(mixed, "us") == {mixed.checkouts["us"].resolve()}
    assert folders(mixed, "eu") == {checkout}
    with Asking(mixed) as asking:
        soon(lambda: len(asking.players) >= 6)
        before = len(asking.players)
        releases.faults()["upgrade"](mixed, Step(0, "upgrade", "us", hold_s=1.0))
        releases.faults()["migrate"](mixed, Step(0, "migrate", "eu", hold_s=1.0))
        upgraded = len(asking.players)
        soon(lambda: len(asking.players) >= upgraded + 6)
    assert before < len(asking.players) == len(set(asking.players))
    assert asking.refused == []
    assert folders(mixed, "us") == folders(mixed, "eu") == {checkout}
    assert migrations(mixed, "us") == migrations(mixed, "eu")
    assert "chaos/0001_under_load" in dict(migrations(mixed, "us"))
    soon(lambda: entries(mixed, "us") == entries(mixed, "eu"))
    with pytest.raises(NotCarriedOut):
        releases.faults()["upgrade"](mixed, Step(0, "upgrade", "us"))
