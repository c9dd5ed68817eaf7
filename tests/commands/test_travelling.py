"""What another region may ask for, how much time it leaves, and what is told of items whose fellows failed."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import psycopg
import pytest

from access.policy import ROLES, principal
from app import batches, planning
from app.batches import Batches, _Batch
from app.batching import Batched
from app.commanding import _Command, _take
from app.forwarding import Forwarding, Hop, Item, Items, Sent, Who
from app.lane import Answered
from app.planning import ROUTES, Asked, Services
from app.problems import OwnerUnreachable
from commands import identity
from commands.approvals import AwaitingApproval
from commands.batch import Batch, BatchItem
from commands.plan import Plan, Receipt, WrongRegion
from domain.kernel import suffix, uuid7
from domain.ownership import Owner
from eventstore.writer import Uncertain
from tests.app.test_forwarding import DONE, MAX, Region, services, wanted
from tests.commands.house import EVERYTHING, SECRET, House
from tests.commands.staff import approve, asked, joined
from tests.registering import key_within

ANYBODY = Who("operator:mallory", sorted(ROLES), "nobody", None, None, 0.0, False, False)
"""Whatever another region says that somebody is."""
ASKING = principal("operator:otto", EVERYTHING, person="otto")
STAY = {route.endpoint.path for route in ROUTES.values() if not route.travels}


class Desk:
    """Where commands of US come in, in EU."""

    def __init__(self, house: House) -> None:
        self.forwarding = Forwarding(["us"], us="eu")
        authentication: Any = SimpleNamespace(
            known=house.known.get, administrators=house.administrators, renew=_nothing
        )
        start: Any = SimpleNamespace(require=lambda: None)
        vault: Any = house.vault
        services = Services(house.process.decider, vault, authentication, SECRET, forwarding=self.forwarding)
        commands = {fixed: _Command(services, start, lambda _: None, route) for fixed, route in ROUTES.items()}
        _take(self.forwarding, commands, Batches(services, start, lambda _: None, lambda *_: None))

    async def take(self, message: Sent | Items) -> Answered:
        return await self.forwarding._takes[type(message)](message, Hop.of(1, 5.0, "us"))


async def _nothing() -> None:
    """Whoever is known is known already."""


def test_operators_tokens_policies_and_a_regions_own_stay() -> None:
    assert {"/v1/handovers", "/v1/operators", "/v1/tokens", "/v1/policies", "/v1/disclosures"} <= STAY
    assert "/v1/operators/{operator_id}/roles" in STAY
    assert not any(path.startswith(("/v1/players", "/v1/transactions", "/v1/tickets")) for path in STAY)


@pytest.mark.parametrize("path", sorted(STAY))
async def test_another_region_cannot_ask_for_what_stays_whoever_it_says_is_asking(house: House, path: str) -> None:
    desk, before = Desk(house), len(house.log.entries)
    some = path.replace("{", "").replace("}", "")
    body = json.dumps({"to": "us", "all": True}).encode()
    one = await desk.take(Sent(ANYBODY, some, body, {"idempotency-key": "k"}))
    many = await desk.take(Items(ANYBODY, [Item("k", some, body, None)], False, None))
    assert (one.status, many.status) == (404, 404)
    assert len(house.log.entries) == before


@pytest.mark.parametrize("end", ["approve", "reject"])
async def test_what_concerns_an_operator_is_ended_by_nobody_whom_another_region_speaks_of(
    house: House, end: str
) -> None:
    operator = await joined(house)
    waits = await asked(house, f"/v1/operators/{operator}/roles", {"role": "administrator"})
    desk, before = Desk(house), len(house.log.entries)
    path, body = f"/v1/approvals/{waits.approval}/{end}", {"approve": {"hash": waits.hash}, "reject": {"reason": "no"}}
    raw = json.dumps(body.get(end, {})).encode()
    one = await desk.take(Sent(ANYBODY, path, raw, {"idempotency-key": "k"}))
    many = await desk.take(Items(ANYBODY, [Item("k", path, raw, None)], False, None))
    assert (one.status, json.loads(one.body)["code"], json.loads(one.body)["owner"]) == (421, "not_passed_on", "eu")
    assert [item["status"] for item in json.loads(many.body)["items"]] == [421]
    assert len(house.log.entries) == before
    await approve(house, waits)


async def test_what_concerns_a_player_is_approved_from_another_region(house: House) -> None:
    house.now = datetime.now(UTC)  # as the desk's
    desk, player = Desk(house), await house.player()
    money = {"amount": {"amount": 100_000_00, "currency": "EUR"}, "direction": "credit", "account": "cash"}
    why = {"reason_code": "goodwill", "intervention": {"kind": "correction", "reason": "late"}}
    waits = (await house.process.post(f"/v1/players/{player}/adjustments", {**money, **why})).answer
    assert isinstance(waits, AwaitingApproval)
    approval, body = f"/v1/approvals/{waits.approval}/approve", json.dumps({"hash": waits.hash}).encode()
    assert (await desk.take(Sent(ANYBODY, approval, body, {"idempotency-key": "k"}))).status == 200


async def test_what_travels_is_done(house: House) -> None:
    desk, player = Desk(house), await house.player()
    sent = Sent(ANYBODY, f"/v1/players/{player}/block", b'{"reason": "fraud"}', {"idempotency-key": "k"})
    assert (await desk.take(sent)).status == 200


async def test_a_refusal_that_was_recorded_says_where_and_so_does_its_repeat(house: House) -> None:
    desk, player = Desk(house), await house.player()
    await house.process.post(f"/v1/players/{player}/exclude", {"term": "6_months"})
    path, body = f"/v1/players/{player}/logins", b'{"session": "s"}'
    sent = Sent(ANYBODY, path, body, {"idempotency-key": "k"})
    answers = [await desk.take(sent) for _ in range(2)]
    last = house.log.entries[-1]
    position = f"eu/{last.position}/{last.leaf.hex()[:16]}"
    fate = f"/v1/commands/{identity.command_id(ANYBODY.actor, 'k').hex()}"
    for answered in answers:
        assert (answered.status, json.loads(answered.body)["code"]) == (409, "excluded")
        headers = dict(answered.headers)
        assert (headers[b"ledger-position"].decode(), headers[b"content-location"].decode()) == (position, fate)
    many = await desk.take(Items(ANYBODY, [Item("k", path, body, None)], False, None))
    assert [(each["status"], each["position"]) for each in json.loads(many.body)["items"]] == [(409, position)]
    unrecorded = await desk.take(Sent(ANYBODY, path, b"{}", {"idempotency-key": "other"}))
    assert (unrecorded.status, dict(unrecorded.headers).keys() & {b"ledger-position", b"content-location"}) == (
        422,
        set(),
    )


def test_time_goes_by_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    hop = Hop.of(1, 5.0, "us")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3)
    assert hop.within_s is not None
    assert 1.9 < hop.within_s <= 2.1
    monkeypatch.setattr(time, "monotonic", lambda: now + 9)
    assert hop.within_s == 0


async def test_one_partition_of_a_batch_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PATIENCE_S", 0.1)
    asked: Counter[int] = Counter()

    async def owner_of(_services: Services, partition: int, _hop: Hop) -> str:
        asked[partition] += 1
        return "eu"

    monkeypatch.setattr(batches, "owner_of", owner_of)
    items = [BatchItem(str(n), "/v1/players", msgspec.Raw(b"{}")) for n in range(10)]
    batched = Batched(MAX, False, None, Hop.of(1, 5.0, "eu"))
    region = Region(DONE)
    one = _Batch(services(NotHere())._replace(forwarding=region), lambda *_: None, Batch(items), batched)
    one._described = {n: wanted(n) for n in range(10)}
    one.endpoints = dict.fromkeys(range(10), ROUTES["/v1/players"].endpoint)
    await one._decide({n: wanted(n).plan for n in range(10)})
    assert asked == {7: 1}
    assert [len(message.items) for _, message in region.asked] == [10]


class NotHere:
    """A decider of US, whose copy does not show that EU has released."""

    log = "us"

    async def owner(self, _partition: int) -> Owner:
        return Owner("eu", 1, adopted=True)

    async def run(self, plans: Sequence[Plan]) -> list[Receipt | Exception]:
        return [WrongRegion(partition=7, owner="eu") for _ in plans]

    async def repeats(self, plans: Sequence[Plan]) -> list[Receipt | Exception | None]:
        return [None for _ in plans]


# Failures beside what came off


def batch_of_two(house: House, player: str) -> tuple[Batches, Batch]:
    """Two deposits of one player, in two waves."""
    authentication: Any = SimpleNamespace(known=house.known.get, administrators=house.administrators, renew=_nothing)
    vault: Any = house.vault
    made = Services(house.process.decider, vault, authentication, SECRET)
    body = msgspec.Raw(b'{"amount": {"amount": 100, "currency": "EUR"}, "provider": "card"}')
    items = [BatchItem(f"item {n}", f"/v1/players/{player}/deposits", body) for n in range(2)]
    start: Any = SimpleNamespace(require=lambda: None)
    return Batches(made, start, lambda _: None, lambda *_: None), Batch(items)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (psycopg.OperationalError("the server closed the connection"), 503, "unavailable"),
        (Uncertain("no answer"), 202, None),
        (ZeroDivisionError("a defect"), 500, "fault"),
    ],
)
async def test_what_was_recorded_is_told_whatever_became_of_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch, fault: Exception, status: int, code: str | None
) -> None:
    player = await house.player()
    run, wanted = batch_of_two(house, player)
    decider = house.process.decider
    record, waves = decider._record, Counter[str]()

    async def failing(plans: list[Plan], results: Any) -> None:
        waves["begun"] += 1
        if waves["begun"] == 2:
            raise fault
        await record(plans, results)

    monkeypatch.setattr(decider, "_record", failing)
    first, second = (await run.run(wanted, Batched(ASKING, False, None))).items
    assert (first.status, second.status) == (201, status)
    told = msgspec.json.decode(second.body)
    assert told.get("code") == code
    if status == 202:
        assert told == {"command": identity.command_id(ASKING.actor, "item 1").hex(), "state": "unknown"}


async def test_an_append_of_which_nobody_knows_is_202_with_the_commands_url(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(_: Plan) -> Receipt:
        raise Uncertain("no answer from the log for 20 s")

    player = await house.player()
    desk = Desk(house)
    monkeypatch.setattr(house.process.decider, "decide", lost)
    sent = Sent(ANYBODY, f"/v1/players/{player}/block", b'{"reason": "fraud"}', {"idempotency-key": "k"})
    answered = await desk.take(sent)
    id_ = identity.command_id("operator:mallory", "k").hex()
    assert (answered.status, msgspec.json.decode(answered.body)) == (202, {"command": id_, "state": "unknown"})
    assert (b"location", f"/v1/commands/{id_}".encode()) in answered.headers


# What is another region's, beside what is ours

DOWN = psycopg.OperationalError("the server closed the connection")


class Two:
    """EU, and US as it answers what EU sends there. From partition 128 on everything is US's."""

    def __init__(self, house: House, us: Region) -> None:
        self.house, self.us, self.decider = house, us, house.process.decider
        self.theirs = range(128, 256)
        authentication: Any = SimpleNamespace(
            known=house.known.get, administrators=house.administrators, renew=_nothing
        )
        vault: Any = house.vault
        self.services = Services(self.decider, vault, authentication, SECRET, forwarding=us)
        self.start: Any = SimpleNamespace(require=lambda: None)

    async def owner(self, partition: int) -> Owner:
        return Owner("us" if partition in self.theirs else "eu", 1, adopted=True)

    async def batch(self, *paths: str) -> list[int]:
        deposit = msgspec.Raw(b'{"amount": {"amount": 100, "currency": "EUR"}, "provider": "card"}')
        items = [BatchItem(f"item {n}", path, deposit) for n, path in enumerate(paths)]
        run = Batches(self.services, self.start, lambda _: None, lambda *_: None)
        return [each.status for each in (await run.run(Batch(items), Batched(ASKING, False, None))).items]

    async def register(self, key: str, **more: str) -> Answered:
        command = _Command(self.services, self.start, lambda _: None, ROUTES["/v1/players"])
        body = json.dumps({"country": "AT", "currency": "EUR", **more}).encode()
        return await command.answer(Asked(ASKING, "/v1/players", body, {"idempotency-key": key}))


