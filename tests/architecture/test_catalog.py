"""No aggregate is forgotten: whatever is a player's is found wherever it is asked what happened to them."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from app.exporting.selection import Choice, person, read_event
from domain.catalog import AGGREGATES, NAMING, OF_PLAYERS
from domain.kernel import Aggregate, Event, PlayerId
from domain.payouts import PAYOUTS
from domain.safeguards import SAFEGUARDS
from domain.suppressions import SUPPRESSIONS
from domain.transactions import TRANSACTIONS
from queries import events, timeline
from queries.history import LISTED, elsewhere_of, streams_of
from replay.timeline import WORDS

SUFFIX = "01m81j18g0e1pa2yb5e8r30c1a"
"""Of the player of the golden events."""
VECTORS = Path(__file__).parents[1] / "vectors" / "events"
OF_PAYMENTS = (TRANSACTIONS, PAYOUTS)
REGIONS = frozenset(
    {"log", "service", "reads", "keys", "access", "policies", "vault", "signin", "bootstrap", "compartment"}
)
"""Aggregates that are of a region, and of no player."""
OF_NO_PLAYER = frozenset({"operator", "token", "sealed", "safeguard"})
"""Others' streams: of people and machines of the house, and of what a compartment keeps to itself; and regions' of a player."""


def lacks(aggregate: Aggregate[Any]) -> set[str]:
    """Where the events of an aggregate are not found, if they are a player's."""
    where = {
        "the catalogue": (aggregate in OF_PLAYERS) != (aggregate in NAMING),
        "the words of the timeline": aggregate.events.keys() <= WORDS.keys(),
    }
    if aggregate in NAMING:
        where |= {
            "the timeline": aggregate in OF_PAYMENTS or f"FROM read.{aggregate.name} " in timeline._HAPPENED,
            "the events": aggregate in OF_PAYMENTS or f"FROM read.{aggregate.name} " in events._OPENED,
            "what is behind the read models": aggregate in OF_PAYMENTS
            or {*NAMING[aggregate]} <= {*events._OPENING_TAGS},
            "the read models": aggregate in OF_PAYMENTS or LISTED.get(aggregate.name) in events._READ_MODELS,
            "exports": all(is_exported(tag) for tag in NAMING[aggregate]),
        }
    else:
        where |= {
            "the timeline and the events": f"{aggregate.name}-{SUFFIX}" in streams_of(PlayerId(f"player_{SUFFIX}")),
            "the keys of exports": person(f"{aggregate.name}-{SUFFIX}") == SUFFIX,
        }
    return {name for name, is_there in where.items() if not is_there}


def is_exported(tag: str) -> bool:
    """By what it says itself: alone, as the first event of its stream."""
    event = read_event(json.loads((VECTORS / f"{tag}.json").read_text())["body"].encode())
    return Choice([SUFFIX], []).wants(event) and not Choice(["01m81j18g0e1pa2yb5e8r30c00"], []).wants(event)


def test_every_aggregate_is_a_regions_or_a_players() -> None:
    of_regions = {each.name for each in AGGREGATES if each.kind is not None and each not in (SUPPRESSIONS, SAFEGUARDS)}
    assert of_regions == REGIONS


def test_what_regions_record_of_a_player_is_found_by_the_names_of_their_logs() -> None:
    stream = f"region-us-protection_{SUFFIX}"
    assert elsewhere_of(PlayerId(f"player_{SUFFIX}"), ["eu", "us"])[1] == stream
    assert SAFEGUARDS.events.keys() <= WORDS.keys()
    assert all(is_exported(tag) for tag in SAFEGUARDS.events)


@pytest.mark.parametrize(
    "aggregate", [each for each in AGGREGATES if each.name not in REGIONS | OF_NO_PLAYER], ids=lambda each: each.name
)
def test_what_is_a_players_is_found_wherever_it_is_asked_for(aggregate: Aggregate[Any]) -> None:
    assert lacks(aggregate) == set()


def test_the_next_aggregate_cannot_be_forgotten() -> None:
    class Begun(Event, frozen=True, tag="campaign.begun"):
        pass

    def evolve(state: int, _event: Event, _at: datetime) -> int:
        return state

    forgotten = Aggregate("campaign", initial=0, evolve=evolve, events=[Begun])
    assert lacks(forgotten) == {
        "the catalogue", "the words of the timeline", "the timeline and the events", "the keys of exports",
    }  # fmt: skip
