"""
Commands for what another region owns: sent to it as they came in, and answered with what it answered.

Who asks is found out here; whether they may, and whether it is a repeat, the owner says, as if they had come to it.

Invariants:
    - the caller gets the owner's answer byte for byte, with the position in the owner's log;
    - `owner_unreachable` (503) is said only where nothing was recorded and nothing will be. Where that is not certain the answer is 202:
      the command's id, and where its fate can be asked (providers are told `unavailable`, and say it again);
    - nothing of what is sent is a time of day: the regions' clocks may differ;
    - what the owner has handed over meanwhile is sent on, HOPS_MAX times in all.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

import msgspec
import structlog

from access import policy
from access.policy import Principal, Scope
from app import lane, problems
from app.lane import Answered
from commands.plan import WrongRegion
from domain.errors import InvalidId
from domain.kernel import parse_id, partition_of
from registers.circuit import Circuit, Open
from replication.config import Config
from replication.forwarding import ANSWER_S, BUDGET_S, Desk, TooLarge, Unknown, Unreachable, Way
from replication.tasks import together

CHANGING_S = 2.0
_CHANGING_PAUSE_S = 0.05
_CHANGING = "its owner is changing"
HOPS_MAX = 2
FAILURES_MAX = 3
PAUSE_S = 2.0
HEADERS = ("idempotency-key", "if-match", "traceparent", "durability")
"""What of a request's header goes with a command; nothing else of it is read by one."""

_log = structlog.get_logger(__name__)


class Hop(NamedTuple):
    """How often a command was forwarded already, until when by our monotonic clock it may be begun anywhere (None: it came in here),
    and which region sent it last.
    """

    hops: int = 0
    until: float | None = None
    sender: str = ""

    @classmethod
    def of(cls, hops: int, within_s: float, sender: str) -> Hop:
        """`within_s`: from now on."""
        return cls(hops, time.monotonic() + within_s, sender)

    @property
    def within_s(self) -> float | None:
        """How many seconds are left."""
        return None if self.until is None else max(0.0, self.until - time.monotonic())


class Fate(msgspec.Struct, frozen=True):
    """What is known of a command whose owner has not answered. `command`: its id; GET /v1/commands/<id> tells more."""

    command: str
    state: str


class Who(msgspec.Struct, frozen=True, array_like=True):
    """Somebody who was let in. What their roles come to, the owner's policies say. `stepped_up_s`: so many seconds ago."""

    actor: str
    roles: list[str]
    person: str
    brands: list[str] | None
    countries: list[str] | None
    stepped_up_s: float | None
    machine: bool
    issued: bool

    @classmethod
    def of(cls, one: Principal, now: datetime) -> Who:
        brands, countries = (None if each is None else sorted(each) for each in one.scope)
        ago_s = None if one.stepped_up is None else (now - one.stepped_up).total_seconds()
        return cls(one.actor, sorted(one.roles), one.person, brands, countries, ago_s, one.machine, one.issued)

    def principal(self, now: datetime) -> Principal:
        brands, countries = (None if each is None else frozenset(each) for each in (self.brands, self.countries))
        said = policy.principal(
            self.actor,
            self.roles,
            person=self.person,
            scope=Scope(brands, countries),
            stepped_up=None if self.stepped_up_s is None else now - timedelta(seconds=self.stepped_up_s),
            machine=self.machine,
            issued=self.issued,
        )
        return said._replace(relayed=True)


class Sent(msgspec.Struct, frozen=True, tag="command"):
    """A command as it came in: path with query, body, and those fields of its header that are HEADERS."""

    who: Who
    target: str
    body: bytes
    headers: dict[str, str]
    hops: int = 1


class Item(msgspec.Struct, frozen=True, array_like=True):
    """Of a batch, with what it names of earlier items filled in."""

    key: str
    path: str
    body: bytes
    if_match: str | None


class Items(msgspec.Struct, frozen=True, tag="items"):
    """Items of a batch, in their order."""

    who: Who
    items: list[Item]
    dry_run: bool
    trace: str | None
    hops: int = 1
    durability: str = ""


class Called(msgspec.Struct, frozen=True, tag="callback"):
    """What a payment or KYC provider has said, and signed."""

    provider: str
    body: bytes
    trace: str | None
    hops: int = 1


class Played(msgspec.Struct, frozen=True, tag="game"):
    """What a provider of games has said, and signed."""

    provider: str
    verb: str
    body: bytes
    trace: str | None
    hops: int = 1


class Traced(msgspec.Struct, frozen=True, tag="fate"):
    """What became of a command, by its id, which a region may hold that has not told anybody yet."""

    command: str
    hops: int = 1


Message = Sent | Items | Called | Played | Traced
M = TypeVar("M", bound=Message)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode
_decode_answer = msgspec.msgpack.Decoder(Answered).decode


