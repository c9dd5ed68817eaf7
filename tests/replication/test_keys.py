"""Data keys by question and answer: who learns a key, and who does not, whatever they record, change, repeat or make up."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from structlog import get_logger

from eventstore.note import SigningKey, signed
from replication import keys
from replication.asking import Answer, Peer, peer, serve
from replication.errors import Interrupted
from replication.keys import AnswerUnusable, Asking, Custody, Found, QuestionRefused
from replication.link import link
from replication.wire import ERROR_CODE
from tests.flushing import flushed
from tests.replication.regions import World
from verifier.note import Kind, key_of

EU, US, AP = (f"countroom.test/{name}" for name in ("eu", "us", "ap"))
SIGNS = {origin: SigningKey.generate(origin) for origin in (EU, US, AP)}
LOGS = [key_of(origin, Kind.ED25519, key.key) for origin, key in SIGNS.items()]
HELD = {str(uuid.UUID(int=number)): os.urandom(32) for number in range(1, 4)}
NOW = 1_000_000


def custody(origin: str, by: SigningKey | None = None, *, about: str = "", name: str = "") -> Custody:
    """A custody key with its note. `by`: who signs the note, `about`: of which log it speaks."""
    key = SigningKey.generate(name or keys.custody_name(origin))
    return Custody(key, signed(keys.custody_text(about or origin, key.vkey), [by or SIGNS[origin]]))


CUSTODY = {origin: custody(origin) for origin in SIGNS}


def asking(
    by: Custody = CUSTODY[EU], *, asker: str = EU, origin: str = US, at: int = NOW, wanted: Any = HELD
) -> Asking:
    return Asking(by, asker=asker, origin=origin, keys=list(wanted), at=at)


def answered(data: bytes, *, asker: str = EU, now: int = NOW, found: Found | None = None) -> bytes:
    """What us answers to a question that comes as `asker`'s."""
    return keys.hear(data, origin=US, asker=asker, logs=LOGS, now=now).answer(found or Found(HELD, {}))


def changed(data: bytes, **members: object) -> bytes:
    """The message with other members, base64 where they are bytes."""
    return msgspec.json.encode({**msgspec.json.decode(data), **members})


def test_the_asker_gets_what_was_given_and_why_the_rest_was_not() -> None:
    one, *others = HELD
    question = asking()
    found = question.open(answered(question.data, found=Found({one: HELD[one]}, dict.fromkeys(others, "erased"))))
    assert found == Found({one: HELD[one]}, dict.fromkeys(others, "erased"))


def test_no_key_stands_in_question_or_answer() -> None:
    question = asking()
    for message in (question.data, answered(question.data)):
        assert not any(key in message or key.hex().encode() in message for key in HELD.values())


def by_nobody(data: bytes) -> bytes:
    return changed(data, signature=bytes(64))


def of_something_else(data: bytes) -> bytes:
    other = msgspec.json.decode(asking(wanted=list(HELD)[:1]).data)
    return changed(data, question=other["question"])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (by_nobody(asking().data), "not signed"),
        (of_something_else(asking().data), "not signed"),
        (asking(CUSTODY[AP]).data, "no known key"),  # ap poses as eu with its own note
        (asking(Custody(CUSTODY[AP].key, CUSTODY[EU].note)).data, "not signed"),  # with the note that everybody can record
        (asking(custody(EU, SIGNS[AP])).data, "no known key"),  # ap's log vouches for eu
        (asking(custody(EU, SigningKey.generate(EU))).data, "no known key"),  # a key of that name that no policy names
        (asking(custody(EU, about=AP)).data, "does not name"),
        (asking(custody(EU, name=EU)).data, "is not called"),
        (asking(Custody(SIGNS[EU], signed("countroom.test/eu\n1\nAA==\n", [SIGNS[EU]]))).data, "does not name"),  # a signed head
        (asking(asker=AP).data, "ap asks"),
        (asking(origin=AP).data, "asks countroom.test/ap"),  # recorded in another realm
        (asking(at=NOW - 301).data, "ago"),
        (asking(at=NOW + 301).data, "ago"),
        (asking(wanted=[]).data, "1 to 256"),
        (asking(wanted=[*HELD, *HELD]).data, "each once"),
        (asking(wanted=[str(uuid.UUID(int=n)) for n in range(257)]).data, "1 to 256"),
        (asking(wanted=["x"]).data, "UUID"),
        (asking(wanted=["{00000000-0000-0000-0000-000000000001}"]).data, "1 to 256"),
        (b"", "truncated"),
        (asking().data[:-9], "truncated"),
        (b"{}", "missing"),
    ],
)  # fmt: skip
def test_a_question_that_is_not_the_askers_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(QuestionRefused, match=why):
        answered(data)


def test_a_question_comes_from_the_region_in_whose_realm_it_is_heard() -> None:
    with pytest.raises(QuestionRefused):
        answered(asking().data, asker=AP)


