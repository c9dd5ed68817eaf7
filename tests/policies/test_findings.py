"""Rules are data: they load, stand on rows or on the house's own figures, and follow one another by version."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from domain.findings import ALL
from policies import harm, notices
from policies.findings import (
    Chase,
    Count,
    House,
    Jump,
    Kind,
    Law,
    Nights,
    One,
    Raised,
    Severity,
    Shared,
    Signal,
    Span,
    Step,
    Total,
    Unplayed,
    Unusable,
    Watch,
    Weeks,
    as_data,
    in_force,
    read,
    threshold,
)
from policies.rules import RULES
from tests.domain.watching import rule

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
FAR = datetime(2027, 1, 1, tzinfo=UTC)


def amount(figure: House | Law, jurisdiction: str = "DE", currency: str = "EUR", birth_year: int = 1980) -> int | None:
    found = threshold(figure, jurisdiction=jurisdiction, birth_year=birth_year, currency=currency, at=NOON)
    return None if found is None else found.amount


@pytest.mark.parametrize(
    ("currency", "minor"),
    [("EUR", 1_000_000), ("GBP", 1_000_000), ("SEK", 10_000_000), ("JPY", 1_500_000), ("BHD", 10_000_000)],
)
def test_a_figure_of_the_house_is_as_much_in_every_currency(currency: str, minor: int) -> None:
    assert amount(House(10_000), currency=currency) == minor


def test_a_row_is_a_figure_where_it_is_in_force_only() -> None:
    row = Law("net_deposit.block_threshold", young="net_deposit.block_threshold_18_24")
    assert [amount(row, "NL"), amount(row, "DE")] == [70_000, None]
    assert [amount(row, "NL", birth_year=born) for born in (2005, 0)] == [30_000, 30_000]
    assert amount(row, "NL", currency="SEK") == 700_000


def test_every_row_that_a_marker_stands_on_is_one_of_the_table() -> None:
    rows = {each.name for each in RULES.all}
    named = {
        name
        for watch in ALL
        for each in watch.figures
        if isinstance(each, Law)
        for name in (each.row, each.young)
        if name
    }
    assert named <= rows


def test_every_harm_row_of_the_table_is_implemented() -> None:
    """Or named here with what implements it."""
    done = {
        "harm_indicator.automated_action",  # the rules themselves
        "harm_indicator.manual_review_required",  # commands.notices.PersonDecides
        "harm_indicator.customer_may_contest",  # domain.contacts.Outcome.CONTESTED
        "harm_indicator.marketing_and_bonus_blocked",  # policies.harm.taken
        "harm_indicator.reaction_within",  # policies.harm.contact_due
        "harm_indicator.no_reply_suspends_after",  # policies.harm.reply_due
    }
    named = {
        name for watch in ALL for each in watch.figures if isinstance(each, Law) for name in (each.row, each.young)
    }
    assert {each.name for each in RULES.all if each.name.startswith("harm_indicator.")} <= done | named


def test_anomalies_are_for_operations_and_markers_are_for_harm() -> None:
    assert {each.kind for each in notices.RULES} == {Kind.OPERATIONS}
    assert {each.kind for each in harm.RULES} == {Kind.HARM}
    assert not any(each.of_law for each in notices.RULES)


def test_a_strong_marker_stops_bonuses_and_marketing_where_a_row_says_so() -> None:
    def steps(severity: Severity, jurisdiction: str) -> tuple[Step, ...]:
        return harm.taken(severity, (), jurisdiction=jurisdiction, at=NOON).steps

    assert steps(Severity.HIGH, "GB") == steps(Severity.HIGH, "ES") == (Step.BONUS, Step.MARKETING)
    assert steps(Severity.MEDIUM, "GB") == steps(Severity.HIGH, "DE") == ()


@pytest.mark.parametrize(
    ("at", "ends"),
    [
        (NOON, datetime(2026, 11, 30, 23, tzinfo=UTC)),
        (datetime(2026, 11, 30, 23, tzinfo=UTC), datetime(2026, 12, 31, 23, tzinfo=UTC)),
        (datetime(2026, 12, 5, tzinfo=UTC), datetime(2026, 12, 31, 23, tzinfo=UTC)),
        (datetime(2028, 2, 29, tzinfo=UTC), datetime(2028, 2, 29, 23, tzinfo=UTC)),
        (datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 10, 31, 23, tzinfo=UTC)),
    ],
)
def test_deposits_are_stopped_until_the_players_own_month_is_over(at: datetime, ends: datetime) -> None:
    taken = harm.taken(Severity.HIGH, (Step.DEPOSIT_THIS_MONTH,), jurisdiction="NL", at=at)
    assert taken == harm.Taken((Step.DEPOSIT_THIS_MONTH,), ends)


def test_deadlines_are_the_rows_or_the_houses() -> None:
    assert harm.contact_due(jurisdiction="NL", at=NOON) == NOON + timedelta(hours=1)
    assert harm.contact_due(jurisdiction="DE", at=NOON) == NOON + timedelta(hours=harm.HOUSE_CONTACT_HOURS)
    assert harm.reply_due(Severity.HIGH, jurisdiction="ES", at=NOON) == NOON + timedelta(hours=72)
    assert harm.reply_due(Severity.LOW, jurisdiction="ES", at=NOON) is None
    assert harm.reply_due(Severity.HIGH, jurisdiction="DE", at=NOON) is None


def test_of_each_rule_the_newest_version_that_has_begun_is_in_force() -> None:
    first, second = (
        rule(Count(Signal.DEPOSIT, Span.HOUR, 3)),
        rule(Count(Signal.DEPOSIT, Span.HOUR, 2), version=2, since=date(2026, 2, 1)),
    )
    one, two = in_force([second, first])
    assert [one.on(date(2026, 1, 31)), one.on(date(2026, 2, 1))] == [True, False]
    assert [two.on(date(2026, 1, 31)), two.on(date(2026, 2, 1))] == [False, True]


@pytest.mark.parametrize(
    "wrong",
    [
        [rule(Count(Signal.DEPOSIT, Span.HOUR, 13))],
        [rule(Count(Signal.DEPOSIT, Span.HOUR, 0))],
        [rule(Chase(minutes=1, lost=House(1), at_least=99))],
        [rule(Jump(Span.MONTH, recent=2, before=2, times=2, at_least=House(1)))],
        [rule(Count(Signal.DEPOSIT, Span.HOUR, 3)), rule(Count(Signal.DEPOSIT, Span.HOUR, 3))],
        [rule(Count(Signal.DEPOSIT, Span.HOUR, 3)), rule(Count(Signal.DEPOSIT, Span.HOUR, 3), version=2)],
    ],
)
def test_rules_that_cannot_be_applied_are_refused(wrong: list[Watch]) -> None:
    with pytest.raises(Unusable):
        in_force(wrong)


def test_rules_are_read_from_a_file_as_they_are_written_into_one() -> None:
    document = msgspec.json.encode(as_data(ALL))
    assert read(document) == ALL
    for broken in (b"{", b'[{"name": "x"}]', document.replace(b'"type":"count"', b'"type":"often"')):
        with pytest.raises(Unusable):
            read(broken)


# The table of docs/reference/notices.md


def figured(figure: House | Law, where: tuple[str, ...] = RULES.jurisdictions) -> str:
    if isinstance(figure, House):
        return f"{figure.major:,} (house)"
    rows = [each for each in RULES.all if each.name in {figure.row, figure.young} and each.jurisdiction in where]
    return "; ".join(
        f"{each.jurisdiction} `{each.name}`{'' if each.verified else ' (unverified)'}"
        for each in sorted(rows, key=lambda each: (each.jurisdiction, each.name))
    )


def in_words(watch: Watch) -> str:  # noqa: C901, PLR0911 — one return a kind
    """What a rule tests, in words."""
    match watch.test:
        case Count(signal, span, least):
            return f"{least} times {worded(signal)} in {worded(span)}"
        case Total(signal, span, least, minus):
            less = f" less {worded(minus)}" if minus else ""
            return f"{worded(signal)}{less} in {worded(span)}: {figured(least)}"
        case One(signal, least, above):
            return f"{worded(signal)}{' above' if above else ' of'} {figured(least)}"
        case Raised(up_to, where):
            return f"a raise in {', '.join(where)}, of a month's up to {figured(up_to, where)}"
        case Shared(players):
            return f"an instrument that {players} players have named"
        case Unplayed(span, least, percent):
            return f"a withdrawal after deposits of {figured(least)} in {worded(span)}, of which less than {percent} % was staked"
        case Jump(span, recent, before, times, least):
            return (
                f"the last {recent} stakes on average {times} times those before (of {worded(span)}, at least {before}), "
                f"from {figured(least)} a stake on"
            )
        case Nights(begins, ends, nights, of):
            return f"stakes between {begins} and {ends} o'clock in {nights} of {of} nights"
        case Weeks(least, in_a_row):
            return f"net loss in each of {in_a_row} weeks in a row: {figured(least)}"
        case Chase(minutes, lost, least):
            return f"{least} deposits in 24 hours within {minutes} minutes of a stake, after a loss in 24 hours of {figured(lost)}"


def worded(name: str) -> str:
    return name.replace("_", " ")


def table() -> str:
    lines = ["| rule | kind | severity | what it finds | quiet |", "|---|---|---|---|---|"]
    for watch in ALL:
        quiet = (
            "the rest of the month"
            if "calendar_month" in str(msgspec.to_builtins(watch.test))
            else f"{watch.quiet_hours} h"
        )
        lines.append(
            f"| `{watch.name}` {watch.version}, from {watch.since} | {watch.kind} | {watch.severity} | {watch.says}: "
            f"{in_words(watch)} | {quiet} |"
        )
    return "\n".join(lines)


def test_the_documentation_lists_every_rule_as_it_is() -> None:
    written = (Path(__file__).parents[2] / "docs" / "reference" / "notices.md").read_text()
    between = written.partition("<!-- rules -->\n")[2].partition("\n<!-- end of rules -->")[0]
    assert between == table(), "the table of docs/reference/notices.md is another: write table()"


def test_the_file_of_rules_that_the_documentation_shows_is_one() -> None:
    written = (Path(__file__).parents[2] / "docs" / "reference" / "notices.md").read_text()
    shown = written.partition("```json\n")[2].partition("```")[0]
    assert [each.key for each in read(shown.encode())] == ["deposit_velocity/2", "harm_losses/2"]
