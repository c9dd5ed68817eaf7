"""Every expectation of a law comes from a row of rules.csv; only what the words of such a row mean is said here a second time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given as over
from hypothesis import strategies as st

from policies import implemented, protection
from policies.protection import Endless, Granted, Moment, NotOffered, Silence, Span, Term, Unreadable, term
from policies.rules import RULES, Rule, load

AT = datetime(2026, 12, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HEADER = "jurisdiction,rule,value,unit,effective_from,source,address,quotation,status\n"
IN_FORCE = [rule for rule in RULES.all if rule == RULES.of(rule.jurisdiction, AT).get(rule.name)]
EVERYWHERE = [*sorted({rule.jurisdiction for rule in RULES.all}), "AT"]
TERMS = ["1_hour", "24_hours", "36_hours", "1_week", "30_days", "1_month", "6_weeks", "3_months", "6_months", "1_year", "5_years",
         "150_years", "indefinite", "permanent"]  # fmt: skip


def rows(name: str) -> list[Rule]:
    found = [rule for rule in IN_FORCE if rule.name == name]
    assert found, name
    return found


def ids(rule: Rule) -> str:
    return f"{rule.jurisdiction} {rule.name}"


def words(name: str) -> list[tuple[Rule, str]]:
    return [(rule, word) for rule in rows(name) for word in rule.value]  # type: ignore[union-attr]


def later(at: datetime, months: int) -> datetime:
    """On a day that every month has."""
    assert at.day <= 28
    return at.replace(year=at.year + (at.month - 1 + months) // 12, month=(at.month - 1 + months) % 12 + 1)


def meant(word: str, at: datetime = AT) -> datetime:
    """When a span ends, as its words say."""
    number, unit = re.fullmatch(r"(\d+)_([a-z]+?)s?", word).groups()  # type: ignore[union-attr]
    if unit in {"month", "year"}:
        return later(at, int(number) * (12 if unit == "year" else 1))
    return at + timedelta(**{unit + "s": int(number)})


def ends(rule: Rule, at: datetime = AT) -> datetime:
    """`at` and a duration that stands in a row by number and unit."""
    if isinstance(rule.value, timedelta):
        return at + rule.value
    assert isinstance(rule.value, int)
    return later(at, rule.value * (12 if rule.unit == "years" else 1))


def hours(end: datetime) -> Span:
    """The span from AT to then."""
    return Span(hours=(end - AT) // HOUR)


def is_paused(jurisdiction: str, wanted: Term) -> bool:
    return isinstance(protection.time_out(wanted, jurisdiction, AT), Granted)


# Time-outs


@pytest.mark.parametrize(("rule", "word"), words("time_out.allowed_durations"), ids=str)
def test_each_time_out_that_a_row_names_is_offered_and_as_long_as_it_says(rule: Rule, word: str) -> None:
    where = rule.jurisdiction
    if re.fullmatch(r"\d+_[a-z]+", word):
        until = meant(word)
        assert protection.time_out(term(word), where, AT) == Granted(until, until, False, rule.name, rule.verified)
    elif found := re.fullmatch(r"any_([a-z]+)", word):
        for number in (1, 2, 17, 999):
            assert is_paused(where, term(f"{number}_{found[1]}"))
    elif found := re.fullmatch(r"(?:more_than_(?P<over>\w+)|other)_up_to_(?P<most>\w+)", word):
        most = meant(found["most"])
        assert is_paused(where, term(found["most"]))
        assert not is_paused(where, hours(most + HOUR))
        if found["over"]:
            assert not is_paused(where, term(found["over"]))
            assert is_paused(where, hours(meant(found["over"]) + HOUR))
    else:
        pytest.fail(f"this test does not know what {word} means")


@pytest.mark.parametrize("rule", rows("time_out.allowed_durations"), ids=ids)
def test_no_time_out_is_without_end_or_of_a_length_that_the_row_does_not_name(rule: Rule) -> None:
    refused = NotOffered(rule.value, rule.name, rule.verified)  # type: ignore[arg-type]
    assert protection.time_out(Endless.INDEFINITE, rule.jurisdiction, AT) == refused
    assert protection.time_out(Span(months=7), rule.jurisdiction, AT) == refused


def test_where_no_row_tells_time_outs_are_the_houses() -> None:
    without = set(EVERYWHERE) - {rule.jurisdiction for rule in rows("time_out.allowed_durations")}
    for where in without:
        most = protection.HOUSE_TIME_OUT_MAXIMUM.after(AT)
        assert protection.time_out(hours(most), where, AT) == Granted(most, most, False, "house.time_out", True)
        assert not is_paused(where, hours(most + HOUR))


@pytest.mark.parametrize("where", EVERYWHERE)
def test_the_button_lasts_as_long_as_the_law_says_and_else_the_house(where: str) -> None:
    rule = RULES.of(where, AT).get("time_out.panic_button_hours")
    until = ends(rule) if rule else protection.HOUSE_PANIC.after(AT)
    name, verified = (rule.name, rule.verified) if rule else ("house.panic", True)
    assert protection.panic(where, AT) == Granted(until, until, False, name, verified)


# Exclusions


OF_THE_HOUSE = [each for each in rows("self_exclusion.minimum") if each.jurisdiction not in {"ES", "PT"}]


@pytest.mark.parametrize("rule", OF_THE_HOUSE, ids=ids)
def test_no_exclusion_is_shorter_than_the_least_that_a_row_names(rule: Rule) -> None:
    least = ends(rule)
    short = protection.exclusion(hours(least - HOUR), rule.jurisdiction, AT)
    assert isinstance(short, NotOffered)
    if "self_exclusion.allowed_durations" not in RULES.of(rule.jurisdiction, AT):
        assert (short.rule, short.verified) == (rule.name, rule.verified)
        granted = protection.exclusion(hours(least), rule.jurisdiction, AT)
        assert isinstance(granted, Granted)
        assert (granted.until, granted.rule) == (least, rule.name)


@pytest.mark.parametrize("where", ["ES", "PT"])
def test_the_least_of_a_national_register_is_none_of_the_house(where: str) -> None:
    """«ES, PT minimum is in the national register» (rules.md): what this house offers is its own."""
    least = protection.HOUSE_EXCLUSION_MINIMUM
    short = protection.exclusion(hours(least.after(AT) - HOUR), where, AT)
    assert short == NotOffered((f"at_least_{least}",), "house.exclusion_minimum", verified=True)
    granted = protection.exclusion(least, where, AT)
    assert isinstance(granted, Granted)
    assert (granted.until, granted.rule) == (least.after(AT), "house.exclusion_minimum")
    indefinite = protection.exclusion(Endless.INDEFINITE, where, AT)
    assert isinstance(indefinite, Granted)
    assert indefinite.not_before == least.after(AT)
    assert implemented.applied(RULES.of(where, AT)["self_exclusion.minimum"]) is None


@pytest.mark.parametrize("rule", rows("self_exclusion.maximum"), ids=ids)
def test_no_exclusion_with_an_end_is_longer_than_the_most_that_a_row_names(rule: Rule) -> None:
    assert isinstance(protection.exclusion(hours(ends(rule)), rule.jurisdiction, AT), Granted)
    long = protection.exclusion(Span(months=1 + 12 * int(rule.value)), rule.jurisdiction, AT)  # type: ignore[arg-type]
    assert isinstance(long, NotOffered)
    assert (long.rule, long.verified) == (rule.name, rule.verified)


@pytest.mark.parametrize(("rule", "word"), words("self_exclusion.allowed_durations"), ids=str)
def test_each_exclusion_that_a_row_names_is_offered_unless_it_is_under_the_least(rule: Rule, word: str) -> None:
    where, law = rule.jurisdiction, RULES.of(rule.jurisdiction, AT)
    least = law.get("self_exclusion.minimum")
    on_request = "self_exclusion.ends_only_on_request" in law
    if word == "definite":
        assert isinstance(protection.exclusion(term("1_year"), where, AT), Granted)
    elif re.fullmatch(r"\d+_[a-z]+", word):
        until = meant(word)
        granted = protection.exclusion(term(word), where, AT)
        if least and until < ends(least):
            assert granted == NotOffered((f"at_least_{protection._span_of(least)}",), least.name, least.verified)
        else:
            assert granted == Granted(until, until, on_request, rule.name, rule.verified)
    else:
        wanted, _, waits = word.partition("_min_")
        granted = protection.exclusion(term(wanted), where, AT)
        assert isinstance(granted, Granted)
        assert granted.until is None
        assert granted.on_request
        if waits:
            assert granted.not_before == meant(waits)


@pytest.mark.parametrize("rule", rows("self_exclusion.allowed_durations"), ids=ids)
def test_an_exclusion_that_no_word_of_a_list_admits_is_refused_with_the_list(rule: Rule) -> None:
    if "definite" not in rule.value:  # type: ignore[operator]
        refused = protection.exclusion(Span(months=7), rule.jurisdiction, AT)
        assert refused == NotOffered(rule.value, rule.name, rule.verified)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", EVERYWHERE)
def test_an_exclusion_ends_by_itself_unless_a_row_says_that_it_ends_on_request_only(where: str) -> None:
    rule = RULES.of(where, AT).get("self_exclusion.ends_only_on_request")
    granted = protection.exclusion(term("1_year"), where, AT)
    if isinstance(granted, Granted):
        assert granted.on_request is (rule is not None and rule.value is True)


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.parametrize("wanted", [Span(months=12), Endless.INDEFINITE], ids=str)
def test_a_lift_takes_as_long_as_the_row_of_its_kind_says_and_else_the_house(where: str, wanted: Term) -> None:
    law = RULES.of(where, AT)
    kind = "indefinite" if wanted is Endless.INDEFINITE else "definite"
    rule = law.get(f"self_exclusion.lift_delay_{kind}") or law.get("self_exclusion.lift_delay")
    over = protection.lifted_at(wanted, where, AT)
    assert over.until == (ends(rule) if rule else protection.HOUSE_LIFT_DELAY.after(AT))
    assert (over.rule, over.verified) == ((rule.name, rule.verified) if rule else ("house.lift_delay", True))


@pytest.mark.parametrize(
    "rule", [*rows("self_exclusion.lifetime_petition_after"), *rows("self_exclusion.reopen_after_permanent")], ids=ids
)
def test_a_permanent_exclusion_may_be_looked_at_again_after_the_time_of_its_row(rule: Rule) -> None:
    granted = protection.exclusion(Endless.PERMANENT, rule.jurisdiction, AT)
    assert isinstance(granted, Granted)
    assert granted.not_before == ends(rule)


def test_without_such_a_row_a_permanent_exclusion_has_no_end_at_all() -> None:
    for where in ("AT", "GB"):
        granted = protection.exclusion(Endless.PERMANENT, where, AT)
        assert isinstance(granted, Granted)
        assert (granted.until, granted.not_before, granted.on_request) == (None, None, True)


@over(
    where=st.sampled_from(EVERYWHERE),
    wanted=st.sampled_from(TERMS),
    at=st.integers(0, 24 * 365 * 64).map(lambda hours: datetime(2026, 1, 1, tzinfo=UTC) + hours * HOUR),
)
def test_whatever_is_granted_holds_at_least_as_long_as_the_least(where: str, wanted: str, at: datetime) -> None:
    granted = protection.exclusion(term(wanted), where, at)
    law = RULES.of(where, at)
    if isinstance(granted, Granted) and "self_exclusion.minimum" in law:
        least = protection._span_of(law["self_exclusion.minimum"]).after(at)
        assert granted.until is None or granted.until >= least
        assert granted.not_before is None or granted.not_before >= least
    if isinstance(granted, Granted) and granted.until:
        assert granted.not_before is not None
        may_end_early = "self_exclusion.lift_delay_definite" in law
        assert granted.not_before <= granted.until if may_end_early else granted.not_before == granted.until


def test_a_month_that_a_short_february_makes_shorter_than_thirty_days_ends_with_these() -> None:
    rule = next(rule for rule in rows("self_exclusion.minimum") if rule.value == timedelta(days=30))
    assert "1_month" in RULES.of(rule.jurisdiction, AT)["self_exclusion.allowed_durations"].value  # type: ignore[operator]
    for at, days in ((datetime(2027, 2, 1, tzinfo=UTC), 30), (datetime(2027, 3, 1, tzinfo=UTC), 31)):
        granted = protection.exclusion(term("1_month"), rule.jurisdiction, at)
        assert isinstance(granted, Granted)
        assert granted.until == at + timedelta(days=days)


# The calendar


@pytest.mark.parametrize(
    ("begins", "wanted", "over"),
    [
        ("2026-08-31", "6_months", "2027-02-28"),
        ("2027-08-31", "6_months", "2028-02-29"),
        ("2026-10-31", "1_month", "2026-11-30"),
        ("2028-02-29", "1_year", "2029-02-28"),
        ("2028-02-29", "4_years", "2032-02-29"),
        ("2027-12-31", "2_months", "2028-02-29"),
        ("2026-12-31", "1_month", "2027-01-31"),
        ("2026-03-29", "1_day", "2026-03-30"),
        ("2026-12-30", "1_week", "2027-01-06"),
    ],
)
def test_a_day_that_the_month_does_not_have_is_its_last_one(begins: str, wanted: str, over: str) -> None:
    begun, ended = (datetime.fromisoformat(f"{day}T12:00:00Z") for day in (begins, over))
    span = term(wanted)
    assert isinstance(span, Span)
    assert span.after(begun) == ended


@pytest.mark.parametrize(
    ("words", "span"),
    [
        (("24_hours", "1_day"), Span(24)),
        (("1_week", "7_days"), Span(168)),
        (("12_months", "1_year"), Span(0, 12)),
        (("permanent", "lifetime"), Endless.PERMANENT),
    ],
)
def test_one_term_may_be_called_differently(words: tuple[str, ...], span: Term) -> None:
    assert {term(word) for word in words} == {span}


@pytest.mark.parametrize(
    "word", ["", "0_hours", "1000_days", "one_week", "24", "6_moons", "24_hours ", "1_week\n", "-1_days"]
)
def test_what_is_no_term_is_none(word: str) -> None:
    with pytest.raises(Unreadable):
        term(word)


# Registers


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.parametrize("moment", Moment)
def test_a_register_is_asked_at_the_moments_of_its_row_and_at_the_houses(where: str, moment: Moment) -> None:
    law = RULES.of(where, AT)
    named, checked = law.get("self_exclusion.register"), law.get("self_exclusion.register_checked_at")
    said = {
        "registration": Moment.REGISTRATION,
        "before_account_activation": Moment.REGISTRATION,
        "login": Moment.LOGIN,
        "every_login": Moment.LOGIN,
        "before_marketing": Moment.MARKETING,
        "prize_payment": Moment.PRIZE_PAYMENT,
    }
    by_law = [said[word] for word in checked.value] if checked else []  # type: ignore[union-attr]
    register = protection.register(where, moment, AT)
    if moment not in (*by_law, *protection.HOUSE_MOMENTS):
        assert register is None
    else:
        assert register is not None
        assert register.name == (named.value if named else "")
        rule = checked if checked and moment in by_law else named
        assert (register.rule, register.verified) == ((rule.name, rule.verified) if rule else ("house.register", True))


def test_no_row_for_a_register_never_skips_the_question() -> None:
    for moment in (Moment.REGISTRATION, Moment.LOGIN, Moment.MARKETING):
        assert protection.register("AT", moment, AT) is not None


def test_only_a_register_that_could_have_answered_holds_anybody_up() -> None:
    for silence in Silence:
        held = silence in {Silence.DOWN, Silence.NO_ADAPTER, Silence.NOT_ASKED}
        assert protection.holds(silence, None, AT) is held
        assert protection.holds(silence, AT - protection.HOUSE_CLEAR_COUNTS, AT) is False
        assert protection.holds(silence, AT - protection.HOUSE_CLEAR_COUNTS - HOUR, AT) is held


def test_a_silent_register_is_asked_again_less_and_less_often() -> None:
    first, longest = protection.HOUSE_ASK_AGAIN, protection.HOUSE_ASK_AGAIN_LONGEST
    assert protection.ask_again_at(AT, AT) == AT + first
    assert protection.ask_again_at(AT - 3 * HOUR, AT) == AT + 3 * HOUR
    assert protection.ask_again_at(AT - timedelta(days=9), AT) == AT + longest


@pytest.mark.parametrize("rule", rows("marketing.after_exclusion"), ids=ids)
def test_marketing_is_silent_for_the_time_that_a_row_names(rule: Rule) -> None:
    until = AT if isinstance(rule.value, str) else ends(rule)
    assert protection.quiet_until(rule.jurisdiction, AT) == until


@pytest.mark.parametrize("where", EVERYWHERE)
def test_a_clear_counts_before_marketing_for_the_time_of_its_row_and_else_the_houses(where: str) -> None:
    rule = RULES.of(where, AT).get("marketing.register_check_within")
    assert protection.clear_counts(where, AT) == (rule.value if rule else protection.HOUSE_CLEAR_COUNTS)


# Loading


def test_every_row_that_is_applied_is_understood() -> None:
    protection.require_readable(RULES)
    assert {rule.name for rule in RULES.all} >= protection.IMPLEMENTED


@pytest.mark.parametrize(
    ("name", "value", "unit"),
    [
        ("time_out.allowed_durations", "24_hours|a_while", "list"),
        ("time_out.allowed_durations", "more_than_a_bit_up_to_30_days", "list"),
        ("time_out.allowed_durations", "any_moons", "list"),
        ("time_out.panic_button_hours", "soon", "text"),
        ("self_exclusion.allowed_durations", "indefinite_min_forever", "list"),
        ("self_exclusion.allowed_durations", "for_good", "text"),
        ("self_exclusion.minimum", "6", "multiple"),
        ("self_exclusion.maximum", "90", "minutes"),
        ("self_exclusion.lift_delay", "next_login", "moment"),
        ("self_exclusion.ends_only_on_request", "usually", "text"),
        ("self_exclusion.logout", "eventually", "moment"),
        ("self_exclusion.register", "CRUKS|OASIS", "list"),
        ("self_exclusion.register_checked_at", "registration|now_and_then", "list"),
        ("marketing.after_exclusion", "at_leisure", "text"),
    ],
)
def test_a_word_that_is_not_understood_refuses_to_load(name: str, value: str, unit: str) -> None:
    with pytest.raises(Unreadable, match=re.escape(f"XX {name}")):
        protection.require_readable(load(f"{HEADER}XX,{name},{value},{unit},,s,a,q,read\n".encode()))
