"""
Wallets: a player's money, in double entry.

A transfer moves an amount from one account to another and is final; a correction is a new transfer. The player's accounts
are `cash`, `bonus`, `reserved` (for withdrawals under way) and `receivable` (what the player owes, after a chargeback); every
other account ("psp:<provider>", "house:…") is a contra account, whose balance is the sum of its postings and is kept by
projections, never by a stream that all players would share.

What game providers do to it (domain/bets.py decides) stands here too, and how much was staked and lost by when.

Invariants:
    - the postings of a transfer sum to zero by construction, so all books balance in every currency;
    - cash, bonus and reserved are never negative, receivable is never positive;
    - an event carries what the accounts hold after it, so the first answer to a command can be given again from its event alone;
    - a bonus that was forfeited comes back by no rollback: each forfeiture begins another era;
    - the state does not grow with the number of bets.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import msgspec

from domain.errors import InvalidAmount
from domain.kernel import AMOUNT_MAX, STREAMS_CACHED, Aggregate, Event, Money, PlayerId, Stream, TransactionId, parse_id
from domain.tallies import TALLIED_MAX, Round, Rounds, Tally, counted, less, less_or_below, tallied, without
from domain.windows import Usage, day_of
from policies.spending import Order, WinKind

CASH: Final = "cash"
BONUS: Final = "bonus"
RESERVED: Final = "reserved"
RECEIVABLE: Final = "receivable"
OWN: Final = (CASH, BONUS, RESERVED, RECEIVABLE)
"""The player's own accounts."""

DEPOSIT: Final = "deposit"
"""The code of the transfers that settle deposits."""

HISTORY: Final = "deposit_history"
"""And of those that settle deposits of the past, which no limit has counted."""


class Transfer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`money` leaves the account `source` and enters the account `target`."""

    code: str
    source: str
    target: str
    money: Money
    transaction: TransactionId


class Movement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A transfer, perhaps one of a campaign or a bonus. `transaction`: the id of what it is part of, such as an adjustment."""

    code: str
    source: str
    target: str
    money: Money
    transaction: str
    campaign: str = ""
    bonus: str = ""


class Balance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Minor units of one currency, as the events of deposits and withdrawals carry them."""

    cash: int = 0
    reserved: int = 0


class Accounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a player's accounts hold, in minor units of one currency; positive is what the house owes to the player."""

    cash: int = 0
    bonus: int = 0
    reserved: int = 0
    receivable: int = 0


