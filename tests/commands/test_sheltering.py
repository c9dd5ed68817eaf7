"""
Protection that the owner may or may not have recorded, or that nobody owns for the moment: it is recorded where it was asked for;
and what stands already, wherever, is not refused for it.
"""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg_pool import PoolTimeout

import commands.owners
from access.policy import principal
from app import lane, sheltering
from app.batches import _Batch
from app.batching import Batched
from app.commanding import _Command
from app.forwarding import Forwarding, Hop, Message, unknown
from app.lane import Answered, refusal, shape
from app.planning import ROUTES, Asked, Services
from app.problems import OwnerUnreachable
from commands import identity
from commands.batch import Batch, BatchItem
from commands.plan import WrongRegion
from domain import players
from domain.errors import PlayerBlocked
from domain.kernel import PlayerId
from domain.protection import PlayerExcluded
from eventstore.writer import Uncertain
from replication.forwarding import Unknown
from tests.commands.house import EVERYTHING, SECRET, House, deposit_of
from tests.commands.us import Us, hand_over, player_of_both

ACTOR = "operator:maria"
HALF_A_YEAR = {"term": "6_months"}
SILENCE = Unknown("silence")
CUT = OwnerUnreachable(region="eu")
UNASKED = AssertionError("nobody else is asked")


class Says(Forwarding):
    """Whatever is sent to another region is answered so."""

    def __init__(self, said: Answered | Exception) -> None:
        super().__init__(["eu", "ap"], us="us")
        self.said = said

    async def ask(self, owner: str, message: Message, hop: Hop) -> Answered:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


class Asking:
    """US, asked for protection of a player of both regions."""

    def __init__(self, house: House, us: Us, player: str) -> None:
        self.house = house
        self.us = us
        self.player = player
        self.who = principal(ACTOR, EVERYTHING, person="maria", stepped_up=house.now)

    def services(self, said: Answered | Exception) -> Services:
        authentication: Any = SimpleNamespace(known=self.house.known.get, administrators=self.house.administrators)
        vault: Any = self.house.vault
        return Services(self.us.decider, vault, authentication, SECRET, forwarding=Says(said))

    async def post(self, what: str, body: object, said: Answered | Exception, key: str = "k") -> Answered:
        """A command about the player: `said` is what any other region says of it."""
        path, start = f"/v1/players/{self.player}/{what}", SimpleNamespace(require=lambda: None)
        command = _Command(self.services(said), start, lambda _: None, ROUTES[shape(path)[0]])  # type: ignore[arg-type]
        raw = json.dumps(body).encode()
        return await command.answer(Asked(self.who, path, raw, {"idempotency-key": key}, Hop()))

    async def post_in_a_batch(self, what: str, body: object, said: Answered | Exception, key: str = "k") -> Any:
        item = BatchItem(key, f"/v1/players/{self.player}/{what}", msgspec.Raw(json.dumps(body).encode()), None)
        batched = Batched(self.who, False, None)
        [result] = await _Batch(self.services(said), lambda *_: None, Batch([item], False), batched).run()
        return result

    async def exclude(self, said: Answered | Exception, key: str = "k") -> Answered:
        return await self.post("exclude", HALF_A_YEAR, said, key)

    async def exclude_in_a_batch(self, said: Answered | Exception) -> Any:
        return await self.post_in_a_batch("exclude", HALF_A_YEAR, said)

    def unknown(self) -> Answered:
        return unknown(identity.command_id(ACTOR, "k"))


def code(answered: Answered) -> str:
    return str(json.loads(answered.body).get("code"))


@pytest.fixture
async def asking(house: House, us: Us) -> Asking:
    return Asking(house, us, await player_of_both(house, us))


async def test_it_is_recorded_when_a_region_on_the_way_does_not_know_what_became_of_it(asking: Asking) -> None:
    answered = await asking.exclude(asking.unknown())
    assert (answered.status, asking.us.recorded()) == (200, ["safeguard.excluded"])


