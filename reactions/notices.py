"""
Notices: what a rule has found becomes a notice, with what has to happen by itself.

The projection `findings` tails the logs and folds every player's events (domain.findings); a row of read.finding stands for what
was found and is no notice yet. So what is pending survives any process, and a successor has it.

Invariants:
    - a command's id is made of the causing event and the rule: however often it is asked for, a notice is raised once;
    - a finding is given up by nobody: it is raised or withheld by an event, which takes its row away;
    - only the owner of a partition raises, and what one finding meets holds up no other: what cannot be read is told as an error
      each time it is tried, and stays.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import structlog

from access.policy import service
from commands import notices
from commands.edge import Edge
from commands.identity import command_id
from commands.plan import Context, Plan, Receipt
from domain.errors import InvalidId, Rejected
from domain.findings import Finding
from domain.kernel import EPOCH, PlayerId
from eventstore.log import Streams
from eventstore.writer import Unavailable
from reactions.pending import PAGE_ROWS, Pool
from reactions.runner import Clock, Patience

ACTOR = "reaction:notices"

_PAGE = """
    SELECT cause, rule, player, at, finding::text FROM read.finding
     WHERE partition = ANY (%(owned)s) AND (at, cause, rule) > (%(at)s, %(cause)s, %(rule)s)
     ORDER BY at, cause, rule LIMIT %(limit)s"""

_log = structlog.get_logger(__name__)
_finding = msgspec.json.Decoder(Finding).decode

Decide = Callable[[Sequence[Plan]], Awaitable[Sequence[Receipt | Exception]]]


class Found(NamedTuple):
    """A row of read.finding; `at`: when its cause was recorded."""

    cause: str
    rule: str
    player: PlayerId
    at: datetime
    finding: str


_BEGIN = Found("", "", PlayerId(""), EPOCH, "")


class Notices:
    """Raises for the partitions that `log` owns. `edge` makes what handlers need of a context."""

    def __init__(
        self,
        log: str,
        pool: Pool,
        streams: Streams,
        decide: Decide,
        edge: Callable[[Context], Edge],
        *,
        clock: Clock = lambda: datetime.now(UTC),
        rows: int = PAGE_ROWS,
    ) -> None:
        self._log = log
        self._pool = pool
        self._streams = streams
        self._decide = decide
        self._edge = edge
        self._clock = clock
        self._rows = rows
        self._patience = Patience()

    async def step(self) -> None:
        """Raise once whatever was found and was not tried just now, the oldest first."""
        owned = await self._streams.epochs(self._log)
        open_: set[tuple[str, str]] = set()
        async for page in self._pages(owned):
            open_.update((each.cause, each.rule) for each in page)
            now = self._clock()
            if ready := [each for each in page if self._patience.is_over((each.cause, each.rule), now)]:
                await self._raise(ready, now)
        self._patience.forget_all_but(open_)

    async def _pages(self, owned: Collection[int]) -> AsyncIterator[list[Found]]:
        """Each page is a transaction of its own."""
        last = _BEGIN
        while True:
            place = {"at": last.at, "cause": last.cause, "rule": last.rule}
            async with self._pool.connection() as connection:
                cursor = await connection.execute(_PAGE, {"owned": list(owned), "limit": self._rows, **place})
                page = [Found(*row) for row in await cursor.fetchall()]
            if page:
                yield page
                last = page[-1]
            if len(page) < self._rows:
                return

    async def _raise(self, ready: Sequence[Found], now: datetime) -> None:
        plans: list[tuple[Found, Plan]] = []
        for each in ready:
            self._patience.tried((each.cause, each.rule), now)
            try:
                finding = _finding(each.finding)
                plans.append((each, notices.raise_(each.player, finding, self._edge(context(each, now)))))
            except (msgspec.DecodeError, InvalidId) as unread:
                _log.error("a finding cannot be read", rule=each.rule, cause=each.cause, error=str(unread))
        results = await self._decide([plan for _, plan in plans])
        for (each, _), result in zip(plans, results, strict=True):
            said = _log.bind(rule=each.rule, cause=each.cause)
            match result:
                case Receipt(answer=notices.NoticeRaised(notice=str(notice)), repeated=False):
                    said.info("a notice was raised", notice=notice)
                case Receipt(repeated=False):
                    said.info("a finding was withheld")
                case Receipt():
                    said.info("the read model has not heard yet of what was raised")
                case Rejected():
                    said.warning("refused", code=result.code)
                case Unavailable():
                    said.warning("not raised yet", error=str(result))
                case _:
                    said.error("a notice could not be raised", exc_info=result)


def context(found: Found, now: datetime) -> Context:
    """Who raises it, and as which command."""
    id_ = command_id(ACTOR, f"{found.cause}\n{found.rule}")
    return Context(service(ACTOR, "reaction"), now, id_, fingerprint=None, cause=found.cause)
