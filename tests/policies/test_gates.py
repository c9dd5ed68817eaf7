from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given as over
from hypothesis import strategies as st

from policies import gates
from policies.gates import Action, Level, Missing, Unreadable
from policies.rules import RULES, load

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HEADER = "jurisdiction,rule,value,unit,effective_from,source,address,quotation,status\n"
UNKNOWN_AGE = Missing(Level.IDENTITY, "age_verification.before", age=True)


def missing(
    action: Action,
    jurisdiction: str,
    *,
    level: Level = Level.NONE,
    age_verified: bool = False,
    deposited: int = 0,
    currency: str = "EUR",
    after: timedelta = timedelta(),
) -> Missing | None:
    return gates.missing(
        action,
        jurisdiction=jurisdiction,
        level=level,
        age_verified=age_verified,
        deposited=deposited,
        currency=currency,
        registered_at=NOON,
        at=NOON + after,
    )


def test_in_britain_the_age_is_verified_before_any_money_or_play() -> None:
    for action in (Action.DEPOSIT, Action.FREE_PLAY, Action.BET):
        assert missing(action, "GB") == UNKNOWN_AGE
    assert missing(Action.DEPOSIT, "GB", age_verified=True) is None
    assert missing(Action.BET, "GB", age_verified=True) == Missing(Level.IDENTITY, "kyc.deadline")
    assert missing(Action.BET, "GB", age_verified=True, level=Level.IDENTITY) is None


def test_in_britain_a_withdrawal_leads_to_no_new_question() -> None:
    much = 1_000_000_00
    assert missing(Action.WITHDRAW, "GB", deposited=much, after=timedelta(days=99)) is None
    assert missing(Action.WITHDRAW, "FR", deposited=much) == Missing(Level.IDENTITY, "house.deposited")


def test_in_germany_nobody_is_paid_before_they_are_known_and_nobody_plays_on_after_three_days() -> None:
    assert missing(Action.WITHDRAW, "DE") == Missing(Level.IDENTITY, "kyc.payout_before_verification")
    assert missing(Action.WITHDRAW, "DE", level=Level.IDENTITY) is None
    assert missing(Action.BET, "DE", after=timedelta(hours=71)) is None
    assert missing(Action.BET, "DE", after=timedelta(hours=72)) == Missing(Level.IDENTITY, "kyc.deadline")


def test_an_amount_in_another_currency_cannot_be_shown_to_be_below_a_maximum() -> None:
    assert missing(Action.DEPOSIT, "DE", deposited=1) is None
    assert missing(Action.DEPOSIT, "DE", deposited=1, currency="USD") == Missing(
        Level.IDENTITY, "kyc.deposit_max_before_verification"
    )


@pytest.mark.parametrize("jurisdiction", ["NL", "ES"])
def test_where_an_account_waits_for_the_identity_nothing_is_open_without_it(jurisdiction: str) -> None:
    assert gates.awaits_identity(jurisdiction, NOON)
    for action in gates.PLAY:
        assert missing(action, jurisdiction) == Missing(Level.IDENTITY, "kyc.deadline")
        assert missing(action, jurisdiction, level=Level.IDENTITY, age_verified=True) is None
    assert not gates.awaits_identity("DE", NOON)
    assert not gates.awaits_identity("FR", NOON)


def test_the_house_asks_from_its_own_thresholds_on_in_every_currency() -> None:
    assert missing(Action.DEPOSIT, "FR", deposited=1_999_99) is None
    assert missing(Action.DEPOSIT, "FR", deposited=2_000_00) == Missing(Level.IDENTITY, "house.deposited")
    assert missing(Action.DEPOSIT, "FR", deposited=299_999, currency="JPY") is None
    assert missing(Action.DEPOSIT, "FR", deposited=300_000, currency="JPY") == Missing(
        Level.IDENTITY, "house.deposited"
    )
    assert missing(Action.DEPOSIT, "FR", deposited=1_999_999, currency="KWD") is None
    assert missing(Action.DEPOSIT, "FR", deposited=50_000_00, level=Level.IDENTITY) == Missing(
        Level.ENHANCED, "house.deposited"
    )
    assert missing(Action.BONUS, "FR", after=timedelta(days=30)) == Missing(Level.IDENTITY, "house.deadline")


