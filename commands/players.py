"""Commands on players: register, record what is known of them, block, close, tag, note."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated

import msgspec

from access.policy import Action
from commands.asking import person_word
from commands.duplicates import introducing
from commands.edge import (
    PERSONAL,
    Country,
    Edge,
    Endpoint,
    Jurisdiction,
    Label,
    Nothing,
    Occurred,
    PersonalText,
    Word,
    currency,
    occurred,
    suffix_in,
    whole,
)
from commands.plan import Fact, Plan
from commands.registers import registering
from commands.sealing import KeyNotHeld
from domain import eligibility, kyc, players
from domain.eligibility import BirthDateNeeded, JurisdictionElsewhere, JurisdictionNeeded, KeysElsewhere, Underage
from domain.errors import AlreadyRegistered, GateClosed, Invalid, NotFound, UnknownCurrency
from domain.errors import PlayerBlocked as Blocked
from domain.kernel import PlayerId
from domain.players import Channel, PlayerClosed, TooManyTags
from domain.protection import PlayerExcluded
from eventstore.vault import Owed
from policies import gates
from policies.gates import Level
from policies.payments import WEIGHTY_TAGS

ALIKE = frozenset({"email", "phone", "person"})
"""What two accounts of one person are found by; person: name and birth date together."""

Language = Annotated[str, whole("[a-z]{2,3}(-[A-Z]{2})?", "BCP 47, e.g. de-AT.")]
LongPersonalText = Annotated[
    str, msgspec.Meta(min_length=1, max_length=5_000, description="Sealed under the player's own key.", extra=PERSONAL)
]


class Known(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be known of a player. `jurisdiction`: whose rules hold, if not simply the country's."""

    name: PersonalText | None = None
    email: PersonalText | None = None
    phone: PersonalText | None = None
    birth_date: Annotated[date, msgspec.Meta(extra=PERSONAL)] | None = None
    street: PersonalText | None = None
    city: PersonalText | None = None
    postcode: PersonalText | None = None
    address_country: Country | None = None
    language: Language | None = None
    jurisdiction: Jurisdiction | None = None
    acquisition_source: Label | None = None
    device: Label | None = None


