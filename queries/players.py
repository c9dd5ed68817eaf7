"""Players: the card, the list of all, and whether marketing may write to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, LiteralString

import msgspec

from domain import anywhere, players, protection
from domain.errors import Invalid, NotFound
from domain.kernel import Money, PlayerId, Sealed, at_versions, instant, parse_day_or_instant, parse_id
from domain.kyc import Kyc
from domain.kyc import Status as KycStatus
from domain.limits import LIMITS, Limits
from domain.logins import Login
from domain.players import PLAYERS, Channel, DataKey, Player
from domain.safeguards import Safeguards
from policies.gates import Level
from projections.known import Known, Told
from projections.players import Standing
from queries import listing, secrecy, seeing
from queries.context import Context, page_size, read_cursor
from queries.listing import Listing, Wanted
from queries.positions import MADE
from queries.states import folded, safeguards_of

_CARD = f"""
    SELECT p.version, p.status, p.block_reason, p.brand, p.country, p.currency, p.registered_at, p.sealed_by, p.personal::text,
           (SELECT convert_from(e.body, 'UTF8')::json -> 'data' ->> 'key' FROM ledger.entry AS e
             WHERE e.stream = replace(p.id, '_', '-') AND e.version = 1),
           p.state::text, p.known::text, k.version, k.state::text, g.state::text, l.version, l.state::text,
           (SELECT coalesce(json_agg(b ORDER BY b.currency), '[]') FROM read.balance AS b WHERE b.player = p.id)::text,
           m.positions, m.code
      FROM read.player AS p LEFT JOIN read.limits AS l ON l.player = p.id
           LEFT JOIN read.kyc AS k ON k.player = p.id LEFT JOIN read.login AS g ON g.player = p.id,
           ({MADE} WHERE projection = 'players' AND live) AS m
     WHERE p.id = %s"""
_LISTED: LiteralString = "id, status, brand, country, currency, registered_at"
_ALL = Listing(
    "read.player AS p",
    _LISTED,
    "registered_at",
    [("status",), ("brand",), ("country",)],
    newest_first=True,
    attributes=seeing.PLAYERS,
)
_AMONG: LiteralString = f"(SELECT {_LISTED} FROM read.player WHERE id = ANY (%s::text[]) OFFSET 0) AS p"
_TAGGED: LiteralString = f"""
    (SELECT {_LISTED} FROM read.player_tag AS t JOIN read.player AS p ON p.id = t.player WHERE t.tag = %s OFFSET 0) AS p"""
_HAS_TAG: LiteralString = "EXISTS (SELECT FROM read.player_tag AS t WHERE t.tag = %s AND t.player = p.id OFFSET 0)"
_TAGS = "SELECT count(*) FROM (SELECT FROM read.player_tag WHERE tag = %s LIMIT %s) AS few"
_TAGGED_MAX = 5_000
"""How many players with a tag are collected for a page. Where more have it, some are soon met among all."""


class Personal(msgspec.Struct, frozen=True):
    """Who the player is. `sealed`: some of it cannot be opened here, because its key is elsewhere or was destroyed; that it was,
    and when, `erased_at` says.
    """

    sealed: bool
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    birth_date: str | None = None
    external_id: str | None = None
    street: str | None = None
    city: str | None = None
    postcode: str | None = None
    erased_at: datetime | None = None


class Profile(msgspec.Struct, frozen=True):
    """What is known and does not identify the person. `jurisdiction`: whose rules hold."""

    jurisdiction: str
    language: str | None = None
    acquisition_source: str | None = None
    device: str | None = None
    address_country: str | None = None


class KycState(msgspec.Struct, frozen=True):
    """How well the player is known; `wanted` is asked for, until `due_at`. `document_expires`: its last day. `given`: by level,
    the provider that may decide it.
    """

    status: KycStatus = KycStatus.NONE
    level: Level = Level.NONE
    method: str | None = None
    age_verified: bool = False
    document_expires: date | None = None
    wanted: Level = Level.NONE
    due_at: datetime | None = None
    missed: bool = False
    given: Mapping[Level, str] = {}


class LastLogin(msgspec.Struct, frozen=True):
    """When the player last came (null: never); `failures` in a row since; devices that came before, the newest last."""

    at: datetime | None
    country: str | None
    device: str | None
    failures: int
    devices: tuple[str, ...]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is known of the player beside money. `awaiting`: why the account is not active yet. `duplicates`: players with the
    same values. `tags` and `consents` in order.
    """

    profile: Profile
    consents: tuple[Channel, ...]
    tags: tuple[str, ...]
    awaiting: tuple[str, ...]
    duplicates: tuple[PlayerId, ...]
    close_reason: str | None
    kyc: KycState
    last_login: LastLogin | None


class MayContact(msgspec.Struct, frozen=True):
    """Whether marketing may use the channel, by all that the log held when it was asked. `reason`: why not."""

    player: PlayerId
    channel: Channel
    allowed: bool
    reason: str | None


