"""Commands on players: register one, block one."""

from __future__ import annotations

from datetime import date

import msgspec

from access.policy import Action
from commands.edge import Country, Edge, Endpoint, Occurred, PersonalText, Text, Word, currency, occurred, suffix_in
from commands.plan import Plan
from domain import players
from domain.errors import AlreadyRegistered, NotFound, UnknownCurrency
from domain.kernel import PlayerId
from eventstore.vault import Owed


class RegisterPlayer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new player. `occurred` (history only, needs the import permission): when they registered elsewhere."""

    country: Country
    currency: str
    brand: Word = "main"
    name: PersonalText | None = None
    email: PersonalText | None = None
    phone: PersonalText | None = None
    birth_date: date | None = None
    external_id: PersonalText | None = None
    occurred: Occurred | None = None


class PlayerRegistered(msgspec.Struct, frozen=True):
    player: str
    status: str


class BlockPlayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Text


class PlayerBlocked(msgspec.Struct, frozen=True):
    player: str
    status: str


def register(command: RegisterPlayer, edge: Edge) -> Plan:
    """Register a player, with personal fields sealed under a new key. Raises AlreadyRegistered, UnknownCurrency, Forbidden."""
    context = edge.context
    suffix = edge.new_player()
    key = edge.new_key()
    given = {"name": command.name, "email": command.email, "phone": command.phone, "external_id": command.external_id}
    found_by = [(field, word) for field, value in given.items() if value for word in index_words(field, value)]
    registered = players.Registered(
        brand=command.brand,
        country=command.country,
        currency=currency(command.currency, "/currency"),
        key=players.DataKey(key.id, key.commitment),
        name=command.name,
        email=command.email,
        phone=command.phone,
        birth_date=command.birth_date.isoformat() if command.birth_date else None,
        external_id=command.external_id,
    )
    happened = occurred(command.occurred, context.now)
    return Plan(
        context,
        require=(Action.PLAYER_REGISTER, Action.HISTORY_IMPORT) if happened else (Action.PLAYER_REGISTER,),
        writes={"player": players.stream(PlayerId(f"player_{suffix}"))},
        fresh=frozenset({"player"}),
        decision=lambda _at, player: players.register(player, registered=registered),
        answer=lambda facts: PlayerRegistered(f"player_{suffix_in(facts, 'player')}", "active"),
        owed=Owed(suffix, key, found_by),
        occurred=happened,
    )


def index_words(field: str, value: str) -> list[str]:
    """What a personal value is found by: a name by each of its words, anything else as a whole."""
    return value.split() if field == "name" else [value]


def block(player_id: str, command: BlockPlayer, edge: Edge) -> Plan:
    """Block a player: deposits stop at once. Raises NotFound, Forbidden."""
    return Plan(
        edge.context,
        require=(Action.PLAYER_BLOCK,),
        writes={"player": players.stream(PlayerId(player_id))},
        decision=lambda _at, player: players.block(player, reason=command.reason),
        answer=lambda _facts: PlayerBlocked(player_id, "blocked"),
    )


ENDPOINTS = (
    Endpoint("/v1/players", register, RegisterPlayer, PlayerRegistered, 201, (AlreadyRegistered, UnknownCurrency)),
    Endpoint("/v1/players/{player_id}/block", block, BlockPlayer, PlayerBlocked, 200, (NotFound,)),
)
