"""Administrators: the first ones come from outside, once ever, and two stay, or others come from outside again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app import founding
from commands.operators import digest_of
from commands.plan import Receipt
from commands.signin import join
from domain.administrators import LastAdministrator
from domain.bootstraps import AlreadyBootstrapped, NotLost, Recovered
from domain.errors import NotFound
from domain.kernel import OperatorId
from domain.operators import (
    InvitationRefused,
    RoleGranted,
)
from tests.commands.house import CODEC, House
from tests.commands.staff import (
    ADMIN,
    ANNA,
    agreed,
    approve,
    asked,
    commands,
    founders,
    invite,
    joined,
)

# The first ones


async def test_the_first_administrators_are_invited_once_ever_and_the_log_says_so(house: House) -> None:
    first = await founding.bootstrap(founders(house), commands("staff-1", "staff-2"))
    granted = [event.role for event in house.log.events("operator") if isinstance(event, RoleGranted)]
    assert granted == ["administrator", "administrator"]
    assert {CODEC.decode(entry).body.actor for entry in house.log.entries} == {"system"}
    assert all(each.invitation for each in first)
    for people in (("staff-1", "staff-2"), ("staff-3",)):
        with pytest.raises(AlreadyBootstrapped):
            await founding.bootstrap(founders(house), commands(*people))


async def test_a_bootstrap_that_was_interrupted_goes_on(house: House) -> None:
    two = commands("staff-1", "staff-2")
    decide, calls = house.process.decider.decide, []

    async def dies_at_the_third(plan: Any) -> Receipt:
        calls.append(plan)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return await decide(plan)

    dying = founders(house)._replace(decider=_Deciding(dies_at_the_third))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        await founding.bootstrap(dying, two)
    assert len(house.log.events("operator")) == 2  # the first one, with the role
    with pytest.raises(AlreadyBootstrapped):
        await founding.bootstrap(founders(house), two)
    [last] = await founding.bootstrap(founders(house), two[1:])
    assert last.invitation
    with pytest.raises(AlreadyBootstrapped):
        await founding.bootstrap(founders(house), two[1:])


async def test_nobody_founds_where_there_were_administrators(house: House) -> None:
    operator = (await invite(house)).operator
    await agreed(house, f"/v1/operators/{operator}/roles", {"role": "administrator"})
    await house.process.post(
        f"/v1/operators/{operator}/revoke-role", {"role": "administrator"}, actor=ANNA, roles=ADMIN
    )
    with pytest.raises(AlreadyBootstrapped):
        await founding.bootstrap(founders(house), commands("staff-9"))


# The last ones


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("suspend", {"reason": "left"}),
        ("revoke-role", {"role": "administrator"}),
        ("roles", {"role": "administrator", "until": "2027-01-01T00:00:00Z"}),
        ("person", {"person": "staff-2"}),
    ],
)
async def test_nothing_leaves_fewer_than_two_persons_who_administer(house: House, path: str, body: object) -> None:
    one, _ = await joined(house, "administrator"), await joined(house, "administrator", person="staff-2")
    with pytest.raises(LastAdministrator):
        await house.process.post(f"/v1/operators/{one}/{path}", body, actor=ANNA, roles=ADMIN)
    await joined(house, "administrator", person="staff-3")
    await house.process.post(f"/v1/operators/{one}/{path}", body, actor=ANNA, roles=ADMIN)


async def test_of_two_who_are_suspended_at_once_one_stays(house: House) -> None:
    """Each is decided knowing the other as still there, in another process: the append knows better."""
    three = [await joined(house, "administrator", person=f"staff-{n}") for n in range(3)]
    answers = await asyncio.gather(
        *(
            house.another_process().post(f"/v1/operators/{each}/suspend", {"reason": "left"}, actor=ANNA, roles=ADMIN)
            for each in three
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(each, LastAdministrator) for each in answers) == 2
    assert len(house.administrators()) == 2


async def test_what_was_asked_for_while_three_administered_is_not_approved_for_two(house: House) -> None:
    one, two, _ = [await joined(house, "administrator", person=f"staff-{n}") for n in range(3)]
    waits = await asked(house, f"/v1/operators/{one}/person", {"person": "staff-2"})
    await house.process.post(f"/v1/operators/{two}/suspend", {"reason": "left"}, actor=ANNA, roles=ADMIN)
    with pytest.raises(LastAdministrator):
        await approve(house, waits)


async def test_further_administrators_come_from_outside_only_when_fewer_than_two_are_left(house: House) -> None:
    one, two = [await joined(house, "administrator", person=f"staff-{n}") for n in range(2)]
    with pytest.raises(NotLost):
        await founding.recover(founders(house), commands("staff-9"))
    with pytest.raises(NotFound):
        await founding.recover(founders(house), commands("staff-9"), [OperatorId("operator_" + "0" * 26)])
    [made] = await founding.recover(founders(house), commands("staff-9"), [OperatorId(two)])
    assert house.log.events("region-eu-bootstrap") == [Recovered((OperatorId(made.operator),), (OperatorId(two),))]
    assert house.administrators().keys() == {one}, "the new one has not come yet"
    plan = join(OperatorId(made.operator), digest_of(made.invitation or ""), lambda _operator: [], house.now)
    await house.process.decider.decide(plan)
    assert house.administrators().keys() == {one, made.operator}
    with pytest.raises(NotLost):
        await founding.recover(founders(house), commands("staff-10"))
    with pytest.raises(AlreadyBootstrapped):
        await founding.bootstrap(founders(house), commands("staff-9"))


async def test_one_of_the_first_does_not_join_as_the_other(house: House) -> None:
    """Whoever makes the other's invitation again learns its secret, so a second person is asked."""
    _, other = await founding.bootstrap(founders(house), commands("staff-1", "staff-2"))
    again = await house.process.post(f"/v1/operators/{other.operator}/invite-again", actor=ANNA, roles=ADMIN)
    secret = again.answer.invitation or ""  # type: ignore[attr-defined]
    with pytest.raises(InvitationRefused):
        await house.process.decider.decide(
            join(OperatorId(other.operator), digest_of(secret), lambda _operator: [], house.now)
        )


class _Deciding:
    def __init__(self, decide: Any) -> None:
        self.decide = decide
