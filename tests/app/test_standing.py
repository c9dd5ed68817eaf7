"""`countroom region status`: what it says of a region, and that nothing is left out of it that needs a person."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from app import cli
from app.bootstrap import MIGRATIONS
from app.settings import SettingsError
from app.standing import (
    Acknowledged,
    Halt,
    Head,
    Keys,
    Log,
    Owned,
    Place,
    Standing,
    Stop,
    duration,
    standing,
    wanted,
)
from eventstore import schema
from eventstore.log import Command
from policies.residency import EVERYWHERE
from queries.lags import Lag, State
from tests.ledger import EU, US, Ledger, body, chained, new_id, opening
from tests.stack import Servers

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"

OWN = Log("eu", True, 9, "00" * 32, Head(9, NOON, 1.0, ["us"]), 9, 0.0, 0.0)
LEVEL = Lag("us", "eu", State.LEVEL, 4, 4, 0, 0.0, NOON, 1.0)
ACKNOWLEDGED = Acknowledged("us", 9, NOON, None)
OWNED = Owned("eu", [(0, 126, 1), (127, 127, 3)], None, None)
FINE = Standing(
    "eu", NOON, True, "compared with us", NOON, [OWN], [LEVEL], [OWNED], 9, [ACKNOWLEDGED], [], [], [], [Keys("us", 5, 1, 2, 0)]
)  # fmt: skip
HALT = Halt("us", "applier", NOON, 2, 5, "position 5 hashes to 00")
UNKNOWN = replace(LEVEL, state=State.UNKNOWN, entries=None, seconds=None, heard_seconds=90.0)

NEEDS: list[tuple[dict[str, Any], str, str]] = [
    ({"halts": [HALT]}, "log us has halted at 5 (applier, since 2026-03-01 12:00:00Z)", "handle-a-halted-copy.md"),
    ({"halts": [replace(HALT, log="eu", role="checkpointer")]}, "log eu has halted", "restore-a-backup.md"),
    ({"acknowledged": [replace(ACKNOWLEDGED, alarm="other")]}, "the copy in us differs", "handle-a-halted-copy.md"),
    ({"may_write": False}, "the log eu is read-only", "restore-a-backup.md"),
    ({"may_write": False, "waits": "us does not answer"}, "other regions: us does not answer", "restore-a-backup.md"),
    ({"logs": [replace(OWN, position=12, unsigned_seconds=61.0)]}, "3 entries of eu were not signed", "verify-a-log.md"),
    ({"logs": [replace(OWN, witnessed=2, unwitnessed_seconds=61.0)]}, "no head of eu beyond 2 was witn", "split-link.md"),
    ({"copies": [UNKNOWN]}, "nothing was heard of us for 90 s: how far our copy of us is behind", "split-link.md"),
    ({"copies": [replace(UNKNOWN, heard_seconds=None)]}, "nothing was heard of us yet", "split-link.md"),
    ({"copies": [replace(UNKNOWN, log="eu", region="us")]}, "the copy of our log in us is behind", "split-link.md"),
    ({"copies": [replace(LEVEL, state=State.BEHIND, entries=70, seconds=61.0)]}, "70 entries and 61 s", "corrupted-copy.md"),
    ({"owned": [replace(OWNED, released_to="us", seconds=31.0)]}, "128 partitions of eu were released", "handover.md"),
    ({"stopped": [Stop("wallets", "us", 7, "of a later release")]}, "wallets has stopped", "rebuild-a-read-model.md"),
    ({"residency": {"eu": "aa", "us": "bb"}}, "eu and us were started with other files of resid", "new-region.md"),
    ({"keys": [Keys("us", 5, 3, 2, 1)]}, "1 data keys that us made", "new-region.md"),
    ({"link_certificate_seconds": 13.9 * 86_400}, "our links to other regions expires in 14 d", "tls.md"),
    ({"link_certificate_seconds": -7_200.0}, "our links to other regions expired 2 h ago", "tls.md"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "says", "page"), NEEDS, ids=[each[1] for each in NEEDS])
def test_what_needs_a_person_is_said_with_a_page_that_is_there(change: dict[str, Any], says: str, page: str) -> None:
    assert list(wanted(FINE)) == []
    [found] = wanted(replace(FINE, **change))
    assert says in found.what
    assert found.see == page
    assert (HOW_TO / page).exists()


@pytest.mark.parametrize(
    "change",
    [
        {"copies": [replace(LEVEL, state=State.BEHIND, entries=70, seconds=3.0)]},
        {"copies": [replace(UNKNOWN, state=State.CLOSED, entries=0, seconds=0.0)]},
        {"logs": [replace(OWN, position=12, unsigned_seconds=0.8, unwitnessed_seconds=1.5)]},
        {"owned": [OWNED, replace(OWNED, released_to="us", seconds=2.0)]},
        {"keys": [Keys("us", 0, 9, 9, 0)]},
        {"residency": {"eu": "aa", "us": "aa"}},
        {"link_certificate_seconds": 30 * 86_400.0},
    ],
)
def test_what_passes_by_itself_needs_nobody(change: dict[str, Any]) -> None:
    assert list(wanted(replace(FINE, **change))) == []


def test_durations_are_said_in_a_unit_of_which_there_are_two_or_more() -> None:
    said = [duration(seconds) for seconds in (0.04, 9.96, 10, 119, 120, 7_199, 7_200, 172_800)]
    assert said == ["0.0 s", "10.0 s", "10 s", "119 s", "2 min", "120 min", "2 h", "2 d"]


@pytest.fixture
def region(servers: Servers) -> Iterator[Ledger]:
    """The database that the data folder names, with the logs eu and us, of which a head was heard."""
    schema.migrate(servers.endpoints.postgres, MIGRATIONS)
    made = Ledger(servers.endpoints.postgres)
    made.sql("SELECT ledger.register_log('eu', %s, true), ledger.register_log('us', %s, false)", EU, US)
    made.sql("SELECT replication.hear(id, 40, '') FROM ledger.log WHERE name = 'us'")
    yield made
    made.sql("SELECT replication.clear_halt('us', 'the test')")
    for table in ("heard", "lacking", "catch_up", "excused"):
        made.sql(f"DELETE FROM replication.{table}".encode())
    made.sql("DELETE FROM ledger.clearance")
    made.close()


@pytest.fixture
def status(servers: Servers, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*options: str) -> tuple[int, str]:
        code = 0
        try:
            cli.app(["region", "status", "--region", "eu", "--data", str(servers.stack.data), *options])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return code, capsys.readouterr().out

    return run


def test_a_region_is_told_from_its_own_database(region: Ledger, status: Callable[..., tuple[int, str]]) -> None:
    code, shown = status("--json")
    found = json.loads(shown)
    assert (code, found["wanted"]) == (0, [])
    assert (found["region"], found["may_write"]) == ("eu", True)
    assert {each["log"]: each["own"] for each in found["logs"]} == {"eu": True, "us": False}
    [copy] = found["copies"]
    assert (copy["log"], copy["region"], copy["state"], copy["entries"]) == ("us", "eu", "behind", 40)
    code, said = status()
    assert code == 0
    assert "40 entries" in said
    assert "nothing needs a person" in said


def test_it_exits_with_1_and_names_the_page_where_somebody_is_needed(
    region: Ledger, status: Callable[..., tuple[int, str]]
) -> None:
    halt = "SELECT replication.halt(id, 'applier', 9, %s, NULL, NULL, '') FROM ledger.log WHERE name = 'us'"
    region.sql(halt, "position 9 hashes to [bold]00[/]", role="applier")
    region.sql(halt, "what came of it", role="applier")
    region.sql("SELECT ledger.guard(id) FROM ledger.log WHERE name = 'eu'")
    region.sql("UPDATE replication.heard SET at = at - interval '20 s'")
    region.sql("SELECT replication.report_catch_up(id, 'ap', 1, 7, 40, 0.5, 20) FROM ledger.log WHERE name = 'us'")
    code, shown = status("--json")
    found = json.loads(shown)
    assert code == 1
    assert [each["see"] for each in found["wanted"]] == ["handle-a-halted-copy.md", "restore-a-backup.md"]
    [halted] = found["halts"]
    assert (halted["position"], halted["reason"], halted["evidence"]) == (9, "position 9 hashes to [bold]00[/]", 2)
    assert found["catch_up"] == [
        {"log": "us", "source": "ap", "position": 7, "target": 40, "per_second": 14, "vouched": 20}
    ]
    code, said = status()
    assert code == 1
    for part in ("NO, it is read-only", "[bold]00[/]", "HALTED, unknown", "fetching log us from ap: 7 of 40, 14/s"):
        assert part in said
    assert "see docs/how-to/restore-a-backup.md" in said

    region.sql("SELECT replication.clear_halt('us', 'the test')")
    code, said = status()
    assert "unknown since " in said
    assert "nothing was heard of us for 2" in said
    assert "see docs/how-to/split-link.md" in said


def test_it_says_where_regions_register_people_by_other_rules(servers: Servers) -> None:
    ledger = Ledger(servers.fresh_database("standing"))
    schema.migrate(ledger.dsn, MIGRATIONS)
    ledger.sql("SELECT ledger.register_log('eu', %s, true), ledger.register_log('us', %s, false)", EU, US)

    def started(origin: str, number: int, digest: str, service: str = "api") -> Command:
        name, id_ = f"region-{origin.rpartition('/')[2]}-services", new_id()
        data = {"service": service, "program": "0.1.0", "code": "ab", "policies": {"residency": digest}}
        return Command(id_, [body(name, number, id_, data=data, type="service.started", actor="system")])

    def said() -> list[str]:
        found = standing(Place("eu", ("eu", "us"), ledger.dsn, None, EVERYWHERE))
        return [each.what for each in found.wanted if each.see == "new-region.md"]

    ledger.append(opening(EU, (0, 127)))
    us = [opening(US, (128, 255)), started(US, 1, "old")]
    ledger.append_copy(chained(US, [raw for each in us for raw in each.bodies]))
    assert ledger.append(started(EU, 1, "old")) == [0]
    assert said() == []
    assert ledger.append(started(EU, 2, "new")) == [0]
    [differ] = said()
    assert "one registration that is said in both may become two players" in differ
    assert ledger.append(started(EU, 3, "old", "reactor")) == [0]
    assert said() == [differ], "a reactor registers nobody"
    assert ledger.append(started(EU, 4, "old")) == [0]
    assert said() == []
    with ledger.admin.transaction():
        ledger.sql("SET LOCAL session_replication_role = replica")  # no triggers: only a superuser can do that
        ledger.sql("UPDATE ledger.entry SET body = '\\xff' WHERE log = 2 AND position = 2")
    assert said() == [], "what is damaged is another page's"
    ledger.close()


def test_it_says_which_region_the_log_waits_for_until_an_operator_does_not(
    region: Ledger, status: Callable[..., tuple[int, str]], servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    region.sql("SELECT ledger.guard(id) FROM ledger.log WHERE name = 'eu'")
    waiting = "SELECT replication.report(id, 'checkpointer', 'waiting', NULL, %s) FROM ledger.log WHERE name = 'eu'"
    region.sql(waiting, "us does not answer", role="heads")
    code, shown = status("--json")
    found = json.loads(shown)
    assert (code, found["waits"]) == (1, "us does not answer")
    assert "us does not answer" in found["wanted"][0]["what"]

    def allow(*options: str) -> str:
        with suppress(SystemExit):
            cli.app(["region", "allow-writes", "--region", "eu", "--data", str(servers.stack.data), *options])
        return capsys.readouterr().out

    with pytest.raises(SettingsError, match="ap is no other region of eu"):
        allow("--by", "Ann", "--without", "ap")
    assert "eu does not wait for us, by Ann" in allow("--by", "Ann", "--without", "us")
    excused = "SELECT peer, by, postmaster = pg_postmaster_start_time() FROM replication.excused"
    assert region.sql(excused) == [("us", "Ann", True)]
    assert region.sql("SELECT ledger.may_write(id) FROM ledger.log WHERE name = 'eu'") == [(False,)]
    region.sql("SELECT replication.report(id, 'checkpointer', 'running', NULL, NULL) FROM ledger.log WHERE name = 'eu'")


def test_a_region_that_does_not_run_is_no_region_that_is_well(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no region eu runs in"):
        cli.app(["region", "status", "--region", "eu", "--data", str(tmp_path)])
