"""
A player as of a moment: what the logs held here said of them then.

Invariant: where a log that has adopted the player is read from there on, the log before it is read up to the cut, whatever their
regions' clocks say; where that cannot be, the adoption is not read either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from domain import players
from domain.catalog import AGGREGATES
from domain.errors import Invalid, NotFound
from domain.kernel import EPOCH, Money, PlayerId, TransactionId, instant, parse_id, parse_instant, partition_of
from domain.transactions import Kind, Status
from eventstore.record import Codec, Entry, Recorded
from queries import events, history
from queries.audit import AuditEvent, shown, with_proofs
from queries.context import LAST_US, Context
from queries.erasures import ERASED
from queries.events import END_US, Log, Row, Selection
from queries.history import Account
from queries.players import Balance, DepositLimit, Facts, Personal, deposit_limit, facts, opened

_POSITION = re.compile(r"([a-z][a-z0-9]*(?:\.[1-9][0-9]*)?)/([1-9][0-9]{0,17})")
_CODEC = Codec(AGGREGATES)
_RECORDED = "SELECT e.recorded FROM ledger.entry AS e WHERE e.log = %s::smallint AND e.position = %s"

_ADOPTIONS = """
    SELECT l.name, w.since, w.after_log, w.after_position FROM ledger.ownership AS w JOIN ledger.log AS l ON l.id = w.log
     WHERE w.partition = %s AND w.after_log IS NOT NULL"""


class Adoption(NamedTuple):
    """`log` goes on, from the entry at `position`, with what the log `of` has kept up to `cut`."""

    log: str
    position: int
    of: str
    cut: int


class TransactionAsOf(msgspec.Struct, frozen=True):
    """A payment as it stood; `requested_at`: when that was recorded."""

    id: TransactionId
    kind: Kind
    status: Status
    money: Money
    provider: str
    requested_at: datetime


class PlayerAsOf(msgspec.Struct, frozen=True):
    """A player's card as of then. `positions`: how far each log was read. `events`: what it was made from, if that was asked for."""

    id: PlayerId
    positions: dict[str, int]
    status: str
    block_reason: str | None
    brand: str
    country: str
    currency: str
    registered_at: datetime
    personal: Personal
    facts: Facts
    balances: list[Balance]
    deposit_limit: DepositLimit | None
    transactions: list[TransactionAsOf]
    versions: dict[str, int]
    events: list[AuditEvent] | None


class UnknownMoment(Invalid):
    code = "unknown_moment"
    title = "A moment is a position, eu/1234, or a time, 2026-01-31T12:00:00Z"


class _Moment(NamedTuple):
    """Everything recorded before `until` (µs), and of `log` up to `position` whatever its time."""

    until: int = END_US
    log: str = ""
    position: int = 0


async def player(context: Context, player_id: PlayerId, at: str | None = None, *, proofs: bool = False) -> PlayerAsOf:
    """
    A player's card as of a position (`eu/1234`: that log up to there, the others up to the time at which it was recorded), a
    time, or now; with `proofs` also the entries that it was made from. Raises InvalidId, UnknownMoment, NotFound.
    """
    parse_id("player", player_id)
    held = await events.logs(context)
    moment = await _moment(context, held, at)
    upto = {
        log.name: moment.position if log.name == moment.log else await events.last_before(context, log, moment.until)
        for log in held
    }
    adopted = [Adoption(*row) for row in await context.fetch(_ADOPTIONS, partition_of(player_id))]
    upto = closed(upto, {log.name: moment.position if log.name == moment.log else log.head for log in held}, adopted)
    rows = await _rows(context, player_id, [log._replace(head=upto[log.name]) for log in held])
    account = history.account(_decoded(rows))
    erased_at = await _erased_at(context, player_id)
    if erased_at is not None:
        account = history.forgotten(account)
    if account.registered_at is None:
        raise NotFound("no such player then")
    made_from = [shown(row) for row in rows]
    return PlayerAsOf(
        id=player_id,
        positions=upto,
        status=account.player.status,
        block_reason=account.block_reason,
        brand=account.brand,
        country=account.player.country,
        currency=account.player.currency,
        registered_at=account.registered_at,
        personal=await _personal(context, player_id, account, erased_at),
        facts=facts(account.player, account.known, account.kyc, account.login),
        balances=_balances(account),
        deposit_limit=_deposit_limit(account),
        transactions=[
            TransactionAsOf(id_, each.kind, each.status, each.money, each.provider, each.requested_at)
            for id_, each in sorted(account.transactions.items(), key=lambda item: (item[1].requested_at, item[0]))
        ],
        versions=account.versions,
        events=await with_proofs(context, made_from) if proofs else None,
    )


