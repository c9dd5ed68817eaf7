"""
Timers: what is due becomes a command (an expiry, a missed promise), as DESIGN 4 names it: caller `reaction:timers`, key the
causing event's id, LF, the due time.

Invariants:
    - fired at least once and only by the partition's owner; the command's id and the decision make it once in effect;
    - the decision has the last word: a row that lags behind its log fires into a refusal or records nothing;
    - the same event and due time are one command, whatever kinds it concerns: a command does all that is due of its stream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime

import structlog

from access.policy import service
from commands import approvals, contacts, erasures, kyc, notices, play, protection, tickets, transactions
from commands.edge import Edge, Nothing
from commands.identity import command_id
from commands.plan import Context, Plan, Receipt
from domain.errors import Rejected
from eventstore.log import Streams
from eventstore.writer import Unavailable
from projections.duties import EXCLUSIONS, KYC_DEADLINES, KYC_DOCUMENTS
from reactions import pending
from reactions.pending import Pending, Pool
from reactions.runner import Clock, Patience

ACTOR = "reaction:timers"

_log = structlog.get_logger(__name__)

Fire = Callable[[str, Edge], Plan]
"""(suffix of the stream, edge) → the command that is due. Raises Rejected."""

Decide = Callable[[Sequence[Plan]], Awaitable[Sequence[Receipt | Exception]]]


def _on(prefix: str, handler: Callable[[str, Nothing, Edge], Plan]) -> Fire:
    """The command on what has the stream's suffix."""
    return lambda suffix, edge: handler(f"{prefix}_{suffix}", Nothing(), edge)


_MISS_DEADLINE = _on("player", kyc.miss_deadline)
_MISS_TICKET = _on("ticket", tickets.miss)

FIRES: Mapping[str, Fire] = {
    "deposit_expiry": _on("transaction", transactions.expire),
    "withdrawal_expiry": _on("transaction", transactions.expire),
    "approval_expiry": _on("approval", approvals.expire),
    "session_end": _on("player", play.expire),
    "erasure_due": _on("player", erasures.fall_due),
    **dict.fromkeys((duty.name for duty in KYC_DEADLINES), _MISS_DEADLINE),
    **dict.fromkeys((duty.name for duty in KYC_DOCUMENTS), _on("player", kyc.expire)),
    **dict.fromkeys((duty.name for duty in EXCLUSIONS), _on("player", protection.end)),
    "notice_release": _on("notice", notices.release),
    "contact_reply": _on("contact", contacts.lapse),
    "ticket_first_response": _MISS_TICKET,
    "ticket_resolution": _MISS_TICKET,
}
"""By duty (projections.duties), the command that does it."""


class Timers:
    """Fires for the partitions that `log` owns. `edge` makes what handlers need of a context."""

    def __init__(
        self,
        log: str,
        pool: Pool,
        streams: Streams,
        decide: Decide,
        edge: Callable[[Context], Edge],
        *,
        fires: Mapping[str, Fire] = FIRES,
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self._log = log
        self._pool = pool
        self._streams = streams
        self._decide = decide
        self._edge = edge
        self._fires = fires
        self._clock = clock
        self._patience = Patience()

    async def step(self) -> None:
        """Fire once whatever is due and was not tried just now."""
        owned = await self._streams.epochs(self._log)
        open_ = set()
        async for page in pending.pages(self._pool, self._fires.keys(), owned, self._clock()):
            open_.update(page)
            now = self._clock()
            if ready := [each for each in page if self._patience.is_over(each, now)]:
                await self._fire(ready, now)
        self._patience.forget_all_but(open_)

    async def _fire(self, ready: Sequence[Pending], now: datetime) -> None:
        plans = []
        for each in ready:
            self._patience.tried(each, now)
            plans.append(self._fires[each.kind](each.suffix, self._edge(context(each, now))))
        for each, result in zip(ready, await self._decide(plans), strict=True):
            match result:
                case Receipt(position=str(position)):
                    _log.info("fired", kind=each.kind, stream=each.stream, position=position)
                case Receipt():
                    _log.info("nothing is due any more", kind=each.kind, stream=each.stream)
                case Rejected():
                    _log.info("refused", kind=each.kind, stream=each.stream, code=result.code)
                case Unavailable():
                    _log.warning("not fired yet", kind=each.kind, stream=each.stream, error=str(result))
                case _:
                    _log.error("a timer failed", kind=each.kind, stream=each.stream, exc_info=result)


def context(due: Pending, now: datetime) -> Context:
    """Who fires it, and as which command."""
    due_at = due.due_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return Context(
        service(ACTOR, "reaction"), now, command_id(ACTOR, f"{due.cause}\n{due_at}"), fingerprint=None, cause=due.cause
    )
