"""What players do, as events that rules look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

from domain import limits, logins, transactions, wallets
from domain.bets import Played
from domain.findings import Finding, Picture, Rulebook, Seen
from domain.kernel import Event, Money, PlayerId, TransactionId
from domain.players import DataKey, Registered
from domain.wallets import CASH, Accounts, Balance, Movement, Transfer
from policies.findings import Kind, Severity, Step, Watch
from policies.findings import Test as Tested
from policies.limits import Kind as LimitKind
from policies.limits import Period, Source

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
"""A Sunday."""

ID = TransactionId("transaction_01m81j18g0ehsa2vkkc5hq8c1a")
PLAYED = Played("acme", "book", "r-1")
ACCOUNTS, BALANCE = Accounts(), Balance()


def rule(
    test: Tested,
    *,
    quiet_hours: int = 0,
    steps: tuple[Step, ...] = (),
    since: date = date(2020, 1, 1),
    version: int = 1,
) -> Watch:
    return Watch(
        name="some_rule", version=version, since=since, kind=Kind.OPERATIONS, severity=Severity.LOW, says="something", test=test,
        quiet_hours=quiet_hours, steps=steps,
    )  # fmt: skip


def registered(country: str = "DE", currency: str = "EUR", birth_year: int = 1980) -> Registered:
    return Registered(brand="north", country=country, currency=currency, key=DataKey("k", "00"), birth_year=birth_year)


def euros(amount: int, currency: str = "EUR") -> Money:
    return Money(amount, currency)


def deposit(amount: int = 1_000, currency: str = "EUR", code: str = wallets.DEPOSIT) -> Event:
    return wallets.Credited(Transfer(code, "psp:acme", CASH, euros(amount, currency), ID), BALANCE)


def deposit_failed() -> Event:
    return transactions.DepositFailed("declined")


def withdrawal(amount: int = 1_000) -> Event:
    return wallets.Reserved(Transfer("withdrawal", CASH, "reserved", euros(amount), ID), BALANCE)


def payout(amount: int = 1_000) -> Event:
    return wallets.Debited(Transfer("withdrawal", "reserved", "psp:acme", euros(amount), ID), BALANCE)


def cancelled() -> Event:
    return transactions.WithdrawalCancelled()


def _movements(source: str, target: str, amount: int) -> tuple[Movement, ...]:
    return (Movement("bet", source, target, euros(amount), "t"),) if amount else ()


def stake(amount: int = 100, source: str = CASH) -> Event:
    moved = _movements(source, "house:ggr", amount)
    return wallets.Staked(
        played=PLAYED, reference="r", money=euros(amount), movements=moved, accounts=ACCOUNTS, day=date(2026, 1, 1)
    )


def win(amount: int = 100) -> Event:
    moved = _movements("house:ggr", CASH, amount)
    return wallets.Won(
        played=PLAYED, reference="r", kind=wallets.WinKind.WIN, money=euros(amount), movements=moved, accounts=ACCOUNTS,
        day=date(2026, 1, 1),
    )  # fmt: skip


def rolled_back(amount: int = 100) -> Event:
    moved = _movements("house:ggr", CASH, amount)
    return wallets.RolledBack(
        played=PLAYED, reference="r", bet="b", part=1, total=amount, money=euros(amount), movements=moved, accounts=ACCOUNTS
    )  # fmt: skip


def login_failed() -> Event:
    return logins.Failed(reason="password")


def shared(others: int) -> Event:
    return transactions.InstrumentShared(tuple(PlayerId(f"player_{n}") for n in range(others)))


def raise_requested(
    amount: int | None = 100_000,
    kind: LimitKind = LimitKind.DEPOSIT,
    period: Period = Period.MONTH,
    currency: str = "EUR",
) -> Event:
    money = None if amount is None else Money(amount, currency)
    return limits.RaiseRequested(
        kind=kind,
        period=period,
        money=money,
        effective_at=NOON,
        lapses_at=NOON,
        rule="house",
        jurisdiction="SE",
        source=Source.PLAYER,
    )


def limit_set(amount: int, kind: LimitKind = LimitKind.DEPOSIT, period: Period = Period.MONTH) -> Event:
    return limits.LimitSet(kind=kind, period=period, money=euros(amount))


Happened = tuple[timedelta, Event]
"""How long after the one before, and what."""


def seen(happened: Iterable[Happened], begins: datetime = NOON) -> list[Seen]:
    found, at = [], begins
    for place, (gap, event) in enumerate(happened):
        at += gap
        found.append(Seen(f"event-{place}", at, event))
    return found


def findings(
    rules: Sequence[Watch], events: Iterable[Seen], player: Registered | None = None, *, always: bool = False
) -> list[Finding]:
    """What the rules find in what a player does."""
    book = Rulebook(rules, always=always)
    picture, _ = book.follow(Picture(), Seen("registered", NOON - timedelta(days=900), player or registered()))
    found: list[Finding] = []
    for each in events:
        picture, more = book.follow(picture, each)
        found += more
    return found
