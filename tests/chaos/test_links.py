"""What a link lets pass when it is cut, swallows everything, or goes one way: single connections first, then two real NATS servers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import nats
import pytest
from nats.aio.client import Client

from chaos.links import Links, faults
from chaos.schedule import Step
from devstack import Stack
from tests.stack import free_port_base, running_stack, throw_away

SOON_S = 30.0


class Listener:
    """Somebody who listens, and keeps what is sent to each connection."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.connections.append(self._socket.accept()[0])

    def close(self) -> None:
        for each in (self._socket, *self.connections):
            each.close()


@pytest.fixture
def eu() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def us() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def links(eu: Listener, us: Listener) -> Iterator[Links]:
    made = Links()
    made.start(["eu", "us"], {"eu": eu.port, "us": us.port})
    yield made
    made.stop()


def soon(condition: Callable[[], object]) -> None:
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def opened(links: Links, here: str, there: str, listener: Listener) -> tuple[socket.socket, socket.socket]:
    """A connection from one region to another: the near end and the far end, between which a byte has passed."""
    before = len(listener.connections)
    near = socket.create_connection(("127.0.0.1", links.via[here, there]), timeout=SOON_S)
    soon(lambda: len(listener.connections) > before)
    far = listener.connections[-1]
    far.settimeout(SOON_S)
    near.sendall(b"!")
    assert far.recv(1) == b"!"
    return near, far


def is_silent(end: socket.socket) -> bool:
    """Nothing has come, and it has not ended."""
    end.settimeout(0.3)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(SOON_S)
    return False


def is_broken(end: socket.socket) -> bool:
    try:
        return end.recv(1) != b""
    except ConnectionResetError:
        return True


def is_refused(port: int) -> bool:
    """A new connection is broken at once: while it is being made, or as soon as it has been."""
    try:
        late = socket.create_connection(("127.0.0.1", port), timeout=SOON_S)
    except ConnectionResetError:
        return True
    with late:
        return is_broken(late)


def test_bytes_pass_both_ways_unchanged_and_an_end_is_passed_on(links: Links, us: Listener) -> None:
    near, far = opened(links, "eu", "us", us)
    sent = bytes(range(256)) * 20_000

    def send() -> None:
        near.sendall(sent)
        near.shutdown(socket.SHUT_WR)

    threading.Thread(target=send, daemon=True).start()
    got = b""
    while data := far.recv(65536):
        got += data
    assert got == sent
    assert links.passed("eu", "us") == len(sent) + 1


def test_a_cut_breaks_the_connections_of_both_regions_at_both_ends_and_refuses_new_ones(
    links: Links, eu: Listener, us: Listener
) -> None:
    ends = [*opened(links, "eu", "us", us), *opened(links, "us", "eu", eu)]
    links.cut("eu", "us")
    assert all(is_broken(end) for end in ends)
    assert is_refused(links.via["us", "eu"])
    assert len(eu.connections) == 1
    links.heal("eu", "us")
    opened(links, "us", "eu", eu)


def test_a_blackhole_keeps_what_is_sent_and_gives_it_when_it_heals(links: Links, us: Listener) -> None:
    near, far = opened(links, "eu", "us", us)
    links.blackhole("eu", "us")
    near.sendall(b"forth")
    far.sendall(b"back")
    assert is_silent(far)
    assert is_silent(near)
    links.heal("eu", "us")
    assert far.recv(5) == b"forth"
    assert near.recv(4) == b"back"


def test_who_connects_into_a_blackhole_is_heard_when_it_heals(links: Links, us: Listener) -> None:
    links.blackhole("eu", "us")
    near = socket.create_connection(("127.0.0.1", links.via["eu", "us"]), timeout=SOON_S)
    near.sendall(b"hello")
    assert is_silent(near)
    assert us.connections == []
    links.heal("eu", "us")
    soon(lambda: us.connections)
    us.connections[0].settimeout(SOON_S)
    assert us.connections[0].recv(5) == b"hello"


