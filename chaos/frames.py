"""
What stands between a region's processes and their own NATS server: a proxy that knows as much of the client protocol as it
takes to see single messages, and mistreats those that it was told to.

Of messages that come to a process:

    frame   a run of another region's log, from its stream: JetStream has sent it
    range   the same, as the answer to a request
    ack     what another region acknowledges of our log

and with each of them it may do this:

    duplicate   pass it on twice
    reorder     hold it back until the next of its kind has passed, or a second has
    corrupt     change one byte
    drop        not pass it on

JetStream numbers what it sends to a consumer, so whoever counts sees what is missing. `renumbered`, a frame is mistreated as if
the stream itself held it so: the numbers of all that follows are made to fit.

Invariants:
    - exactly as many messages are mistreated as was said, then everything passes again;
    - messages are recognised by what they are, not by who asked for them: no process is told anything;
    - what a process sends passes unchanged.

Source of the framing: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

from chaos.proxy import READ_BYTES_MAX, Background, Serve, connect, either
from chaos.schedule import NotCarriedOut

if TYPE_CHECKING:
    from chaos.schedule import Step
    from chaos.site import Site

Kind = Literal["frame", "range", "ack"]
What = Literal["duplicate", "reorder", "corrupt", "drop"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WHATS: tuple[What, ...] = get_args(What)

HELD_BACK_S = 1.0
_MAGIC = b"CRF\x01"
_LINE_BYTES_MAX = 1024 * 1024  # INFO is the longest
_EOL = b"\r\n"
_ACK_PREFIX = b"$JS.ACK."
_SHORT_REPLY = 9  # tokens: $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>


class NotArmed(NotCarriedOut):
    """What was armed did not come about: too few messages passed."""


@dataclass(frozen=True, slots=True)
class Message:
    """A MSG or HMSG of the server. `head` are its headers as they came."""

    verb: bytes
    subject: bytes
    sid: bytes
    reply: bytes
    head: bytes
    data: bytes

    def encode(self) -> bytes:
        reply = [self.reply] if self.reply else []
        sizes = [len(self.head)] if self.verb == b"HMSG" else []
        words = [self.verb, self.subject, self.sid, *reply]
        line = b" ".join([*words, *(b"%d" % size for size in [*sizes, len(self.head) + len(self.data)])])
        return line + _EOL + self.head + self.data + _EOL

    def kind(self, token: str) -> Kind | None:
        """What it is to the region that is called `token` inside NATS; None: nothing that is mistreated."""
        if self.subject.startswith(b"ack.%s." % token.encode()):
            return "ack"
        if not self.data.startswith(_MAGIC) or self.subject == b"log.%s" % token.encode():
            return None
        if self.reply.startswith(_ACK_PREFIX):
            return "frame"
        return "range" if self.subject.startswith(b"_INBOX.") else None

    @property
    def consumer(self) -> bytes:
        """Which consumer JetStream has sent it to."""
        tokens = self.reply.split(b".")
        return b".".join(tokens[: self._consumer_sequence(tokens) - 2])

    def shifted(self, by: int) -> Message:
        """With another place in what the consumer was sent."""
        tokens = self.reply.split(b".")
        at = self._consumer_sequence(tokens)
        tokens[at] = b"%d" % (int(tokens[at]) + by)
        return replace(self, reply=b".".join(tokens))

    @staticmethod
    def _consumer_sequence(tokens: Sequence[bytes]) -> int:
        return 6 if len(tokens) == _SHORT_REPLY else 8  # the longer form names domain and account first


@dataclass(slots=True)
class _Order:
    """What is to be done to how many messages of a kind."""

    what: What
    kind: Kind
    left: int
    renumbered: bool


@dataclass(slots=True)
class _Region:
    name: str
    orders: list[_Order] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    @property
    def token(self) -> str:
        return self.name.upper().replace(".", "_")


class Frames:
    """The proxies of all regions. `start` them before the regions, which are to be told `via`; `stop` them after."""

    def __init__(self, seed: int = 0) -> None:
        self.via: dict[tuple[str, str], int] = {}
        self._background = Background("chaos/frames")
        self._regions: dict[str, _Region] = {}
        self._dice = random.Random(seed)
        self._changed = threading.Condition()

    def start(self, ports: Mapping[str, int]) -> None:
        """`ports`: of each region, where its NATS listens for clients."""
        for name, port in ports.items():
            region = self._regions[name] = _Region(name)
            self.via[name, name] = self._background.listen(self._proxy(region, port))

    def stop(self) -> None:
        self._background.stop()

    def arm(self, region: str, what: What, count: int, *, kind: Kind = "frame", renumbered: bool = False) -> None:
        """Mistreat the next `count` messages of a kind that come to processes of the region."""
        with self._changed:
            self._regions[region].orders.append(_Order(what, kind, count, renumbered and kind == "frame"))

    def disarm(self, region: str) -> int:
        """Forget what has not been done yet. Returns how many messages that would have been."""
        with self._changed:
            orders = self._regions[region].orders
            left = sum(order.left for order in orders)
            orders.clear()
        return left

    def done(self, region: str) -> Counter[str]:
        """How many messages have been mistreated, by what was done: `corrupt frame`."""
        with self._changed:
            return Counter(self._regions[region].done)

    def wait_done(self, region: str, timeout_s: float) -> None:
        """Wait until all that was armed has been done. Raises NotArmed; then it is disarmed."""
        with self._changed:
            if self._changed.wait_for(lambda: not self._regions[region].orders, timeout_s):
                return
        left = self.disarm(region)
        if left:
            raise NotArmed(f"{left} messages of {region} did not pass within {timeout_s:g} s")

    def _next(self, region: _Region, message: Message) -> _Order | None:
        """The order that this message falls under, which it uses up by one."""
        kind = message.kind(region.token)
        if kind is None or not region.orders:
            return None
        with self._changed:
            for order in region.orders:
                if order.kind == kind:
                    order.left -= 1
                    if not order.left:
                        region.orders.remove(order)
                    region.done[f"{order.what} {kind}"] += 1
                    self._changed.notify_all()
                    return order
        return None

    def _proxy(self, region: _Region, port: int) -> Serve:
        async def serve(near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
            far_reader, far = await connect(port)
            try:
                client = _Client(near, lambda message: self._next(region, message), region.token, self._dice)
                await either(_copy(near_reader, far), client.serve(far_reader))
            finally:
                far.close()

        return serve


class _Client:
    """What one process is sent."""

    def __init__(
        self, writer: asyncio.StreamWriter, order: Callable[[Message], _Order | None], token: str, dice: random.Random
    ) -> None:
        self._writer = writer
        self._order = order
        self._token = token
        self._dice = dice
        self._shifts: dict[bytes, int] = {}  # by consumer: what the numbers of all that follows are changed by
        self._held: tuple[Message, _Order] | None = None
        self._release: asyncio.TimerHandle | None = None

    async def serve(self, reader: asyncio.StreamReader) -> None:
        async for unit in units(reader):
            self._writer.write(unit if isinstance(unit, bytes) else b"".join(self._treated(unit)))
            await self._writer.drain()

    def _treated(self, message: Message) -> list[bytes]:
        if message.reply.startswith(_ACK_PREFIX) and (shift := self._shifts.get(message.consumer)):
            message = message.shifted(shift)
        order = None if self._held else self._order(message)
        if order is None:
            return self._after_held(message)
        match order.what:
            case "duplicate":
                return [message.encode(), self._moved(message, order, 1).encode()]
            case "drop":
                self._moved(message, order, -1)
                return []
            case "corrupt":
                return [self._corrupted(message).encode()]
            case "reorder":
                self._held = (message, order)
                self._release = asyncio.get_running_loop().call_later(HELD_BACK_S, self._let_go)
                return []

    def _moved(self, message: Message, order: _Order, by: int) -> Message:
        if not order.renumbered:
            return message
        self._shifts[message.consumer] = self._shifts.get(message.consumer, 0) + by
        return message.shifted(by)

    def _corrupted(self, message: Message) -> Message:
        data = bytearray(message.data)
        data[self._dice.randrange(len(data))] ^= self._dice.randrange(1, 256)
        return replace(message, data=bytes(data))

    def _after_held(self, message: Message) -> list[bytes]:
        """A message, and after it the one that was held back for it."""
        if self._held is None:
            return [message.encode()]
        held, order = self._held
        if message.kind(self._token) != order.kind:
            return [message.encode()]
        self._take_held()
        if order.renumbered and message.consumer == held.consumer:
            return [message.shifted(-1).encode(), held.shifted(1).encode()]
        return [message.encode(), held.encode()]

    def _let_go(self) -> None:
        """Nothing came after it: it was only late."""
        if self._held is not None:
            self._writer.write(self._take_held().encode())

    def _take_held(self) -> Message:
        assert self._held is not None
        held, self._held = self._held[0], None
        if self._release is not None:
            self._release.cancel()
        return held


async def units(reader: asyncio.StreamReader) -> AsyncIterator[bytes | Message]:
    """What a server sends, one line or message at a time; lines that are no message as they are."""
    while True:
        line = await _line(reader)
        if not line:
            return
        words = line.split()
        if not words or words[0] not in (b"MSG", b"HMSG"):
            yield line
            continue
        total = int(words[-1])
        payload = (await reader.readexactly(total + len(_EOL)))[:total]
        head = int(words[-2]) if words[0] == b"HMSG" else 0
        named = words[: -2 if words[0] == b"HMSG" else -1]
        reply = named[3] if len(named) > 3 else b""
        yield Message(words[0], named[1], named[2], reply, payload[:head], payload[head:])


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Up to its end of line, which it keeps; empty at the end of the connection."""
    line = b""
    while not line.endswith(b"\n"):
        try:
            line += await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as beyond:
            line += await reader.readexactly(beyond.consumed)
            if len(line) > _LINE_BYTES_MAX:
                raise
        except asyncio.IncompleteReadError:
            return b""
    return line


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(READ_BYTES_MAX):
        writer.write(data)
        await writer.drain()


