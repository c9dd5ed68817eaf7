"""
Payouts: an approved withdrawal is sent and ordered by one command; a provider is asked to pay what stands ordered in the log and,
by then, in another region's copy; its answer becomes the next command.

    approved ──▶ [withdrawal sent, payout ordered] ──▶ geo watermark ──▶ Provider.pay(key = the transaction's id)
                                                         accepted ──▶ [payout accepted]
                                                         declined ──▶ [payout declined, withdrawal returned]

Whether the player may be paid at all is asked anew with both steps: what holds the payout stands in the log, and it goes on once
that is over. `sent` comes first, since from then on neither a timer nor an operator can give the reservation back: whatever is lost in
between, nobody is paid who could still be paid otherwise.

What was ordered before the player was handed over, the new owner asks for: with the same key, so that whatever the provider has done
or said by then it does once and says again. Its answer to the old owner, who may not record it any more, is not lost with that.

Invariants:
    - killed at any step, the reaction goes on from the log: a command has one effect by its id, a payout by its key;
    - no answer is no refusal: it is asked again, later and later, as long as the withdrawal is sent and nothing else;
    - an answer that cannot be believed changes nothing, and one that contradicts another is a command of its own, so it is heard;
    - a provider that never answers holds up its own payouts only.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple, TypeVar

import msgspec
import structlog

from access.policy import service
from commands import payouts
from commands.edge import Edge
from commands.identity import command_id
from commands.plan import Context, Plan, Receipt, WrongRegion
from domain import anywhere, players, protection, transactions
from domain.errors import Rejected
from domain.kernel import AnyStream, Sealed, Stream, TransactionId, partition_of
from domain.payouts import AnsweredOtherwise
from domain.players import Registered
from domain.transactions import PayoutHeld, PayoutResumed, Status, Transaction, WithdrawalRequested
from eventstore.log import Streams
from eventstore.record import Codec, Recorded
from eventstore.vault import Vault
from providers.port import Accepted, Answer, Declined, Payout, Provider, Unanswered, Unbelievable
from reactions import pending
from reactions.pending import Pending, Pool
from reactions.runner import Clock, Patience, UnderWay
from replication import geo

ACTOR = "reaction:payouts"
ORDER, PAY = "payout_order", "payout"
AT_ONCE = 16
LINGER_S = 1.0
_WHENEVER = datetime.max.replace(tzinfo=UTC)  # the clocks of PostgreSQL and of this process need not agree

S = TypeVar("S")

_log = structlog.get_logger(__name__)

_canonical = msgspec.json.Encoder(order="sorted").encode  # for text that is RFC 8785


class NotReadable(Exception):
    """The log does not hold here what a payout needs."""


class _Withdrawal(NamedTuple):
    """`event_id`: of the request, under which the instrument is sealed. `stands`: as the log says. `held_by`: the event that has last
    said whether something holds it; empty if none has.
    """

    id: TransactionId
    event_id: str
    requested: WithdrawalRequested
    stands: Transaction
    held_by: str


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
        self._patience = Patience()
        self._under_way: UnderWay[Pending] = UnderWay(linger_s)
        self._deciding = asyncio.Semaphore(AT_ONCE)
        self._lanes: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))

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
                    self._under_way.begin(each, self._do(each))
        self._patience.forget_all_but(open_)
        await self._under_way.linger()

    async def close(self) -> None:
        """Wait for nobody any more. Who was asked is asked again by whoever goes on, with the same key."""
        await self._under_way.close()

    async def _copied(self) -> int | None:
        """Up to which position of our log another region holds a verified copy; None: there is nobody to wait for."""
        if self._is_alone:
            return None
        async with self._pool.connection() as connection:
            return await geo.watermark(connection, self._log)

    def _may_go(self, each: Pending, copied: int | None) -> bool:
        """An order is a command like any other. Asking a provider is not: the order has to stand in two regions. One of another log's
        does, since it is read here from the copy, and counts: it stands at or below the cut at which the player came here.
        """
        return each.kind == ORDER or each.log != self._log or copied is None or each.position <= copied

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
        if each.kind == PAY and withdrawal.stands.status is not Status.SENT:
            await self._drop(each, withdrawal)
            return None
        provider = self._providers.get(withdrawal.requested.provider)
        if provider is None:
            name = withdrawal.requested.provider
            tell = _log.info if each.kind == ORDER else _log.warning  # what was ordered may be paid by now
            tell("nobody can be asked; a person resolves it", kind=each.kind, transaction=withdrawal.id, provider=name)
        elif each.kind == ORDER:
            after = {"held": withdrawal.held_by} if withdrawal.held_by else {}
            await self._decide(payouts.order(withdrawal.id, provider.name, self._asking(each, "order", **after)))
            return None
        return provider

    async def _pay(self, each: Pending, provider: Provider) -> None:
        """Ask, if the log still says so: it may have been a long wait. Raises Unanswered, Rejected."""
        withdrawal = await self._withdrawal(each)
        if withdrawal.stands.status is not Status.SENT:
            await self._drop(each, withdrawal)
            return
        if await self._is_held(each, withdrawal):
            return
        requested = withdrawal.requested
        asked = Payout(withdrawal.id, requested.money, await self._instrument(withdrawal))
        if partition_of(each.stream) not in await self._streams.epochs(self._log):
            return
        answer = await provider.pay(asked)
        try:
            await self._decide(self._answered(each, withdrawal.id, answer))
        except WrongRegion as refused:
            owner = refused.facts.get("owner")
            _log.warning(
                "the player has moved while a provider was asked; their new owner asks it again, with the same key",
                transaction=withdrawal.id, provider=provider.name, answer=answer._asdict(), owner=owner,
            )  # fmt: skip

    def _answered(self, each: Pending, transaction: TransactionId, answer: Answer) -> Plan:
        match answer:
            case Accepted(reference):
                return payouts.accept(transaction, reference, self._asking(each, "accept", reference=reference))
            case Declined(reason):
                return payouts.decline(transaction, reason, self._asking(each, "decline", reason=reason))

    async def _is_held(self, each: Pending, withdrawal: _Withdrawal) -> bool:
        """Whether the player may not be paid now; what is new of that is recorded first."""
        whose = withdrawal.requested.player
        player, protected = [await self._state(stream) for stream in (players.stream(whose), protection.stream(whose))]
        why = transactions.held_by(player, protected, self._clock())
        if why != withdrawal.stands.held:
            edge = self._asking(each, "hold", after=withdrawal.held_by, reason=why)
            await self._decide(payouts.hold(withdrawal.id, edge))
        return bool(why)

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
        stream = transactions.stream(id_)
        events = await self._events(stream.name)
        first = events[0] if events else None
        if first is None or not isinstance(first.event, WithdrawalRequested):
            raise NotReadable(f"{id_} does not begin with a request for a withdrawal")
        held = [recorded.body.id for recorded in events if isinstance(recorded.event, PayoutHeld | PayoutResumed)]
        return _Withdrawal(id_, first.body.id, first.event, _folded(stream, events), held[-1] if held else "")

    async def _instrument(self, withdrawal: _Withdrawal) -> str | None:
        """Where the money goes, in the clear. Raises NotReadable, CannotOpen."""
        sealed = withdrawal.requested.instrument
        if not isinstance(sealed, Sealed):
            return None
        events = await self._events(players.stream(withdrawal.requested.player).name)
        registered = events[0].event if events else None
        if not isinstance(registered, Registered):
            raise NotReadable(f"{withdrawal.requested.player} does not begin with a registration")
        keys = await self._vault.keys({registered.key.id: registered.key.commitment})
        if sealed.key not in keys:
            raise NotReadable(f"the key of {withdrawal.requested.player} is not held here")
        return keys[sealed.key].open(sealed, event_id=withdrawal.event_id, path="data.instrument")

    async def _state(self, stream: Stream[S]) -> S:
        """Of a player's stream, with what other regions have recorded to protect them."""
        logs = await self._streams.logs()
        beside = anywhere.beside(stream, logs) if len(logs) > 1 else {}
        there = {log: _folded(each, await self._events(each.name)) for log, each in beside.items()}
        found: S = anywhere.included(stream.aggregate, _folded(stream, await self._events(stream.name)), there)
        return found

    async def _events(self, stream: str) -> list[Recorded]:
        """What stands on a stream."""
        entries = (await self._streams.load({stream: 0})).get(stream, ())
        return [self._codec.decode(entry) for entry in entries]


def _folded(stream: AnyStream[S], events: Iterable[Recorded]) -> S:
    state = stream.aggregate.initial
    for recorded in events:
        state = stream.aggregate.evolve(state, recorded.event, recorded.at)
    return state
