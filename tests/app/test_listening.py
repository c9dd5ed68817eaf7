"""Nobody keeps a connection open by being slow, sends a head without end, or gets an answer without its header fields."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from access.rates import ADMITTED, Limits
from app import listening
from app.api import _Server
from app.fields import Fields
from app.guard import Guard
from app.lane import body_of
from policies.rates import Rate

FIELDS = (
    b"referrer-policy: no-referrer\r\n",
    b"cross-origin-opener-policy: same-origin\r\n",
    b"cross-origin-embedder-policy: require-corp\r\n",
    b"cross-origin-resource-policy: same-origin\r\n",
    b"permissions-policy: ",
    b"x-content-type-options: nosniff\r\n",
    b"content-security-policy: ",
    b"cache-control: no-store\r\n",
)


class Served(NamedTuple):
    port: int
    server: uvicorn.Server
    heard: list[str]

    async def say(self, *parts: bytes, then_end: bool = False) -> bytes:
        """Everything that is answered on one connection until it ends. A part ends when it was sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for part in parts:
            writer.write(part)
            await writer.drain()
        if then_end:
            writer.write_eof()
        answered = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return answered

    def look(self, seconds: float) -> None:
        """As if so many seconds had gone by."""
        at = asyncio.get_running_loop().time() + seconds
        for each in list(self.server.server_state.connections):
            assert isinstance(each, listening.Bounded)
            each.look(at)


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None, *own: tuple[bytes, bytes]) -> AsyncIterator[Served]:
    """`own`: what the application says of itself in each answer. An application behind its guard, on a real socket: it reads the whole body, and answers with its length."""
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[ADMITTED] = True
        heard.append(scope["path"])
        try:
            body = await body_of(receive, 10_000_000) if scope["method"] == "POST" else b""
        except ClientDisconnect:
            heard.append("gone")
            return
        told = b"%d %b" % (len(body), scope["scheme"].encode())
        if scope["path"] == "/long":
            told = b"x" * 30_000_000
        headers = [(b"content-length", b"%d" % len(told)), (b"content-type", b"text/plain"), *own]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": told})

    fields = Fields(tls=context is not None)
    guarded = Guard(app, Limits({"address": Rate(1_000, 1_000)}))
    protocol = listening.protocol(fields)
    config = uvicorn.Config(
        guarded, port=0, http=protocol, ws="none", lifespan="off", log_config=None, server_header=False
    )
    config.load()
    config.ssl = context
    server = _Server(config)
    running = asyncio.create_task(server.serve())
    await when(lambda: server.started)
    try:
        yield Served(server.servers[0].sockets[0].getsockname()[1], server, heard)
    finally:
        server.should_exit = True
        server.force_exit = True
        await running


