"""A region with all that it really has, against another region's realm: what it must neither say, hear, nor bring about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from devstack import Region, Stack, realms
from tests.devstack import attacks
from tests.devstack.conftest import ELSEWHERE, REGIONS
from tests.devstack.leaf import leaf
from tests.devstack.world import Actor, World, until, world
from tests.stack import running_stack

MEANS = ("service", "leaf")
"""By its service user through its own server, and as a leaf that keeps no rule (`leaf`)."""


pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def actor(there: World, means: str) -> AsyncIterator[Actor]:
    if means == "service":
        us = Actor(there["us in-eu"])
        yield us
        await us.end()
    else:
        async with leaf(there.stack) as evil:
            yield Actor(evil)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(stack: Stack) -> AsyncIterator[World]:
    async with world(stack) as made:
        yield made


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("subject", attacks.SPOKEN)
async def test_a_region_says_nothing_in_anothers_name(there: World, means: str, subject: str) -> None:
    async with actor(there, means) as us:
        await attacks.speaking(there, us, subject)


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("subject", attacks.LISTENED)
async def test_a_region_does_not_hear_what_others_say_to_each_other(there: World, means: str, subject: str) -> None:
    async with actor(there, means) as us:
        await attacks.listening(there, us, subject)


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize(("subject", "queue"), attacks.STOLEN)
async def test_a_region_takes_no_share_of_what_others_are_asked(
    there: World, means: str, subject: str, queue: str
) -> None:
    async with actor(there, means) as us:
        await attacks.listening(there, us, subject, queue)


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("subject", attacks.ANSWERED_ON)
async def test_an_answer_goes_to_who_asked_whatever_subject_they_name(there: World, means: str, subject: str) -> None:
    if means == "service" and subject.startswith("$JS.ACK."):
        pytest.skip("our own server lets nobody be answered there")
    async with actor(there, means) as us:
        await attacks.being_answered(there, us, subject)


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("subject", attacks.DELIVERED_TO)
async def test_a_consumer_brings_nothing_where_it_must_not_be(there: World, means: str, subject: str) -> None:
    async with actor(there, means) as us:
        await attacks.delivering(there, us, subject)


async def test_what_a_region_delivers_by_a_consumer_is_the_origins_own_log_and_nothing_else(there: World) -> None:
    """A consumer may be given a subject on which EU speaks to others, such as its hints: they get EU's entries there, as noise."""
    async with actor(there, "leaf") as us:
        there.seen.clear()
        await there.hear("ca own", "hint.EU.head")
        name = "push-noise"
        wanted = {"name": name, "ack_policy": "none", "mem_storage": True, "deliver_subject": "rpc.EU.range"}
        request = {"stream_name": "LOG_EU", "action": "create", "config": wanted}
        await us.publish(f"$JS.EU.API.CONSUMER.CREATE.LOG_EU.{name}", json.dumps(request).encode(), "_INBOX.evil")
        await us.settled()
        await asyncio.sleep(0.3)
    stored = {(await there["eu own"].jetstream().get_msg("LOG_EU", seq)).data for seq in range(1, 4)}
    assert {each.data for each in there.news()} <= stored | {b"secret entry", b"entry more"}
    await there["eu own"].jetstream().delete_consumer("LOG_EU", name)


async def test_a_message_that_is_too_large_ends_the_link_and_is_not_heard(there: World) -> None:
    async with leaf(there.stack) as evil:
        there.seen.clear()
        await evil.publish("ack.EU.US", b"x" * 900_000)
        await evil.settled()
        await evil.publish("ack.EU.US", b"y" * 1_100_000)
        await evil.settled()
        assert evil.over.is_set()
    assert [each.data[:1] for each in there.seen if each.subject == "ack.EU.US"] == [b"x"]


@pytest.mark.parametrize("account", ["R_CA_2", "SYS", "R_US"])
async def test_a_region_cannot_say_that_it_asks_from_another_account(there: World, account: str) -> None:
    """Servers tell each other in a header who asks."""

    async def answered() -> bool:
        return any(each.subject == "_INBOX.evil.true" for each in evil.heard)

    header = f'NATS/1.0\r\nNats-Request-Info: {{"acc":"{account}","svc":"{account}","kind":"Client"}}\r\n\r\n'.encode()
    async with leaf(there.stack) as evil:
        await evil.subscribe("_INBOX.evil.>")
        await evil.publish("$JS.EU.API.INFO", b"", "_INBOX.evil.true")
        await evil.publish("$JS.EU.API.INFO", b"", "_INBOX.evil.forged", headers=header)
        await evil.publish("$JS.EU.API.STREAM.INFO.LOG_EU", b"", "_INBOX.evil.stream", headers=header)
        await evil.settled()
        await until(answered, "an answer to the true question")
        await asyncio.sleep(0.3)
        answers = {each.subject: json.loads(each.data) for each in evil.heard}
    assert answers["_INBOX.evil.true"]["streams"] == len(await there.state())
    if forged := answers.get("_INBOX.evil.forged"):
        assert forged.get("streams", len(await there.state())) == len(await there.state())
    if stream := answers.get("_INBOX.evil.stream"):
        assert stream.get("config", {"name": "LOG_EU"})["name"] == "LOG_EU"


