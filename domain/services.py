"""
Services: which program took a region's commands from when on, and by which rules, so that a decision can be explained by the
rules of its time. All on one stream of the region, `region-<region>-services`.

Invariant: a process that takes commands has recorded its start before the first of them.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from domain.kernel import EPOCH, Aggregate, Event, RegionStream

# Events: the tags and fields are the storage format.


class Started(Event, frozen=True, tag="service.started"):
    """A service started. `service`: the role; `program`: its version; `code`: of domain, policies and projections (projections/version.py).

    `policies`: SHA-256, in hex, of each set of rules in force, by its name.
    """

    service: str
    program: str
    code: str
    policies: dict[str, str]


# State


class Services(msgspec.Struct, frozen=True):
    """The newest start, and how many there were."""

    starts: int = 0
    newest: Started | None = None
    at: datetime = EPOCH


def evolve(services: Services, event: Started, at: datetime) -> Services:
    return Services(services.starts + 1, event, at)


SERVICES = Aggregate("service", kind="services", initial=Services(), evolve=evolve, events=[Started])


def stream(region: str) -> RegionStream[Services]:
    return RegionStream(SERVICES, region)


# Decisions


def start(_services: Services, *, started: Started) -> list[Started]:
    """Each start is recorded, also one that is like the one before."""
    return [started]