FRAMES_AT_ONCE = 3
WAIT_S = 30.0


def faults() -> dict[str, Callable[[Site, Step], None]]:
    """What a run may do to messages, by name: `frames-drop`, `frames-drop-unseen`, `acks-reorder`, `ranges-corrupt`, …"""

    def mistreat(what: What, kind: Kind, *, renumbered: bool) -> Callable[[Site, Step], None]:
        def carry_out(site: Site, step: Step) -> None:
            site.frames.arm(step.region, what, FRAMES_AT_ONCE, kind=kind, renumbered=renumbered)
            site.frames.wait_done(step.region, WAIT_S)

        return carry_out

    def damage_ranges(site: Site, step: Step) -> None:
        """Entries are asked for only where a frame is missing."""
        for last in (False, False, True):  # an origin that has just come back may not answer the first time
            site.frames.arm(step.region, "corrupt", 2, kind="range")
            site.frames.arm(step.region, "drop", 1, renumbered=True)
            try:
                site.frames.wait_done(step.region, WAIT_S)
            except NotArmed:
                if last:
                    raise
            else:
                return

    found: dict[str, Callable[[Site, Step], None]] = {"ranges-corrupt": damage_ranges}
    for what in WHATS:
        found[f"frames-{what}"] = mistreat(what, "frame", renumbered=False)
        if what != "corrupt":
            found[f"frames-{what}-unseen"] = mistreat(what, "frame", renumbered=True)
        found[f"acks-{what}"] = mistreat(what, "ack", renumbered=False)
    return found
