"""Players: the card that support and CRM look at. Who it is (sealed), whether they may play, what they own and may deposit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import ClassVar, NamedTuple

import msgspec

from domain import limits
from domain.kernel import Money, Sealed, personal_fields
from domain.limits import DepositLimitSet, HeadroomConsumed, HeadroomReleased, Limits, LimitsEvent
from domain.players import Blocked, Registered, Status
from domain.wallets import Credited, Debited, Reserved, WalletEvent
from eventstore.record import Recorded
from projections import deposits
from projections.columns import as_shown, bigint, shown, text, times
from projections.memory import Rows, Tables
from projections.postgres import Cursor
from projections.projection import Events, OutOfOrder
from projections.state import Row, Table
from projections.times import occurred_us

_PLAYER = "player_"
_PERSONAL = personal_fields(Registered)
_WALLET: tuple[type[WalletEvent], ...] = (Credited, Reserved, Debited)
_LIMITS: tuple[type[LimitsEvent], ...] = (DepositLimitSet, HeadroomConsumed, HeadroomReleased)


class Card(NamedTuple):
    """A row of read.player."""

    id: str
    version: int
    status: str
    block_reason: str | None
    brand: str
    country: str
    currency: str
    registered_us: int
    sealed_by: str
    personal: str


_PLAYER_COLUMNS = tuple("registered_at" if field == "registered_us" else field for field in Card._fields)


class Block(NamedTuple):
    version: int
    reason: str


class Balance(msgspec.Struct, gc=False):
    """`deposits` and `deposited` are what the batch adds; the rest is how it ends."""

    version: int = 0
    cash: int = 0
    reserved: int = 0
    deposits: int = 0
    deposited: int = 0


class LimitsSince(msgspec.Struct):
    """What happened to a player's limits, in order, up to `version`."""

    version: int
    events: list[tuple[LimitsEvent, datetime]]


class Changes(msgspec.Struct):
    """Players by suffix; balances by (suffix, currency)."""

    registered: dict[str, Card] = {}
    blocked: dict[str, Block] = {}
    balances: dict[tuple[str, str], Balance] = {}
    limits: dict[str, LimitsSince] = {}


class Players:
    name = "players"
    tables: ClassVar[Sequence[Table]] = (
        Table("player", _PLAYER_COLUMNS, player="id"),
        Table("balance", ("player", "currency", *Balance.__struct_fields__), key=2, player="player"),
        Table("deposit_limit", ("player", "version", "daily", "currency", "day", "used"), player="player"),
    )

    def changes(self, events: Events) -> Changes:
        changes = Changes()
        for recorded, registered in events.of(Registered):
            changes.registered[_suffix(recorded)] = _card(recorded, registered)
        for recorded, blocked in events.of(Blocked):
            _block(changes, recorded, blocked)
        for kind in _WALLET:
            for recorded, event in events.of(kind):
                _balance(changes, recorded, event)
        for deposit in deposits.settled(events):
            balance = changes.balances[deposit.player, deposit.currency]
            balance.deposits += 1
            balance.deposited += deposit.amount
        _limits(changes, events)
        return changes

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        if changes.registered:
            await _insert_players(cursor, schema, changes.registered)
        if changes.blocked:
            await _block_players(cursor, schema, changes.blocked)
        if changes.balances:
            await _write_balances(cursor, schema, changes.balances)
        if changes.limits:
            await _write_limits(cursor, schema, changes.limits)

    def fold(self, tables: Tables, changes: Changes) -> None:
        _fold_players(tables["player"], changes)
        _fold_balances(tables["balance"], changes.balances)
        rows = tables["deposit_limit"]
        before = {suffix: rows[_PLAYER + suffix] for suffix in changes.limits if _PLAYER + suffix in rows}
        states = {
            suffix: _state(daily, currency, date.fromisoformat(day), used)
            for suffix, (_, _, daily, currency, day, used) in before.items()
        }
        for row in _limit_rows(states, changes.limits):
            rows[row[0]] = as_shown(*row)


