"""
Takes up what other regions, or this one before it owned the player, have recorded to protect a player while the owner could not be
reached: it counts by the player's own streams from then on, games and log-ins end, and timers and the same person's other accounts follow.

    entries of each log, from where it was looked at last ──▶ those of players owned here ──▶ a command for each
    after a start, or when players have come here: every safeguard there is, by pages ──▶ those that nobody has taken up ──▶ likewise

Invariants:
    - what is to be taken up is found in the logs themselves, stranded entries of a lost region included; no read model is asked;
    - its command has the id of the newest fact that it takes up, so that it has one effect whoever runs it and however often;
    - a player whom this region does not own is left to their owner;
    - what is new does not wait for what is old: it is looked for between two pages of that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog

from access.policy import service
from commands.edge import Edge
from commands.identity import command_id
from commands.plan import Context, Plan, Receipt
from commands.safeguards import Look, take_up
from domain import anywhere, limits, players, protection, safeguards
from domain.kernel import AnyStream, PlayerId, partition_of
from eventstore.log import Streams
from eventstore.record import Codec
from reactions.runner import Clock, Patience

ACTOR = "reaction:protection"
PAUSE_S = 0.25
PAGE = 200
"""Of how many players it is looked up at once whether their safeguards were taken up."""

_OF_PLAYER: Sequence[Callable[[PlayerId], AnyStream[Any]]] = (protection.stream, limits.stream, players.stream)
_EARLIER = -1  # nothing of a log was looked at

_log = structlog.get_logger(__name__)


class _Safeguards(NamedTuple):
    """What `log` has recorded of a player, up to a version of that stream."""

    log: str
    stream: str
    version: int

    @property
    def player(self) -> PlayerId:
        return PlayerId("player_" + self.stream.rpartition("_")[2])


class TakingUp:
    """`log`: the one written here. `look`: at states as they are by now."""

    def __init__(
        self,
        log: str,
        streams: Streams,
        codec: Codec,
        decide: Callable[[Plan], Awaitable[Receipt]],
        look: Look,
        edge: Callable[[Context], Edge],
        *,
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self._log = log
        self._streams = streams
        self._codec = codec
        self._decide = decide
        self._look = look
        self._edge = edge
        self._clock = clock
        self._patience = Patience()
        self._owned: frozenset[int] = frozenset()
        self._seen: dict[str, int] = {}  # by log, up to which position
        self._open: dict[str, _Safeguards] = {}
        self._old: deque[_Safeguards] = deque()

    async def step(self) -> None:
        """Take up whatever has come since the last time; the first time, all that was not taken up yet."""
        logs = await self._streams.logs()
        if len(logs) == 1:
            return
        while True:
            await self._find(logs)
            for each in list(self._open.values()):
                await self._take_up(each)
            self._patience.forget_all_but({(each.stream, each.version) for each in self._open.values()})
            if not self._old:
                return
            page = [self._old.popleft() for _ in range(min(PAGE, len(self._old)))]
            for each in await self._not_taken_up([each for each in page if self._is_ours(each.stream)]):
                self._open.setdefault(each.stream, each)  # a newer version may have come meanwhile

    async def _find(self, logs: Sequence[str]) -> None:
        """What is new. Of partitions that were not owned here the last time it is all of it."""
        owned = frozenset(await self._streams.epochs(self._log))
        if owned - self._owned:
            self._seen, self._old = {}, deque()
        self._owned = owned
        self._open = {stream: each for stream, each in self._open.items() if self._is_ours(stream)}
        for log in logs:
            position, found = await self._streams.since(log, self._seen.get(log, _EARLIER), safeguards.prefix(log))
            if log not in self._seen:
                found = await self._streams.beginning(safeguards.prefix(log))
                self._old += [_Safeguards(log, *each) for each in found.items() if self._is_ours(each[0])]
            else:
                self._open |= {each: _Safeguards(log, each, found[each]) for each in found if self._is_ours(each)}
            self._seen[log] = position

    def _is_ours(self, stream: str) -> bool:
        return partition_of(stream) in self._owned

    async def _not_taken_up(self, page: Sequence[_Safeguards]) -> list[_Safeguards]:
        if not page:
            return []
        whose = {each.player for each in page}
        streams: dict[str, AnyStream[Any]] = {
            stream.name: stream for player in whose for stream in (of(player) for of in _OF_PLAYER)
        }
        streams |= {each.stream: safeguards.stream(each.log, each.player) for each in page}
        states = await self._look(streams)
        return [
            each
            for each in page
            if any(
                anywhere.is_open(own.aggregate, states[own.name], {each.log: states[each.stream]})
                for own in (of(each.player) for of in _OF_PLAYER)
            )
        ]

    async def _take_up(self, each: _Safeguards) -> None:
        now = self._clock()
        log, stream, version = each
        if not self._patience.is_over((stream, version), now):
            return
        self._patience.tried((stream, version), now)
        said = _log.bind(player=each.player, of=log)
        try:
            found = await self._streams.load({stream: version - 1})
            fact = self._codec.decode(found[stream][0]).body.id
            context = Context(service(ACTOR, "reaction"), now, command_id(ACTOR, fact), fingerprint=None, cause=fact)
            receipt = await self._decide(take_up(each.player, log, self._edge(context)))
        except Exception:  # noqa: BLE001 — one player's fault must not hold up the others
            said.exception("what protects a player was not taken up; it is tried again")
            return
        del self._open[stream]
        if receipt.position and not receipt.repeated:
            said.info("what protects a player is taken up", position=receipt.position)
