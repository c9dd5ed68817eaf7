"""
What an origin asks of one other region, in its own realm: how far that region's copy goes, for entries of it, for its
signature as a witness, for data keys that it has made (`keys`).

Invariants:
    - an answer comes from the region that was asked: nobody else may publish below answer.<origin>.<region>;
    - no third region overhears question or answer;
    - a question may be lost, or asked twice: whatever is asked is harmless when repeated.
"""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import NamedTuple

from nats.aio.msg import Msg

from replication.errors import Interrupted
from replication.link import Link
from replication.wire import NO_RESPONDERS, SERVER_STATUS

TIMEOUT_S = 2.0
_QUEUE_MAX = 16  # questions that wait; who finds no room gets no answer, and asks again


class Answer(NamedTuple):
    data: bytes
    headers: Mapping[str, str]


Verb = Callable[[bytes], Awaitable[Answer]]
"""Answers a question of one kind."""


class Peer:
    """One region, as the origin asks it. Made by `peer`."""

    def __init__(self, link: Link, region: str, nonce: str) -> None:
        self.region = region
        self._link = link
        self._nonce = nonce
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[Msg]] = {}

    async def receive(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject.rpartition(".")[2])
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def ask(self, verb: str, data: bytes = b"", *, timeout_s: float = TIMEOUT_S) -> Answer:
        """Raises Interrupted when no answer comes in time."""
        number = str(next(self._numbers))
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        realm = self._link.realm
        try:
            reply = f"{realm.answers(self.region, self._nonce)}.{number}"
            await self._link.publish(realm.ask(self.region, verb), data, reply=reply)
            async with asyncio.timeout(timeout_s):
                message = await waiting
        except TimeoutError as error:
            raise Interrupted(f"{self.region} does not answer ({verb})") from error
        finally:
            del self._waiting[number]
        headers = message.headers or {}
        if headers.get(SERVER_STATUS) == NO_RESPONDERS and not message.data:
            raise Interrupted(f"{self.region} is not there to answer ({verb})")
        return Answer(message.data, headers)


@contextlib.asynccontextmanager
async def peer(own: Link, region: str) -> AsyncIterator[Peer]:
    """A region to ask, over the link in the own realm."""
    nonce = secrets.token_hex(8)
    made = Peer(own, region, nonce)
    subscription = await own.client.subscribe(f"{own.realm.answers(region, nonce)}.*", cb=made.receive)
    try:
        yield made
    finally:
        if not own.client.is_closed:
            await subscription.unsubscribe()


async def serve(realm: Link, region: str, verbs: Mapping[str, Verb]) -> None:
    """Answer, as `region`, what the realm's origin asks by these verbs, one question after another, for ever.

    Several processes of a region may each answer verbs of their own.
    """
    waiting: asyncio.Queue[Msg] = asyncio.Queue(_QUEUE_MAX)

    async def receive(message: Msg) -> None:
        if not waiting.full():
            waiting.put_nowait(message)

    subscriptions = [await realm.client.subscribe(realm.realm.ask(region, verb), cb=receive) for verb in verbs]
    try:
        while True:
            question = await waiting.get()
            if question.reply:
                answer = await verbs[question.subject.rpartition(".")[2]](question.data)
                await realm.publish(question.reply, answer.data, headers=dict(answer.headers) or None)
    finally:
        if not realm.client.is_closed:
            for subscription in subscriptions:
                await subscription.unsubscribe()