class RegisterPlayer(Known, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new player. `occurred` (history only, needs the import permission): when they registered elsewhere."""

    country: Country
    currency: str
    brand: Word = "main"
    external_id: PersonalText | None = None
    consents: Annotated[list[Channel], msgspec.Meta(max_length=len(Channel))] = []
    occurred: Occurred | None = None


class PlayerRegistered(msgspec.Struct, frozen=True):
    """`status`: active, or pending until the identity is verified or a person has looked at possible duplicates."""

    player: str
    status: players.Status


class Consents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    channels: Annotated[list[Channel], msgspec.Meta(min_length=1, max_length=len(Channel))]


class BlockPlayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`reason`: a word; fraud and aml also hold withdrawals."""

    reason: Word


class UnblockPlayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Word


class ClosePlayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Word


class TagPlayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tag: Word


class NotePlayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: LongPersonalText


class PlayerBlocked(msgspec.Struct, frozen=True):
    player: str
    status: str


class PlayerStatus(msgspec.Struct, frozen=True):
    player: str
    status: players.Status


class PlayerChanged(msgspec.Struct, frozen=True):
    player: str


class NoteWritten(msgspec.Struct, frozen=True):
    """`note`: the id of its event."""

    note: str
    player: str


class NothingGiven(Invalid):
    code = "nothing_given"
    title = "The request tells nothing of the player"


def register(command: RegisterPlayer, edge: Edge) -> Plan:
    """Register a player, with personal fields sealed under a new key.

    Raises AlreadyRegistered, UnknownCurrency, JurisdictionElsewhere, JurisdictionNeeded, KeysElsewhere, BirthDateNeeded, Underage, Forbidden;
    PlayerExcluded (until), if the register of their jurisdiction, which has been asked before, says so.
    """
    context, jurisdiction = edge.context, command.jurisdiction or command.country
    suffix = edge.new_player(jurisdiction)
    key = edge.new_key()
    registered = players.Registered(
        brand=command.brand,
        country=command.country,
        currency=currency(command.currency, "/currency"),
        key=players.DataKey(key.id, key.commitment),
        name=command.name,
        email=command.email,
        phone=command.phone,
        birth_date=_iso(command.birth_date),
        birth_year=command.birth_date.year if command.birth_date else 0,
        external_id=command.external_id,
    )
    happened = occurred(command.occurred, context.now)
    profile = _profile(command, of_registration=True)

    def decide(
        at: datetime, player: players.Player, alike: dict[str, list[str]] | None = None
    ) -> list[players.PlayerEvent]:
        eligibility.require_residency(edge.residency, jurisdiction, edge.log)
        awaiting: tuple[str, ...] = ()
        if not happened:
            eligibility.require_jurisdiction(jurisdiction, command.country)
            eligibility.require_birth_date(jurisdiction, command.birth_date, at)
            awaiting = ("kyc",) if gates.awaits_identity(jurisdiction, at) else ()
        return players.register(
            player, registered=registered, profile=profile, consents=command.consents, alike=alike, awaiting=awaiting
        )

    plan = Plan(
        context,
        require=(Action.PLAYER_REGISTER, Action.HISTORY_IMPORT) if happened else (Action.PLAYER_REGISTER,),
        writes={"player": players.stream(PlayerId(f"player_{suffix}"))},
        fresh=frozenset({"player"}),
        decision=decide,
        answer=_registered,
        owed=Owed(suffix, key, found_by(command, command.external_id)),
        alike=frozenset() if happened else ALIKE,
        introduce=None if happened else introducing(context, holds=True),
        occurred=happened,
        about={"brand": command.brand, "country": command.country},
    )
    id_ = PlayerId(f"player_{suffix}")
    return plan if happened else registering(plan, id_, jurisdiction, edge)


def _registered(facts: Sequence[Fact]) -> PlayerRegistered:
    waits = any(isinstance(fact.event, players.ActivationAwaited) for fact in facts)
    status = players.Status.PENDING if waits else players.Status.ACTIVE
    return PlayerRegistered(f"player_{suffix_in(facts, 'player')}", status)


def index_words(field: str, value: str) -> list[str]:
    """What a personal value is found by: a name by each of its words, anything else as a whole."""
    return value.split() if field == "name" else [value]


def found_by(
    told: Known | players.Registered | players.ProfileRecorded, external_id: str | None = None
) -> list[tuple[str, str]]:
    """(field, value) by which a player is found, of what a command or an opened event tells of them."""
    given = {"name": told.name, "email": told.email, "phone": told.phone, "external_id": external_id}
    found = [
        (field, word)
        for field, value in given.items()
        if value and isinstance(value, str)
        for word in index_words(field, value)
    ]
    if isinstance(told.name, str) and told.birth_date:
        found.append(("person", person_word(told.name, told.birth_date)))
    return found


def _profile(known: Known, *, of_registration: bool) -> players.ProfileRecorded | None:
    """What there is to record; a registration's own event holds some of it. None if there is nothing."""
    profile = players.ProfileRecorded(
        language=known.language or "",
        jurisdiction=known.jurisdiction or "",
        acquisition_source=known.acquisition_source or "",
        device=known.device or "",
        address_country=known.address_country or "",
        street=known.street,
        city=known.city,
        postcode=known.postcode,
        name=None if of_registration else known.name,
        email=None if of_registration else known.email,
        phone=None if of_registration else known.phone,
        birth_date=None if of_registration else _iso(known.birth_date),
        birth_year=0 if of_registration or known.birth_date is None else known.birth_date.year,
    )
    return None if profile == players.ProfileRecorded() else profile


def _iso(day: date | None) -> str | None:
    return day.isoformat() if day else None


def record_profile(player_id: str, command: Known, edge: Edge) -> Plan:
    """Record what is known of a player from now on; what is not given stays. A verified age is doubted if it may be another's.

    Raises NotFound, PlayerClosed, JurisdictionElsewhere, JurisdictionNeeded, KeysElsewhere, BirthDateNeeded, Underage, KeyNotHeld.
    """
    stream = players.stream(PlayerId(player_id))
    profile = _profile(command, of_registration=False)
    if profile is None:
        raise NothingGiven(pointer="")
    words = found_by(command)

    def decide(
        at: datetime, player: players.Player, state: kyc.Kyc, alike: dict[str, list[str]] | None = None
    ) -> list[players.PlayerEvent | kyc.KycEvent]:
        if command.jurisdiction:
            eligibility.require_residency(edge.residency, command.jurisdiction, edge.log)
        return [
            *players.record_profile(player, profile=profile, birth_date=command.birth_date, at=at, alike=alike),
            *kyc.doubt_age(state, player, profile=profile),
        ]

    return Plan(
        edge.context,
        require=(Action.PLAYER_MANAGE,),
        writes={"player": stream, "state": kyc.stream(PlayerId(player_id))},
        decision=decide,
        answer=lambda _facts: PlayerChanged(player_id),
        owed=Owed(player_id.rpartition("_")[2], None, words) if words else None,
        key=lambda player, state: player.sealing_key(),  # noqa: ARG005 — the states come by these names
        alike=ALIKE if words else frozenset(),
        introduce=introducing(edge.context, holds=False) if words else None,
    )


def give_consent(player_id: str, command: Consents, edge: Edge) -> Plan:
    """Record that a player wants to hear of offers. Raises NotFound, PlayerClosed."""
    return Plan(
        edge.context,
        require=(Action.CONSENT_SET,),
        writes={"player": players.stream(PlayerId(player_id))},
        decision=lambda _at, player: players.give_consent(player, channels=command.channels),
        answer=lambda _facts: PlayerChanged(player_id),
    )


def withdraw_consent(player_id: str, command: Consents, edge: Edge) -> Plan:
    """Record that a player does not want to hear of offers; it acts at once. Raises NotFound."""
    return Plan(
        edge.context,
        require=(Action.CONSENT_SET,),
        writes={"player": players.stream(PlayerId(player_id))},
        decision=lambda _at, player: players.withdraw_consent(player, channels=command.channels),
        answer=lambda _facts: PlayerChanged(player_id),
    )


def activate(player_id: str, _command: Nothing, edge: Edge) -> Plan:
    """Let an account that waits or sleeps be used. Raises NotFound, PlayerBlocked, PlayerClosed, GateClosed."""
    return Plan(
        edge.context,
        require=(Action.PLAYER_MANAGE,),
        writes={"player": players.stream(PlayerId(player_id))},
        reads={"kyc": kyc.stream(PlayerId(player_id))},
        decision=lambda at, player, kyc: players.activate(player, identified=kyc.level_at(at).reaches(Level.IDENTITY)),
        answer=lambda _facts: PlayerStatus(player_id, players.Status.ACTIVE),
    )


def block(player_id: str, command: BlockPlayer, edge: Edge) -> Plan:
    """Block a player: deposits stop at once. Raises NotFound, PlayerClosed, Forbidden."""
    return Plan(
        edge.context,
        require=(Action.PLAYER_BLOCK,),
        writes={"player": players.stream(PlayerId(player_id))},
        decision=lambda _at, player: players.block(player, reason=command.reason),
        answer=lambda _facts: PlayerBlocked(player_id, "blocked"),
    )


def unblock(player_id: str, command: UnblockPlayer, edge: Edge) -> Plan:
    """End a block; an account that was waiting waits on. Raises NotFound."""
    return Plan(
        edge.context,
        require=(Action.PLAYER_BLOCK,),
        writes={"player": players.stream(PlayerId(player_id))},
        decision=lambda _at, player: players.unblock(player, reason=command.reason),
        answer=lambda _facts: PlayerChanged(player_id),
    )


def make_dormant(player_id: str, _command: Nothing, edge: Edge) -> Plan:
    """Let an active account that nobody uses sleep, until its player logs in. Raises NotFound."""
    return Plan(
        edge.context,
        require=(Action.PLAYER_MANAGE,),
        writes={"player": players.stream(PlayerId(player_id))},
        decision=lambda _at, player: players.make_dormant(player),
        answer=lambda _facts: PlayerChanged(player_id),
    )


def close(player_id: str, command: ClosePlayer, edge: Edge) -> Plan:
    """Close an account for good; what is in it may still be paid out. Raises NotFound."""
    return Plan(
        edge.context,
        require=(Action.PLAYER_MANAGE,),
        writes={"player": players.stream(PlayerId(player_id))},
        decision=lambda at, player: players.close(player, reason=command.reason, at=at),
        answer=lambda _facts: PlayerStatus(player_id, players.Status.CLOSED),
    )


def _tagging(tag: str) -> tuple[Action, ...]:
    return (Action.PLAYER_MANAGE, Action.PLAYER_FLAG) if tag in WEIGHTY_TAGS else (Action.PLAYER_MANAGE,)


def tag(player_id: str, command: TagPlayer, edge: Edge) -> Plan:
    """Tag a player. Tags on which payouts depend need a right of their own. Raises NotFound, TooManyTags."""
    return Plan(
        edge.context,
        require=_tagging(command.tag),
        writes={"player": players.stream(PlayerId(player_id))},
        decision=lambda _at, player: players.tag(player, tag=command.tag),
        answer=lambda _facts: PlayerChanged(player_id),
    )


def untag(player_id: str, command: TagPlayer, edge: Edge) -> Plan:
    """Take a tag from a player. Raises NotFound."""
    return Plan(
        edge.context,
        require=_tagging(command.tag),
        writes={"player": players.stream(PlayerId(player_id))},
        decision=lambda _at, player: players.untag(player, tag=command.tag),
        answer=lambda _facts: PlayerChanged(player_id),
    )


def note(player_id: str, command: NotePlayer, edge: Edge) -> Plan:
    """Write something down about a player, sealed under their key. Raises NotFound, KeyNotHeld."""
    return Plan(
        edge.context,
        require=(Action.PLAYER_MANAGE,),
        writes={"player": players.stream(PlayerId(player_id))},
        decision=lambda _at, player: players.note(player, text=command.text),
        answer=lambda facts: NoteWritten(facts[0].id, player_id),
        key=lambda player: player.sealing_key(),
    )


_ONE = "/v1/players/{player_id}"
_RULES = (JurisdictionElsewhere, JurisdictionNeeded, KeysElsewhere, BirthDateNeeded, Underage)
_REGISTER = (AlreadyRegistered, UnknownCurrency, *_RULES, PlayerExcluded)
_PROFILE = (NotFound, PlayerClosed, *_RULES, KeyNotHeld)

ENDPOINTS = (
    Endpoint("/v1/players", register, RegisterPlayer, PlayerRegistered, 201, _REGISTER),
    Endpoint(f"{_ONE}/profile", record_profile, Known, PlayerChanged, 200, _PROFILE),
    Endpoint(f"{_ONE}/consents", give_consent, Consents, PlayerChanged, 200, (NotFound, PlayerClosed)),
    Endpoint(f"{_ONE}/consents/withdraw", withdraw_consent, Consents, PlayerChanged, 200, (NotFound,)),
    Endpoint(f"{_ONE}/activate", activate, Nothing, PlayerStatus, 200, (NotFound, Blocked, PlayerClosed, GateClosed)),
    Endpoint(f"{_ONE}/block", block, BlockPlayer, PlayerBlocked, 200, (NotFound, PlayerClosed)),
    Endpoint(f"{_ONE}/unblock", unblock, UnblockPlayer, PlayerChanged, 200, (NotFound,)),
    Endpoint(f"{_ONE}/dormant", make_dormant, Nothing, PlayerChanged, 200, (NotFound,)),
    Endpoint(f"{_ONE}/close", close, ClosePlayer, PlayerStatus, 200, (NotFound,)),
    Endpoint(f"{_ONE}/tags", tag, TagPlayer, PlayerChanged, 200, (NotFound, TooManyTags)),
    Endpoint(f"{_ONE}/tags/remove", untag, TagPlayer, PlayerChanged, 200, (NotFound,)),
    Endpoint(f"{_ONE}/notes", note, NotePlayer, NoteWritten, 201, (NotFound, KeyNotHeld)),
)
