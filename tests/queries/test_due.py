"""What is late is counted by log and duty, whatever else the list holds."""

from __future__ import annotations

from datetime import timedelta

import pytest

from projections.duties import DUTIES
from queries import due
from queries.due import Late, OfLog
from tests.ledger import EU, US, Ledger
from tests.queries.explaining import DEFAULTS, READERS, Explained, Scan
from tests.queries.house import House

_DUE = """
    INSERT INTO read.due (stream, kind, due_at, cause, log, position, partition)
    SELECT %s || n, %s, now() + %s - n * interval '1 s', 'x', %s, 1, 1 FROM generate_series(1, %s) AS n"""
MINUTE = timedelta(minutes=1)


async def owe(house: House, log: str, duty: str, count: int, *, later: timedelta = -MINUTE) -> None:
    """So many of a duty, a second apart; the last a second before that."""
    await house.connection.execute(_DUE, (f"{log}-{duty}-{later}-", duty, later, log, count))


def logs(house: House) -> None:
    ledger = Ledger(house.dsn)
    ledger.sql("SELECT ledger.register_log('eu', %s, true), ledger.register_log('us', %s, false)", EU, US)
    ledger.close()


async def found(house: House) -> dict[tuple[str, str], Late]:
    async with house.context.pool.connection() as connection:
        return {(log, duty): late for log, duty, late in await due.late(connection)}


async def test_what_is_due_by_now_is_late_and_what_is_due_later_is_not(house: House) -> None:
    logs(house)
    await owe(house, "eu", "deposit_expiry", 3)
    await owe(house, "eu", "deposit_expiry", 2, later=MINUTE)
    await owe(house, "eu", "payout", 1)
    await owe(house, "us", "ticket_resolution", 2)
    late = await found(house)
    assert late.keys() == {(log, duty.name) for log in ("eu", "us") for duty in DUTIES}
    counts = {where: each.number for where, each in late.items() if each.number}
    assert counts == {("eu", "deposit_expiry"): 3, ("eu", "payout"): 1, ("us", "ticket_resolution"): 2}
    assert 63 <= late["eu", "deposit_expiry"].oldest_s < 90
    assert late["us", "deposit_expiry"] == Late(0, 0.0)


async def test_a_long_list_is_counted_up_to_an_end_from_the_oldest_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "COUNTED_ROWS", 5)
    logs(house)
    await owe(house, "us", "payout", 50, later=-60 * MINUTE)
    await owe(house, "eu", "payout", 50)
    late = await found(house)
    assert (late["eu", "payout"].number, late["us", "payout"].number) == (5, 5)
    assert 110 <= late["eu", "payout"].oldest_s < 140


async def test_of_thousands_that_are_not_due_none_is_looked_at(house: House, explained: Explained) -> None:
    logs(house)
    for log in ("eu", "us"):
        await owe(house, log, "deposit_expiry", 2_000, later=60 * MINUTE)
        await owe(house, log, "payout", 2)
    for settings in (READERS, DEFAULTS):
        explained.notes.settings = settings
        explained.notes.scans.clear()
        await explained.fetch(due._LATE, [duty.name for duty in DUTIES], due.COUNTED_ROWS)
        of_due = {scan for scan in explained.notes.scans if (scan.index or "").startswith("due")}
        assert of_due == {Scan("Index Only Scan", "due_log_kind_due_at_idx")}
        assert explained.notes.touched[-1] <= 4 + 2 * len(DUTIES) + len(DUTIES) + 2, (
            "what is late; names of logs, duties"
        )
        await house.connection.execute("ANALYZE read.due")


def test_several_together_are_as_late_as_the_latest() -> None:
    some = [OfLog("eu", "a", Late(2, 5.0)), OfLog("eu", "b", Late(0, 0.0)), OfLog("eu", "c", Late(1, 9.0))]
    assert due.together(each.late for each in some) == Late(3, 9.0)
    assert due.together([]) == Late(0, 0.0)