async def when(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 — what is waited for knows no events
            await asyncio.sleep(0.01)


def problem(answered: bytes) -> tuple[int, str]:
    head, _, body = answered.partition(b"\r\n\r\n")
    assert all(field in head + b"\r\n" for field in FIELDS), head
    assert b"connection: close" in head
    assert b"content-type: application/problem+json" in head
    return int(head.split(b" ")[1]), json.loads(body)["code"]


async def test_an_answer_has_its_fields_once_behind_its_own() -> None:
    async with serving() as served:
        answered = await served.say(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc")
    head, _, body = answered.partition(b"\r\n\r\n")
    assert body == b"3 http"
    lines = head.split(b"\r\n")
    names = [line.partition(b":")[0] for line in lines[1:]]
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert len(set(names)) == len(names)
    assert all(field.strip() in head for field in FIELDS)
    assert b"strict-transport-security" not in head
    assert b"frame-ancestors 'none'" in head


@pytest.mark.parametrize(
    "own",
    [
        [(b"cache-control", b"public, max-age=1")],
        [(b"content-security-policy", b"default-src 'self'")],
        [(b"content-security-policy", b"default-src 'self'"), (b"cache-control", b"no-cache")],
    ],
)
async def test_what_a_route_says_of_itself_stands_and_stands_once(own: list[tuple[bytes, bytes]]) -> None:
    async with serving(None, *own) as served:
        answered = await served.say(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    head = answered.partition(b"\r\n\r\n")[0].split(b"\r\n")
    for name in (b"cache-control: ", b"content-security-policy: "):
        assert len([line for line in head if line.startswith(name)]) == 1
    assert all(b"%b: %b" % pair in head for pair in own)
    assert FIELDS[0].strip() in head


async def test_a_value_that_looks_like_a_field_is_none() -> None:
    async with serving(None, (b"x-told", b"cache-control: public")) as served:
        answered = await served.say(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert b"\r\ncache-control: no-store\r\n" in answered


async def test_several_requests_on_one_connection_are_answered_one_after_the_other() -> None:
    async with serving() as served:
        one = b"POST /one HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\na"
        last = b"GET /two HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        answered = await served.say(one + one + last)
    assert answered.count(b"HTTP/1.1 200 OK") == 3
    assert answered.count(FIELDS[0]) == 3


async def test_who_waits_to_be_told_to_go_on_is_told_without_those_fields() -> None:
    async with serving() as served:
        head = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\nconnection: close\r\n\r\n"
        answered = await served.say(head, b"abc")
    assert answered.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nhost: x\r\na\x00b: c\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused_with_a_problem_and_does_nothing(raw: bytes) -> None:
    async with serving() as served:
        assert problem(await served.say(raw)) == (400, "malformed")
    assert "gone" in served.heard or not served.heard


async def test_a_head_that_does_not_end_is_refused_when_it_is_too_long() -> None:
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET / HTTP/1.1\r\n")
        sent = 0
        while not reader.at_eof() and sent < 10_000_000:
            writer.write(b"x-%d: " % sent + b"y" * 1000 + b"\r\n")
            sent += 1000
            try:
                await writer.drain()
                await asyncio.wait_for(asyncio.shield(asyncio.sleep(0)), 1)
            except ConnectionError:
                break
        writer.close()
    assert sent < 2_000_000
    assert served.heard == []


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\nhost: x\r\n", b"POST / HTTP/1.1\r\nhost: x\r\nx: y"])
async def test_a_head_that_is_not_whole_in_time_is_refused(sent: bytes) -> None:
    async with serving() as served:
        saying = asyncio.create_task(served.say(sent))
        await when(lambda: any(each.scope for each in served.server.server_state.connections))
        served.look(listening.HEAD_SECONDS - 1)
        assert not saying.done()
        served.look(listening.HEAD_SECONDS + 1)
        assert problem(await saying) == (408, "too_slow")
    assert served.heard == []


async def test_a_connection_that_says_nothing_is_ended_without_a_word() -> None:
    async with serving() as served:
        saying = asyncio.create_task(served.say())
        await when(lambda: served.server.server_state.connections)
        served.look(listening.HEAD_SECONDS + 1)
        assert await saying == b""


@pytest.mark.parametrize("framing", [b"content-length: 100", b"transfer-encoding: chunked"])
async def test_a_body_that_is_not_whole_in_time_is_refused_and_the_command_not_run(framing: bytes) -> None:
    async with serving() as served:
        saying = asyncio.create_task(served.say(b"POST / HTTP/1.1\r\nhost: x\r\n" + framing + b"\r\n\r\n", b"1\r\na"))
        await when(lambda: served.heard)
        served.look(listening.MESSAGE_SECONDS - 1)
        assert not saying.done()
        served.look(listening.MESSAGE_SECONDS + 1)
        assert problem(await saying) == (408, "too_slow")
        await when(lambda: len(served.heard) > 1)
    assert served.heard == ["/", "gone"]


async def test_a_body_after_its_refusal_cannot_keep_the_connection() -> None:
    async with serving() as served:
        saying = asyncio.create_task(
            served.say(b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999\r\n\r\n", b"x" * 9)
        )
        assert problem(await saying) == (413, "body_too_large")
    assert served.heard == []


async def test_a_request_that_is_answered_in_time_is_left_alone() -> None:
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        served.look(3_600)  # between two requests uvicorn's own time-out counts
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert (await reader.read()).count(b"HTTP/1.1 200") == 1


async def test_who_takes_nothing_of_an_answer_is_let_go() -> None:
    async with serving() as served:
        _reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1)
        writer.write(b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n")
        await when(lambda: any(each.flow.write_paused for each in served.server.server_state.connections))
        served.look(listening.STUCK_SECONDS + 1)
        await when(lambda: not served.server.server_state.connections)
        writer.close()


async def test_the_look_comes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.05)
    async with serving() as served:
        looking = asyncio.create_task(listening.look_after(served.server.server_state.connections, every_s=0.02))
        assert problem(await served.say(b"GET / HTTP/1.1\r\n")) == (408, "too_slow")
        looking.cancel()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that says of itself that it is one, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


async def tls_answer(port: int, context: ssl.SSLContext) -> tuple[str | None, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    version = writer.get_extra_info("ssl_object").version()
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answered = await reader.read()
    writer.close()
    return version, answered


async def test_tls_is_spoken_with_a_certificate_of_ones_own_and_not_below_1_2(tmp_path: Path) -> None:
    files = certificate(tmp_path)
    async with serving(listening.tls(*files)) as served:
        trusting = ssl.create_default_context(cafile=str(files[0]))
        version, answered = await tls_answer(served.port, trusting)
        assert version == "TLSv1.3"
        assert answered.endswith(b"0 https")
        assert b"\r\nstrict-transport-security: max-age=31536000; includeSubDomains\r\n" in answered
        trusting.maximum_version = ssl.TLSVersion.TLSv1_2
        assert (await tls_answer(served.port, trusting))[0] == "TLSv1.2"
        with pytest.raises(ssl.SSLCertVerificationError):
            await tls_answer(served.port, ssl.create_default_context())
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(files[0])
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await tls_answer(served.port, old)
        assert await served.say(b"GET / HTTP/1.1\r\n\r\n", then_end=True) == b""  # in the clear: nothing


def test_every_suite_that_is_offered_is_strong_and_forgets_its_keys(tmp_path: Path) -> None:
    for suite in listening.tls(*certificate(tmp_path)).get_ciphers():
        assert suite["strength_bits"] >= 128, suite
        assert suite["kea"] in {"kx-any", "kx-ecdhe", "kx-dhe"}, suite
