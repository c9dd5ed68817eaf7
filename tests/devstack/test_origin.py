"""An origin that was taken over, against a region that has a link into its realm: the way back."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from nats.js.api import StreamConfig

from devstack import Stack, realms
from devstack.region import PORTS_PER_REGION
from tests.devstack.conftest import ELSEWHERE
from tests.devstack.world import connected, until
from tests.flushing import flushed
from tests.stack import free_port_base, running_stack

SPOKEN = (
    "log.US",
    "ack.US.EU",
    "cmd.US.EU.run",
    "ask.US.EU.keys",
    "$JS.API.STREAM.DELETE.LOG_US",
    "$JS.API.STREAM.PURGE.LOG_US",
    "$JS.US.API.STREAM.DELETE.LOG_US",
    "$JS.US.API.STREAM.PURGE.LOG_US",
    "$JS.API.STREAM.CREATE.EVIL",
    "$JS.US.API.STREAM.CREATE.EVIL",
    "$SYS.REQ.ACCOUNT.R_US.CLAIMS.UPDATE",
)
EVIL = json.dumps({"name": "EVIL", "subjects": ["evil.>"], "storage": "file", "max_bytes": 7 * 2**30}).encode()


class Origin:
    """EU's server with all that it has, which says to US's what it likes."""

    def __init__(self, stack: Stack) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        seeds = stack.endpoints("eu").seeds
        self.context.load_cert_chain(seeds / "link.pem", seeds / "link.key")
        self.heard: list[bytes] = []

    async def receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "EVIL", "version": "2.15.1", "nonce": "n", "headers": True, "max_payload": 1_048_576}
        info |= {
            "tls_required": True,
            "client_id": 1,
            "leafnode_urls": ["127.0.0.1:1"],
            "jetstream": True,
            "domain": "EU",
        }
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
            elif line.startswith(b"CONNECT"):
                writer.write(b"INFO " + json.dumps(info | {"connect_info": True}).encode() + b"\r\nPING\r\n")
            elif line.startswith((b"LMSG", b"HMSG")):
                self.heard.append(line + await reader.readexactly(int(line.split()[-1]) + 2))
            elif line.startswith(b"LS+ hint.EU.head"):
                for subject in SPOKEN:
                    writer.write(f"LMSG {subject} answer.EU.evil {len(EVIL)}\r\n".encode() + EVIL + b"\r\n")
                    writer.write(f"LMSG {subject} 0\r\n\r\n".encode())
                writer.write(b"LMSG hint.EU.head 4\r\ntrue\r\n")
        writer.close()


@contextmanager
def apart(tmp_path: Path) -> Iterator[Stack]:
    """Two regions; US goes to EU through a port where nobody listens yet."""
    port = free_port_base() + PORTS_PER_REGION - 1
    given = dict.fromkeys(("eu", "us"), ELSEWHERE)
    with running_stack(tmp_path, ("eu", "us"), given=given, via={("us", "eu"): port}) as stack:
        yield stack


async def attacked(apart: Stack) -> None:
    """What EU may say is heard, after all that it may not. Raises AssertionError if that was good for something."""
    heard: list[str] = []

    async def note(message: Msg) -> None:
        heard.append(message.subject)

    async with connected(apart, "us", "own") as own, connected(apart, "us", "in-eu") as us:
        js = own.jetstream()
        await js.add_stream(StreamConfig(name="LOG_US", subjects=["log.US"]))
        await js.publish("log.US", b"entry 1")
        for subject in ("log.>", "ack.>", "cmd.>", "ask.>"):
            await own.subscribe(subject, cb=note)
        await flushed(own)
        origin = Origin(apart)
        port = apart.regions[1].via["eu"]
        async with await asyncio.start_server(origin.receive, "127.0.0.1", port, ssl=origin.context):
            await us.subscribe("hint.EU.head", cb=note)

            async def told() -> bool:
                return "hint.EU.head" in heard

            await until(told, "what EU may say")
            await asyncio.sleep(0.2)
        assert heard == ["hint.EU.head"]
        [stream] = await js.streams_info()
        assert (stream.config.name, stream.state.messages) == ("LOG_US", 1)
    assert origin.heard == []
    jetstream = apart.endpoints("us").seeds / "jetstream" / "jetstream"
    assert sorted(path.name for path in jetstream.iterdir() if path.name.startswith("R_")) == ["R_US"]


async def test_an_origin_has_no_say_in_the_realm_and_the_streams_of_who_comes_to_it(tmp_path: Path) -> None:
    with apart(tmp_path) as stack:
        await attacked(stack)


async def test_a_jetstream_at_the_other_end_of_a_link_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = realms._local_side
    monkeypatch.setattr(realms, "_local_side", lambda *regions: strict(*regions) | {"jetstream": "enabled"})
    with apart(tmp_path) as stack, pytest.raises(AssertionError, match="R_EU"):
        await attacked(stack)
