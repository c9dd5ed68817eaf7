"""`countroom status`: what it says of real servers, and how it exits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app import cli
from app.bootstrap import MIGRATIONS
from eventstore import schema
from tests.ledger import EU, US, Ledger
from tests.stack import Servers


@pytest.fixture
def region(servers: Servers) -> Iterator[Ledger]:
    """The database that the data folder names, with the logs eu and us."""
    schema.migrate(servers.endpoints.postgres, MIGRATIONS)
    made = Ledger(servers.endpoints.postgres)
    made.sql("SELECT ledger.register_log('eu', %s, true), ledger.register_log('us', %s, false)", EU, US)
    yield made
    made.sql("SELECT replication.clear_halt('us', 'the test')")


@pytest.fixture
def status(servers: Servers, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*options: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.app(["status", "--data", str(servers.stack.data), *options])
        return int(exit_.value.code or 0), capsys.readouterr().out

    return run


def halt(region: Ledger, reason: str) -> None:
    """As the applier does it."""
    region.sql(
        "SELECT replication.halt((SELECT id FROM ledger.log WHERE name = 'us'), 'applier', 9, %s, NULL, NULL, '')",
        reason,
        role="applier",
    )


def logs(shown: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shown)["regions"][0]["logs"]
    return found


def test_a_halted_log_is_shown_with_its_reason_until_somebody_clears_it(
    region: Ledger, status: Callable[..., tuple[int, str]]
) -> None:
    code, shown = status("--json")
    assert code == 0
    assert {name: log["halted"] for name, log in logs(shown).items()} == {"eu": None, "us": None}

    halt(region, "position 9 hashes to [bold]00[/], but its leaf is 11")
    halt(region, "what came of it")

    code, shown = status("--json")
    assert code == 1
    assert logs(shown)["eu"]["halted"] is None
    halted = logs(shown)["us"]["halted"]
    since = datetime.fromisoformat(halted.pop("since"))
    assert timedelta(0) <= datetime.now(UTC) - since < timedelta(minutes=1)
    assert halted == {
        "role": "applier",
        "position": 9,
        "reason": "position 9 hashes to [bold]00[/], but its leaf is 11",
    }
    code, shown = status()
    assert code == 1
    assert "HALTED eu: the applier of log us, since " in shown
    assert "position 9 hashes to [bold]00[/], but its leaf is 11" in shown

    region.sql("SELECT replication.clear_halt('us', 'the test')")
    assert status("--json")[0] == 0
    code, shown = status()
    assert (code, "HALTED" in shown) == (0, False)


def test_what_is_late_is_counted_for_the_regions_own_log(
    region: Ledger, status: Callable[..., tuple[int, str]]
) -> None:
    def late(shown: str) -> Any:
        return json.loads(shown)["regions"][0]["late"]

    nothing = {"count": 0, "oldest_seconds": 0.0}
    assert late(status("--json")[1]) == {"commands": nothing, "payouts": nothing}
    assert "late in eu: nothing" in status()[1]
    owed = [
        ("deposit_expiry", 60, "eu"),
        ("ticket_resolution", 7_200, "eu"),
        ("payout", 300, "eu"),
        ("payout", 9, "us"),
    ]
    for kind, seconds, log in owed:
        region.sql(
            "INSERT INTO read.due VALUES (%s, %s, now() - %s * interval '1 s', 'x', %s, 1, 1)",
            f"{kind} {log}", kind, seconds, log,
        )  # fmt: skip
    try:
        shown, said = status("--json")[1], status()[1]
    finally:
        region.sql("TRUNCATE read.due")
    commands, payouts = late(shown)["commands"], late(shown)["payouts"]
    assert (commands["count"], payouts["count"]) == (2, 1)
    assert 7_200 <= commands["oldest_seconds"] < 7_300
    assert 300 <= payouts["oldest_seconds"] < 400
    assert (
        "late in eu: 2 commands due and not done (the oldest for 2 h), 1 payout without an answer (the oldest for 5 min)"
        in said
    )
