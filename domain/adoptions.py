"""
Adopting policies: which policies of access may be in force in a region, by the hash of their files. On one stream of the region,
`region-<region>-policies`.

One person proposes a hash, another adopts it (four eyes). The files come with a release; what they say stands there.

Invariants:
    - nobody adopts what they have proposed themselves, under whichever account;
    - what is adopted was proposed, and is named by its hash;
    - a later proposal takes the place of one that waits.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from domain.errors import Forbidden, NotFound
from domain.kernel import Aggregate, Event, RegionStream

# Events: the tags and fields are the storage format.


class Proposed(Event, frozen=True, tag="policies.proposed"):
    """Somebody wants policies with this hash in force. `person`: who is behind the actor."""

    hash: str
    person: str


class Adopted(Event, frozen=True, tag="policies.adopted"):
    """A second person agreed. `person`: who is behind the actor; `proposer`: who was behind the proposal."""

    hash: str
    person: str
    proposer: str


AdoptionEvent = Proposed | Adopted


# State


class Adoptions(msgspec.Struct, frozen=True):
    """`adopted`: the hash that may be in force, "" if none was ever adopted. `proposed`: what waits, and who wants it."""

    adopted: str = ""
    proposed: str = ""
    proposer: str = ""


def evolve(adoptions: Adoptions, event: AdoptionEvent, _at: object) -> Adoptions:
    match event:
        case Proposed():
            return Adoptions(adoptions.adopted, event.hash, event.person)
        case Adopted():
            return Adoptions(event.hash)


ADOPTIONS = Aggregate("policies", kind="policies", initial=Adoptions(), evolve=evolve, events=[Proposed, Adopted])


def stream(region: str) -> RegionStream[Adoptions]:
    return RegionStream(ADOPTIONS, region)


# Decisions


class OwnProposal(Forbidden):
    code = "own_proposal"
    title = "Nobody adopts the policies that they have proposed themselves"


def propose(adoptions: Adoptions, *, hash: str, person: str) -> Sequence[AdoptionEvent]:  # noqa: A002 — its name
    """Ask a second person. What is adopted, or was proposed by them already, needs no further event."""
    if hash == adoptions.adopted or (adoptions.proposed, adoptions.proposer) == (hash, person):
        return []
    return [Proposed(hash, person)]


def adopt(adoptions: Adoptions, *, hash: str, person: str) -> Sequence[AdoptionEvent]:  # noqa: A002 — its name
    """Agree. Raises NotFound unless this hash waits, OwnProposal."""
    if hash == adoptions.adopted:
        return []
    if hash != adoptions.proposed:
        raise NotFound("nobody has proposed policies with this hash, or others since")
    if person == adoptions.proposer:
        raise OwnProposal
    return [Adopted(hash, person, adoptions.proposer)]
