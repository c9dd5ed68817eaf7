"""What is no player's, and stays to be done here when partitions go to another region: who comes in, who administers, what is noted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from access.policy import principal
from app import founding
from app.batches import Batches
from app.batching import Batched
from app.planning import Services
from commands.batch import Batch, BatchItem
from commands.compartments import NOTES, read
from commands.contacts import OtherPlayer
from commands.plan import WrongRegion
from commands.signin import Came, succeed
from domain import operators
from domain.administrators import LastAdministrator
from domain.bootstraps import Recovered
from domain.errors import NotFound
from domain.kernel import OperatorId, partition_of, suffix, uuid7
from domain.logs import Adopted
from domain.operators import OperatorNotActive
from domain.signins import Succeeded
from eventstore.writer import Unavailable
from tests.commands.house import NOON, OWNED, SECRET, House, Process
from tests.commands.staff import ADMIN, ANNA, MARIA, agreed, approve, asked, commands, founders, joined
from tests.commands.test_compartments import edge, key_of, note, opened
from tests.commands.test_tickets import opening
from tests.commands.us import Us, hand_over, ownership_event

PEOPLE = ("staff-0", "staff-1", "staff-2")


async def administrators(house: House, count: int) -> list[str]:
    """Each in a partition of its own."""
    found: dict[int, str] = {}
    while len(found) < count:
        operator = await joined(house, "administrator", person=PEOPLE[len(found)])
        if partition_of(operator) in found:
            await suspend(house, operator)
        else:
            found[partition_of(operator)] = operator
    return list(found.values())


async def suspend(house: House, operator: str) -> None:
    await house.process.post(f"/v1/operators/{operator}/suspend", {"reason": "left"}, actor=ANNA, roles=ADMIN)


async def adopted_by(us: Us, *operators: str) -> None:
    """Their partitions are handed over to us, each holding what the other has said."""
    us.send()
    partitions = sorted(map(partition_of, operators))
    await hand_over(us.house, dict.fromkeys(partitions, 1), to="us")
    us.receive()
    [released] = await us.log.released("us")
    spans = tuple((each, each, 2) for each in partitions)
    await us.log.append([ownership_event(us.log, Adopted(spans, released.of, released.cut))])
    us.send()


async def suspend_in(us: Us, operator: str) -> None:
    plan = us.house.plan(f"/v1/operators/{operator}/suspend", {"reason": "left"}, actor=ANNA, roles=ADMIN)
    await us.decider.decide(plan)
    us.send()


async def come_in(house: House, operator: str, process: Process | None = None) -> None:
    house.now += timedelta(seconds=31)
    shown = Succeeded(method="password", factors=("factor_of_test",), step=int(house.now.timestamp()) // 30)
    await (process or house.process).decider.decide(succeed("eu", Came(OperatorId(operator), shown), house.now))


async def test_whoever_was_handed_over_comes_in_here_all_the_same(house: House, us: Us) -> None:
    moved, stayed, _ = await administrators(house, 3)
    for each in (moved, stayed):
        await come_in(house, each)
    await adopted_by(us, moved)
    for each in (moved, stayed):
        await come_in(house, each)
    assert sum(event.tag == "signin.succeeded" for event in house.log.events("region")) == 4


async def test_on_the_way_to_the_other_region_too(house: House) -> None:
    moved, _ = await administrators(house, 2)
    await hand_over(house, {partition_of(moved): 1}, to="us")
    await come_in(house, moved)


async def test_whom_the_new_owner_has_suspended_does_not_come_in_here(house: House, us: Us) -> None:
    moved, *_ = await administrators(house, 3)
    await adopted_by(us, moved)
    await come_in(house, moved)
    await suspend_in(us, moved)
    with pytest.raises(OperatorNotActive):
        await come_in(house, moved)


async def test_a_suspension_in_another_process_at_the_same_moment_is_not_overlooked_where_it_is_decided(
    house: House,
) -> None:
    one, *_ = await administrators(house, 3)
    await come_in(house, one)
    other = house.another_process()
    await other.post(f"/v1/operators/{one}/suspend", {"reason": "left"}, actor=ANNA, roles=ADMIN)
    with pytest.raises(OperatorNotActive):
        await come_in(house, one)


async def test_a_process_that_has_just_begun_makes_a_condition_of_who_is_ours(house: House) -> None:
    one, *_ = await administrators(house, 2)
    await come_in(house, one, house.another_process())
    [command] = house.log.appended[-1]
    read = dict(command.reads)
    assert read[operators.stream(OperatorId(one)).name] > 0


async def test_administrators_who_were_handed_over_count_and_are_in_nobodys_way(house: House, us: Us) -> None:
    moved, other, stayed = await administrators(house, 3)
    await adopted_by(us, moved)
    await suspend(house, other)
    with pytest.raises(LastAdministrator):
        await suspend(house, stayed)


async def test_an_administrator_whom_the_new_owner_has_suspended_counts_no_more(house: House, us: Us) -> None:
    moved, other, _ = await administrators(house, 3)
    await adopted_by(us, moved)
    await suspend_in(us, moved)
    with pytest.raises(LastAdministrator):
        await suspend(house, other)


async def test_roles_are_granted_although_an_administrator_is_another_regions(house: House, us: Us) -> None:
    """What was asked before and is approved after; and what is asked and approved after."""
    moved, stayed, _ = await administrators(house, 3)
    early = await asked(house, f"/v1/operators/{stayed}/roles", {"role": "support"})
    await adopted_by(us, moved)
    await approve(house, early)
    await agreed(house, f"/v1/operators/{stayed}/person", {"person": "somebody-else"})
    found = house.administrators()[OperatorId(stayed)]
    assert (found.person, "support" in found.roles) == ("somebody-else", True)


async def test_what_waits_for_approval_counts_administrators_as_the_new_owner_has_left_them(
    house: House, us: Us
) -> None:
    moved, stayed, other = await administrators(house, 3)
    waits = await asked(house, f"/v1/operators/{stayed}/person", {"person": PEOPLE[2]})
    await adopted_by(us, moved)
    await suspend_in(us, moved)
    with pytest.raises(LastAdministrator):
        await approve(house, waits)
    del other


async def test_whoever_was_handed_over_is_changed_by_the_new_owner(house: House, us: Us) -> None:
    moved, *_ = await administrators(house, 3)
    await adopted_by(us, moved)
    with pytest.raises(WrongRegion) as refused:
        await suspend(house, moved)
    assert refused.value.facts == {"partition": partition_of(moved), "owner": "us"}


async def test_what_is_new_gets_a_partition_that_is_still_ours(house: House) -> None:
    decider = house.process.decider
    await decider.owners.look()
    assert decider.owners.own == list(OWNED)
    gone = list(OWNED)[: len(OWNED) // 2]
    await hand_over(house, dict.fromkeys(gone, 1), to="us")
    decider.owners._asked_at = 0.0  # a moment later
    await decider.owners.look()
    assert decider.owners.own == list(OWNED)[len(gone) :]


async def test_where_nothing_is_ours_any_more_whoever_makes_something_hears_whose_it_is(house: House) -> None:
    await hand_over(house, dict.fromkeys(OWNED, 1), to="us")
    decider = house.process.decider
    await decider.owners.look()
    assert len(decider.owners.own) == 256
    with pytest.raises(WrongRegion) as refused:
        await joined(house)
    assert refused.value.facts["owner"] == "us"


async def test_a_note_in_a_compartment_names_the_region_that_owns_the_player_by_now(house: House) -> None:
    player = await house.player()
    await opened(house)
    await note(house, player)
    house.partitions = [each for each in OWNED if each != partition_of(player)]
    await hand_over(house, {partition_of(player): 1}, to="us")
    with pytest.raises(WrongRegion) as refused:
        await note(house, player, "moved", key="another")
    assert refused.value.facts == {"partition": partition_of(player), "owner": "us"}


async def test_what_was_noted_in_a_compartment_is_read_there_whoever_owns_the_player_by_now(house: House) -> None:
    player = await house.player()
    await opened(house)
    await note(house, player)
    await hand_over(house, {partition_of(player): 1}, to="us")
    house.partitions = [each for each in OWNED if each != partition_of(player)]
    inside = msgspec.structs.replace(edge(house, "operator:ann", "look", ["compliance"]), own=house.partitions)
    plan = read("north", player, NOTES, inside, key_of(house))
    assert (await house.process.decider.decide(plan)).position is not None


async def test_nobody_is_recovered_without_somebody_who_is_another_regions_and_nothing_says_so(house: House) -> None:
    one, two = await administrators(house, 2)
    await hand_over(house, {partition_of(two): 1}, to="us")
    before = len(house.log.entries)
    with pytest.raises(WrongRegion, match="suspended in us") as refused:
        await founding.recover(founders(house), commands("staff-9"), [OperatorId(two)])
    assert refused.value.facts == {"partition": partition_of(two), "owner": "us"}
    assert len(house.log.entries) == before
    [made] = await founding.recover(founders(house), commands("staff-9"), [OperatorId(one)])
    assert house.log.events("region-eu-bootstrap") == [Recovered((OperatorId(made.operator),), (OperatorId(one),))]


async def test_a_region_without_partitions_recovers_nobody_and_says_why(house: House) -> None:
    await hand_over(house, dict.fromkeys(OWNED, 1), to="us")
    with pytest.raises(Unavailable, match="owns no partitions"):
        await founding.recover(founders(house), commands("staff-9"))


async def test_a_batch_makes_what_is_new_where_we_own(house: House) -> None:
    await house.process.decider.owners.look()
    gone = list(OWNED)[:-2]
    await hand_over(house, dict.fromkeys(gone, 1), to="us")
    house.process.decider.owners._asked_at = 0.0  # a moment later
    authentication: Any = SimpleNamespace(known=house.known.get, administrators=house.administrators, renew=_nothing)
    vault: Any = house.vault
    start: Any = SimpleNamespace(require=lambda: None)
    services = Services(house.process.decider, vault, authentication, SECRET)
    items = [BatchItem(f"k{n}", "/v1/operators", msgspec.Raw(msgspec.json.encode(MARIA))) for n in range(5)]
    who = house.known[ANNA] = principal(ANNA, ADMIN, stepped_up=datetime.now(UTC))
    answer = await Batches(services, start, lambda _: None, lambda *_: None).run(
        Batch(items), Batched(who, False, None)
    )
    assert [each.status for each in answer.items] == [201] * 5


async def _nothing() -> None:
    """Whoever is known is known already."""


async def test_a_partition_that_is_lost_between_loading_and_deciding_leaves_its_conditions(house: House) -> None:
    one, *_ = await administrators(house, 3)
    await come_in(house, one)
    decider = house.process.decider
    look_up = decider._referring.look_up

    async def meanwhile(plans: Any) -> Any:
        decider.owners.forget()
        return await look_up(plans)

    decider._referring.look_up = meanwhile  # type: ignore[method-assign]
    await come_in(house, one)
    [command] = house.log.appended[-1]
    assert operators.stream(OperatorId(one)).name in dict(command.reads)


async def test_what_can_be_no_thing_of_the_players_is_looked_for_nowhere(house: House) -> None:
    player = await house.player()
    other = suffix(uuid7(NOON, bytes(10), 200))
    ticket = opening(transaction=f"transaction_{other}")
    contact = {"channel": "phone", "reason": "harm", "trigger": f"notice_{other}"}
    with pytest.raises(NotFound):
        await house.process.post(f"/v1/players/{player}/tickets", ticket)
    with pytest.raises(OtherPlayer):
        await house.process.post(f"/v1/players/{player}/contacts", contact)