@pytest.fixture
def two(house: House, monkeypatch: pytest.MonkeyPatch) -> Two:
    made = Two(house, Region(DONE))
    monkeypatch.setattr(made.decider, "owner", made.owner)
    return made


def deposits(player: str) -> str:
    return f"/v1/players/{player}/deposits"


STRANGER = deposits(f"player_{suffix(uuid7(datetime(2026, 3, 1, tzinfo=UTC), bytes(10), 200))}")


async def test_what_is_another_regions_is_done_there_beside_what_is_done_here(two: Two) -> None:
    player = await two.house.player()
    assert await two.batch(deposits(player), STRANGER, deposits(player)) == [201, 201, 201]
    assert [(owner, len(message.items)) for owner, message in two.us.asked] == [("us", 1)]


async def test_where_nobody_knows_who_owns_what_each_item_has_its_own_answer(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(_partition: int) -> Owner:
        raise DOWN

    player = await two.house.player()
    monkeypatch.setattr(two.decider, "owner", unknown)
    assert await two.batch(deposits(player), STRANGER, deposits(player)) == [201, 503, 201]


async def test_where_nobody_knows_what_protects_a_player_nothing_is_sent_and_the_others_are_done(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(_streams: object) -> dict[str, Any]:
        raise DOWN

    player = await two.house.player()
    monkeypatch.setattr(two.decider, "look", unknown)
    monkeypatch.setattr(two.decider, "logs", lambda: _these("eu", "us"))
    assert await two.batch(deposits(player), STRANGER, deposits(player)) == [201, 503, 201]
    assert two.us.asked == []


async def _these(*logs: str) -> Sequence[str]:
    return logs


async def test_a_registration_that_stands_here_has_its_first_answer_although_its_owner_cannot_be_reached(
    two: Two,
) -> None:
    key = key_within(range(128), ASKING.actor)
    first = await two.register(key)
    two.theirs, two.us.answer = range(256), OwnerUnreachable(region="us")
    again = await two.register(key)
    assert (first.status, again.status, again.body) == (201, 201, first.body)
    assert (b"idempotency-replayed", b"true") in again.headers
    assert (await two.register(key, country="DE")).status == 409, "another request with the same key"

    item = BatchItem(key, "/v1/players", msgspec.Raw(b'{"country": "AT", "currency": "EUR"}'))
    other = BatchItem("another", item.path, item.body)
    run = Batches(two.services, two.start, lambda _: None, lambda *_: None)
    answers = (await run.run(Batch([item, other]), Batched(ASKING, False, None))).items
    assert [(each.status, each.repeated) for each in answers] == [(201, True), (503, False)]
    assert bytes(answers[0].body) == first.body
