"""
Registers of the excluded that did not answer are asked again, each question at its time.

    register silent ──▶ at its time, the register ──▶ one command ──▶ [register asked]

Invariants:
    - killed at any step, the reaction goes on from the log: each command has one effect by its id;
    - a register that takes its time holds up no other reaction, and of its own players AT_ONCE at a time; IN_HAND_MAX are waited
      for together;
    - nobody is asked about who was asked about since, and no register is asked within a decision.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec
import structlog

from access.policy import service
from commands.asking import Asking
from commands.edge import Edge
from commands.identity import command_id
from commands.plan import Context, Plan, Receipt
from commands.registers import hear_register
from domain import protection
from domain.errors import Rejected
from domain.kernel import PlayerId
from domain.protection import RegisterAsked
from eventstore.log import Streams
from eventstore.record import Codec
from projections.duties import REGISTER
from reactions import pending
from reactions.pending import Pending, Pool
from reactions.runner import Clock, Patience, UnderWay

ACTOR = "reaction:registers"
AT_ONCE = 16
IN_HAND_MAX = 500
LINGER_S = 1.0

_log = structlog.get_logger(__name__)


class Registers:
    """Asks for the partitions that `log` owns. What waits for a register goes on beside the next steps, until `close`."""

    def __init__(
        self,
        log: str,
        pool: Pool,
        streams: Streams,
        codec: Codec,
        decide: Callable[[Plan], Awaitable[Receipt]],
        edge: Callable[[Context], Edge],
        asking: Asking,
        *,
        clock: Clock = lambda: datetime.now(UTC),
        linger_s: float = LINGER_S,
    ) -> None:
        self._log = log
        self._pool = pool
        self._streams = streams
        self._codec = codec
        self._decide = decide
        self._edge = edge
        self._asking = asking
        self._clock = clock
        self._patience = Patience()
        self._under_way: UnderWay[Pending] = UnderWay(linger_s)
        self._reading = asyncio.Semaphore(AT_ONCE)
        self._lanes: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))

    async def step(self) -> None:
        """Begin whatever is due and was not tried just now, the oldest first, and wait a moment for it."""
        owned = await self._streams.epochs(self._log)
        open_: set[Pending] = set()
        now = self._clock()
        async for page in pending.pages(self._pool, (REGISTER,), owned, now):
            open_.update(page)
            for each in page:
                is_free = each not in self._under_way and len(self._under_way) < IN_HAND_MAX
                if is_free and self._patience.is_over(each, now):
                    self._patience.tried(each, now)
                    self._under_way.begin(each, self._do(each))
        self._patience.forget_all_but(open_)
        await self._under_way.linger()

    async def close(self) -> None:
        """Wait for nobody any more. Whoever goes on asks again."""
        await self._under_way.close()

    async def _do(self, each: Pending) -> None:
        player = PlayerId(f"player_{each.suffix}")
        said = _log.bind(kind=each.kind, player=player)
        try:
            async with self._reading:
                silent = await self._silent(player, each)
            if silent is not None:
                async with self._lanes[silent.register]:
                    await self._ask_again(player, each)
        except Rejected as refused:
            said.warning("refused; it is tried again", code=refused.code, detail=refused.detail)
        except Exception:  # noqa: BLE001 — one player's fault must not hold up the others
            said.exception("a register was not asked; it is tried again")

    async def _ask_again(self, player: PlayerId, each: Pending) -> None:
        """Ask, if the log still says so: it may have been a long wait."""
        silent = await self._silent(player, each)
        if silent is None:
            return
        answers = await self._asking.of_player(player, silent.moment)
        edge = msgspec.structs.replace(self._as(each), asked=answers, unasked=self._asking.unasked)
        await self._decide(hear_register(player, silent.moment, edge))

    async def _silent(self, player: PlayerId, each: Pending) -> RegisterAsked | None:
        """The question that was not answered, if none was asked since."""
        stream = protection.stream(player).name
        read = [self._codec.decode(entry) for entry in (await self._streams.load({stream: 0})).get(stream, ())]
        asked = [(recorded.body.id, recorded.event) for recorded in read if isinstance(recorded.event, RegisterAsked)]
        return asked[-1][1] if asked and asked[-1][0] == each.cause else None

    def _as(self, each: Pending) -> Edge:
        """As which command."""
        key = f"{each.cause}\nregister\n{each.due_at.isoformat()}"
        context = Context(
            service(ACTOR, "reaction"), self._clock(), command_id(ACTOR, key), fingerprint=None, cause=each.cause
        )
        return self._edge(context)
