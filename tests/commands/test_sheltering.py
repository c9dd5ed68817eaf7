"""Protection that the owner may or may not have recorded, or that nobody owns for the moment: it is recorded where it was asked for."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import commands.owners
from access.policy import principal
from app import sheltering
from app.batches import _Batch
from app.batching import Batched
from app.commanding import _Command
from app.forwarding import Forwarding, Hop, Message, unknown
from app.lane import Answered
from app.planning import ROUTES, Asked, Services
from app.problems import OwnerUnreachable
from commands import identity
from commands.batch import Batch, BatchItem
from domain import players
from domain.errors import PlayerBlocked
from domain.kernel import PlayerId
from domain.protection import PlayerExcluded
from replication.forwarding import Unknown
from tests.commands.house import EVERYTHING, SECRET, House, deposit_of
from tests.commands.us import Us, hand_over, player_of_both

ACTOR = "operator:maria"
EXCLUDE = next(route for route in ROUTES.values() if route.endpoint.path.endswith("/exclude"))


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
        self.path = f"/v1/players/{player}/exclude"
        self.who = principal(ACTOR, EVERYTHING, person="maria", stepped_up=house.now)

    def services(self, said: Answered | Exception) -> Services:
        authentication: Any = SimpleNamespace(known=self.house.known.get, administrators=self.house.administrators)
        vault: Any = self.house.vault
        return Services(self.us.decider, vault, authentication, SECRET, forwarding=Says(said))

    async def exclude(self, said: Answered | Exception) -> Answered:
        start: Any = SimpleNamespace(require=lambda: None)
        command = _Command(self.services(said), start, lambda _: None, EXCLUDE)
        body = json.dumps({"term": "6_months"}).encode()
        return await command.answer(Asked(self.who, self.path, body, {"idempotency-key": "k"}, Hop()))

    async def exclude_in_a_batch(self, said: Answered | Exception) -> Any:
        wanted = Batch([BatchItem("k", self.path, msgspec.Raw(b'{"term": "6_months"}'), None)], False)
        batched = Batched(self.who, False, None)
        [result] = await _Batch(self.services(said), lambda *_: None, wanted, batched).run()
        return result

    def unknown(self) -> Answered:
        return unknown(identity.command_id(ACTOR, "k"))


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
    answered = await asking.exclude(AssertionError("nobody else is asked"))
    assert (answered.status, asking.us.recorded()) == (200, ["safeguard.excluded"])


async def test_in_a_batch_as_well(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    await released_to_us(asking, monkeypatch)
    result = await asking.exclude_in_a_batch(AssertionError("nobody else is asked"))
    assert (result.repeated, asking.us.recorded()) == (False, ["safeguard.excluded"])


@pytest.mark.parametrize("said", ["by the owner's silence", "by a region on the way"])
async def test_nobody_is_told_that_it_was_refused_where_the_owner_may_have_recorded_it(
    asking: Asking, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise PlayerBlocked

    monkeypatch.setattr("app.sheltering.recorded", refuse)
    answered = await asking.exclude(Unknown("silence") if said == "by the owner's silence" else asking.unknown())
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
    assert (await asking.exclude(Unknown("silence"))).status == 200
    services = asking.services(AssertionError("nobody else is asked"))
    plan = asking.house.plan(f"/v1/players/{asking.player}/deposits", deposit_of(100))
    with pytest.raises(OwnerUnreachable):
        await sheltering.require_open(services, "/v1/games/{provider}/bet", plan)
    with pytest.raises(PlayerExcluded):
        await sheltering.require_open(services, "/v1/players/{player_id}/deposits", plan)