class Balance(msgspec.Struct, frozen=True):
    """What the player's accounts hold in a currency, in minor units, and the sum and number of all settled deposits.

    `receivable` is what the player owes, and never positive.
    """

    currency: str
    cash: int
    reserved: int
    deposited: int
    deposits: int
    bonus: int
    receivable: int


class DepositLimit(msgspec.Struct, frozen=True):
    """`daily`: null = the player has set none. `used`: minor units that requests consumed on `day` (the player's local one); on
    another day nothing is used. All limits: GET /v1/players/{player_id}/limits.
    """

    daily: Money | None
    day: date
    used: int


class PlayerCard(msgspec.Struct, frozen=True):
    """
    A player. `version` names this state of the card, for the ETag; `player_version` that of the player's stream. `block_reason`: as
    this reader may know it (queries/secrecy.py).

    `positions`: the last entry of each log that the read model holds, `code`: by which code, null if not known. They move
    without the card, and the ETag without them; so does the last log-in.
    """

    id: PlayerId
    version: str
    player_version: int
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
    positions: dict[str, int]
    code: str | None


class PlayerSummary(msgspec.Struct, frozen=True):
    """A player in a list: nothing that identifies the person, since each look at that is a fact of its own."""

    id: PlayerId
    status: str
    brand: str
    country: str
    currency: str
    registered_at: datetime


class PlayerPage(msgspec.Struct, frozen=True):
    """Players, those who registered last first."""

    items: list[PlayerSummary]
    next_cursor: str | None


class _BalanceRow(msgspec.Struct, frozen=True):
    version: int
    currency: str
    cash: int
    reserved: int
    deposited: int
    deposits: int
    bonus: int
    receivable: int


async def card(context: Context, player_id: PlayerId) -> PlayerCard:
    """A player's card. Raises InvalidId, NotFound."""
    parse_id("player", player_id)
    rows = await context.fetch(_CARD, player_id)
    if not rows:
        raise NotFound("no such player")
    (
        version,
        status,
        block_reason,
        brand,
        country,
        currency,
        registered_at,
        sealed_by,
        personal,
        key,
        state,
        known,
        kyc_version,
        kyc,
        login,
        limits_version,
        limits,
        balances,
        positions,
        code,
    ) = rows[0]
    wallet = msgspec.json.decode(balances, type=list[_BalanceRow])
    wallet_version = max((row.version for row in wallet), default=0)
    standing = msgspec.json.decode(state, type=Standing)
    told = msgspec.json.decode(known, type=Known)
    committed = msgspec.json.decode(key, type=DataKey)
    elsewhere = await safeguards_of(context, player_id)
    player = _protected(standing, elsewhere, status, country, currency, brand, block_reason)
    held_limits = msgspec.json.decode(limits, type=Limits) if limits else LIMITS.initial
    limited: Limits = anywhere.included(LIMITS, held_limits, elsewhere)
    of_registration = msgspec.json.decode(personal, type=dict[str, Sealed])
    fields = {**{name: Told(sealed_by, sealed) for name, sealed in of_registration.items()}, **told.personal}
    return PlayerCard(
        id=player_id,
        version=at_versions(version, wallet_version, limits_version or 0, kyc_version or 0),
        player_version=version,
        status=player.status,
        block_reason=secrecy.told(context, player.block_reason, brand, country),
        brand=brand,
        country=country,
        currency=currency,
        registered_at=registered_at,
        personal=await opened(context, player_id, committed, fields, standing.erased_at),
        facts=facts(
            player,
            told,
            msgspec.json.decode(kyc, type=Kyc) if kyc else Kyc(),
            msgspec.json.decode(login, type=Login) if login else Login(),
        ),
        balances=[
            Balance(row.currency, row.cash, row.reserved, row.deposited, row.deposits, row.bonus, row.receivable)
            for row in wallet
        ],
        deposit_limit=deposit_limit(limited) if limits or limited.given else None,
        positions=msgspec.json.decode(positions, type=dict[str, int]),
        code=code,
    )


def _protected(
    standing: Standing, elsewhere: Mapping[str, Safeguards], status: str, country: str, currency: str, brand: str,
    block_reason: str | None,
) -> Player:  # fmt: skip
    """As the read model has the player, with what other regions have recorded to protect them."""
    held = Player(
        players.Status(status), country, currency, brand=brand, block_reason=block_reason,
        jurisdiction=standing.jurisdiction or country, awaiting=standing.awaiting, consents=standing.consents,
        tags=standing.tags, erased_at=standing.erased_at, taken_up=standing.taken_up,
    )  # fmt: skip
    found: Player = anywhere.included(PLAYERS, held, elsewhere)
    return found