@pytest.mark.parametrize("opener", ["eu", "us"])
def test_one_way_is_a_matter_of_where_bytes_come_from_and_not_of_who_has_connected(
    links: Links, eu: Listener, us: Listener, opener: str
) -> None:
    if opener == "eu":
        at_eu, at_us = opened(links, "eu", "us", us)
    else:
        at_us, at_eu = opened(links, "us", "eu", eu)
    links.one_way("eu", "us")
    at_eu.sendall(b"forth")
    at_us.sendall(b"back")
    assert at_us.recv(5) == b"forth"
    assert is_silent(at_eu)
    links.heal("us", "eu")
    assert at_eu.recv(4) == b"back"


def test_a_cut_takes_the_place_of_a_blackhole(links: Links, us: Listener) -> None:
    near, far = opened(links, "eu", "us", us)
    links.blackhole("eu", "us")
    links.cut("eu", "us")
    assert is_broken(near)
    assert is_broken(far)
    links.heal("eu", "us")
    kept = opened(links, "eu", "us", us)
    soon(lambda: links.connections("eu", "us") == 2)
    del kept


def test_other_regions_are_not_met(eu: Listener, us: Listener) -> None:
    ap, links = Listener(), Links()
    links.start(["eu", "us", "ap"], {"eu": eu.port, "us": us.port, "ap": ap.port})
    try:
        near, far = opened(links, "eu", "ap", ap)
        links.cut("eu", "us")
        near.sendall(b"?")
        assert far.recv(1) == b"?"
    finally:
        links.stop()
        ap.close()


class Between(NamedTuple):
    """As much of a site as these faults see."""

    links: Links
    regions: list[str]


@pytest.mark.parametrize("fault", sorted(faults()))
def test_a_step_holds_the_link_for_as_long_as_it_says_and_heals_it(links: Links, us: Listener, fault: str) -> None:
    near, _ = opened(links, "eu", "us", us)
    step = Step(0.0, fault, "us", hold_s=3.0)
    carried_out = threading.Thread(target=faults()[fault], args=(Between(links, ["eu", "us"]), step))
    began = time.monotonic()
    carried_out.start()
    if fault == "link-cut":
        assert is_broken(near)
    else:
        time.sleep(0.3)
        near.sendall(b"?")
        assert is_silent(us.connections[0])
    assert carried_out.is_alive()
    carried_out.join()
    assert time.monotonic() - began >= step.hold_s
    opened(links, "eu", "us", us)


# Two real servers


@pytest.fixture(scope="module")
def between(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Links]]:
    base = free_port_base(2)
    links = Links()
    links.start(["eu", "us"], {"eu": base + 3, "us": base + 103})
    with Stack(data=tmp_path_factory.mktemp("links"), regions=["eu", "us"], port_base=base, via=links.via) as stack:
        stack.start_servers()
        yield stack, links
        throw_away(stack)
    links.stop()


@contextlib.asynccontextmanager
async def connected(stack: Stack, region: str, user: str) -> AsyncIterator[Client]:
    at = stack.endpoints(region)
    client = await nats.connect(at.nats, nkeys_seed=str(at.seeds / f"{user}.seed"))
    try:
        yield client
    finally:
        await client.close()


async def answered(client: Client, realm: str) -> bool:
    """Whether the origin's JetStream is heard through the link."""
    try:
        await client.request(f"$JS.{realm}.API.INFO", b"", timeout=0.5)
    except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
        return False
    return True


async def until(stack: Stack, expected: bool) -> None:
    """Wait until US hears EU, and EU hears US; or neither does."""
    async with connected(stack, "us", "in-eu") as us, connected(stack, "eu", "in-us") as eu:
        end = time.monotonic() + SOON_S
        while [await answered(us, "EU"), await answered(eu, "US")] != [expected, expected]:
            assert time.monotonic() < end, "it did not happen in time"


@pytest.mark.parametrize("fault", [Links.cut, Links.blackhole, Links.one_way])
async def test_nothing_is_heard_of_another_region_until_the_link_heals(
    between: tuple[Stack, Links], fault: Callable[[Links, str, str], None]
) -> None:
    stack, links = between
    await until(stack, expected=True)
    fault(links, "eu", "us")
    await until(stack, expected=False)
    links.heal("eu", "us")
    await until(stack, expected=True)


async def test_a_stack_without_proxies_links_its_servers_straight(tmp_path: Path) -> None:
    with running_stack(tmp_path, ["eu", "us"]) as stack:
        await until(stack, expected=True)
        throw_away(stack)