@over(
    st.sampled_from(list(Action)),
    st.sampled_from(["DE", "GB", "NL", "ES", "SE", "DK", "MT", "PT", "US-PA", "CA-ON", "EU", "FR", ""]),
    st.integers(0, 2**53 - 1),
    st.sampled_from(["EUR", "GBP", "JPY", "KWD"]),
    st.integers(0, 1_000),
)
def test_more_knowledge_closes_no_gate_and_whatever_is_missing_opens_it(
    action: Action, jurisdiction: str, deposited: int, currency: str, hours: int
) -> None:
    more = {"deposited": deposited, "currency": currency, "after": timedelta(hours=hours)}
    assert missing(action, jurisdiction, level=Level.ENHANCED, age_verified=True, **more) is None  # type: ignore[arg-type]
    level, age, asked = Level.NONE, False, 0
    while closed := missing(action, jurisdiction, level=level, age_verified=age, **more):  # type: ignore[arg-type]
        assert not level.reaches(closed.level) or (closed.age and not age)
        level, age, asked = max(level, closed.level, key=lambda each: each.rank), age or closed.age, asked + 1
    assert asked <= len(Level)


@pytest.mark.parametrize(
    "row", ["XX,age_verification.before,deposit|dance,list,,s,a,q,read", "XX,kyc.deadline,some_day,moment,,s,a,q,read"]
)
def test_a_rule_that_is_not_understood_lets_nobody_pass(row: str) -> None:
    rules = load((HEADER + row + "\n").encode())
    with pytest.raises(Unreadable):
        gates.missing(
            Action.BONUS, jurisdiction="XX", level=Level.NONE, age_verified=False, deposited=0, currency="EUR",
            registered_at=NOON, at=NOON, rules=rules,
        )  # fmt: skip


def test_every_rule_about_gates_that_ships_is_understood() -> None:
    for jurisdiction in {rule.jurisdiction for rule in RULES.all}:
        for action in Action:
            missing(action, jurisdiction)
        assert 18 <= gates.age_minimum(jurisdiction, NOON).years <= 21
        for level in (Level.IDENTITY, Level.ENHANCED):
            assert gates.due_at(level, jurisdiction, NOON, NOON) > NOON


def test_the_laws_deadline_is_for_the_identity_and_counts_from_the_registration() -> None:
    day, month = timedelta(days=1), timedelta(days=30)
    assert gates.due_at(Level.IDENTITY, "DE", NOON, NOON + day) == NOON + timedelta(hours=72)
    assert gates.due_at(Level.ENHANCED, "DE", NOON, NOON + day) == NOON + day + month
    assert gates.due_at(Level.IDENTITY, "DE", NOON, NOON + 3 * day) == NOON + 3 * day + month
    assert gates.due_at(Level.IDENTITY, "FR", NOON, NOON) == NOON + month


def test_a_closed_gate_says_whether_its_rule_was_read_where_it_is_made() -> None:
    for status in ("read", "unverified"):
        rules = load((HEADER + f"XX,age_verification.before,deposit,list,,s,a,,{status}\n").encode())
        closed = gates.missing(
            Action.DEPOSIT, jurisdiction="XX", level=Level.NONE, age_verified=False, deposited=0, currency="EUR",
            registered_at=NOON, at=NOON, rules=rules,
        )  # fmt: skip
        assert closed is not None
        assert closed.verified == (status == "read")


def test_in_a_part_of_a_country_the_gates_are_those_of_the_country() -> None:
    assert missing(Action.DEPOSIT, "GB-SCT") == UNKNOWN_AGE
    assert gates.awaits_identity("NL-NH", NOON)


@pytest.mark.parametrize(
    ("born", "on", "years"),
    [
        (date(2008, 11, 22), date(2026, 11, 22), 18),
        (date(2008, 11, 23), date(2026, 11, 22), 17),
        (date(2008, 2, 29), date(2026, 2, 28), 17),
        (date(2008, 2, 29), date(2026, 3, 1), 18),
    ],
)
def test_an_age_is_in_whole_years(born: date, on: date, years: int) -> None:
    assert gates.age(born, on) == years