class Forwarding:
    """`others`: the regions that commands may go to and come from. `now`: the time of day, here. `counted`: what became of what
    was sent, by (region, word): answered, unreachable, unknown.
    """

    def __init__(
        self,
        others: Sequence[str],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        budget_s: float = BUDGET_S,
        answer_s: float = ANSWER_S,
        us: str,
    ) -> None:
        self.counted: Counter[tuple[str, str]] = Counter()
        self.circuits = {each: _circuit(each) for each in others}
        self._ways = {each: Way(us, each, budget_s=budget_s, answer_s=answer_s) for each in others}
        self._now = now
        self._takes: dict[type, Callable[[Any, Hop], Awaitable[Answered]]] = {}

    def takes(self, kind: type[M], answer: Callable[[M, Hop], Awaitable[Answered]]) -> None:
        """Who answers messages of a kind that come from other regions. What it raises is a fault."""
        self._takes[kind] = answer

    @property
    def regions(self) -> Sequence[str]:
        """All others."""
        return list(self._ways)

    def who(self, principal: Principal) -> Who:
        return Who.of(principal, self._now())

    def principal(self, who: Who) -> Principal:
        return who.principal(self._now())

    async def send(self, owner: str, message: Message, hop: Hop, command_id: bytes) -> Answered:
        """What the owner answers, or that it is not known. Raises OwnerUnreachable, BodyTooLarge."""
        try:
            return await self.ask(owner, message, hop)
        except Unknown:
            return unknown(command_id)

    async def tell(self, owner: str, message: Message, hop: Hop) -> Answered:
        """The same for providers, who take any 2xx for «done» and say again what is not. Raises OwnerUnreachable, BodyTooLarge, Busy."""
        try:
            return await self.ask(owner, message, hop)
        except Unknown as error:
            raise problems.Busy("what became of it in the region that owns the player is not known") from error

    async def ask(self, owner: str, message: Message, hop: Hop) -> Answered:
        """The same. Raises Unknown, OwnerUnreachable, BodyTooLarge.

        Just after a release the new owner does not know of it yet and sends the command back, where nothing is recorded: whoever was
        asked first goes on asking for a moment.
        """
        until = time.monotonic() + CHANGING_S
        while True:
            answered = await self._ask(owner, message, hop)
            if hop.hops or not _is_changing(answered) or time.monotonic() > until:
                return answered
            await asyncio.sleep(_CHANGING_PAUSE_S)

    async def look(self, region: str, message: Message) -> Answered | None:
        """What a region says to a question that changes nothing; None if it does not say. Of commands that tells nothing: no
        circuit opens, and nothing is counted. (An earlier release does not know all questions.)
        """
        try:
            return _decode_answer(await self._ways[region].send(_encode(message)))
        except (Unreachable, Unknown):
            return None

    async def _ask(self, owner: str, message: Message, hop: Hop) -> Answered:
        if hop.hops >= HOPS_MAX or owner not in self._ways:
            raise problems.OwnerUnreachable(_CHANGING, region=owner)
        circuit = self.circuits[owner]
        try:
            with circuit.question():
                answer = await self._ways[owner].send(
                    _encode(msgspec.structs.replace(message, hops=hop.hops + 1)), hop.within_s
                )
        except Open:
            raise self._unreachable(owner, "it has not answered lately, and is not asked for a while") from None
        except TooLarge as error:
            raise problems.BodyTooLarge(str(error)) from error
        except Unreachable as error:
            circuit.unanswered()
            raise self._unreachable(owner, str(error)) from error
        except Unknown as error:
            circuit.unanswered()
            self.counted[owner, "unknown"] += 1
            _log.warning("what became of a command is not known", owner=owner, reason=str(error))
            raise
        circuit.answered()
        self.counted[owner, "answered"] += 1
        return _decode_answer(answer)

    def _unreachable(self, owner: str, reason: str) -> problems.OwnerUnreachable:
        self.counted[owner, "unreachable"] += 1
        return problems.OwnerUnreachable(reason, region=owner)

    async def _work(self, sender: str, data: bytes, within_s: float) -> bytes:
        try:
            message = _decode(data)
        except msgspec.DecodeError:
            _log.warning("another release has sent what this one does not know", sender=sender)
            return _encode(lane.refusal(problems.Busy("this region runs a release that does not know what was sent")))
        try:
            answered = await self._takes[type(message)](message, Hop.of(message.hops, within_s, sender))
        except Exception:  # noqa: BLE001 — a fault of ours, told as one
            _log.exception("a command of another region failed", sender=sender)
            answered = lane.refusal(problems.Fault())
        return _encode(answered)

    @asynccontextmanager
    async def running(self, config: Config) -> AsyncIterator[None]:
        """Hold the ways open, and take what comes, until the block ends."""
        if not self._ways:
            yield
            return
        desk = Desk(list(self._ways), self._work)
        work = asyncio.create_task(together(desk.serve(config), *(way.keep(config) for way in self._ways.values())))
        try:
            yield
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work


def owner_in(wrong: WrongRegion) -> str:
    """The region that owns what a command was about; "" where nobody is known to."""
    return str(wrong.facts.get("owner", ""))


def nobody_seen() -> problems.OwnerUnreachable:
    """A region has begun, and has not copied yet what others have opened with."""
    return problems.OwnerUnreachable("no log that is held here says yet whose this is")


def partition_in(kind: str, identifier: str) -> int | None:
    """The partition of an identifier of this kind; None if it is none."""
    try:
        return partition_of(parse_id(kind, identifier))
    except InvalidId:
        return None


def unknown(command_id: bytes) -> Answered:
    """The command may have been recorded."""
    id_ = command_id.hex()
    body = msgspec.json.encode(Fate(id_, "unknown"))
    return lane.json(202, body, (b"location", f"/v1/commands/{id_}".encode()))


def _circuit(region: str) -> Circuit:
    return Circuit(
        FAILURES_MAX,
        PAUSE_S,
        opens=lambda: _log.error("a region does not answer, and is not asked for a while", region=region),
        closes=lambda: _log.info("a region answers again", region=region),
    )


def _is_changing(answered: Answered) -> bool:
    """Whether each region that was asked takes another one for the owner. Nothing was recorded."""
    return answered.status == HTTPStatus.SERVICE_UNAVAILABLE and _CHANGING.encode() in answered.body
