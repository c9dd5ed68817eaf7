"""
Commands on compartments: who is inside, and what is recorded there.

Invariants:
    - the envelope of an entry names the compartment in place of whoever acts, and no trace; both would tell of somebody;
    - an entry is found by a keyed hash of its player under the compartment's own key, which is kept in the vault and never in
      the log;
    - the player is a condition of the append, and nothing of them changes.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Annotated

import msgspec

from access.policy import Action
from commands.approvals import PersonNeeded
from commands.edge import Edge, Endpoint, Word, suffix_in, whole
from commands.plan import Plan
from domain import compartments, players, sealed
from domain.approvals import SamePerson
from domain.compartments import (
    MEMBERS_MAX,
    Compartment,
    CompartmentEvent,
    CompartmentExists,
    Founded,
    ProposalDiffers,
    Status,
)
from domain.errors import NotFound
from domain.kernel import PlayerId
from domain.players import DataKey
from domain.players import Player as PlayerState
from domain.sealed import CaseNote, CaseRead, Inside, Recorded, Secret
from eventstore.vault import DataKey as OwnKey
from eventstore.vault import Owed

PATH = "/v1/compartments"
UNMEASURED = f"{PATH}/"
"""How the paths begin of what neither metrics nor traces count: they would tell outside how much is done inside."""

NOTES, READS = "notes", "reads"
"""What there is of a player inside, and is found by."""

FIELD = "sealed"
"""The field of the blind index."""

Actor = Annotated[
    str,
    whole(
        "(operator:[0-7][0-9a-hjkmnp-tv-z]{25}|[a-z]+:[a-z0-9][a-z0-9_.-]{0,39})",
        "As whom they act: operator:<26 characters>.",
    ),
]
Members = Annotated[list[Actor], msgspec.Meta(min_length=1, max_length=MEMBERS_MAX)]


class FoundCompartment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`name` stands in the log in the clear and for ever: a word that says nothing of a case or a person."""

    name: Word
    members: Members


class ProposeMembers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everybody who is to be inside; whoever is not named is not."""

    members: Members


class ConfirmMembers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exactly those who were proposed."""

    members: Members


class RemoveMember(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    member: Actor


class WriteCaseNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: Annotated[
        str, msgspec.Meta(min_length=1, max_length=2000, description="Sealed under the compartment's own key.")
    ]


class CompartmentChanged(msgspec.Struct, frozen=True):
    compartment: str
    status: Status


class CaseNoted(msgspec.Struct, frozen=True):
    entry: str


# Who is inside


def found(command: FoundCompartment, edge: Edge) -> Plan:
    """Ask for a compartment; it opens when another person confirms who is inside. Raises CompartmentExists, Forbidden."""
    key, name = edge.new_key(), command.name
    founded = Founded(name, DataKey(key.id, key.commitment), _set(command.members), edge.context.principal.behind)
    return Plan(
        edge.context,
        require=(Action.COMPARTMENT_MANAGE,),
        writes={"compartment": compartments.stream(edge.log, name)},
        decision=lambda _at, compartment: compartments.found(compartment, founded=founded),
        answer=lambda _facts: CompartmentChanged(name, Status.AWAITING),
        owed=Owed(f"compartment:{name}", key, ()),
    )


def propose(compartment: str, command: ProposeMembers, edge: Edge) -> Plan:
    """Propose who is to be inside; nothing changes until another person confirms it. Raises NotFound, Forbidden."""
    members, person = _set(command.members), edge.context.principal.behind
    return Plan(
        edge.context,
        require=(Action.COMPARTMENT_MANAGE,),
        writes={"state": compartments.stream(edge.log, compartment)},
        decision=lambda _at, state: compartments.propose(state, members=members, person=person),
        answer=lambda _facts: CompartmentChanged(compartment, Status.AWAITING),
    )


def confirm(compartment: str, command: ConfirmMembers, edge: Edge) -> Plan:
    """Confirm who is to be inside, as another person than who proposed it.

    Raises NotFound, SamePerson, PersonNeeded, ProposalDiffers, Forbidden.
    """
    principal, members = edge.context.principal, _set(command.members)

    def decision(_at: object, state: Compartment) -> Sequence[CompartmentEvent]:
        if not principal.human:
            raise PersonNeeded
        return compartments.confirm(state, members=members, person=principal.behind)

    return Plan(
        edge.context,
        require=(Action.COMPARTMENT_MANAGE,),
        writes={"state": compartments.stream(edge.log, compartment)},
        decision=decision,
        answer=lambda _facts: CompartmentChanged(compartment, Status.OPEN),
    )


def remove(compartment: str, command: RemoveMember, edge: Edge) -> Plan:
    """Put somebody out, at once. Raises NotFound, Forbidden."""
    return Plan(
        edge.context,
        require=(Action.COMPARTMENT_MANAGE,),
        writes={"state": compartments.stream(edge.log, compartment)},
        decision=lambda _at, state: compartments.remove(state, member=command.member),
        answer=lambda _facts: CompartmentChanged(compartment, Status.OPEN),
    )


def _set(members: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(members)))