async def test_a_message_cannot_name_the_queue_that_is_to_have_it(there: World) -> None:
    """Servers tell each other which members of a queue group get a message."""
    async with leaf(there.stack) as evil:
        there.seen.clear()
        await evil.publish("ack.EU.US", b"true")
        await evil.settled()
        await evil.send(b"LMSG cmd.EU.CA_2.run + _INBOX.evil commands 6\r\nforged\r\n")
        await evil.settled()
        assert evil.over.is_set()
    assert [each.data for each in there.seen if each.on != ">"] == [b"true"]


# That the checks above can fail: wider permissions, each found by one of them


def wider(monkeypatch: pytest.MonkeyPatch, name: str, more: Callable[..., Sequence[str]]) -> None:
    strict = getattr(realms, name)
    monkeypatch.setattr(realms, name, lambda *regions: [*strict(*regions), *more(*regions)])


def without_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Links that arrive in the realm itself, kept in bounds by permissions alone."""
    own, gate = realms._own_realm, realms._gate

    def together(region: Region, others: Sequence[Region]) -> dict[str, Any]:
        realm: dict[str, Any] = own(region, others) | {"exports": [], "imports": []}
        users = [user for other in others for user in gate(region, other)["users"]]  # type: ignore[attr-defined]
        return realm | {"users": [*realm["users"], *users]}

    monkeypatch.setattr(realms, "_own_realm", together)
    monkeypatch.setattr(realms, "_gate", lambda *_: {"users": []})


def hearing_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only without gates: what came in by one gate goes out by no other, even where it is allowed to."""
    wider(monkeypatch, "_heard", lambda o, r: [f"cmd.{o.token}.CA_2.*"] if r.name == "us" else [])
    without_gates(monkeypatch)


Check = Callable[[World, Actor, str], Awaitable[None]]
Plant = Callable[[pytest.MonkeyPatch], None]

PLANTED: dict[str, tuple[Plant, Check, str]] = {
    "acknowledge as anybody": (
        lambda patch: wider(patch, "_told", lambda o, r: [f"ack.{o.token}.CA_2"] if r.name == "us" else []),
        attacks.speaking,
        "ack.EU.CA_2",
    ),
    "send commands as anybody": (
        lambda patch: wider(patch, "_told", lambda o, r: [f"cmd.{o.token}.CA_2.*"] if r.name == "us" else []),
        attacks.speaking,
        "cmd.EU.CA_2.run",
    ),
    "write the log": (
        lambda patch: wider(
            patch, "_told", lambda o, r: [f"log.{o.token}"] if (o.name, r.name) == ("eu", "us") else []
        ),
        attacks.speaking,
        "log.EU",
    ),
    "purge streams": (
        lambda patch: wider(patch, "_asked", lambda o: [f"$JS.API.STREAM.PURGE.LOG_{o.token}"]),
        attacks.speaking,
        "$JS.EU.API.STREAM.PURGE.LOG_EU",
    ),
    "read any stream": (
        lambda patch: wider(patch, "_asked", lambda _: ["$JS.API.STREAM.NAMES"]),
        attacks.speaking,
        "$JS.EU.API.STREAM.NAMES",
    ),
    "hear others' questions": (
        lambda patch: wider(patch, "_heard", lambda o, r: [f"ask.{o.token}.CA_2.>"] if r.name == "us" else []),
        attacks.listening,
        "ask.EU.CA_2.>",
    ),
    "hear others' commands": (hearing_commands, attacks.listening, "cmd.EU.CA_2.run"),
    "hear answers to others": (
        lambda patch: wider(patch, "_heard", lambda o, r: [f"reply.{o.token}.CA_2.>"] if r.name == "us" else []),
        attacks.listening,
        "reply.EU.CA_2.>",
    ),
    "overhear inboxes": (without_gates, attacks.listening, "_INBOX.>"),
    "be answered in the log": (without_gates, attacks.being_answered, "log.EU"),
    "be answered as an acknowledgement": (without_gates, attacks.being_answered, "ack.EU.CA_2"),
}


@pytest.mark.parametrize("planted", PLANTED)
async def test_a_wider_permission_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str) -> None:
    plant, check, subject = PLANTED[planted]
    plant(monkeypatch)
    with running_stack(tmp_path, REGIONS, given=dict.fromkeys(REGIONS, ELSEWHERE)) as stack:
        async with world(stack) as there, actor(there, "leaf") as us:
            with pytest.raises(AssertionError, match="assert"):
                await check(there, us, subject)
