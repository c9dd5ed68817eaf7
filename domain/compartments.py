"""
Compartments: who may know of matters of which the rest of the house must not learn, such as a report of suspected money
laundering. What is recorded inside is `domain/sealed.py`; here stands who is inside. Each is a stream of the region that holds
its key, `region-<region>-compartment_<suffix>`; the suffix follows from its name.

That a compartment exists, its name and who is inside stand in the log in the clear, for auditors. What it is about does not.

Invariants:
    - nobody is inside on one person's word: who else is let in is proposed by one person and confirmed by another;
    - what is confirmed is what was proposed: whoever confirms names everybody;
    - to put somebody out takes one person, at once;
    - nothing is recorded inside before the compartment is open, and its one key stays the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

import msgspec

from domain.approvals import SamePerson
from domain.errors import Conflict, Forbidden, NotFound
from domain.kernel import Aggregate, Event, RegionStream, suffix
from domain.players import DataKey

MEMBERS_MAX = 50

# Events: the tags and fields are the storage format.


class Founded(Event, frozen=True, tag="compartment.founded"):
    """A compartment is to be opened for `members` (actors). `key`: its own data key. `person`: who is behind whoever asks."""

    name: str
    key: DataKey
    members: tuple[str, ...]
    person: str


class MembersProposed(Event, frozen=True, tag="compartment.members_proposed"):
    """From now on these are to be inside, and nobody else. `person`: who is behind whoever asks."""

    members: tuple[str, ...]
    person: str


class MembersConfirmed(Event, frozen=True, tag="compartment.members_confirmed"):
    """A second person agreed: these are inside. `person`: who is behind them."""

    members: tuple[str, ...]
    person: str


class MemberRemoved(Event, frozen=True, tag="compartment.member_removed"):
    """`member` is not inside any more, nor proposed."""

    member: str


CompartmentEvent = Founded | MembersProposed | MembersConfirmed | MemberRemoved


# State


class Status(StrEnum):
    UNKNOWN = "unknown"
    AWAITING = "awaiting_second_person"
    OPEN = "open"


class Compartment(msgspec.Struct, frozen=True):
    """`members`: who is inside. `proposed`: who is to be, by the word of `person`; None: nothing is proposed."""

    name: str = ""
    key: DataKey = DataKey("", "")
    members: tuple[str, ...] = ()
    proposed: tuple[str, ...] | None = None
    person: str = ""
    open: bool = False

    @property
    def status(self) -> Status:
        if not self.name:
            return Status.UNKNOWN
        return Status.OPEN if self.open else Status.AWAITING

    def sealing_key(self) -> tuple[str, str]:
        """The id of the compartment's key, and what it is committed to. Raises NotInside."""
        if not self.open:
            raise NotInside
        return self.key.id, self.key.commitment

    def require(self, actor: str) -> None:
        """Raises NotInside, the same whether there is no such compartment, or it is another's."""
        if not self.open or actor not in self.members:
            raise NotInside


def evolve(compartment: Compartment, event: CompartmentEvent, _at: datetime) -> Compartment:
    match event:
        case Founded():
            return Compartment(event.name, event.key, (), event.members, event.person)
        case MembersProposed():
            return msgspec.structs.replace(compartment, proposed=event.members, person=event.person)
        case MembersConfirmed():
            return msgspec.structs.replace(compartment, members=event.members, proposed=None, person="", open=True)
        case MemberRemoved(member):
            return msgspec.structs.replace(
                compartment,
                members=_without(compartment.members, member),
                proposed=None if compartment.proposed is None else _without(compartment.proposed, member),
            )


def _without(members: Sequence[str], member: str) -> tuple[str, ...]:
    return tuple(each for each in members if each != member)


COMPARTMENTS = Aggregate(
    "compartment",
    kind="compartment",
    initial=Compartment(),
    evolve=evolve,
    events=[Founded, MembersProposed, MembersConfirmed, MemberRemoved],
)


def stream(region: str, name: str) -> RegionStream[Compartment]:
    """The compartment's own stream. Its suffix is the beginning of SHA-256(name), as a UUID is written."""
    return RegionStream(COMPARTMENTS, region, suffix(hashlib.sha256(name.encode()).digest()[:16]))


# Decisions


class NotInside(Forbidden):
    """Without facts: whether there is such a compartment is nothing to whoever is not inside."""

    code = "not_inside"
    title = "Only who is inside a compartment reads and writes there"


class CompartmentExists(Conflict):
    code = "compartment_exists"
    title = "A compartment of this region has this name already"


class ProposalDiffers(Conflict):
    """Facts: proposed."""

    code = "proposal_differs"
    title = "These are not the people who were proposed; read the compartment again"


def found(compartment: Compartment, *, founded: Founded) -> list[CompartmentEvent]:
    """Ask for a compartment. Raises CompartmentExists."""
    if compartment.name:
        raise CompartmentExists
    return [founded]


def propose(compartment: Compartment, *, members: tuple[str, ...], person: str) -> list[CompartmentEvent]:
    """Ask that exactly these are inside; what was proposed before and not confirmed falls away. Raises NotFound."""
    _refuse_unknown(compartment)
    return [MembersProposed(members, person)]


def confirm(compartment: Compartment, *, members: tuple[str, ...], person: str) -> list[CompartmentEvent]:
    """Agree, as another person than who proposed them. Raises NotFound, SamePerson, ProposalDiffers."""
    _refuse_unknown(compartment)
    if compartment.proposed is None:
        if members == compartment.members:
            return []
        raise ProposalDiffers(proposed=[])
    if person == compartment.person:
        raise SamePerson("another person than who proposed them confirms who is inside")
    if members != compartment.proposed:
        raise ProposalDiffers(proposed=list(compartment.proposed))
    return [MembersConfirmed(members, person)]


def remove(compartment: Compartment, *, member: str) -> list[CompartmentEvent]:
    """Put somebody out. Raises NotFound."""
    _refuse_unknown(compartment)
    return [MemberRemoved(member)] if member in (*compartment.members, *(compartment.proposed or ())) else []


def _refuse_unknown(compartment: Compartment) -> None:
    if not compartment.name:
        raise NotFound("no such compartment")
