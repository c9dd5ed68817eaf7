"""
What stands between two regions: a TCP proxy for each leaf link, which passes bytes on, or does not.

Region `a` has two connections with region `b`: one that it has opened into b's realm, one that b has opened into its own. Both
are the way between the two, so a fault is one of a pair of regions and meets both connections.

    cut         both connections are broken by a RST, and new ones at once, until `heal`
    blackhole   both stay, and nothing moves: what is sent waits in the kernels, as where packets are lost
    one_way     bytes go from `a` to `b`, and none back
    heal        everything passes again: what waited first, then what comes

Invariants:
    - no byte is changed, lost or passed on out of order: a connection ends, or it is complete;
    - who is held back waits for an event, and not in a loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from chaos.proxy import READ_BYTES_MAX, Background, Serve, connect, either, reset

if TYPE_CHECKING:
    from chaos.schedule import Step
    from chaos.site import Site

Pair = frozenset[str]


class _Way:
    """The way from one region to another, whichever of the two has opened the connection."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.bytes = 0


class Links:
    """The proxies of all links. `start` them before the regions, which are to be told `via`; `stop` them after."""

    def __init__(self) -> None:
        self.via: dict[tuple[str, str], int] = {}
        self._background = Background("chaos/links")
        self._ways: dict[tuple[str, str], _Way] = {}
        self._cut: set[Pair] = set()
        self._sockets: dict[Pair, set[asyncio.StreamWriter]] = {}

    def start(self, regions: Sequence[str], ports: Mapping[str, int]) -> None:
        """`ports`: the leaf port of each region."""
        for here in regions:
            for there in regions:
                if here != there:
                    self._ways[here, there] = _Way()
                    self._sockets.setdefault(frozenset((here, there)), set())
        for here, there in self._ways:
            self.via[here, there] = self._background.listen(self._proxy(here, there, ports[there]))

    def stop(self) -> None:
        self._background.stop()

    def cut(self, a: str, b: str) -> None:
        """Break both connections by a RST, and each new one."""
        self._background.call(self._break(frozenset((a, b))))

    def blackhole(self, a: str, b: str) -> None:
        """Let nothing move, and no connection end."""
        self._set({(a, b): False, (b, a): False})

    def one_way(self, a: str, b: str) -> None:
        """Let bytes go from `a` to `b` only."""
        self._set({(a, b): True, (b, a): False})

    def heal(self, a: str, b: str) -> None:
        self._set({(a, b): True, (b, a): True})

    def heal_all(self) -> None:
        for a, b in self._ways:
            self.heal(a, b)

    def passed(self, a: str, b: str) -> int:
        """How many bytes have gone from `a` to `b`."""
        return self._ways[a, b].bytes

    def connections(self, a: str, b: str) -> int:
        """How many connections there are between the two; each counts twice, once for either end."""
        return len(self._sockets[frozenset((a, b))])

    def _set(self, wanted: Mapping[tuple[str, str], bool]) -> None:
        async def there() -> None:
            for way, is_open in wanted.items():
                self._cut.discard(frozenset(way))
                event = self._ways[way].open
                (event.set if is_open else event.clear)()

        self._background.call(there())

    async def _break(self, pair: Pair) -> None:
        self._cut.add(pair)
        for writer in list(self._sockets[pair]):
            reset(writer)

    def _proxy(self, here: str, there: str, port: int) -> Serve:
        """Connections that the region `here` has opened to the region `there`."""
        pair = frozenset((here, there))
        forth, back = self._ways[here, there], self._ways[there, here]

        async def serve(near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
            if pair in self._cut:
                reset(near)
                return
            sockets = self._sockets[pair]
            sockets.add(near)
            far: asyncio.StreamWriter | None = None
            try:
                await forth.open.wait()  # its first packet does not arrive before
                far_reader, far = await connect(port)
                sockets.add(far)
                await either(_pass_on(near_reader, far, forth), _pass_on(far_reader, near, back))
            finally:
                sockets.discard(near)
                if far is not None:
                    sockets.discard(far)
                    far.close()

        return serve


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Way) -> None:
    while True:
        await way.open.wait()
        data = await reader.read(READ_BYTES_MAX)
        if not data:
            return
        await way.open.wait()
        writer.write(data)
        await writer.drain()
        way.bytes += len(data)


def faults() -> dict[str, Callable[[Site, Step], None]]:
    """What a run may do to the links, by name. A step's region is one end; the other is drawn by its place among the regions."""

    def held(begin: Callable[[Links, str, str], None]) -> Callable[[Site, Step], None]:
        def carry_out(site: Site, step: Step) -> None:
            other = other_region(site.regions, step.region)
            begin(site.links, step.region, other)
            try:
                time.sleep(step.hold_s)
            finally:
                site.links.heal(step.region, other)

        return carry_out

    return {
        "link-cut": held(Links.cut),
        "link-blackhole": held(Links.blackhole),
        "link-one-way": held(Links.one_way),
    }


def other_region(regions: Sequence[str], region: str) -> str:
    """The next one of the regions, in a circle."""
    return regions[(list(regions).index(region) + 1) % len(regions)]