def test_a_question_that_was_recorded_gives_nothing_to_who_repeats_it() -> None:
    """The answer is the same as to the first, to a key that only the asker has had, for as long as it waited."""
    recorded = asking().data
    answer = answered(recorded)
    for other in (asking(), asking(CUSTODY[AP], asker=AP)):
        with pytest.raises(AnswerUnusable, match="does not open"):
            other.open(answer)
    with pytest.raises(QuestionRefused, match="ago"):
        answered(recorded, now=NOW + 301)


def cut(place: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:place]


def without_a_byte(data: bytes) -> bytes:
    sealed = msgspec.json.decode(data, type=dict[str, Any])["sealed"]
    return changed(data, sealed=sealed[:-8])


@pytest.mark.parametrize("damage", [cut(0), cut(-1), cut(40), without_a_byte, lambda data: changed(data, sealed="")])
def test_an_answer_that_was_cut_or_changed_is_none(damage: Callable[[bytes], bytes]) -> None:
    question = asking()
    with pytest.raises(AnswerUnusable):
        question.open(damage(answered(question.data)))


def test_an_answer_holds_only_what_was_asked_for() -> None:
    question = asking(wanted=list(HELD)[:1])
    with pytest.raises(AnswerUnusable, match="not asked for"):
        question.open(answered(question.data))


# Between real servers


async def test_keys_are_answered_beside_the_witness_and_to_nobody_else(world: World) -> None:
    """us plays both; the custodian of one process, the witness of another."""
    refused: list[str] = []

    async def give(asked: Any) -> Found:
        return Found({id_: HELD[id_] for id_ in asked}, {})

    async def head(_data: bytes) -> Answer:
        return Answer(b"head", {})

    verb = keys.answering(give, origin=US, asker=EU, logs=LOGS, refused=refused.append)
    async with (
        link(world["us"].config, "eu", "custodian", get_logger()) as one,
        link(world["us"].config, "eu", "witness", get_logger()) as other,
        link(world["eu"].config, "eu", "asker", get_logger()) as own,
        peer(own, "us") as us,
    ):
        serving = [
            asyncio.create_task(serve(one, "us", {keys.VERB: verb})),
            asyncio.create_task(serve(other, "us", {"head": head})),
        ]
        await served(us, "head")
        await served(us, keys.VERB)
        refused.clear()
        found = await keys.ask(us, CUSTODY[EU], asker=EU, origin=US, keys=list(HELD))
        assert found.keys == HELD
        assert (await us.ask("head")).data == b"head"
        with pytest.raises(Interrupted, match="403"):
            await keys.ask(us, CUSTODY[AP], asker=EU, origin=US, keys=list(HELD))
        assert len(refused) == 1
        await only_eu_asks_and_only_us_hears(world)
        for task in serving:
            task.cancel()


async def served(by: Peer, verb: str) -> None:
    """Return once somebody there answers it, whatever it says: what has been subscribed to has crossed the link."""
    async with asyncio.timeout(60):
        while True:
            try:
                await by.ask(verb)
            except Interrupted:
                await asyncio.sleep(0.05)
            else:
                return


async def only_eu_asks_and_only_us_hears(world: World) -> None:
    """What eu's server lets ap do in eu's realm: it hears no question, and asks none that us would hear."""
    there: list[bytes] = []
    heard: list[bytes] = []

    async def hear(message: Any) -> None:
        heard.append(message.data)

    async def hear_there(message: Any) -> None:
        there.append(message.data)

    async with world.link("ap", "eu") as ap, world.link("us", "eu") as us, world["eu"].as_itself() as eu:
        await ap.subscribe("ask.>", cb=hear)
        await ap.subscribe("answer.>", cb=hear)
        await us.subscribe("ask.EU.US.keys", cb=hear_there)
        await asyncio.gather(flushed(ap), flushed(us))
        forged, real = asking(CUSTODY[AP], asker=AP).data, asking().data
        await ap.publish("ask.EU.US.keys", forged)
        await flushed(ap)
        async with asyncio.timeout(60):
            while not there:  # until us's interest has crossed the link
                await eu.publish("ask.EU.US.keys", real)
                await asyncio.sleep(0.05)
        await ap.publish("ask.EU.US.keys", forged)
        await flushed(ap)
        await asyncio.sleep(0.3)
        await eu.publish("ask.EU.US.keys", real)  # ap's interest has had all that time to cross
        await asyncio.sleep(0.3)
    assert set(there) == {real}
    assert real not in heard


async def test_a_region_that_does_not_answer_is_an_interruption(world: World) -> None:
    async with link(world["eu"].config, "eu", "asker", get_logger()) as own, peer(own, "us") as us:
        with pytest.raises(Interrupted, match="answer"):
            await keys.ask(us, CUSTODY[EU], asker=EU, origin=US, keys=list(HELD))


async def test_whoever_is_not_ready_says_so(world: World) -> None:
    async def give(_asked: Any) -> Found:
        raise keys.Unready("the log is read-only")

    verb = keys.answering(give, origin=US, asker=EU, logs=LOGS, refused=pytest.fail)
    at_this_moment = asking(at=int(time.time()))
    assert (await verb(at_this_moment.data)).headers[ERROR_CODE] == keys.UNREADY
