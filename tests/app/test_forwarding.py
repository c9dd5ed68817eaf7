"""What goes with a command to another region, how a batch is shared out, and when a region is sent nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from access.policy import ROLES, Action, Principal, Scope, principal
from access.steps import StepUpRequired, require_fresh
from app import batching, planning, problems
from app.batching import BYTES_MAX, ITEMS_MAX, Batched, BatchResult, NotMade, Wanted
from app.forwarding import (
    FAILURES_MAX,
    HOPS_MAX,
    PAUSE_S,
    Forwarding,
    Hop,
    Item,
    Items,
    Message,
    Sent,
    Traced,
    Who,
    unknown,
)
from app.lane import Answered
from app.planning import Services
from app.problems import OwnerUnreachable
from commands.plan import Context, Plan, WrongRegion
from domain.ownership import Owner
from policies import steps
from registers.circuit import State
from replication.forwarding import Unknown

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MAX = principal("operator_1", ["operator"], person="staff 7", scope=Scope(frozenset({"main"}), None), stepped_up=NOON)


def sent_across(one: Principal, here: datetime, there: datetime) -> Principal:
    """As the owner has them: two regions at the same moment, each by its own clock."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(Who.of(one, here)), type=Who).principal(there)


def test_who_asks_is_the_same_in_the_owners_region() -> None:
    assert sent_across(MAX, NOON, NOON) == MAX._replace(relayed=True)
    machine = principal("psp:test", ["provider"], machine=True)
    assert sent_across(machine, NOON, NOON) == machine._replace(relayed=True)
    issued = principal("operator:max", ["support"], person="max", machine=True, issued=True)
    assert sent_across(issued, NOON, NOON) == issued._replace(relayed=True)
    # What there is to be told of somebody travels: a field that is forgotten would give them another's rights there.
    assert {*Who.__struct_fields__} == {*Principal._fields} - {"granted", "scope", "stepped_up", "relayed"} | {
        "brands",
        "countries",
        "stepped_up_s",
    }


@pytest.mark.parametrize("differs", [-HOUR, timedelta(0), HOUR])
def test_a_second_factor_is_as_fresh_in_a_region_whose_clock_is_an_hour_off(differs: timedelta) -> None:
    moment = timedelta(seconds=30)
    grave = [Action(next(iter(steps.ACTIONS)))]
    fresh = sent_across(MAX, NOON + moment, NOON + moment + differs)
    require_fresh(fresh, grave, NOON + moment + differs)
    stale = sent_across(MAX, NOON + steps.FRESH, NOON + steps.FRESH + differs)
    with pytest.raises(StepUpRequired):
        require_fresh(stale, grave, NOON + steps.FRESH + differs)


def test_what_somebody_may_is_said_by_the_owners_policies() -> None:
    claimed = MAX._replace(granted=frozenset(Action), roles=MAX.roles | {"emperor"})
    there = sent_across(claimed, NOON, NOON)
    assert (there.granted, there.roles) == (ROLES["operator"], frozenset({"operator"}))


async def test_a_region_that_cannot_be_reached_is_left_alone_for_a_while() -> None:
    forwarding = Forwarding(["eu"], us="us")  # nothing holds a way open
    sent = Sent(forwarding.who(MAX), "/v1/players", b"{}", {})
    for _ in range(FAILURES_MAX):
        assert forwarding.circuits["eu"].state is State.CLOSED
        with pytest.raises(OwnerUnreachable, match="NATS"):
            await forwarding.send("eu", sent, Hop(), b"id")
    with pytest.raises(OwnerUnreachable, match="lately"):
        await forwarding.send("eu", sent, Hop(), b"id")
    assert forwarding.circuits["eu"].state is State.OPEN
    await asyncio.sleep(PAUSE_S)
    with pytest.raises(OwnerUnreachable, match="NATS"):
        await forwarding.send("eu", sent, Hop(), b"id")
    assert forwarding.counted == {("eu", "unreachable"): FAILURES_MAX + 2}


async def test_what_a_region_does_not_say_of_a_fate_tells_nothing_of_whether_it_takes_commands() -> None:
    forwarding = Forwarding(["eu"], us="us")
    for _ in range(FAILURES_MAX + 1):
        assert await forwarding.look("eu", Traced("00" * 16)) is None
    assert forwarding.circuits["eu"].state is State.CLOSED
    assert not forwarding.counted


async def test_what_only_a_later_release_sends_is_answered_as_not_known() -> None:
    later = msgspec.msgpack.encode({"type": "what will be", "hops": 1})
    answered = msgspec.msgpack.decode(await Forwarding(["eu"], us="us")._work("eu", later, 1.0), type=Answered)
    assert (answered.status, msgspec.json.decode(answered.body)["code"]) == (503, "unavailable")


@pytest.mark.parametrize(("owner", "hop"), [("eu", Hop(HOPS_MAX)), ("ap", Hop()), ("us", Hop())])
async def test_a_command_is_not_sent_round_in_circles(owner: str, hop: Hop) -> None:
    forwarding = Forwarding(["eu"], us="us")
    with pytest.raises(OwnerUnreachable, match="changing"):
        await forwarding.send(owner, Sent(forwarding.who(MAX), "/v1/players", b"{}", {}), hop, b"id")
    assert not forwarding.counted


class Copying:
    """Decides for US, which has not heard yet of what EU has released to it; each look is one entry later."""

    log = "us"

    def __init__(self, looks: int) -> None:
        self.looks = looks

    async def owner(self, _partition: int) -> Owner:
        self.looks -= 1
        return Owner("eu", 1, adopted=True) if self.looks >= 0 else Owner("us", 2, adopted=False)

    async def decide(self) -> int:
        if (await self.owner(7)).log != self.log:
            raise WrongRegion(partition=7, owner="eu")
        return 201


