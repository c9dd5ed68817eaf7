"""
The first administrators: before anybody is there who could invite them, whoever runs the deployment does, once ever. On one
stream of the region, `region-<region>-bootstrap`. And further ones, if fewer than two are left: then nobody inside could.

Invariants:
    - the first ones are made once; a second time is refused;
    - nobody is made so while two administer without an end.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from domain.errors import Conflict
from domain.kernel import EPOCH, Aggregate, Event, OperatorId, RegionStream

# Events: the tags and fields are the storage format.


class Made(Event, frozen=True, tag="bootstrap.made"):
    """These operators are invited as administrators, by nobody."""

    operators: tuple[OperatorId, ...]


class Recovered(Event, frozen=True, tag="bootstrap.recovered"):
    """These operators are invited as administrators, by nobody, since fewer than two were left without those in `suspended`, who
    are suspended with it.
    """

    operators: tuple[OperatorId, ...]
    suspended: tuple[OperatorId, ...] = ()


# State


class Bootstrap(msgspec.Struct, frozen=True):
    operators: tuple[OperatorId, ...] = ()
    at: datetime = EPOCH


def evolve(bootstrap: Bootstrap, event: Made | Recovered, at: datetime) -> Bootstrap:
    return Bootstrap(event.operators, at) if isinstance(event, Made) else bootstrap


BOOTSTRAPS = Aggregate("bootstrap", kind="bootstrap", initial=Bootstrap(), evolve=evolve, events=[Made, Recovered])


def stream(region: str) -> RegionStream[Bootstrap]:
    return RegionStream(BOOTSTRAPS, region)


# Decisions


class AlreadyBootstrapped(Conflict):
    """Facts: operators."""

    code = "already_bootstrapped"
    title = "There have been administrators: they invite the others"


class NotLost(Conflict):
    """Facts: administrators."""

    code = "not_lost"
    title = "Two people administer: they invite the others"


def recover(administrators: Mapping[OperatorId, str], *, recovered: Recovered) -> list[Recovered]:
    """Make further ones. `administrators`: who is active and administers without an end, with the person behind. Raises NotLost."""
    left = {person for id_, person in administrators.items() if id_ not in recovered.suspended}
    if len(left) >= 2:  # noqa: PLR2004 — four eyes
        raise NotLost(administrators=sorted(administrators))
    return [recovered]


def make(bootstrap: Bootstrap, *, operators: tuple[OperatorId, ...]) -> list[Made]:
    """Raises AlreadyBootstrapped."""
    if bootstrap.operators:
        raise AlreadyBootstrapped(operators=bootstrap.operators)
    return [Made(operators)]
