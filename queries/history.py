"""
A player's account, folded from events alone: what support and auditors see «as of then», and a regulator without us.

Invariant: nothing enters but events; whoever has the player's entries comes to the same account, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, LiteralString

import msgspec

from domain import anywhere, safeguards
from domain.catalog import OF_PLAYERS, aggregate_of
from domain.kernel import PlayerId, Sealed, TicketId, TransactionId, personal_fields
from domain.kyc import Kyc
from domain.limits import LIMITS, Limits
from domain.logins import Login
from domain.logins import forgotten as forgotten_login
from domain.players import PLAYERS, DataKey, Erased, Player, Registered
from domain.safeguards import SAFEGUARDS, Safeguards
from domain.tickets import Ticket
from domain.transactions import Kind, Transaction
from domain.wallets import Accounts, Wallet
from eventstore.record import Recorded
from projections import known
from projections.known import Known, Told

_PERSONAL = personal_fields(Registered)
LISTED: Mapping[LiteralString, LiteralString] = {
    "ticket": "tickets",
    "approval": "approvals",
    "notice": "notices",
    "contact": "notices",
}
"""What is a player's and has a stream of its own, but for payments: aggregates, each the table of a read model, and which."""


class Happened(msgspec.Struct, frozen=True):
    """An event of the account, without what it says: `log`/`position` is where it stands."""

    log: str
    position: int
    recorded: datetime
    type: str
    stream: str
    version: int
    actor: str
    leaf: str


class Deposited(msgspec.Struct, frozen=True):
    """Settled deposits in one currency: their number and their sum in minor units."""

    deposits: int = 0
    deposited: int = 0


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Everything folded about one player. Balances and `deposited` are by currency, transactions and
    tickets by id, versions by stream.

    `personal` stands sealed as event `sealed_by` holds it, under `key`; so does what `known` has of later events. All is empty
    before the registration.
    """

    player: Player = Player()
    brand: str = ""
    block_reason: str | None = None
    registered_at: datetime | None = None
    sealed_by: str = ""
    key: DataKey | None = None
    personal: dict[str, Sealed] = {}
    known: Known = known.NOTHING
    kyc: Kyc = Kyc()
    login: Login = Login()
    limits: Limits = Limits()
    balances: dict[str, Accounts] = {}
    deposited: dict[str, Deposited] = {}
    transactions: dict[TransactionId, Transaction] = {}
    tickets: dict[TicketId, Ticket] = {}
    versions: dict[str, int] = {}
    events: tuple[Happened, ...] = ()

    def told(self) -> dict[str, Told]:
        """The sealed fields as they hold now, by name, each with the event that holds it."""
        registered = {name: Told(self.sealed_by, sealed) for name, sealed in self.personal.items()}
        return {**registered, **self.known.personal}


def account(events: Iterable[Recorded]) -> Account:
    """Fold the events of one player's streams (those of `streams_of`, and transactions, tickets and whatever else is theirs), each
    stream by its versions.

    What is on other streams is left alone, so that a whole command may come in.
    """
    states: dict[str, Any] = {}
    versions: dict[str, int] = {}
    happened: list[Happened] = []
    told: dict[str, Any] = {}
    learnt = known.NOTHING
    for recorded in events:
        body = recorded.body
        aggregate = aggregate_of(body.stream)
        if aggregate is None or (body.stream.startswith("region-") and aggregate is not SAFEGUARDS):
            continue
        states[body.stream] = aggregate.evolve(states.get(body.stream, aggregate.initial), recorded.event, recorded.at)
        versions[body.stream] = body.version
        happened.append(_happened(recorded))
        if aggregate is SAFEGUARDS:
            continue
        learnt = known.evolve(learnt, recorded.event, body.id)
        if isinstance(recorded.event, Erased):
            states |= {name: forgotten_login(state) for name, state in states.items() if isinstance(state, Login)}
        if isinstance(recorded.event, Registered):
            told = _registration(recorded, recorded.event)
    payments = {
        TransactionId(f"transaction_{name.partition('-')[2]}"): state
        for name, state in states.items()
        if isinstance(state, Transaction)
    }
    elsewhere = {name.split("-")[1]: state for name, state in states.items() if isinstance(state, Safeguards)}
    player: Player = anywhere.included(PLAYERS, _of(Player, states), elsewhere)
    return Account(
        player=player,
        block_reason=player.block_reason,
        known=learnt,
        kyc=_of(Kyc, states),
        login=_of(Login, states),
        limits=anywhere.included(LIMITS, _of(Limits, states), elsewhere),
        balances=_of(Wallet, states).balances,
        deposited=_deposited(payments.values()),
        transactions=payments,
        tickets={
            TicketId(f"ticket_{name.partition('-')[2]}"): state
            for name, state in states.items()
            if isinstance(state, Ticket)
        },
        versions=versions,
        events=tuple(happened),
        **told,
    )


def forgotten(account: Account) -> Account:
    """What is told of any moment of one who was erased since."""
    return msgspec.structs.replace(account, known=known.forgotten(account.known), login=forgotten_login(account.login))


def streams_of(player_id: PlayerId) -> tuple[str, ...]:
    """The streams that a player's name alone tells; all others name the player in their first event (domain.catalog.NAMING)."""
    suffix = player_id.rpartition("_")[2]
    return tuple(f"{aggregate.name}-{suffix}" for aggregate in OF_PLAYERS)


def elsewhere_of(player_id: PlayerId, logs: Iterable[str]) -> tuple[str, ...]:
    """Streams of other regions' logs that are about a player: what they have recorded to protect them."""
    return tuple(safeguards.stream(log, player_id).name for log in logs)


def _of(kind: type[Any], states: dict[str, Any]) -> Any:
    return next((state for state in states.values() if isinstance(state, kind)), kind())


def _registration(recorded: Recorded, event: Registered) -> dict[str, Any]:
    personal = {name: value for name in _PERSONAL if isinstance(value := getattr(event, name), Sealed)}
    return {
        "brand": event.brand,
        "registered_at": recorded.occurred,
        "sealed_by": recorded.body.id,
        "key": event.key,
        "personal": personal,
    }


def _deposited(payments: Iterable[Transaction]) -> dict[str, Deposited]:
    sums: dict[str, Deposited] = {}
    for payment in payments:
        if payment.kind is Kind.DEPOSIT and payment.settled:
            before = sums.get(payment.money.currency, Deposited())
            sums[payment.money.currency] = Deposited(before.deposits + 1, before.deposited + payment.settled)
    return sums


def _happened(recorded: Recorded) -> Happened:
    body = recorded.body
    return Happened(
        recorded.log, recorded.position, recorded.at, body.type, body.stream, body.version, body.actor,
        recorded.leaf.hex(),
    )  # fmt: skip