def facts(player: Player, known: Known, kyc: Kyc, login: Login) -> Facts:
    """As card and as-of reads show them."""
    return Facts(
        profile=Profile(
            player.jurisdiction,
            known.language or None,
            known.acquisition_source or None,
            known.device or None,
            known.address_country or None,
        ),
        consents=player.consents,
        tags=player.tags,
        awaiting=player.awaiting,
        duplicates=known.duplicates,
        close_reason=known.close_reason,
        kyc=KycState(
            kyc.status,
            kyc.level,
            kyc.method or None,
            kyc.age_verified,
            kyc.document_expires,
            kyc.wanted,
            kyc.due_at,
            kyc.missed,
            kyc.given,
        ),
        last_login=None
        if login == Login()
        else LastLogin(login.last, login.country or None, login.device or None, login.failures, login.devices),
    )


async def page(
    context: Context,
    cursor: str | None = None,
    limit: int = 50,
    *,
    among: Sequence[PlayerId] | None = None,
    status: str | None = None,
    brand: str | None = None,
    country: str | None = None,
    tag: str | None = None,
    registered_from: str | None = None,
    registered_to: str | None = None,
) -> PlayerPage:
    """
    A page of all players, or of those with a status, brand, country or tag, or registered in a time (registered_from ≤ … <
    registered_to; a day or an RFC 3339 time). `among`: only of these, if they are registered. Raises Invalid.
    """
    page_size(limit)
    given = {"status": status, "brand": brand, "country": country}
    for name, text in (*given.items(), ("tag", tag)):
        if "\0" in (text or ""):  # no text of PostgreSQL holds it
            raise Invalid(f"no player has this {name}", parameter=name)
    if status is not None and status not in set(players.Status):
        raise Invalid("no player has this status", parameter="status")
    wanted = Wanted({name: value for name, value in given.items() if value is not None})
    if registered_from is not None:
        wanted = wanted._replace(since=_time("registered_from", registered_from))
    if registered_to is not None:
        wanted = wanted._replace(until=_time("registered_to", registered_to))
    if cursor is not None:
        registered_us, id_ = read_cursor(cursor, tuple[int, str])
        wanted = wanted._replace(after=(instant(registered_us), id_))
    found = await listing.rows(context, *await _some(context, wanted, among, tag), limit)
    items = [PlayerSummary(*row) for row in found[:limit]]
    more = listing.cursor(items[-1].registered_at, items[-1].id) if len(found) > limit else None
    return PlayerPage(items, more)


async def _some(
    context: Context, wanted: Wanted, among: Sequence[PlayerId] | None, tag: str | None
) -> tuple[Listing, Wanted]:
    """Where the players are looked for who are among these and have the tag, and by what."""
    if tag is not None:
        wanted = wanted._replace(conditions=[(_HAS_TAG, tag)])
    if among is not None:
        return _ALL._replace(table=_AMONG, leads=(), values=[list(among)]), wanted
    if tag is not None:
        [(tagged,)] = await context.fetch(_TAGS, tag, _TAGGED_MAX)
        if tagged < _TAGGED_MAX:
            return _ALL._replace(table=_TAGGED, leads=(), values=[tag]), wanted._replace(conditions=())
    return _ALL, wanted


def _time(name: str, text: str) -> datetime:
    try:
        return parse_day_or_instant(text)
    except ValueError:
        raise Invalid(f"{name} is a day or an RFC 3339 time", parameter=name) from None


async def may_contact(context: Context, player_id: PlayerId, channel: str, at: datetime) -> MayContact:
    """Whether marketing may write to a player through a channel. Raises InvalidId, NotFound, Invalid.

    Answered from the log itself: a consent that was withdrawn, or an exclusion that began, a moment ago counts.
    """
    if channel not in set(Channel):
        raise Invalid(f"a channel is one of {', '.join(Channel)}", parameter="channel")
    player = await folded(context, players.stream(player_id))
    player.require()
    verdict = player.may_contact(Channel(channel), at)
    if verdict.allowed:
        protected = await folded(context, protection.stream(player_id))
        verdict = protected.may_contact(player.jurisdiction, at)
    return MayContact(player_id, Channel(channel), verdict.allowed, verdict.reason)


def deposit_limit(limits: Limits) -> DepositLimit:
    """As card and as-of reads show it."""
    return DepositLimit(limits.daily_deposit, limits.deposited.day, limits.deposited.of_day)


async def opened(
    context: Context, player: PlayerId, key: DataKey, told: Mapping[str, Told], erased_at: datetime | None = None
) -> Personal:
    """`key`: as the registration in the log names it and commits to it, whatever the read model holds."""
    by_event: dict[str, dict[str, Sealed]] = {}
    for name, each in told.items():
        by_event.setdefault(each.event, {})[f"data.{name}"] = each.sealed
    clear: dict[str, Any] = {}
    for event, sealed in by_event.items():
        found = await context.open_personal(player, event, key, sealed)
        clear |= {path.removeprefix("data."): value for path, value in found.items()}
    return Personal(sealed=len(clear) < len(told) or erased_at is not None, erased_at=erased_at, **clear)
