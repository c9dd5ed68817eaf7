"""What a run tells in a terminal and in a pipe."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from app.cdnow import Imported
from app.checking import Finding, Verification
from app.report import BAR_CELLS, Bar, Report, bar, difference, money_text
from app.sending import Silent


def dashboard(*days: tuple[str, str, int, int], players: int = 2, **positions: int) -> dict[str, Any]:
    rows = [
        {"day": day, "currency": currency, "count": count, "amount": amount} for day, currency, count, amount in days
    ]
    totals = [
        {
            "currency": code,
            "count": sum(row["count"] for row in rows if row["currency"] == code),
            "amount": sum(row["amount"] for row in rows if row["currency"] == code),
        }
        for code in sorted({row["currency"] for row in rows})
    ]
    return {"days": rows, "totals": totals, "players": players, "positions": positions}


def told(*, terminal: bool = False) -> tuple[Report, io.StringIO]:
    file = io.StringIO()
    return Report(console=Console(file=file, width=110, force_terminal=terminal)), file


DAYS = (("1997-01-01", "USD", 2, 300_00), ("1997-01-02", "USD", 1, 100_50), ("1997-03-01", "USD", 1, 1))


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (24_409_194, "USD", "USD 244,091.94"),
        (5, "USD", "USD 0.05"),
        (-1205, "EUR", "EUR -12.05"),
        (5_000, "JPY", "JPY 5,000"),
        (1_234, "KWD", "KWD 1.234"),
    ],
)
def test_money_has_the_digits_of_its_currency(amount: int, currency: str, text: str) -> None:
    assert money_text(amount, currency) == text


@given(st.integers(min_value=0, max_value=2**53), st.integers(min_value=0, max_value=2**53), st.booleans())
def test_a_bar_stays_in_its_cells_and_shows_what_is_not_nothing(one: int, other: int, unicode: bool) -> None:
    value, top = sorted((one, other))
    drawn = bar(value, top, unicode=unicode)
    assert len(drawn) <= BAR_CELLS
    assert bool(drawn) == bool(value)


def test_equal_dashboards_stand_side_by_side_and_are_called_equal() -> None:
    report, file = told()
    report.dashboards({name: dashboard(*DAYS, eu=9, us=1) for name in ("eu", "us")})
    text = file.getvalue()
    assert text.count("USD 400.51") == 2
    [january] = [line for line in text.splitlines() if "1997-01" in line]
    assert january.count("400.50") == 2
    assert january.count("█" * BAR_CELLS) == 2
    assert "equal at eu 9, us 1" in text
    assert "\x1b" not in text, "a pipe gets plain text"


def test_the_first_difference_is_named() -> None:
    eu, us = dashboard(*DAYS), dashboard(*DAYS[:1], ("1997-01-02", "USD", 1, 100_49), *DAYS[2:])
    wrong = "1997-01-02 USD: 1 deposits of USD 100.50 in eu, 1 deposits of USD 100.49 in us"
    assert difference({"eu": eu, "us": us}) == wrong
    report, file = told()
    report.dashboards({"eu": eu, "us": us})
    assert f"not equal: {wrong}" in file.getvalue()


def test_players_and_missing_days_are_differences_too() -> None:
    assert difference({"eu": dashboard(*DAYS), "us": dashboard(*DAYS, players=3)}) == "players: 2 in eu, 3 in us"
    assert "nothing in us" in str(difference({"eu": dashboard(*DAYS), "us": dashboard(*DAYS[1:])}))


def test_empty_dashboards_can_be_shown() -> None:
    report, file = told()
    report.dashboards({"eu": dashboard(players=0), "us": dashboard(players=0)})
    assert "equal at no entry" in file.getvalue()


def test_an_import_tells_what_is_new() -> None:
    report, file = told()
    report.imported(Imported(3, 4, 2, {"USD": 8_260}, 5, 0.5))
    assert "3 players and 4 deposits, USD 82.60; 2 lines of 0.00 skipped" in file.getvalue()
    assert "2 of them new, 5 already there" in file.getvalue()


def test_a_pipe_is_told_of_the_first_lag_and_of_its_end() -> None:
    report, file = told()
    for behind in (10, 30, 5, 0):
        report.lag({"eu": {"eu": 0}, "us": {"eu": behind}})
    assert file.getvalue().splitlines() == [
        "  us is 10 entries of log eu behind",
        "  lag 0 entries, every log in every region; the most was 30, of log eu in us",
    ]


def test_a_fault_is_named_with_its_log_and_position_and_cannot_style_the_terminal() -> None:
    fault = {"position": 11_545, "reason": "leaf_mismatch", "detail": "[bold]not what was hashed[/bold]"}
    report, file = told(terminal=True)
    report.verified(
        Verification(
            [
                Finding("http://a", "eu", 20, "ab" * 32, {"intact": True, "entries": 20, "fault": None}),
                Finding("http://b", "eu", 11_544, "cd" * 32, {"intact": False, "entries": 11_544, "fault": fault}),
            ],
            ["http://c: no answer"],
            ["eu at position 3"],
        )
    )
    text = file.getvalue()
    assert "http://a  log eu: intact, 20 entries, leaf abababababababab…" in text
    assert "http://b  log eu: NOT INTACT at position 11,545: [bold]not what was hashed[/bold]" in text
    assert "DIFFERENT: eu at position 3" in text
    assert "could not check http://c: no answer" in text


def test_a_tampering_is_found_or_not() -> None:
    planted = {"region": "us", "log": "eu", "position": 7}
    report, file = told()
    report.tamper(planted, dict(planted))
    report.tamper(planted, None)
    assert "verify found exactly position 7 of log eu in us" in file.getvalue()
    assert "verify found nothing" in file.getvalue()


def test_with_quiet_standard_output_stays_empty(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(quiet=True)
    report.heading("Importing")
    assert isinstance(report.progress(), Silent)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Importing" in captured.err


def test_progress_in_a_pipe_is_a_few_plain_lines_and_one_for_an_outage() -> None:
    file = io.StringIO()
    progress = Bar(Console(file=file, width=110))
    progress.start(1_000)
    for _ in range(100):
        progress.advance(10)
        progress.waiting("connection refused")
        progress.waiting("connection refused")
    progress.stop()
    lines = file.getvalue().splitlines()
    assert sum("of 1,000" in line for line in lines) == 5
    assert sum("trying again" in line for line in lines) == 100
    assert "1,000 of 1,000" in lines[-2]


def test_progress_on_a_terminal_is_a_bar() -> None:
    file = io.StringIO()
    progress = Bar(Console(file=file, width=110, force_terminal=True))
    progress.start(10)
    progress.advance(10)
    progress.stop()
    assert "10/10" in file.getvalue()
