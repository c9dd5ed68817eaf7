"""
Takes up what other regions, or this one before it owned the player, have recorded to protect a player while the owner could not be
reached: it counts by the player's own streams from then on, games and log-ins end, and timers and the same person's other accounts follow.

Invariants:
    - what is to be taken up is found in the logs themselves, stranded entries of a lost region included; no read model is asked;
    - its command has the id of the newest fact that it takes up, so that it has one effect whoever runs it and however often;
    - a player whom this region does not own is left to their owner.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog

from access.policy import service
from commands.edge import Edge
from commands.identity import command_id
from commands.plan import Context, Plan, Receipt
from commands.safeguards import take_up
from domain import safeguards
from domain.kernel import PlayerId, partition_of
from eventstore.log import Streams
from eventstore.record import Codec
from reactions.runner import Clock, Patience

ACTOR = "reaction:protection"
PAUSE_S = 0.25

_log = structlog.get_logger(__name__)


class TakingUp:
    """`log`: the one written here."""

    def __init__(
        self,
        log: str,
        streams: Streams,
        codec: Codec,
        decide: Callable[[Plan], Awaitable[Receipt]],
        edge: Callable[[Context], Edge],
        *,
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self._log = log
        self._streams = streams
        self._codec = codec
        self._decide = decide
        self._edge = edge
        self._clock = clock
        self._patience = Patience()
        self._done: dict[str, int] = {}

    async def step(self) -> None:
        """Take up whatever has come since the last time; all that ever came, the first time."""
        logs = await self._streams.logs()
        if len(logs) == 1:
            return
        owned = await self._streams.epochs(self._log)
        for log in logs:
            found = await self._streams.beginning(safeguards.prefix(log))
            for stream, version in found.items():
                if version > self._done.get(stream, 0) and partition_of(stream) in owned:
                    await self._take_up(log, stream, version)
        self._done = {stream: version for stream, version in self._done.items() if partition_of(stream) in owned}

    async def _take_up(self, log: str, stream: str, version: int) -> None:
        now = self._clock()
        if not self._patience.is_over((stream, version), now):
            return
        self._patience.tried((stream, version), now)
        player = PlayerId("player_" + stream.rpartition("_")[2])
        said = _log.bind(player=player, of=log)
        try:
            found = await self._streams.load({stream: version - 1})
            fact = self._codec.decode(found[stream][0]).body.id
            context = Context(service(ACTOR, "reaction"), now, command_id(ACTOR, fact), fingerprint=None, cause=fact)
            receipt = await self._decide(take_up(player, log, self._edge(context)))
        except Exception:  # noqa: BLE001 — one player's fault must not hold up the others
            said.exception("what protects a player was not taken up; it is tried again")
            return
        self._done[stream] = version
        if receipt.position and not receipt.repeated:
            said.info("what protects a player is taken up", position=receipt.position)
