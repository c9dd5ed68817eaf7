"""Who is let in at a link's door, and at whose door a link knocks."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
import pytest
from cryptography import x509

from devstack import Region, Stack, certificates
from devstack.region import PORTS_PER_REGION
from tests.devstack.conftest import ELSEWHERE
from tests.devstack.leaf import Leaf, leaf, shown
from tests.devstack.world import connected, linked
from tests.stack import free_port_base, running_stack

NOW = datetime.now(UTC)
SERVERS = ELSEWHERE
PATIENCE_S = 60.0


def region(folder: Path, name: str = "eu") -> Region:
    return Region(name=name, index=0, data=folder, port_base=8100)


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_regions_certificate_is_kept_while_it_is_good(tmp_path: Path) -> None:
    files = certificates.link(region(tmp_path))
    before = files.certificate.read_bytes(), files.key.read_bytes()
    assert certificates.link(region(tmp_path)) == files
    assert (files.certificate.read_bytes(), files.key.read_bytes()) == before


def test_a_certificate_is_made_anew_before_it_expires_by_the_same_authority(tmp_path: Path) -> None:
    eu = region(tmp_path)
    first = read(certificates.link(eu, at=NOW).certificate)
    nearly = first.not_valid_after_utc - certificates.RENEW_BEFORE
    authority = certificates.trust(eu, eu).read_bytes()
    assert read(certificates.link(eu, at=nearly).certificate) == first
    second = read(certificates.link(eu, at=nearly + timedelta(seconds=1)).certificate)
    assert second.not_valid_after_utc == nearly.replace(microsecond=0) + timedelta(seconds=1) + certificates.VALID_FOR
    second.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    assert second.public_key() != first.public_key()


def test_an_authority_that_could_not_outlive_its_certificates_is_made_anew_with_them(tmp_path: Path) -> None:
    eu, us = region(tmp_path), region(tmp_path, "us")
    certificates.link(eu, at=NOW)
    first = read(certificates.trust(us, eu, at=NOW))
    late = first.not_valid_after_utc - timedelta(days=10)
    second = read(certificates.trust(us, eu, at=late))
    assert second != first
    read(certificates.link(eu, at=late).certificate).verify_directly_issued_by(second)


@pytest.mark.parametrize("damaged", ["link.pem", "link.key", "authority.pem", "authority.key"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("nonsense")])
def test_what_is_lost_or_damaged_is_made_anew(tmp_path: Path, damaged: str, damage: Callable[[Path], object]) -> None:
    eu = region(tmp_path)
    files = certificates.link(eu)
    damage(files.certificate.with_name(damaged))
    assert certificates.link(eu) == files
    read(files.certificate).verify_directly_issued_by(read(certificates.trust(eu, eu)))
    ssl.create_default_context().load_cert_chain(files.certificate, files.key)


def test_each_region_has_an_authority_of_its_own_and_nobody_else_reads_the_keys(tmp_path: Path) -> None:
    eu, us = region(tmp_path), region(tmp_path, "us")
    theirs = certificates.link(us)
    assert certificates.trust(eu, us).read_bytes() != certificates.trust(us, eu).read_bytes()
    with pytest.raises(ValueError, match="does not match certificate issuer"):
        read(theirs.certificate).verify_directly_issued_by(read(certificates.trust(us, eu)))
    for path in tmp_path.glob("*/nats/*"):
        assert path.stat().st_mode & 0o777 == 0o600, path


# At the door


async def let_in(link: Leaf) -> bool:
    await link.publish("ack.EU.US", b"true")
    await link.settled()
    return not link.over.is_set()


async def test_a_region_with_its_key_and_its_certificate_is_let_in(stack: Stack) -> None:
    async with leaf(stack) as link:
        assert await let_in(link)


@asynccontextmanager
async def refused() -> AsyncIterator[None]:
    """TLS 1.3 tells who comes of a refused certificate only when they read."""
    with pytest.raises((ssl.SSLError, ConnectionError)):
        yield


def forged(folder: Path, name: str = "us", *, at: datetime = NOW) -> tuple[Path, Path]:
    return certificates.link(region(folder, name), at=at)


async def test_nobody_is_let_in_without_a_certificate(stack: Stack) -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    async with refused(), leaf(stack, tls=bare):
        pass


async def test_a_certificate_of_somebody_elses_authority_opens_nothing(stack: Stack, tmp_path: Path) -> None:
    async with refused(), leaf(stack, tls=shown(stack, "us", *forged(tmp_path))):
        pass


async def test_an_expired_certificate_opens_nothing(stack: Stack) -> None:
    us = next(each for each in stack.regions if each.name == "us")
    expired = certificates.VALID_FOR + timedelta(days=1)
    async with refused(), leaf(stack, tls=shown(stack, "us", *issued(stack, us, NOW - expired))):
        pass
    async with leaf(stack, tls=shown(stack, "us", *issued(stack, us, NOW))) as link:  # the same, in time
        assert await let_in(link)


def issued(stack: Stack, of: Region, at: datetime) -> tuple[Path, Path]:
    """A certificate by the region's true authority, put elsewhere."""
    elsewhere = stack.data / "elsewhere" / at.date().isoformat() / of.name / "nats"
    elsewhere.mkdir(parents=True, exist_ok=True)
    authority = certificates._authority(of, NOW)
    files = certificates.Files(elsewhere / "link.pem", elsewhere / "link.key")
    certificates._write(files, certificates._issue(certificates._names(of), of.name, authority, at))
    return files


