"""Random histories of two regions, and what a projection must make of them however it comes across them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

from hypothesis import strategies as st
from psycopg import AsyncConnection
from redis.asyncio import Redis

from domain import approvals, operators, tickets, tokens, transactions, wallets
from domain.errors import Rejected
from domain.kernel import Event, Money, TransactionId
from domain.tickets import Resolution
from domain.transactions import Kind, Transaction
from domain.wallets import Wallet
from policies.limits import LocalDay
from policies.sla import Priority
from policies.spending import Order
from projections import catalog
from projections.projection import Source, Standing, StateHash, Store
from tests.domain.history import paid
from tests.projections.books import INVITATION, Book
from tests.projections.knowing import KNOWN
from tests.projections.playing import play_on

VERBS = (
    "register",
    "request",
    "settle",
    "fail",
    "import",
    "limit",
    "block",
    "reserve",
    "withdraw",
    "pay",
    "move",
    "wait",
    "ticket",
    "work",
    "ask",
    "answer",
    "know",
    "play",
    "play",
    "staff",
    "staff",
    "token",
)
Act = tuple[str, int, int]
"""Verb, whom it concerns (an index), and an amount."""

acts = st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 7), st.integers(1, 900)), max_size=30)
hand_overs = st.lists(st.tuples(acts, acts, st.booleans(), st.integers(1, 3)), min_size=1, max_size=3)
schedules = st.lists(st.tuples(st.sampled_from(["eu", "us"]), st.integers(1, 40)), max_size=12)
"""Which log is read next, and about how many entries of it."""


def unless_refused(decision: Callable[[Any, datetime], list[Any]]) -> Callable[[Any, datetime], list[Any]]:
    def decide(state: Any, at: datetime) -> list[Any]:
        try:
            return decision(state, at)
        except Rejected:
            return []

    return decide


WORK = [
    unless_refused(decision)
    for decision in (
        lambda ticket, at: tickets.assign(ticket, to="operator:maria"),
        lambda ticket, at: tickets.answer(ticket, text="Here.", at=at),
        lambda ticket, at: tickets.note(ticket, text="Hm."),
        lambda ticket, at: tickets.escalate(ticket, to=Priority.URGENT, reason="complaint", at=at),
        lambda ticket, at: tickets.close(ticket, resolution=Resolution.SOLVED, at=at),
        lambda ticket, at: tickets.reopen(ticket, reason="not_solved", at=at),
        lambda ticket, at: tickets.miss(ticket, at=at),
    )
]
"""What is done to a ticket, if it may be."""


STAFF = [
    unless_refused(decision)
    for decision in (
        lambda operator, at: operators.activate(operator, invitation=INVITATION, at=at),
        lambda operator, at: operators.grant(operator, role="support", until=at + timedelta(hours=9), at=at),
        lambda operator, at: operators.grant(operator, role="risk", until=None, at=at),
        lambda operator, _at: operators.revoke(operator, role="risk"),
        lambda operator, _at: operators.suspend(operator, reason="left"),
        lambda operator, _at: operators.resume(operator),
        lambda operator, at: operators.scope(operator, brands=("north",), countries=None, at=at),
        lambda operator, _at: operators.set_password(operator, hash="argon2id"),
    )
]
"""What is done to an operator, if it may be."""
TOKENS = [
    unless_refused(decision)
    for decision in (
        lambda token, _at: tokens.confirm(token, person="staff-1"),
        lambda token, _at: tokens.revoke(token),
    )
]


def settled_otherwise(id_: TransactionId, state: Transaction, wallet: Wallet, _at: datetime) -> Sequence[Event]:
    money = Money(state.money.amount + 7, state.money.currency)
    return transactions.settle_deposit(state, wallet, transaction_id=id_, money=money)


def refunded(id_: TransactionId, state: Transaction, wallet: Wallet, _at: datetime) -> Sequence[Event]:
    money = Money(1, state.money.currency)
    return transactions.refund_deposit(
        state, wallet, transaction_id=id_, reference=f"R-{len(state.refunds)}", money=money, has_happened=True
    )


def expired(id_: TransactionId, state: Transaction, wallet: Wallet, at: datetime) -> Sequence[Event]:
    if state.kind is Kind.WITHDRAWAL:
        return transactions.expire_withdrawal(state, wallet, transaction_id=id_, at=at)
    return transactions.expire_deposit(state, transaction_id=id_, at=at)


PAYMENTS: list[Callable[[TransactionId, Transaction, Wallet, datetime], Sequence[Event]]] = [
    lambda _id, state, _wallet, _at: transactions.authorise_deposit(state, reference="A-1"),
    settled_otherwise,
    refunded,
    expired,
    lambda _id, state, _wallet, _at: transactions.dispute_deposit(state, reference="D-1", reason="stolen"),
    lambda _id, state, _wallet, _at: transactions.win_dispute(state, reference="D-1"),
    lambda id_, state, wallet, _at: transactions.lose_dispute(state, wallet, transaction_id=id_, reference="D-1"),
    lambda _id, state, _wallet, _at: transactions.send_withdrawal(state, reference="P-1"),
    lambda _id, state, _wallet, _at: [transactions.PayoutHeld("aml")] if state.kind is Kind.WITHDRAWAL else [],
    lambda _id, state, _wallet, _at: [transactions.PayoutResumed()] if state.held else [],
    lambda id_, state, wallet, at: transactions.settle_withdrawal(
        state, wallet, transaction_id=id_, counted_on=LocalDay(at.date(), 0)
    ),
    lambda id_, state, wallet, _at: transactions.reject_withdrawal(state, wallet, transaction_id=id_, reason="no"),
    lambda id_, state, wallet, _at: transactions.return_withdrawal(state, wallet, transaction_id=id_, reason="closed"),
]
"""What becomes of a payment, if it still may."""


def bet_and_close(amount: int, wallet: Wallet, currency: str) -> Sequence[Event]:
    """A bet, and the close of its round, which moves nothing."""
    money, where = Money(amount, currency), wallets.Played("studio", "book", f"r{amount}", "session_1")
    movements = tuple(
        wallets.Movement("bet", account, "house:ggr", part, "b1")
        for account, part in wallet.paying(money, Order.CASH_FIRST)
    )
    accounts = wallet.booked(movements, currency)
    staked = wallets.Staked(
        played=where, reference="b1", money=money, movements=movements, accounts=accounts, day=date(2026, 11, 22)
    )
    return [staked, wallets.RoundClosed(played=where, reference="c1", currency=currency, accounts=accounts)]


MOVES: list[Callable[[int, Wallet, str], Sequence[Event]]] = [
    lambda amount, wallet, currency: wallets.grant_bonus(wallet, money=Money(amount, currency), transaction="bonus_1"),
    lambda amount, wallet, currency: paid(wallet, Money(amount, currency)),
    bet_and_close,
    lambda amount, wallet, currency: [
        wallet.charged_back(
            code="correction", target="house:adjustments", money=Money(amount, currency), transaction="a_1"
        )
    ],
]  # fmt: skip
"""What else moves in a wallet, if there is enough."""


def agreed(approval: approvals.Approval, at: datetime) -> list[Any]:
    """Whether it is what was asked is no projection's business."""
    waits = approval.status is approvals.Status.AWAITING and at < approval.expires_at
    return [approvals.Approved(approval.hash)] if waits else []


