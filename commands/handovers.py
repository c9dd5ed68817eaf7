"""
Handing partitions over to another region: the owner's log releases them, and the other one adopts them as soon as its copy shows
the release (reactions/adopting.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from access.policy import Action
from commands.edge import Edge, Endpoint
from commands.identity import command_id
from commands.plan import Context, Fact, Plan
from commands.services import SYSTEM
from domain import logs, players
from domain.errors import Invalid, NotFound
from domain.kernel import PlayerId
from domain.logs import Adopted, Log, NotOwned, Released
from domain.ownership import Release
from policies.residency import PARTITIONS, Partition

_LogName = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z][a-z0-9]{0,39}(\.[1-9][0-9]{0,3})?\Z", description="Name of a log, e.g. us.")
]


class HandOver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`partitions`: ranges [first, last]; `players`: those of these players, too; `all`: whatever this region owns."""

    to: _LogName
    partitions: Annotated[list[tuple[Partition, Partition]], msgspec.Meta(max_length=len(PARTITIONS))] = []
    players: Annotated[list[str], msgspec.Meta(max_length=len(PARTITIONS))] = []
    all: bool = False


class HandedOver(msgspec.Struct, frozen=True):
    """`partitions`: ranges [first, last, epoch], which this region does not own any more. None: there was nothing to release."""

    to: str
    partitions: Sequence[Sequence[int]]


class AdoptedHere(msgspec.Struct, frozen=True):
    of: str
    partitions: Sequence[Sequence[int]]


def hand_over(command: HandOver, edge: Edge) -> Plan:
    """Release partitions to another region's log. Raises NotOwned, NotFound (no such log is copied here), Invalid, InvalidId."""
    wanted = {each for first, last in command.partitions for each in range(first, last + 1)}
    wanted |= {
        partition for each in command.players if (partition := players.stream(PlayerId(each)).partition) is not None
    }
    if command.all is bool(wanted):
        raise Invalid("name partitions or players, or all of them", pointer="/partitions")
    if command.to == edge.log:
        raise Invalid("the log of another region is to be named", pointer="/to")

    def decide(_at: object, state: Log, other: Log) -> Sequence[Released]:
        if not other.origin:
            raise NotFound(f"no log {command.to} is copied here")
        return logs.release(state, partitions=logs.epochs(state.owned) if command.all else wanted, to=command.to)

    return Plan(
        edge.context,
        require=(Action.REGION_HANDOVER,),
        writes={"state": logs.stream(edge.log)},
        reads={"other": logs.stream(command.to)},
        decision=decide,
        answer=lambda facts: HandedOver(command.to, _released(facts)),
    )


def adopt(log: str, found: Release, context: Context) -> Plan:
    """Take over what was released to this log. The same release is adopted once, however often this is asked."""
    key = f"adopt {found.of}/{found.cut.position} {found.partitions}"
    return Plan(
        msgspec.structs.replace(context, principal=SYSTEM, command_id=command_id(SYSTEM.actor, key), fingerprint=None),
        require=(),
        writes={"state": logs.stream(log)},
        decision=lambda _at, state: logs.adopt(state, released=found.partitions, of=found.of, cut=found.cut),
        answer=lambda facts: AdoptedHere(found.of, _adopted(facts)),
    )


def _released(facts: Sequence[Fact]) -> Sequence[Sequence[int]]:
    return [list(span) for fact in facts if isinstance(fact.event, Released) for span in fact.event.partitions]


def _adopted(facts: Sequence[Fact]) -> Sequence[Sequence[int]]:
    return [list(span) for fact in facts if isinstance(fact.event, Adopted) for span in fact.event.partitions]


ENDPOINTS = (Endpoint("/v1/handovers", hand_over, HandOver, HandedOver, 200, (Invalid, NotFound, NotOwned)),)
