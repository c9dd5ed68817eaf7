"""
Players: the card that support and CRM look at. Who it is (sealed), how well we know them, whether they may play, what they own
and may deposit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import reduce
from typing import ClassVar, NamedTuple

import msgspec

from domain import logins
from domain.kernel import Sealed, personal_fields
from domain.kyc import KYC
from domain.limits import LIMITS
from domain.logins import LOGINS
from domain.players import PLAYERS, Channel, Erased, Player, Registered, Status, Tagged, Untagged
from eventstore.record import Recorded
from projections import balances, known
from projections.balances import Balance
from projections.columns import as_shown, bigint, shown, text, times
from projections.folded import Changes as FoldedChanges
from projections.folded import Folded, in_order
from projections.memory import Rows, Tables
from projections.postgres import Cursor
from projections.projection import Events, OutOfOrder
from projections.state import Table
from projections.times import occurred_us

_PLAYER = "player_"
_PERSONAL = personal_fields(Registered)
_LATER = tuple(kind for kind in PLAYERS.events.values() if kind is not Registered)
_KYC = Folded("kyc", KYC)
_LOGIN = Folded("login", LOGINS, logins.forgotten)
_LIMITS = Folded("limits", LIMITS)


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
    state: str = "{}"
    known: str = "{}"


class Standing(msgspec.Struct, frozen=True, omit_defaults=True):
    """The column `state`: what of the player's state has no column. `jurisdiction`: if it is not the country. `taken_up`: as of
    Player.
    """

    jurisdiction: str = ""
    awaiting: tuple[str, ...] = ()
    consents: tuple[Channel, ...] = ()
    tags: tuple[str, ...] = ()
    erased_at: datetime | None = None
    taken_up: dict[str, int] = {}


_standing = msgspec.json.Decoder(Standing).decode
_known = msgspec.json.Decoder(known.Known).decode
_encode = msgspec.json.Encoder(order="deterministic").encode

_PLAYER_COLUMNS = tuple("registered_at" if field == "registered_us" else field for field in Card._fields)


class Changes(msgspec.Struct):
    """Players by suffix, `later` those registered in an earlier batch; tags by (tag, suffix); balances by (suffix, currency)."""

    registered: dict[str, Card] = {}
    later: dict[str, list[Recorded]] = {}
    tags: dict[tuple[str, str], bool] = {}
    kyc: FoldedChanges = {}
    login: FoldedChanges = {}
    balances: dict[tuple[str, str], Balance] = {}
    limits: FoldedChanges = {}


class Players:
    name = "players"
    tables: ClassVar[Sequence[Table]] = (
        Table("player", _PLAYER_COLUMNS, player="id"),
        Table("player_tag", ("tag", "player"), key=2, player="player"),
        _KYC.table,
        _LOGIN.table,
        balances.TABLE,
        _LIMITS.table,
    )

    def changes(self, events: Events) -> Changes:
        changes = Changes()
        for recorded, registered in events.of(Registered):
            changes.registered[_suffix(recorded)] = _card(recorded, registered)
        for recorded in in_order(events, _LATER):
            _happened(changes, recorded)
        changes.kyc = _KYC.changes(events)
        changes.login = _LOGIN.changes(events)
        changes.balances = balances.changes(events)
        changes.limits = _LIMITS.changes(events)
        return changes

    async def write(self, cursor: Cursor, schema: str, changes: Changes) -> None:
        if changes.registered:
            await _insert_players(cursor, schema, changes.registered)
        if changes.later:
            await _update_players(cursor, schema, changes.later)
        await _write_tags(cursor, schema, changes.tags)
        await _KYC.write(cursor, schema, changes.kyc)
        await _LOGIN.write(cursor, schema, changes.login)
        await balances.write(cursor, schema, changes.balances)
        await _LIMITS.write(cursor, schema, changes.limits)

    def fold(self, tables: Tables, changes: Changes) -> None:
        _fold_players(tables["player"], changes)
        _fold_tags(tables["player_tag"], changes.tags)
        _KYC.fold(tables["kyc"], changes.kyc)
        _LOGIN.fold(tables["login"], changes.login)
        balances.fold(tables["balance"], changes.balances)
        _LIMITS.fold(tables["limits"], changes.limits)


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


def _happened(changes: Changes, recorded: Recorded) -> None:
    """What follows a registration: folded into its card, if that is of this batch."""
    suffix = _suffix(recorded)
    card = changes.registered.get(suffix)
    if card is None:
        changes.later.setdefault(suffix, []).append(recorded)
    else:
        changes.registered[suffix] = _after(card, recorded)
    match recorded.event:
        case Tagged(label):
            changes.tags[label, suffix] = True
        case Untagged(label):
            changes.tags[label, suffix] = False


def _after(card: Card, recorded: Recorded) -> Card:
    """The card once this has happened, by the domain's own fold."""
    standing = _standing(card.state)
    before = Player(
        Status(card.status), card.country, card.currency, brand=card.brand, block_reason=card.block_reason,
        jurisdiction=standing.jurisdiction or card.country, awaiting=standing.awaiting, consents=standing.consents,
        tags=standing.tags, erased_at=standing.erased_at, taken_up=standing.taken_up,
    )  # fmt: skip
    after = PLAYERS.evolve(before, recorded.event, recorded.at)
    jurisdiction = "" if after.jurisdiction == card.country else after.jurisdiction
    told = known.evolve(_known(card.known), recorded.event, recorded.body.id)
    return card._replace(
        version=recorded.body.version,
        status=after.status,
        block_reason=after.block_reason,
        personal="{}" if isinstance(recorded.event, Erased) else card.personal,
        state=_encode(
            Standing(jurisdiction, after.awaiting, after.consents, after.tags, after.erased_at, after.taken_up)
        ).decode(),
        known=_encode(told).decode(),
    )