ANSWERS = [
    unless_refused(decision)
    for decision in (
        agreed,
        lambda approval, at: approvals.reject(approval, reason="no ticket", at=at),
        lambda approval, at: approvals.expire(approval, at=at),
    )
]
"""What becomes of an approval, if it still may."""


def employ(book: Book, verb: str, which: int, amount: int) -> None:
    """Somebody or some program comes, or something becomes of one."""
    match verb:
        case "staff" if book.operators and amount % 5:
            book.manage(book.operators[which % len(book.operators)], STAFF[amount % len(STAFF)])
        case "staff":
            book.invite()
        case _ if book.tokens and amount % 3:
            book.answer_for(book.tokens[which % len(book.tokens)], TOKENS[amount % len(TOKENS)])
        case _:
            book.issue()


def played(name: str, history: Sequence[Act]) -> Book:
    """A region's book."""
    book = Book(name)
    play(book, history)
    return book


def handed_over(
    eu: Sequence[Act], us: Sequence[Act], then: Sequence[tuple[Sequence[Act], Sequence[Act], bool, int]]
) -> tuple[Book, Book]:
    """Two regions' books. `then`: what happens in each after so many partitions went from eu to us, or back."""
    books = played("eu", eu), played("us", us)
    for in_eu, in_us, back, count in then:
        giver, taker = reversed(books) if back else books
        giver.hand_over(count, taker)
        play(books[0], in_eu)
        play(books[1], in_us)
    return books


