"""
What the log says by now of a player's streams, past all read models: for questions whose answer must not lag.

Invariants:
    - the state is that of all entries which stood in the log when it was asked; a snapshot is where the fold begins, if it counts;
    - what protects a player counts wherever it was recorded (domain/anywhere.py).
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from domain import anywhere, safeguards
from domain.catalog import AGGREGATES
from domain.kernel import Aggregate, AnyStream, PlayerId
from domain.safeguards import SAFEGUARDS, Safeguards
from eventstore.log import Resumed, state_schema
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
    held = PostgresStreams(context.pool)
    logs = await held.logs()
    beside = {each.name: anywhere.beside(each, logs) for each in streams} if len(logs) > 1 else {}
    wanted: dict[str, AnyStream[Any]] = {each.name: each for each in streams}
    wanted.update({each.name: each for found in beside.values() for each in found.values()})
    resumed = await held.resume({name: state_schema(each.aggregate) for name, each in wanted.items()})
    states = {name: _fold(each.aggregate, resumed[name]) for name, each in wanted.items()}
    for stream in streams:
        if found := beside.get(stream.name):
            elsewhere = {log: states[each.name] for log, each in found.items()}
            states[stream.name] = anywhere.included(stream.aggregate, states[stream.name], elsewhere)
    return [states[stream.name] for stream in streams]


async def safeguards_of(context: Context, player_id: PlayerId) -> dict[str, Safeguards]:
    """By log, what was recorded of a player without their owner; nothing where one log is held."""
    held = PostgresStreams(context.pool)
    logs = await held.logs()
    streams = {log: safeguards.stream(log, player_id) for log in logs} if len(logs) > 1 else {}
    resumed = await held.resume({each.name: state_schema(SAFEGUARDS) for each in streams.values()}) if streams else {}
    return {log: _fold(SAFEGUARDS, resumed[each.name]) for log, each in streams.items()}


def _fold(aggregate: Aggregate[Any], resumed: Resumed) -> Any:
    snapshot, entries = resumed
    state = msgspec.json.decode(snapshot.state, type=aggregate.state) if snapshot else aggregate.initial
    for entry in entries:
        read = _CODEC.decode(entry)
        state = aggregate.evolve(state, read.event, read.at)
    return state
