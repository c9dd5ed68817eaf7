"""
Payouts: an approved withdrawal is sent and ordered by one command; a provider is asked to pay what stands ordered in the log and,
by then, in another region's copy; its answer becomes the next command.

    approved ──▶ [withdrawal sent, payout ordered] ──▶ geo watermark ──▶ Provider.pay(key = the transaction's id)
                                                         accepted ──▶ [payout accepted]
                                                         declined ──▶ [payout declined, withdrawal returned]

`sent` comes first, since from then on neither a timer nor an operator can give the reservation back: whatever is lost in
between, nobody is paid who could still be paid otherwise.

Invariants:
    - killed at any step, the reaction goes on from the log: a command has one effect by its id, a payout by its key;
    - no answer is no refusal: it is asked again, later and later, as long as the withdrawal is sent and nothing else;
    - an answer that cannot be believed changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from access.policy import service
from commands import payouts
from commands.edge import Edge
from commands.identity import command_id
from commands.plan import Context, Plan, Receipt
from domain import players, transactions
from domain.errors import Rejected
from domain.kernel import Sealed, TransactionId
from domain.players import Registered
from domain.transactions import TRANSACTIONS, Status, WithdrawalRequested
from eventstore.log import Streams
from eventstore.record import Codec, Recorded
from eventstore.vault import Vault
from providers.port import Accepted, Declined, Payout, Provider, Unanswered, Unbelievable
from reactions import pending
from reactions.pending import Pending, Pool
from reactions.runner import Clock, Patience
from replication import geo

ACTOR = "reaction:payouts"
ORDER, PAY = "payout_order", "payout"
AT_ONCE = 16
_WHENEVER = datetime.max.replace(tzinfo=UTC)  # the clocks of PostgreSQL and of this process need not agree

_log = structlog.get_logger(__name__)


class NotReadable(Exception):
    """The log does not hold here what a payout needs."""


class _Withdrawal(NamedTuple):
    """`event_id`: of the request, under which the instrument is sealed. `status`: where it stands in the log."""

    id: TransactionId
    event_id: str
    requested: WithdrawalRequested
    status: Status


class Payouts:
    """Pays for the partitions that `log` owns. `is_alone`: no other region could keep a copy, so nothing is waited for."""

    def __init__(
        self,
        log: str,
        pool: Pool,
        streams: Streams,
        codec: Codec,
        vault: Vault,
        decide: Callable[[Plan], Awaitable[Receipt]],
        edge: Callable[[Context], Edge],
        providers: Mapping[str, Provider],
        *,
        is_alone: bool,
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self._log = log
        self._pool = pool
        self._streams = streams
        self._codec = codec
        self._vault = vault
        self._decide = decide
        self._edge = edge
        self._providers = providers
        self._is_alone = is_alone
        self._clock = clock
        self._patience = Patience()

    async def step(self) -> None:
        """Order and ask for what can be now, the oldest first; what one of them meets with holds up no other."""
        owned = await self._streams.epochs(self._log)
        copied = await self._copied()
        now = self._clock()
        open_: set[Pending] = set()
        ready: list[Pending] = []
        async for page in pending.pages(self._pool, (ORDER, PAY), owned, _WHENEVER):
            open_.update(page)
            ready += [each for each in page if self._may_go(each, copied) and self._patience.is_over(each, now)]
        self._patience.forget_all_but(open_)
        for first in range(0, len(ready), AT_ONCE):
            await asyncio.gather(*(self._do(each) for each in ready[first : first + AT_ONCE]))

    async def _copied(self) -> int | None:
        """Up to which position of our log another region holds a verified copy; None: there is nobody to wait for."""
        if self._is_alone:
            return None
        async with self._pool.connection() as connection:
            return await geo.watermark(connection, self._log)

    def _may_go(self, each: Pending, copied: int | None) -> bool:
        """An order is a command like any other. Asking a provider is not: it waits for a copy, and for its own log."""
        return each.kind == ORDER or (each.log == self._log and (copied is None or each.position <= copied))

    async def _do(self, each: Pending) -> None:
        self._patience.tried(each, self._clock())
        said = _log.bind(kind=each.kind, transaction=f"transaction_{each.suffix}")
        try:
            withdrawal = await self._withdrawal(each)
            provider = self._providers.get(withdrawal.requested.provider)
            if provider is None:
                said.info("nobody can be asked; a person resolves it", provider=withdrawal.requested.provider)
            elif each.kind == ORDER:
                await self._decide(payouts.order(withdrawal.id, provider.name, self._asking(each)))
            else:
                await self._pay(each, withdrawal, provider)
        except Unbelievable as error:
            said.error("a provider's answer is not believed", error=str(error))
        except Unanswered as error:
            said.warning("a provider has not answered", error=str(error))
        except Rejected as refused:
            said.warning("refused", code=refused.code, detail=refused.detail)
        except Exception:  # noqa: BLE001 — one payout's fault must not hold up the others
            said.exception("a payout failed; it is tried again")

    async def _pay(self, each: Pending, withdrawal: _Withdrawal, provider: Provider) -> None:
        """Raises Unanswered, Rejected."""
        if withdrawal.status is not Status.SENT:
            await self._decide(payouts.drop(withdrawal.id, self._asking(each)))
            return
        requested = withdrawal.requested
        asked = Payout(withdrawal.id, requested.money, await self._instrument(withdrawal))
        match await provider.pay(asked):
            case Accepted(reference):
                await self._decide(payouts.accept(withdrawal.id, reference, self._asking(each)))
            case Declined(reason):
                await self._decide(payouts.decline(withdrawal.id, reason, self._asking(each)))

    def _asking(self, each: Pending) -> Edge:
        context = Context(
            service(ACTOR, "reaction"),
            self._clock(),
            command_id(ACTOR, each.cause),
            fingerprint=None,
            cause=each.cause,
        )
        return self._edge(context)

    # What the log says

    async def _withdrawal(self, each: Pending) -> _Withdrawal:
        """Raises NotReadable."""
        id_ = TransactionId(f"transaction_{each.suffix}")
        events = await self._events(transactions.stream(id_).name)
        state = TRANSACTIONS.initial
        for recorded in events:
            state = TRANSACTIONS.evolve(state, recorded.event, recorded.at)
        first = events[0]
        if not isinstance(first.event, WithdrawalRequested):
            raise NotReadable(f"{id_} does not begin with a request for a withdrawal")
        return _Withdrawal(id_, first.body.id, first.event, state.status)

    async def _instrument(self, withdrawal: _Withdrawal) -> str | None:
        """Where the money goes, in the clear. Raises NotReadable, CannotOpen."""
        sealed = withdrawal.requested.instrument
        if not isinstance(sealed, Sealed):
            return None
        registered = (await self._events(players.stream(withdrawal.requested.player).name))[0].event
        if not isinstance(registered, Registered):
            raise NotReadable(f"{withdrawal.requested.player} does not begin with a registration")
        keys = await self._vault.keys({registered.key.id: registered.key.commitment})
        if sealed.key not in keys:
            raise NotReadable(f"the key of {withdrawal.requested.player} is not held here")
        return keys[sealed.key].open(sealed, event_id=withdrawal.event_id, path="data.instrument")

    async def _events(self, stream: str) -> list[Recorded]:
        """What stands on a stream. Raises NotReadable if it is nothing."""
        entries = (await self._streams.load({stream: 0})).get(stream, ())
        if not entries:
            raise NotReadable(f"{stream} is empty")
        return [self._codec.decode(entry) for entry in entries]