def _suffix(recorded: Recorded) -> str:
    return recorded.body.stream.rpartition("-")[2]


def _card(recorded: Recorded, event: Registered) -> Card:
    sealed = {name: value for name in _PERSONAL if isinstance(value := getattr(event, name), Sealed)}
    return Card(
        id=_PLAYER + _suffix(recorded),
        version=recorded.body.version,
        status=Status.ACTIVE,
        block_reason=None,
        brand=event.brand,
        country=event.country,
        currency=event.currency,
        registered_us=occurred_us(recorded),
        sealed_by=recorded.body.id,
        personal=msgspec.json.encode(sealed).decode(),
    )


def _block(changes: Changes, recorded: Recorded, event: Blocked) -> None:
    card = changes.registered.get(_suffix(recorded))
    if card is None:
        changes.blocked[_suffix(recorded)] = Block(recorded.body.version, event.reason)
    else:
        changes.registered[_suffix(recorded)] = card._replace(
            version=recorded.body.version, status=Status.BLOCKED, block_reason=event.reason
        )


def _balance(changes: Changes, recorded: Recorded, event: WalletEvent) -> None:
    """An event carries the balance after it, so the newest version says all."""
    key = (_suffix(recorded), event.transfer.money.currency)
    balance = changes.balances.get(key)
    if balance is None:
        balance = changes.balances[key] = Balance()
    if recorded.body.version > balance.version:
        balance.version = recorded.body.version
        balance.cash = event.balance.cash
        balance.reserved = event.balance.reserved


def _limits(changes: Changes, events: Events) -> None:
    happened = [pair for kind in _LIMITS for pair in events.of(kind)]
    for recorded, event in sorted(happened, key=_position):
        since = changes.limits.get(_suffix(recorded))
        if since is None:
            since = changes.limits[_suffix(recorded)] = LimitsSince(0, [])
        since.version = recorded.body.version
        since.events.append((event, recorded.at))


def _position(pair: tuple[Recorded, LimitsEvent]) -> int:
    return pair[0].position


def _out_of_order(blocked: dict[str, Block], registered: int) -> OutOfOrder:
    return OutOfOrder(f"of {len(blocked)} players who were blocked, {registered} had been registered")


def _fold_players(rows: Rows, changes: Changes) -> None:
    blocked = {_PLAYER + suffix: block for suffix, block in changes.blocked.items()}
    registered = len(rows.keys() & blocked.keys())
    if registered != len(blocked):
        raise _out_of_order(changes.blocked, registered)
    if not rows.keys().isdisjoint(card.id for card in changes.registered.values()):
        raise OutOfOrder("a player was registered twice")
    for card in changes.registered.values():
        rows[card.id] = as_shown(*card)
    for id_, block in blocked.items():
        card = Card(*rows[id_])._replace(version=block.version, status=Status.BLOCKED, block_reason=block.reason)
        rows[id_] = as_shown(*card)


def _fold_balances(rows: Rows, balances: dict[tuple[str, str], Balance]) -> None:
    for (suffix, currency), balance in balances.items():
        key = (_PLAYER + suffix, shown(currency))
        *_, deposits_before, deposited = rows.get(key) or (0, 0)
        rows[key] = (
            *key, balance.version, balance.cash, balance.reserved,
            deposits_before + balance.deposits, deposited + balance.deposited,
        )  # fmt: skip


async def _insert_players(cursor: Cursor, schema: str, registered: dict[str, Card]) -> None:
    ids, versions, statuses, reasons, brands, countries, currencies, times_us, sealed_by, personal = zip(
        *registered.values(), strict=True
    )
    await cursor.execute(
        f"""
        INSERT INTO {schema}.player
            (id, version, status, block_reason, brand, country, currency, registered_at, sealed_by, personal)
        SELECT id, version, status, block_reason, brand, country, currency, registered_at, sealed_by, personal::json
          FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
            AS p (id, version, status, block_reason, brand, country, currency, registered_at, sealed_by, personal)""",
        (
            text(ids), bigint(versions), text(statuses), text(reasons), text(brands), text(countries), text(currencies),
            times(times_us), text(sealed_by), text(personal),
        ),
    )  # fmt: skip


