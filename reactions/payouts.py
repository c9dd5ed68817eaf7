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
    - an answer that cannot be believed changes nothing, and one that contradicts another is a command of its own, so it is heard;
    - a provider that never answers holds up its own payouts only.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple

import msgspec
import structlog

from access.policy import service
from commands import payouts
from commands.edge import Edge
from commands.identity import command_id
from commands.plan import Context, Plan, Receipt
from domain import players, transactions
from domain.errors import Rejected
from domain.kernel import Sealed, TransactionId, partition_of
from domain.payouts import AnsweredOtherwise
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
LINGER_S = 1.0
_WHENEVER = datetime.max.replace(tzinfo=UTC)  # the clocks of PostgreSQL and of this process need not agree

_log = structlog.get_logger(__name__)

_canonical = msgspec.json.Encoder(order="sorted").encode  # for text that is RFC 8785


class NotReadable(Exception):
    """The log does not hold here what a payout needs."""


class _Withdrawal(NamedTuple):
    """`event_id`: of the request, under which the instrument is sealed. `status`: where it stands in the log."""

    id: TransactionId
    event_id: str
    requested: WithdrawalRequested
    status: Status


class Payouts:
    """Pays for the partitions that `log` owns. `is_alone`: no other region could keep a copy, so nothing is waited for.

    AT_ONCE payouts are asked of one provider at once. What waits for it goes on beside the next steps, until `close`.
    """

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
        linger_s: float = LINGER_S,
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
        self._linger_s = linger_s
        self._patience = Patience()
        self._under_way: dict[Pending, asyncio.Task[None]] = {}
        self._deciding = asyncio.Semaphore(AT_ONCE)
        self._lanes: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))
        self._elsewhere: set[Pending] = set()

    async def step(self) -> None:
        """Begin whatever can be done now, the oldest first, and wait a moment for it."""
        owned = await self._streams.epochs(self._log)
        copied = await self._copied()
        now = self._clock()
        open_: set[Pending] = set()
        async for page in pending.pages(self._pool, (ORDER, PAY), owned, _WHENEVER):
            open_.update(page)
            for each in page:
                if self._may_go(each, copied) and each not in self._under_way and self._patience.is_over(each, now):
                    self._patience.tried(each, now)
                    self._under_way[each] = asyncio.create_task(self._do(each))
        self._patience.forget_all_but(open_)
        self._tell_of_elsewhere(open_)
        await self._linger()

    async def close(self) -> None:
        """Wait for nobody any more. Who was asked is asked again by whoever goes on, with the same key."""
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        self._under_way.clear()

    async def _linger(self) -> None:
        """Let what is under way come to its end, but do not wait for a provider that takes its time."""
        if self._under_way:
            await asyncio.wait(self._under_way.values(), timeout=self._linger_s)
        done = [each for each, task in self._under_way.items() if task.done()]
        await asyncio.gather(*[self._under_way.pop(each) for each in done])

    def _tell_of_elsewhere(self, open_: Collection[Pending]) -> None:
        """Of payouts that no log of ours can tell to be copied: their provider may have been asked, and nobody asks here."""
        elsewhere = {each for each in open_ if each.kind == PAY and each.log != self._log}
        for each in sorted(elsewhere - self._elsewhere):
            _log.warning(
                "ordered in another region's log, and not asked for here; a person resolves it",
                transaction=f"transaction_{each.suffix}",
                log=each.log,
            )
        self._elsewhere = elsewhere

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
        said = _log.bind(kind=each.kind, transaction=f"transaction_{each.suffix}")
        try:
            async with self._deciding:
                provider = await self._prepare(each)
            if provider is not None:
                async with self._lanes[provider.name]:
                    await self._pay(each, provider)
        except AnsweredOtherwise as error:
            said.error("a provider contradicts itself; a person resolves it", **error.facts)
        except Unbelievable as error:
            said.error("a provider's answer is not believed", error=str(error))
        except Unanswered as error:
            said.warning("a provider has not answered", error=str(error))
        except Rejected as refused:
            said.warning("refused", code=refused.code, detail=refused.detail)
        except Exception:  # noqa: BLE001 — one payout's fault must not hold up the others
            said.exception("a payout failed; it is tried again")

    async def _prepare(self, each: Pending) -> Provider | None:
        """Do what needs nobody else's word; returns who is to be asked to pay. Raises NotReadable, Rejected."""
        withdrawal = await self._withdrawal(each)
        if each.kind == PAY and withdrawal.status is not Status.SENT:
            await self._drop(each, withdrawal)
            return None
        provider = self._providers.get(withdrawal.requested.provider)
        if provider is None:
            name = withdrawal.requested.provider
            _log.info("nobody can be asked; a person resolves it", transaction=withdrawal.id, provider=name)
        elif each.kind == ORDER:
            await self._decide(payouts.order(withdrawal.id, provider.name, self._asking(each, "order")))
            return None
        return provider

    async def _pay(self, each: Pending, provider: Provider) -> None:
        """Ask, if the log still says so: it may have been a long wait. Raises Unanswered, Rejected."""
        withdrawal = await self._withdrawal(each)
        if withdrawal.status is not Status.SENT:
            await self._drop(each, withdrawal)
            return
        requested = withdrawal.requested
        asked = Payout(withdrawal.id, requested.money, await self._instrument(withdrawal))
        if partition_of(each.stream) not in await self._streams.epochs(self._log):
            return
        match await provider.pay(asked):
            case Accepted(reference):
                edge = self._asking(each, "accept", reference=reference)
                await self._decide(payouts.accept(withdrawal.id, reference, edge))
            case Declined(reason):
                edge = self._asking(each, "decline", reason=reason)
                await self._decide(payouts.decline(withdrawal.id, reason, edge))

    async def _drop(self, each: Pending, withdrawal: _Withdrawal) -> None:
        await self._decide(payouts.drop(withdrawal.id, self._asking(each, "drop")))

    def _asking(self, each: Pending, verb: str, **answer: str) -> Edge:
        """As which command. `answer`: what the provider said, so that another answer is another command."""
        key = f"{each.cause}\n{verb}\n{sha256(_canonical(answer)).hexdigest()}"
        context = Context(
            service(ACTOR, "reaction"), self._clock(), command_id(ACTOR, key), fingerprint=None, cause=each.cause
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