class Played(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where somebody has played: all in the provider's own words but `session`, which is ours."""

    provider: str
    game: str = ""
    round: str = ""
    session: str = ""


class InsufficientFunds(InvalidAmount):
    code = "insufficient_funds"
    title = "The account does not hold that much"


# Events: the tags and fields are the storage format.


class Credited(Event, frozen=True, tag="wallet.credited"):
    """Money entered from outside."""

    transfer: Transfer
    balance: Balance


class Reserved(Event, frozen=True, tag="wallet.reserved"):
    """Cash was set aside."""

    transfer: Transfer
    balance: Balance


class Released(Event, frozen=True, tag="wallet.released"):
    """What had been set aside is cash again."""

    transfer: Transfer
    balance: Balance


class Debited(Event, frozen=True, tag="wallet.debited"):
    """Money left, from cash or from what was reserved."""

    transfer: Transfer
    balance: Balance


class Moved(Event, frozen=True, tag="wallet.moved"):
    """Money moved otherwise: spent, won, granted, adjusted, charged back. One or more movements of one currency, together."""

    movements: tuple[Movement, ...]
    accounts: Accounts


class BonusForfeited(Event, frozen=True, tag="wallet.bonus_forfeited"):
    """All of the player's bonus money, `money`, has gone back to the house, and what was staked of it comes back no more."""

    money: Money
    movements: tuple[Movement, ...]
    accounts: Accounts


class Staked(Event, frozen=True, kw_only=True, tag="wallet.staked"):
    """A bet was taken; `reference` is the provider's, `money` all of it. `movements`: who has funded it, none for a free round.
    `day`: the player's local day, to which limits count it, or that of the recording by `utc_offset` (minutes), if it is later.
    `ahead`: what had been rolled back before it came, and was not taken. `forgets`: the session, over by now, whose loss is
    not counted any more.
    """

    played: Played
    reference: str
    money: Money
    movements: tuple[Movement, ...]
    accounts: Accounts
    day: date
    utc_offset: int = 0
    bonus_era: int = 0
    ahead: int = 0
    forgets: str = ""


class Won(Event, frozen=True, kw_only=True, tag="wallet.won"):
    """A game has paid. A round that is lost may be told as a win of nothing, without movements. `forgets`: as of a bet."""

    played: Played
    reference: str
    kind: WinKind
    money: Money
    movements: tuple[Movement, ...]
    accounts: Accounts
    day: date
    utc_offset: int = 0
    forgets: str = ""


class RolledBack(Event, frozen=True, kw_only=True, tag="wallet.rolled_back"):
    """The provider has taken the bet `bet` back, or a part of it: `money` went to the accounts that had funded it.

    `part`: the number of this part, from 1; 0 where nothing was to be moved. `total`: of the bet, what was given back by now.
    `day`, to which limits have counted the bet, and `staked_at` are absent if it was not here before (or was refused).
    `ahead`: how much less is to be taken when it comes; 0: nothing is to be taken at all. `void`: a person has given it back.
    """

    played: Played
    reference: str
    bet: str
    part: int
    total: int
    money: Money
    movements: tuple[Movement, ...]
    accounts: Accounts
    day: date | None = None
    staked_at: datetime | None = None
    ahead: int = 0
    void: bool = False


class RoundClosed(Event, frozen=True, kw_only=True, tag="wallet.round_closed"):
    """The provider says that nothing more is to come in this round. It refuses nothing."""

    played: Played
    reference: str
    currency: str
    accounts: Accounts


class StakeRefused(Event, frozen=True, kw_only=True, tag="wallet.stake_refused"):
    """A bet was not taken. `code`, `facts`: the refusal as the provider was told it."""

    played: Played
    reference: str
    money: Money
    currency: str
    accounts: Accounts
    code: str
    facts: dict[str, Any] = msgspec.field(default_factory=dict)


class GameRefused(Event, frozen=True, kw_only=True, tag="wallet.game_refused"):
    """What else a provider has said and does not fit. Nothing was booked, and a person finds out."""

    verb: str
    played: Played
    reference: str
    currency: str
    accounts: Accounts
    code: str
    money: Money | None = None
    facts: dict[str, Any] = msgspec.field(default_factory=dict)


Unmoved = RoundClosed | StakeRefused | GameRefused
"""What stands here and moves nothing; `currency` is the player's, and `accounts` what they hold all the same."""

Movements = Moved | BonusForfeited | Staked | Won | RolledBack
"""What moves money between accounts by movements."""

WalletEvent = Credited | Reserved | Released | Debited | Movements
"""What moves money."""

UNMOVED: tuple[type[Unmoved], ...] = (RoundClosed, StakeRefused, GameRefused)
KINDS: tuple[type[WalletEvent], ...] = (
    Credited, Reserved, Released, Debited, Moved, BonusForfeited, Staked, Won, RolledBack
)  # fmt: skip


# State


class Wallet(msgspec.Struct, frozen=True):
    """By currency. `deposited`: the sum of all deposits that were ever settled, whatever became of them afterwards; `imported`:
    what of it is of the past. Of the player's one currency: `wagered`, what was staked; `lost`, cash that was staked, less what
    was won as cash; `sessions`: (session, lost in it); `early`: (bet that is not here, how much less is to be taken when it comes).
    `played_at`: of the last bet, win or rollback.
    """

    balances: dict[str, Accounts] = {}
    deposited: dict[str, int] = {}
    imported: dict[str, int] = {}
    wagered: Usage = Usage()
    lost: Usage = Usage()
    bonus_era: int = 0
    rounds: Rounds = Rounds()
    sessions: Tally = ()
    early: Tally = ()
    played_at: datetime | None = None

    def balance(self, currency: str) -> Accounts:
        return self.balances.get(currency, _NOTHING)

    def after(self, transfer: Transfer) -> Balance:
        """What the transfer would leave. Raises InvalidAmount if it cannot be booked."""
        accounts = _after(self.balance(transfer.money.currency), transfer)
        return Balance(accounts.cash, accounts.reserved)

    def charged_back(self, *, code: str, target: str, money: Money, transaction: str) -> Moved:
        """What somebody outside has taken: from cash as far as there is any; the rest is what the player owes now.

        Raises InvalidAmount only for an amount that cannot be booked, since it is no question any more.
        """
        parts = _split(self, money, CASH, RECEIVABLE)
        return _moved(self, [Movement(code, source, target, part, transaction) for source, part in parts])

    def paying(self, money: Money, order: Order) -> list[tuple[str, Money]]:
        """Which accounts would pay this, and how much each; whether they hold it is another question."""
        first, second = (CASH, BONUS) if order is Order.CASH_FIRST else (BONUS, CASH)
        return _split(self, money, first, second)

    def booked(self, movements: Sequence[Movement], currency: str) -> Accounts:
        """What these movements would leave. Raises InvalidAmount if they cannot be booked."""
        accounts = self.balance(currency)
        for movement in movements:
            accounts = _after(accounts, movement)
        return accounts

    def round(self, played: Played) -> Round | None:
        """The round, if it is open, or one of the newest that are over."""
        return self.rounds.find(_round(played))

    def lost_in(self, session: str) -> int:
        """What was lost in a session that may be open."""
        return tallied(self.sessions, session)

    def early_of(self, played: Played, bet: str) -> int:
        """How much less is to be taken of a bet, since that was rolled back before it came."""
        return tallied(self.early, _bet(played, bet)) if self.early else 0

    def may_wait(self, played: Played, bet: str) -> bool:
        """Whether it can be kept here that less is to be taken of a bet."""
        return len(self.early) < TALLIED_MAX or self.early_of(played, bet) > 0


_NOTHING = Accounts()


def _after(before: Accounts, transfer: Transfer | Movement) -> Accounts:
    amount, source, target = transfer.money.amount, transfer.source, transfer.target
    if amount <= 0:
        raise InvalidAmount("an amount is positive", amount=amount)
    if source == target:
        raise InvalidAmount("a transfer is between two accounts", account=source)
    held = {CASH: before.cash, BONUS: before.bonus, RESERVED: before.reserved, RECEIVABLE: before.receivable}
    if source in held:
        held[source] -= amount
    if target in held:
        held[target] += amount
    owed = held[RECEIVABLE]
    if min(held[CASH], held[BONUS], held[RESERVED]) < 0:
        raise InsufficientFunds("the balance does not cover the amount", amount=amount, account=source)
    if owed > 0:
        raise InsufficientFunds("the player does not owe as much", amount=amount, account=RECEIVABLE)
    if max(held[CASH], held[BONUS], held[RESERVED], -owed) > AMOUNT_MAX:
        raise InvalidAmount("the balance would leave the range of exact integers", amount=amount)
    return Accounts(**held)


def evolve(wallet: Wallet, event: WalletEvent | Unmoved, at: datetime) -> Wallet:
    match event:
        case Staked() | Won() | RolledBack():
            return _played(wallet, event, at)
        case Moved() | BonusForfeited():
            return msgspec.structs.replace(
                wallet,
                balances={**wallet.balances, currency_of(event): event.accounts},
                bonus_era=wallet.bonus_era + isinstance(event, BonusForfeited),
            )
        case RoundClosed(played=played):
            return msgspec.structs.replace(wallet, rounds=wallet.rounds.told(_round(played), played.session, at))
        case StakeRefused(played=played, reference=reference) if wallet.early:
            return msgspec.structs.replace(wallet, early=without(wallet.early, _bet(played, reference)))
        case StakeRefused() | GameRefused():
            return wallet
    return _transferred(wallet, event)


def _transferred(wallet: Wallet, event: Credited | Reserved | Released | Debited) -> Wallet:
    currency, balance, transfer = event.transfer.money.currency, event.balance, event.transfer
    before = wallet.balance(currency)
    after = Accounts(balance.cash, before.bonus, balance.reserved, before.receivable)
    deposited, imported = wallet.deposited, wallet.imported
    if isinstance(event, Credited) and transfer.code in (DEPOSIT, HISTORY):
        deposited = {**deposited, currency: deposited.get(currency, 0) + transfer.money.amount}
        if transfer.code == HISTORY:
            imported = {**imported, currency: imported.get(currency, 0) + transfer.money.amount}
    balances = {**wallet.balances, currency: after}
    return msgspec.structs.replace(wallet, balances=balances, deposited=deposited, imported=imported)


def _played(wallet: Wallet, event: Staked | Won | RolledBack, at: datetime) -> Wallet:
    played, amount = event.played, event.money.amount
    session, rounds, sessions, early = played.session, wallet.rounds, wallet.sessions, wallet.early
    wagered, lost = wallet.wagered, wallet.lost
    cash = sum(each.money.amount for each in event.movements if CASH in (each.source, each.target))
    match event:
        case Staked(reference=bet):
            day = day_of(event.day, event.utc_offset, at)
            wagered, lost = wagered.add(amount, day=day, at=at), lost.add(cash, day=day, at=at)
            rounds = rounds.staked(_round(played), session, amount, at)
            sessions = counted(sessions, session, cash, event.forgets)
            early = without(early, _bet(played, bet)) if early else early
        case Won():
            lost = lost.add(-cash, day=day_of(event.day, event.utc_offset, at), at=at)
            sessions = less_or_below(sessions, session, cash, event.forgets)
            rounds = rounds.told(_round(played), session, at) if played.round else rounds
        case RolledBack(day=day, staked_at=staked_at) if day and staked_at:
            wagered = wagered.take_back(amount, day=day, at=staked_at)
            lost = lost.take_back(cash, day=day, at=staked_at)
            rounds = rounds.given_back(_round(played), amount, staked_at=staked_at, at=None if event.void else at)
            sessions = less(sessions, session, cash)
        case RolledBack(bet=bet, ahead=ahead) if ahead or early:
            early = counted(early, _bet(played, bet), ahead) if ahead else without(early, _bet(played, bet))
    return Wallet(
        {**wallet.balances, event.money.currency: event.accounts},
        wallet.deposited,
        wallet.imported,
        wagered,
        lost,
        wallet.bonus_era,
        rounds,
        sessions,
        early,
        at,
    )


def _round(played: Played) -> str:
    return f"{played.provider}\n{played.game}\n{played.round}"


def _bet(played: Played, reference: str) -> str:
    return f"{played.provider}\n{reference}"


WALLETS = Aggregate("wallet", initial=Wallet(), evolve=evolve, events=(*KINDS, *UNMOVED))


@lru_cache(STREAMS_CACHED)
def stream(player_id: PlayerId) -> Stream[Wallet]:
    return Stream(WALLETS, parse_id("player", player_id))


def currency_of(event: WalletEvent | Unmoved) -> str:
    match event:
        case RoundClosed() | StakeRefused() | GameRefused():
            return event.currency
        case Staked() | Won() | RolledBack() | BonusForfeited():
            return event.money.currency
        case Moved():
            return event.movements[0].money.currency
    return event.transfer.money.currency


def postings(event: WalletEvent) -> list[tuple[str, int]]:
    """The two postings of each of its transfers: (account, minor units of its one currency)."""
    transfers = event.movements if isinstance(event, Movements) else (event.transfer,)
    return [
        posting
        for transfer in transfers
        for posting in ((transfer.source, -transfer.money.amount), (transfer.target, transfer.money.amount))
    ]


# Decisions


def grant_bonus(
    wallet: Wallet, *, money: Money, transaction: str, campaign: str = "", bonus: str = "", code: str = "bonus"
) -> list[WalletEvent]:
    """Give bonus money."""
    return [_moved(wallet, [Movement(code, "house:bonus", BONUS, money, transaction, campaign, bonus)])]


def forfeit_bonus(wallet: Wallet, *, currency: str, transaction: str) -> list[WalletEvent]:
    """Take back all bonus money, be it that all of it is staked: what of that is rolled back goes to the house then."""
    held = Money(wallet.balance(currency).bonus, currency)
    movements = (Movement("bonus_forfeited", BONUS, "house:bonus", held, transaction),) if held.amount else ()
    return [BonusForfeited(held, movements, wallet.booked(movements, currency))]


class Direction(StrEnum):
    CREDIT = "credit"
    DEBIT = "debit"


def adjust(
    wallet: Wallet, *, account: str, direction: Direction, money: Money, transaction: str, code: str = "adjustment"
) -> list[WalletEvent]:
    """Correct an account by hand, against house:adjustments. `account`: cash, bonus or receivable."""
    if account not in (CASH, BONUS, RECEIVABLE):
        raise InvalidAmount("this account is not corrected by hand", account=account)
    house = "house:adjustments"
    source, target = (house, account) if direction is Direction.CREDIT else (account, house)
    return [_moved(wallet, [Movement(code, source, target, money, transaction)])]


def _split(wallet: Wallet, money: Money, first: str, second: str) -> list[tuple[str, Money]]:
    """As much as there is from the first account, the rest from the second."""
    part = min(money.amount, getattr(wallet.balance(money.currency), first))
    rest = money.amount - part
    return [(account, Money(amount, money.currency)) for account, amount in ((first, part), (second, rest)) if amount]


def _moved(wallet: Wallet, movements: Sequence[Movement]) -> Moved:
    if not movements:
        raise InvalidAmount("an amount is positive")
    currency = movements[0].money.currency
    for movement in movements:
        if movement.money.currency != currency:
            raise InvalidAmount("movements of one event are in one currency", currency=movement.money.currency)
    return Moved(tuple(movements), wallet.booked(movements, currency))
