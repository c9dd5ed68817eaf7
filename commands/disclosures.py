"""Commands on disclosures: hand players' data keys to somebody outside."""

from __future__ import annotations

from typing import Annotated

import msgspec
from pyrage import RecipientError, x25519

from access.policy import Action
from commands.edge import Edge, Endpoint, Word, whole
from commands.plan import Plan
from domain import disclosures, players
from domain.disclosures import PLAYERS_MAX
from domain.errors import Invalid, NotFound
from domain.kernel import PlayerId

Recipient = Annotated[str, whole("age1[02-9ac-hj-np-z]{58}", "An age recipient, of type X25519.")]


class DiscloseKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`reason`: a word, such as the file number of an order; it stands in the log, in the clear and for ever."""

    recipient: Recipient
    reason: Word
    players: Annotated[list[str], msgspec.Meta(min_length=1, max_length=PLAYERS_MAX)]


class Disclosure(msgspec.Struct, frozen=True):
    """`disclosure`: the id of the event; the keys are at /v1/disclosures/<id>."""

    disclosure: str
    keys: int


def disclose(command: DiscloseKeys, edge: Edge) -> Plan:
    """Disclose the data keys of players to an age recipient. Raises NotFound, WrongRegion, Forbidden."""
    try:
        x25519.Recipient.from_str(command.recipient)
    except RecipientError:
        raise Invalid("the recipient's checksum is wrong", pointer="/recipient") from None
    streams = {player: players.stream(PlayerId(player)) for player in command.players}
    return Plan(
        edge.context,
        require=(Action.KEYS_DISCLOSE,),
        writes={"disclosures": disclosures.stream(edge.log)},
        reads=streams,
        decision=lambda _at, disclosures, **states: _disclose(command, states),  # noqa: ARG005 — every disclosure is new
        answer=lambda facts: Disclosure(facts[0].id, len(streams)),
    )


def _disclose(command: DiscloseKeys, states: dict[str, players.Player]) -> list[disclosures.KeysDisclosed]:
    named = {PlayerId(player): state for player, state in states.items()}
    return disclosures.disclose(named, recipient=command.recipient, reason=command.reason)


ENDPOINTS = (Endpoint("/v1/disclosures", disclose, DiscloseKeys, Disclosure, 201, (NotFound,)),)
