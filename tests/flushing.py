"""What was said on a NATS connection has arrived."""

from __future__ import annotations

from nats.aio.client import Client


async def flushed(client: Client) -> None:
    """Return once its server has taken everything that this connection has said so far.

    One `flush` does not tell: nats-py 2.16 writes its PING past what still waits to be written, so that a subscription may come to the
    server after the PONG has left it. When that PONG is here, what waited has been written.
    """
    await client.flush()
    await client.flush()