async def _block_players(cursor: Cursor, schema: str, blocked: dict[str, Block]) -> None:
    versions, reasons = zip(*blocked.values(), strict=True)
    await cursor.execute(
        f"""
        UPDATE {schema}.player AS p SET version = b.version, status = %s, block_reason = b.reason
          FROM unnest(%b, %b, %b) AS b (id, version, reason) WHERE p.id = b.id""",
        (Status.BLOCKED.value, text([_PLAYER + suffix for suffix in blocked]), bigint(versions), text(reasons)),
    )
    if cursor.rowcount != len(blocked):
        raise _out_of_order(blocked, cursor.rowcount)


async def _write_balances(cursor: Cursor, schema: str, balances: dict[tuple[str, str], Balance]) -> None:
    rows = balances.values()
    await cursor.execute(
        f"""
        INSERT INTO {schema}.balance AS old (player, currency, version, cash, reserved, deposits, deposited)
        SELECT * FROM unnest(%b, %b, %b, %b, %b, %b, %b)
        ON CONFLICT (player, currency) DO UPDATE
           SET version = excluded.version, cash = excluded.cash, reserved = excluded.reserved,
               deposits = old.deposits + excluded.deposits, deposited = old.deposited + excluded.deposited""",
        (
            text([_PLAYER + suffix for suffix, _ in balances]),
            text([currency for _, currency in balances]),
            bigint([row.version for row in rows]),
            bigint([row.cash for row in rows]),
            bigint([row.reserved for row in rows]),
            bigint([row.deposits for row in rows]),
            bigint([row.deposited for row in rows]),
        ),
    )


async def _write_limits(cursor: Cursor, schema: str, since: dict[str, LimitsSince]) -> None:
    """The day's usage is a fold of the domain's, not a sum: read the states, fold, write them back."""
    players = text([_PLAYER + suffix for suffix in since])
    await cursor.execute(
        f"SELECT player, daily, currency, day, used FROM {schema}.deposit_limit WHERE player = ANY (%b)", (players,)
    )
    states = {player[len(_PLAYER) :]: _state(*row) for player, *row in await cursor.fetchall()}
    ids, versions, daily, currencies, days, used = zip(*_limit_rows(states, since), strict=True)
    await cursor.execute(
        f"""
        INSERT INTO {schema}.deposit_limit (player, version, daily, currency, day, used)
        SELECT player, version, daily, currency, day::date, used
          FROM unnest(%b, %b, %b, %b, %b, %b) AS l (player, version, daily, currency, day, used)
        ON CONFLICT (player) DO UPDATE
           SET version = excluded.version, daily = excluded.daily, currency = excluded.currency,
               day = excluded.day, used = excluded.used""",
        (
            text(ids), bigint(versions), bigint(daily), text(currencies), text(days), bigint(used),
        ),
    )  # fmt: skip


def _limit_rows(states: Mapping[str, Limits], since: dict[str, LimitsSince]) -> list[Row]:
    """The rows of read.deposit_limit that follow from the states before, by suffix, and from what happened since."""
    rows: list[Row] = []
    for suffix, entry in since.items():
        state = _folded(states.get(suffix, Limits()), entry.events)
        daily, currency = (
            (state.daily_deposit.amount, state.daily_deposit.currency) if state.daily_deposit else (None, None)
        )
        rows.append((_PLAYER + suffix, entry.version, daily, currency, state.day.isoformat(), state.used))
    return rows


def _state(daily: int | None, currency: str | None, day: date, used: int) -> Limits:
    return Limits(Money(daily, currency) if daily is not None and currency is not None else None, day, used)


def _folded(state: Limits, events: list[tuple[LimitsEvent, datetime]]) -> Limits:
    for event, at in events:
        state = limits.evolve(state, event, at)
    return state