def play(book: Book, history: Sequence[Act]) -> None:  # noqa: C901, PLR0912 — one case a verb
    """Go on with a region's book; what makes no sense at that moment is left out."""
    for verb, which, amount in history:
        if verb == "register" or not book.players:
            book.register(("EUR", "SEK")[which % 2], name="Ada")
            continue
        player = book.players[which % len(book.players)]
        waiting = book.open_transactions()
        match verb:
            case "request":
                book.request(player, amount)
            case "settle" if waiting:
                book.settle(waiting[which % len(waiting)])
            case "fail" if waiting:
                book.fail(waiting[which % len(waiting)])
            case "import":
                book.imported(player, amount, f"2025-01-{1 + which:02}T23:59:59.5-00:30")
            case "limit":
                book.limit(player, amount)
            case "block":
                book.block(player)
            case "reserve" if book.cash(player) >= amount:
                book.reserve(player, amount)
            case "know":
                book.know(player, KNOWN[amount % len(KNOWN)])
            case "ticket":
                book.ticket(player, list(Priority)[amount % len(Priority)])
            case "work" if book.tickets:
                book.work(book.tickets[which % len(book.tickets)], WORK[amount % len(WORK)])
            case "ask":
                book.ask(player)
            case "staff" | "token":
                employ(book, verb, which, amount)
            case "answer" if book.approvals:
                book.answer(book.approvals[which % len(book.approvals)], ANSWERS[amount % len(ANSWERS)])
            case "withdraw":
                book.withdraw(player, amount)
            case "pay" if book.transactions:
                transaction = book.transactions[which % len(book.transactions)]
                book.pay(transaction, partial(PAYMENTS[amount % len(PAYMENTS)], transaction))
            case "play":
                play_on(book, which, amount)
            case "move":
                book.move(player, partial(MOVES[which % len(MOVES)], amount))
            case "wait":
                book.wait(timedelta(hours=amount % 30))
            case _:
                pass


async def follow(
    stores: Iterable[Store], source: Source, schedule: Sequence[tuple[str, int]] = (), *, entries: int = 100_000
) -> None:
    """Apply the logs as scheduled, and then what is left of them."""
    for store in stores:
        standing = await store.open()
        for log, limit in schedule:
            standing = await _advance(store, source, standing, log, limit)
        heads = await source.heads()
        while any(standing.at(log).position < head for log, head in heads.items()):
            before = standing
            for log in heads:
                standing = await _advance(store, source, standing, log, entries)
            assert standing != before, "each log waits for the other"


async def _advance(store: Store, source: Source, standing: Standing, log: str, limit: int) -> Standing:
    batch, stopped = await source.read(log, standing.at(log), limit)
    assert stopped is None, stopped
    return await store.apply(standing, batch) if batch.after != batch.before and standing.may_take(batch) else standing


async def hashes(stores: Mapping[str, Store]) -> dict[str, StateHash]:
    return {name: await store.state_hash() for name, store in stores.items()}


async def forget(connection: AsyncConnection[Any], client: Redis) -> None:
    """Empty all read models."""
    models = [f"read.{table.name}" for projection in catalog.TABLES for table in projection.tables]
    await connection.execute(f"TRUNCATE read.generation, read.position, read.status, {', '.join(models)}")
    await client.flushall()