def _out_of_order(later: Mapping[str, object], registered: int) -> OutOfOrder:
    return OutOfOrder(f"of {len(later)} players to whom something happened, {registered} had been registered")


def _fold_players(rows: Rows, changes: Changes) -> None:
    later = {_PLAYER + suffix: happened for suffix, happened in changes.later.items()}
    registered = len(rows.keys() & later.keys())
    if registered != len(later):
        raise _out_of_order(later, registered)
    if not rows.keys().isdisjoint(card.id for card in changes.registered.values()):
        raise OutOfOrder("a player was registered twice")
    for card in changes.registered.values():
        rows[card.id] = as_shown(*card)
    for id_, happened in later.items():
        rows[id_] = as_shown(*reduce(_after, happened, Card(*rows[id_])))


def _fold_tags(rows: Rows, tags: Mapping[tuple[str, str], bool]) -> None:
    for (tag, suffix), tagged in tags.items():
        key = (shown(tag), _PLAYER + suffix)
        if tagged:
            rows[key] = key
        else:
            rows.pop(key, None)


async def _insert_players(cursor: Cursor, schema: str, registered: dict[str, Card]) -> None:
    (
        ids, versions, statuses, reasons, brands, countries, currencies, times_us, sealed_by, personal, states, knowns
    ) = zip(*registered.values(), strict=True)  # fmt: skip
    await cursor.execute(
        f"""
        INSERT INTO {schema}.player
            (id, version, status, block_reason, brand, country, currency, registered_at, sealed_by, personal, state, known)
        SELECT id, version, status, block_reason, brand, country, currency, registered_at, sealed_by, personal::json,
               state::json, known::json
          FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
            AS p (id, version, status, block_reason, brand, country, currency, registered_at, sealed_by, personal, state,
                  known)""",
        (
            text(ids), bigint(versions), text(statuses), text(reasons), text(brands), text(countries), text(currencies),
            times(times_us), text(sealed_by), text(personal), text(states), text(knowns),
        ),
    )  # fmt: skip


async def _update_players(cursor: Cursor, schema: str, later: dict[str, list[Recorded]]) -> None:
    """What happened is a fold of the domain's: read the cards, fold, write them back."""
    await cursor.execute(
        f"""
        SELECT id, version, status, block_reason, brand, country, currency, 0, '', personal::text, state::text, known::text
          FROM {schema}.player WHERE id = ANY (%b)""",
        (text([_PLAYER + suffix for suffix in later]),),
    )
    before = {card.id: card for card in map(Card._make, await cursor.fetchall())}
    if len(before) != len(later):
        raise _out_of_order(later, len(before))
    cards = [reduce(_after, happened, before[_PLAYER + suffix]) for suffix, happened in later.items()]
    await cursor.execute(
        f"""
        UPDATE {schema}.player AS p
           SET version = c.version, status = c.status, block_reason = c.block_reason, state = c.state::json,
               known = c.known::json, personal = c.personal::json
          FROM unnest(%b, %b, %b, %b, %b, %b, %b) AS c (id, version, status, block_reason, state, known, personal) WHERE p.id = c.id""",
        (
            text([card.id for card in cards]),
            bigint([card.version for card in cards]),
            text([card.status for card in cards]),
            text([card.block_reason for card in cards]),
            text([card.state for card in cards]),
            text([card.known for card in cards]),
            text([card.personal for card in cards]),
        ),
    )


async def _write_tags(cursor: Cursor, schema: str, tags: Mapping[tuple[str, str], bool]) -> None:
    for tagged, statement in (
        (False, "DELETE FROM {table} AS t USING unnest(%b, %b) AS g (tag, player) WHERE (t.tag, t.player) = (g.tag, g.player)"),
        (True, "INSERT INTO {table} (tag, player) SELECT * FROM unnest(%b, %b) ON CONFLICT DO NOTHING"),
    ):  # fmt: skip
        rows = [key for key, wanted in tags.items() if wanted is tagged]
        if rows:
            columns = text([tag for tag, _ in rows]), text([_PLAYER + suffix for _, suffix in rows])
            await cursor.execute(statement.format(table=f"{schema}.player_tag"), columns)
