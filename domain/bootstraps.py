"""
The first administrators: before anybody is there who could invite them, whoever runs the deployment does, once ever. On one
stream of the region, `region-<region>-bootstrap`.

Invariant: it happens once; a second one is refused.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from domain.errors import Conflict
from domain.kernel import EPOCH, Aggregate, Event, OperatorId, RegionStream

# Events: the tags and fields are the storage format.


class Made(Event, frozen=True, tag="bootstrap.made"):
    """These operators are invited as administrators, by nobody."""

    operators: tuple[OperatorId, ...]


# State


class Bootstrap(msgspec.Struct, frozen=True):
    operators: tuple[OperatorId, ...] = ()
    at: datetime = EPOCH


def evolve(_bootstrap: Bootstrap, event: Made, at: datetime) -> Bootstrap:
    return Bootstrap(event.operators, at)


BOOTSTRAPS = Aggregate("bootstrap", kind="bootstrap", initial=Bootstrap(), evolve=evolve, events=[Made])


def stream(region: str) -> RegionStream[Bootstrap]:
    return RegionStream(BOOTSTRAPS, region)


# Decisions


class AlreadyBootstrapped(Conflict):
    """Facts: operators."""

    code = "already_bootstrapped"
    title = "There have been administrators: they invite the others"


def make(bootstrap: Bootstrap, *, operators: tuple[OperatorId, ...]) -> list[Made]:
    """Raises AlreadyBootstrapped."""
    if bootstrap.operators:
        raise AlreadyBootstrapped(operators=bootstrap.operators)
    return [Made(operators)]