# What is recorded inside


def note(compartment: str, player_id: str, command: WriteCaseNote, edge: Edge, key: OwnKey) -> Plan:
    """Write a note on a player. `key`: the compartment's. Raises NotInside, NotFound, WrongRegion, KeyNotHeld, Forbidden."""
    who = edge.context.principal
    written = CaseNote(who.actor, who.person, PlayerId(player_id), command.text)
    return _inside(compartment, written, edge, key, Action.SECRET_WRITE, NOTES)


def read(compartment: str, player_id: str, what: str, edge: Edge, key: OwnKey) -> Plan:
    """Record that somebody is let see NOTES or READS on a player, whichever region owns them by now. `key`: the compartment's.

    Raises NotInside, NotFound, KeyNotHeld, Forbidden.
    """
    who = edge.context.principal
    seen = CaseRead(who.actor, who.person, PlayerId(player_id), what)
    made = _inside(compartment, seen, edge, key, Action.SECRET_READ, READS)
    return msgspec.structs.replace(made, wherever=frozenset({"player"}))


def _inside(name: str, secret: Secret, edge: Edge, key: OwnKey, action: Action, kind: str) -> Plan:
    context, player_stream = edge.context, players.stream(secret.player)
    actor, suffix = context.principal.actor, edge.new_own()

    def decide(_at: object, entry: Inside, compartment: Compartment, player: PlayerState) -> Sequence[Recorded]:  # noqa: ARG001 — it is new
        compartment.require(actor)
        player.require()
        return [Recorded(name, sealed.closed(secret))]

    nobody = context.principal._replace(actor=f"compartment:{name}", person="")
    return Plan(
        msgspec.structs.replace(context, principal=nobody, trace=None, cause=None),
        require=(action,),
        writes={"entry": sealed.stream(f"sealed_{suffix}")},
        reads={"compartment": compartments.stream(edge.log, name), "player": player_stream},
        decision=decide,
        answer=lambda facts: CaseNoted(f"sealed_{suffix_in(facts, 'sealed')}"),
        fresh=frozenset({"entry"}),
        owed=Owed(suffix, None, [(FIELD, word(key, kind, secret.player))]),
        key=lambda compartment, **_states: compartment.sealing_key(),
    )


def word(key: OwnKey, kind: str, player_id: PlayerId) -> str:
    """By which entries of a kind on a player are found: nobody makes it without the compartment's key."""
    index = hmac.digest(key.key, b"countroom/compartment-index/v1", "sha256")
    return hmac.digest(index, f"{kind}\n{player_id}".encode(), "sha256").hex()


_ONE = f"{PATH}/{{compartment}}"
ENDPOINTS = (
    Endpoint(PATH, found, FoundCompartment, CompartmentChanged, 201, (CompartmentExists,)),
    Endpoint(f"{_ONE}/members", propose, ProposeMembers, CompartmentChanged, 200, (NotFound,)),
    Endpoint(
        f"{_ONE}/confirm",
        confirm,
        ConfirmMembers,
        CompartmentChanged,
        200,
        (NotFound, SamePerson, PersonNeeded, ProposalDiffers),
    ),
    Endpoint(f"{_ONE}/remove", remove, RemoveMember, CompartmentChanged, 200, (NotFound,)),
)