def services(copying: Copying) -> Services:
    anything: Any = copying
    return Services(anything, anything, anything, b"", forwarding=Forwarding(["eu"], us="us"))


async def test_what_was_sent_by_who_has_just_released_it_is_waited_for_and_done_here() -> None:
    from_eu, copying = Hop.of(1, 5.0, "eu"), Copying(3)
    assert await planning.decided(services(copying), copying.decide, from_eu) == 201
    assert await planning.owner_of(services(Copying(3)), 7, from_eu) == ""


async def test_what_another_region_owns_is_sent_on_at_once() -> None:
    assert await planning.owner_of(services(Copying(99)), 7, Hop()) == "eu"
    assert await planning.owner_of(services(Copying(99)), 7, Hop.of(1, 5.0, "ap")) == "eu"
    assert await planning.owner_of(services(Copying(99)), 7, Hop.of(1, 0.1, "eu")) == "eu", (
        "there is no more time to wait"
    )


async def test_what_nobody_was_seen_to_own_was_sent_nowhere_and_may_be_said_again() -> None:
    async def decide() -> int:
        raise WrongRegion(partition=7, owner="")

    with pytest.raises(OwnerUnreachable, match="whose this is") as refused:
        await planning.decided(services(Copying(99)), decide, Hop())
    assert problems.headers(refused.value) == {"Retry-After": "2"}
    with pytest.raises(WrongRegion):
        await planning.decided(services(Copying(99))._replace(forwarding=None), decide, Hop())


# Batches


class Region(Forwarding):
    """Answers what it is sent as it is told to."""

    def __init__(self, answer: BatchResult | Exception | Answered) -> None:
        super().__init__(["eu", "ap"], us="us")
        self.answer = answer
        self.asked: list[tuple[str, Items]] = []

    async def ask(self, owner: str, message: Message, hop: Hop) -> Answered:
        assert isinstance(message, Items)
        self.asked.append((owner, message))
        match self.answer:
            case Exception():
                raise self.answer
            case Answered():
                return self.answer
            case result:
                body = msgspec.json.encode(batching.BatchAnswer([result] * len(message.items)))
                return Answered(200, [], body)


def wanted(place: int, size: int = 2) -> Wanted:
    plan: Any = msgspec.structs.replace(_PLAN, context=msgspec.structs.replace(_CONTEXT, command_id=b"%016d" % place))
    return Wanted(Item(str(place), "/v1/players", b"x" * size, None), plan)


_CONTEXT = Context(MAX, NOON, b"", None)
_PLAN = Plan(_CONTEXT, (), {}, lambda *_: [], lambda _: _CONTEXT)
DONE = BatchResult(201, msgspec.Raw(b'{"player":"player_1"}'), "eu/1/ab")


async def run(region: Region, owners: Mapping[int, str], size: int = 2, **more: bool) -> dict[int, Any]:
    wrong = {place: WrongRegion(partition=1, owner=owner) for place, owner in owners.items()}
    batched = Batched(MAX, more.get("dry_run", False), None)
    return await batching.elsewhere(region, batched, wrong, {place: wanted(place, size) for place in owners})


async def test_items_go_to_their_owners_in_their_order_and_in_parts_that_fit() -> None:
    region = Region(DONE)
    owners = {place: ("eu", "ap.2")[place % 2] for place in range(2 * ITEMS_MAX + 10)}
    assert await run(region, owners) == dict.fromkeys(owners, DONE)
    parts = [(owner, [int(item.key) for item in message.items]) for owner, message in region.asked]
    assert [(owner, len(part)) for owner, part in parts] == [("eu", 100), ("eu", 5), ("ap.2", 100), ("ap.2", 5)]
    assert [part[0] for _, part in parts] == [0, 200, 1, 201]
    region.asked.clear()
    await run(region, dict.fromkeys(range(3), "eu"), size=BYTES_MAX // 2)
    assert [len(message.items) for _, message in region.asked] == [2, 1]


async def test_an_item_of_which_nothing_is_known_names_nothing() -> None:
    found = await run(Region(Unknown("silence")), {4: "eu"})
    assert isinstance(found[4], NotMade)
    assert found[4].result.status == 202
    told = msgspec.json.decode(found[4].result.body)
    assert told == {"command": (b"%016d" % 4).hex(), "state": "unknown"}
    said_there = BatchResult(202, msgspec.Raw(unknown(b"id").body))
    assert isinstance((await run(Region(said_there), {0: "eu"}))[0], NotMade)
    rehearsed = await run(Region(Unknown("silence")), {4: "eu"}, dry_run=True)
    assert isinstance(rehearsed[4], OwnerUnreachable)


async def test_refusals_of_items_and_of_all_are_handed_on() -> None:
    refused = BatchResult(422, msgspec.Raw(b'{"code":"limit_exceeded"}'))
    assert (await run(Region(refused), {0: "eu"}))[0].result == refused
    busy = Answered(503, [], b'{"code":"unavailable"}')
    both = await run(Region(busy), {0: "eu", 3: "eu"})
    assert [(place, each.result.status, bytes(each.result.body)) for place, each in both.items()] == [
        (0, 503, busy.body), (3, 503, busy.body),
    ]  # fmt: skip
    nobody = await run(Region(DONE), {0: ""})
    assert isinstance(nobody[0], OwnerUnreachable)


def test_what_an_unconfirmed_item_made_stands_in_its_answer() -> None:
    body = b'{"command":"00","state":"unconfirmed","position":"eu/1/ab","answer":{"player":"player_1"}}'
    assert batching.made(BatchResult(202, msgspec.Raw(body))) == batching.made(DONE) == "player_1"
