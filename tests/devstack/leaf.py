"""
A leaf that keeps no rule: it speaks the leaf protocol of NATS to a region's server with another region's real key and certificate,
as that region's server would if somebody had taken it over. No server of ours is in between.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import nkeys

from devstack import Stack

PATIENCE_S = 60.0


class Heard(NamedTuple):
    subject: str
    reply: str
    data: bytes


def shown(stack: Stack, region: str, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """TLS as the region speaks it, or with another certificate. It believes anybody, which is its own affair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    folder = stack.endpoints(region).seeds
    context.load_cert_chain(certificate or folder / "link.pem", key or folder / "link.key")
    return context


class Leaf:
    """Made by `leaf`. What it hears and is told, it keeps."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard: list[Heard] = []
        self.told: list[str] = []
        self.over = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._pong = asyncio.Event()

    async def greeted(self) -> dict[str, str]:
        line = await asyncio.wait_for(self._reader.readline(), PATIENCE_S)
        if not line.startswith(b"INFO "):
            raise ConnectionError(f"no greeting: {line!r}")
        greeting: dict[str, str] = json.loads(line[5:])
        return greeting

    async def say_hello(self, seed: bytes, nonce: str) -> None:
        key = nkeys.from_seed(bytearray(seed))
        hello = {
            "nkey": key.public_key.decode(),
            "sig": base64.urlsafe_b64encode(key.sign(nonce.encode())).rstrip(b"=").decode(),
            "server_id": "EVIL",
            "name": "evil",
            "domain": "EVIL",
            "headers": True,
            "jetstream": True,
            "no_responders": True,
            "version": "2.15.1",
        }
        await self.send(b"CONNECT " + json.dumps(hello).encode() + b"\r\n")

    async def send(self, raw: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # who has been thrown out has heard it, see `told`
            self._writer.write(raw)
            await self._writer.drain()

    async def publish(self, subject: str, data: bytes = b"", reply: str = "", *, headers: bytes = b"") -> None:
        said = f"{subject} {reply} ".replace("  ", " ")
        if headers:
            await self.send(
                f"HMSG {said}{len(headers)} {len(headers) + len(data)}\r\n".encode() + headers + data + b"\r\n"
            )
        else:
            await self.send(f"LMSG {said}{len(data)}\r\n".encode() + data + b"\r\n")

    async def subscribe(self, subject: str, queue: str = "") -> None:
        await self.send(f"LS+ {subject} {queue} 1\r\n".encode() if queue else f"LS+ {subject}\r\n".encode())

    async def settled(self) -> None:
        """All that was sent has been read, or the server has hung up."""
        self._pong.clear()
        await self.send(b"PING\r\n")
        waiting = [asyncio.create_task(self._pong.wait()), asyncio.create_task(self.over.wait())]
        done, left = await asyncio.wait(waiting, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        assert done, "the server neither answers nor hangs up"

    async def listen(self) -> None:
        """Until the server hangs up."""
        try:
            while line := await self._reader.readline():
                verb, *words = line.decode().split()
                if verb in {"LMSG", "HMSG"}:
                    data = await self._reader.readexactly(int(words[-1]) + 2)
                    after = int(words[-2]) if verb == "HMSG" else 0
                    named = words[1 : -2 if verb == "HMSG" else -1]
                    self.heard.append(Heard(words[0], next((w for w in named if len(w) > 1), ""), data[after:-2]))
                elif verb == "PING":
                    await self.send(b"PONG\r\n")
                elif verb == "PONG":
                    self._pong.set()
                elif verb == "-ERR":
                    self.told.append(" ".join(words))
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError) as error:
            self.told.append(repr(error))
        finally:
            self.over.set()


@contextlib.asynccontextmanager
async def leaf(
    stack: Stack,
    *,
    of: str = "us",
    to: str = "eu",
    seed: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Leaf]:
    """A link of region `of` to region `to`. `seed`: another of its users. Raises ConnectionError, ssl.SSLError if there is none."""
    port = next(region.ports.leaf for region in stack.regions if region.name == to)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls or shown(stack, of))
    made = Leaf(reader, writer)
    try:
        nonce = (await made.greeted())["nonce"]
        await made.say_hello((stack.endpoints(of).seeds / f"{seed or f'link-{to}'}.seed").read_bytes(), nonce)
        listening = asyncio.create_task(made.listen())
        try:
            await made.settled()
            yield made
        finally:
            listening.cancel()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), PATIENCE_S)