def closed(upto: Mapping[str, int], most: Mapping[str, int], adoptions: Iterable[Adoption]) -> dict[str, int]:
    """How far each log is to be read: up to every cut from which another goes on there, and no further than `most`."""
    known, most = [each for each in adoptions if {each.log, each.of} <= upto.keys()], dict(most)
    while True:
        found = {log: min(position, most[log]) for log, position in upto.items()}
        while further := [a for a in known if found[a.log] >= a.position and found[a.of] < a.cut <= most[a.of]]:
            found |= {each.of: max(found[each.of], each.cut) for each in further}
        out_of_reach = [each for each in known if found[each.log] >= each.position and each.cut > most[each.of]]
        if not out_of_reach:
            return found
        most |= {each.log: min(most[each.log], each.position - 1) for each in out_of_reach}


async def _erased_at(context: Context, player_id: PlayerId) -> datetime | None:
    """Who was erased, also since the moment asked for, is not known for any moment any more."""
    rows = await context.fetch(ERASED, players.stream(player_id).name)
    return instant(rows[0][0]) if rows else None


async def _personal(context: Context, player_id: PlayerId, account: Account, erased_at: datetime | None) -> Personal:
    """Who they were then, as far as it opens now."""
    if account.key is None:
        return Personal(sealed=False)
    return await opened(context, player_id, account.key, account.told(), erased_at)


async def _moment(context: Context, held: list[Log], at: str | None) -> _Moment:
    if at is None:
        return _Moment()
    if found := _POSITION.fullmatch(at):
        log = next((log for log in held if log.name == found[1]), None)
        if log is None:
            raise NotFound("no such log is held here", log=found[1])
        position = int(found[2])
        rows = await context.fetch(_RECORDED, log.number, position)
        if not rows:
            raise NotFound("the log has no such position yet", log=log.name, position=position, head=log.head)
        return _Moment(rows[0][0] + 1, log.name, position)
    return _Moment(microseconds(at, "at") + 1)


def microseconds(text: str, parameter: str) -> int:
    """Since 1970, of an RFC 3339 time. Raises UnknownMoment."""
    try:
        since = parse_instant(text) - EPOCH
    except ValueError:
        raise UnknownMoment(parameter=parameter) from None
    return min(max(0, (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds), LAST_US)


async def _rows(context: Context, player_id: PlayerId, held: list[Log]) -> list[Row]:
    """The player's entries, each log up to its `head`, in an order that keeps each stream's versions."""
    merged = await events.Merged.of(context, Selection(player=player_id), held, {})
    found: list[Row] = []
    while not merged.done:
        found += await merged.step()
    return found


def _decoded(rows: list[Row]) -> list[Recorded]:
    """In their order, but each stream by its versions, whichever logs they stand in. Raises UnknownEvent."""
    read = [_CODEC.decode(Entry(row.log, row.position, row.recorded, row.leaf, row.body)) for row in rows if row.counts]
    streams: dict[str, list[Recorded]] = {}
    for each in read:
        streams.setdefault(each.body.stream, []).append(each)
    in_order = {name: iter(sorted(found, key=lambda each: each.body.version)) for name, found in streams.items()}
    return [next(in_order[each.body.stream]) for each in read]


def _balances(account: Account) -> list[Balance]:
    """As the card shows them: a currency in which money ever stood."""
    return [
        Balance(
            currency,
            held.cash,
            held.reserved,
            *_deposited(account, currency),
            bonus=held.bonus,
            receivable=held.receivable,
        )
        for currency, held in sorted(account.balances.items())
    ]


def _deposited(account: Account, currency: str) -> tuple[int, int]:
    found = account.deposited.get(currency, history.Deposited())
    return found.deposited, found.deposits


def _deposit_limit(account: Account) -> DepositLimit | None:
    if not any(stream.startswith("limits-") for stream in account.versions):
        return None
    return deposit_limit(account.limits)