async def test_a_link_in_the_clear_is_not_even_greeted(stack: Stack) -> None:
    port = next(each.ports.leaf for each in stack.regions if each.name == "eu")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"CONNECT {}\r\nPING\r\n")
    said = await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    assert b"INFO" not in said
    assert b"nonce" not in said


async def test_nothing_older_than_tls_1_3_is_spoken(stack: Stack) -> None:
    old = shown(stack, "us")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with refused(), leaf(stack, tls=old):
        pass


@pytest.mark.parametrize("seed", ["own", "in-eu", "commands-own", "commands-in-eu", "link-ca.2"])
async def test_no_other_key_of_a_region_opens_its_link(stack: Stack, seed: str) -> None:
    async with leaf(stack, seed=seed) as link:
        assert not await let_in(link)


async def test_a_signature_that_was_given_before_opens_no_link(stack: Stack) -> None:
    port = next(each.ports.leaf for each in stack.regions if each.name == "eu")
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=shown(stack, "us"))
    link = Leaf(reader, writer)
    assert (await link.greeted())["nonce"]
    await link.say_hello((stack.endpoints("us").seeds / "link-eu.seed").read_bytes(), "an older nonce")
    listening = asyncio.create_task(link.listen())
    await asyncio.wait_for(link.over.wait(), PATIENCE_S)
    listening.cancel()
    writer.close()
    assert any("Authorization Violation" in each for each in link.told)


async def test_a_links_key_is_no_clients(stack: Stack) -> None:
    eu, us = stack.endpoints("eu"), stack.endpoints("us")
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await nats.connect(eu.nats, nkeys_seed=str(us.seeds / "link-eu.seed"), allow_reconnect=False)


async def test_another_regions_own_keys_open_nothing_at_its_neighbour(stack: Stack) -> None:
    eu, us = stack.endpoints("eu"), stack.endpoints("us")
    for user in ("own", "in-eu", "commands-own", "commands-in-eu"):
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            await nats.connect(eu.nats, nkeys_seed=str(us.seeds / f"{user}.seed"), allow_reconnect=False)


# At whose door


