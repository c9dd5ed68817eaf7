"""
What the log says by now of a player's streams, past all read models: for questions whose answer must not lag.

Invariant: the state is that of all entries which stood in the log when it was asked; a snapshot is where the fold begins, if it
counts.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from domain.catalog import AGGREGATES
from domain.kernel import AnyStream
from eventstore.log import state_schema
from eventstore.postgres import PostgresStreams
from eventstore.record import Codec
from queries.context import Context

S = TypeVar("S")

_CODEC = Codec(AGGREGATES)


async def folded(context: Context, stream: AnyStream[S]) -> S:
    """The stream's state."""
    [state] = await together(context, stream)
    found: S = state
    return found


async def together(context: Context, *streams: AnyStream[Any]) -> list[Any]:
    """The states of several streams, in their order, of one moment."""
    resumed = await PostgresStreams(context.pool).resume({each.name: state_schema(each.aggregate) for each in streams})
    states = []
    for stream in streams:
        snapshot, entries = resumed[stream.name]
        aggregate = stream.aggregate
        state = msgspec.json.decode(snapshot.state, type=aggregate.state) if snapshot else aggregate.initial
        for entry in entries:
            read = _CODEC.decode(entry)
            state = aggregate.evolve(state, read.event, read.at)
        states.append(state)
    return states