async def test_it_is_recorded_while_its_player_is_on_the_way_here(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    await released_to_us(asking, monkeypatch)
    answered = await asking.exclude(UNASKED)
    assert (answered.status, asking.us.recorded()) == (200, ["safeguard.excluded"])


async def test_in_a_batch_as_well(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    await released_to_us(asking, monkeypatch)
    result = await asking.exclude_in_a_batch(UNASKED)
    assert (result.repeated, asking.us.recorded()) == (False, ["safeguard.excluded"])


@pytest.mark.parametrize("said", ["by the owner's silence", "by a region on the way"])
async def test_nobody_is_told_that_it_was_refused_where_the_owner_may_have_recorded_it(
    asking: Asking, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise PlayerBlocked

    monkeypatch.setattr("app.sheltering.recorded", refuse)
    answered = await asking.exclude(SILENCE if said == "by the owner's silence" else asking.unknown())
    assert answered == asking.unknown()


async def released_to_us(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    """US knows of the release, and has not adopted."""
    monkeypatch.setattr(commands.owners, "ADOPTION_WAIT_S", 0.3)
    partition = players.stream(PlayerId(asking.player)).partition
    assert partition is not None
    await hand_over(asking.house, {partition: 1}, to="us")
    asking.us.receive()
    await asyncio.sleep(0.25)  # for so long the last answer holds


async def test_a_bet_that_may_stand_is_not_said_to_be_refused(asking: Asking) -> None:
    """Alone or in a batch: it may be a repeat, of which the copy here does not know yet."""
    assert (await asking.exclude(SILENCE)).status == 200
    services = asking.services(UNASKED)
    plan = asking.house.plan(f"/v1/players/{asking.player}/deposits", deposit_of(100))
    with pytest.raises(OwnerUnreachable):
        await sheltering.require_open(services, "/v1/games/{provider}/bet", plan)
    with pytest.raises(PlayerExcluded):
        await sheltering.require_open(services, "/v1/players/{player_id}/deposits", plan)


# What stands already


@pytest.fixture
async def deposited(asking: Asking) -> Asking:
    """EU has recorded a deposit, `paid`, of which US holds a copy; then the player was excluded in US, and EU does not know."""
    path = f"/v1/players/{asking.player}/deposits"
    recorded = asking.house.plan(path, raw(DEPOSIT), key="paid", actor=ACTOR)
    await asking.house.process.decider.decide(recorded)
    asking.us.receive()
    assert (await asking.exclude(CUT)).status == 200
    return asking


DEPOSIT = deposit_of(100)


def raw(body: object) -> bytes:
    """As it is sent: what was asked is compared byte for byte."""
    return json.dumps(body).encode()


async def test_a_deposit_that_stands_has_its_first_answer_although_the_player_is_excluded_here_since(
    deposited: Asking,
) -> None:
    again = await deposited.post("deposits", DEPOSIT, UNASKED, "paid")
    assert (again.status, json.loads(again.body)["status"]) == (201, "requested")
    assert (b"idempotency-replayed", b"true") in again.headers
    new = await deposited.post("deposits", DEPOSIT, UNASKED, "new")
    assert (new.status, code(new)) == (409, "excluded")
    other = await deposited.post("deposits", deposit_of(200), UNASKED, "paid")
    assert (other.status, code(other)) == (409, "idempotency_key_reused")


async def test_so_it_has_in_a_batch(deposited: Asking) -> None:
    again = await deposited.post_in_a_batch("deposits", DEPOSIT, UNASKED, "paid")
    assert (again.repeated, again.position.partition("/")[0]) == (True, "eu")
    assert isinstance(await deposited.post_in_a_batch("deposits", DEPOSIT, UNASKED, "new"), PlayerExcluded)


async def test_a_repeat_of_what_was_recorded_here_is_not_decided_again_by_an_owner_who_has_not_heard_of_it(
    asking: Asking,
) -> None:
    first = await asking.exclude(CUT)
    again = await asking.exclude(UNASKED)
    assert (again.status, again.body) == (200, first.body)
    assert (b"idempotency-replayed", b"true") in again.headers
    in_a_batch = await asking.exclude_in_a_batch(UNASKED)
    assert (in_a_batch.repeated, in_a_batch.position.partition("/")[0]) == (True, "us")
    other = await asking.post("time-out", {"term": "1_week"}, UNASKED)
    assert (other.status, code(other)) == (409, "idempotency_key_reused")


async def test_what_the_owner_has_recorded_is_answered_by_the_owner(asking: Asking) -> None:
    """Who has the player's key, and so knows whether the same was asked."""
    path = f"/v1/players/{asking.player}/exclude"
    await asking.house.process.decider.decide(asking.house.plan(path, raw(HALF_A_YEAR), key="k", actor=ACTOR))
    asking.us.receive()
    said = lane.json(200, b'"the owner"')
    assert await asking.exclude(said) == said


# What nobody knows


async def test_items_of_a_batch_whose_first_answers_are_not_known_are_refused_and_no_others(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise psycopg.OperationalError("gone")

    item = BatchItem("k", f"/v1/players/{asking.player}/exclude", msgspec.Raw(raw(HALF_A_YEAR)), None)
    services = asking.services(CUT)
    batch = _Batch(services, lambda *_: None, Batch([item], True), Batched(asking.who, True, None))
    await batch.run()
    monkeypatch.setattr("app.sheltering.standing_here", fail)
    assert services.forwarding is not None
    found = await batch._elsewhere(services.forwarding, {0: WrongRegion(partition=0, owner="eu")})
    assert isinstance(found[0], psycopg.OperationalError)


@pytest.mark.parametrize("fault", [psycopg.OperationalError("gone"), PoolTimeout("none is free"), Uncertain("late")])
async def test_what_the_owner_may_have_recorded_stays_unknown_if_it_cannot_be_recorded_here(
    asking: Asking, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr("app.sheltering.recorded", fail)
    assert await asking.exclude(SILENCE) == asking.unknown()


async def test_what_may_have_been_recorded_here_is_unknown_whatever_the_owner_said(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: object) -> None:
        raise Uncertain("no answer from the log")

    monkeypatch.setattr("app.sheltering.recorded", lost)
    unreached = refusal(CUT)
    assert await asking.exclude(unreached) == asking.unknown()
    assert isinstance(await asking.exclude_in_a_batch(unreached), Uncertain)