class Impostor:
    """Listens where EU should, and shows a certificate. `knocked`: the first line of whoever went on after that."""

    def __init__(self) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.came = asyncio.Event()
        self.knocked: list[bytes] = []

    async def receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Only after the handshake."""
        self.came.set()
        greeting = {
            "server_id": "EVIL",
            "version": "2.15.1",
            "nonce": "relayed",
            "headers": True,
            "max_payload": 1_048_576,
            "tls_required": True,
            "client_id": 1,
            "leafnode_urls": ["127.0.0.1:1"],
        }
        writer.write(b"INFO " + json.dumps(greeting).encode() + b"\r\n")
        line = await reader.readline()
        if line:
            self.knocked.append(line)
        writer.close()


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Stack]:
    """Two regions; US goes to EU through a port where nobody listens yet."""
    port = free_port_base() + PORTS_PER_REGION - 1
    with running_stack(tmp_path, ("eu", "us"), given={"eu": SERVERS, "us": SERVERS}, via={("us", "eu"): port}) as stack:
        yield stack


@pytest.mark.parametrize(("whose", "believed"), [("us", False), ("eu", True)])
async def test_a_region_tells_its_key_to_nobody_but_the_region_it_means(
    apart: Stack, whose: str, believed: bool
) -> None:
    """`believed` shows that the impostor would be, with EU's own certificate."""
    impostor = Impostor()
    folder = apart.endpoints(whose).seeds
    impostor.context.load_cert_chain(folder / "link.pem", folder / "link.key")
    port = apart.regions[1].via["eu"]
    async with await asyncio.start_server(impostor.receive, "127.0.0.1", port, ssl=impostor.context):
        if believed:
            await asyncio.wait_for(impostor.came.wait(), PATIENCE_S)
        log = apart.log("us", "nats")
        said = "TLS leafnode handshake error" if not believed else ""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while not (impostor.knocked if believed else said in log.read_text()):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)
    assert any(b"CONNECT" in each for each in impostor.knocked) == believed


async def test_links_heal_after_a_renewal(tmp_path: Path) -> None:
    """The certificates of a stack that was down for long are made anew at its start, and its regions speak to each other."""
    regions = ("eu", "us")
    long_ago = NOW - certificates.VALID_FOR
    folder = tmp_path / "data"
    for name in regions:
        (folder / name).mkdir(parents=True)
        certificates.link(region(folder, name), at=long_ago)
    old = read(folder / "eu" / "nats" / "link.pem")
    with running_stack(folder, regions, given=dict.fromkeys(regions, SERVERS)) as stack:
        async with connected(stack, "us", "in-eu") as us:
            await linked(us, "EU")
    assert read(folder / "eu" / "nats" / "link.pem") != old


@pytest.mark.fault
@pytest.mark.parametrize("whose", ["us", "eu"])
async def test_an_expired_certificate_is_a_split_link_until_it_is_replaced_and_reloaded(
    tmp_path: Path, whose: str
) -> None:
    """Of US, who opens the link, and of EU, who is called. Nothing but the file is changed, and the server told to look."""
    regions = ("eu", "us")
    with running_stack(tmp_path, regions, given=dict.fromkeys(regions, SERVERS)) as stack:
        of = next(each for each in stack.regions if each.name == whose)
        files = certificates.link(of)
        good = certificates._read(files)
        assert good
        expired = NOW - certificates.VALID_FOR - timedelta(hours=1)
        certificates._write(
            files, certificates._issue(certificates._names(of), whose, certificates._authority(of, NOW), expired)
        )
        await asyncio.to_thread(stack.kill, whose, "nats")
        await asyncio.to_thread(stack.wait_restarted, whose, "nats")
        other = stack.log("eu" if whose == "us" else "us", "nats")
        why = f"certificate has expired or is not yet valid.*CN=countroom link {whose}"
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while not re.search(why, other.read_text()):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.1)
        async with connected(stack, "us", "in-eu") as us:
            with pytest.raises((nats.errors.NoRespondersError, nats.errors.TimeoutError)):
                await us.request("$JS.EU.API.INFO", b"", timeout=1)
            certificates._write(files, good)
            stack.send(whose, "nats", signal.SIGHUP)
            await linked(us, "EU")
