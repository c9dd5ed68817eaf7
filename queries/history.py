"""
A player's account, folded from events alone: what support and auditors see «as of then», and a regulator without us.

Invariant: nothing enters but events; whoever has the player's entries comes to the same account, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from domain.catalog import aggregate_of
from domain.kernel import PlayerId, Sealed, TransactionId, personal_fields
from domain.limits import Limits
from domain.players import Blocked, DataKey, Player, Registered
from domain.transactions import Status, Transaction
from domain.wallets import Balance, Wallet
from eventstore.record import Recorded

_PERSONAL = personal_fields(Registered)


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
    """Everything folded about one player. Balances and `deposited` are by currency, transactions by id, versions by stream.

    `personal` stands sealed as event `sealed_by` holds it, under `key`. All is empty before the registration.
    """

    player: Player = Player()
    brand: str = ""
    block_reason: str | None = None
    registered_at: datetime | None = None
    sealed_by: str = ""
    key: DataKey | None = None
    personal: dict[str, Sealed] = {}
    limits: Limits = Limits()
    balances: dict[str, Balance] = {}
    deposited: dict[str, Deposited] = {}
    transactions: dict[TransactionId, Transaction] = {}
    versions: dict[str, int] = {}
    events: tuple[Happened, ...] = ()


def account(events: Iterable[Recorded]) -> Account:
    """Fold the events of one player's streams (player, limits, wallet, transactions), each stream by its versions.

    What is on other streams is left alone, so that a whole command may come in.
    """
    states: dict[str, Any] = {}
    versions: dict[str, int] = {}
    happened: list[Happened] = []
    told: dict[str, Any] = {}
    for recorded in events:
        body = recorded.body
        aggregate = aggregate_of(body.stream)
        if aggregate is None or aggregate.kind is not None:
            continue
        states[body.stream] = aggregate.evolve(states.get(body.stream, aggregate.initial), recorded.event, recorded.at)
        versions[body.stream] = body.version
        happened.append(_happened(recorded))
        match recorded.event:
            case Registered() as event:
                told |= _registration(recorded, event)
            case Blocked(reason):
                told["block_reason"] = reason
    payments = {
        TransactionId(f"transaction_{name.partition('-')[2]}"): state
        for name, state in states.items()
        if isinstance(state, Transaction)
    }
    return Account(
        player=_of(Player, states),
        limits=_of(Limits, states),
        balances=_of(Wallet, states).balances,
        deposited=_deposited(payments.values()),
        transactions=payments,
        versions=versions,
        events=tuple(happened),
        **told,
    )


def streams_of(player_id: PlayerId) -> tuple[str, str, str]:
    """The streams that a player's name alone tells; those of transactions name the player in their first event."""
    suffix = player_id.rpartition("_")[2]
    return f"player-{suffix}", f"wallet-{suffix}", f"limits-{suffix}"


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
        if payment.status is Status.SETTLED:
            before = sums.get(payment.money.currency, Deposited())
            sums[payment.money.currency] = Deposited(before.deposits + 1, before.deposited + payment.money.amount)
    return sums


def _happened(recorded: Recorded) -> Happened:
    body = recorded.body
    return Happened(
        recorded.log, recorded.position, recorded.at, body.type, body.stream, body.version, body.actor,
        recorded.leaf.hex(),
    )  # fmt: skip
