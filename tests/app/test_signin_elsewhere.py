"""What was spent by a sign-in in one region is spent in every other one that holds a copy of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from commands.signin import Came
from domain.kernel import OperatorId, partition_of
from domain.logs import Released
from domain.operators import FactorKind
from domain.signins import CodeUsed, Signins, Succeeded, together
from tests.app.signing import PASSWORD, Browser, House, house
from tests.ledger import US, Ledger, body, chained, new_id, opening
from tests.reactions.moving import say_in
from tests.stack import Servers

ANNA = "anna@example.com"


@pytest.fixture
async def home(ledger: Ledger, servers: Servers) -> AsyncIterator[House]:
    async with house(ledger, servers) as made:
        yield made


async def first(browser: Browser) -> Any:
    return await browser.post("/v1/signin/password", {"email": ANNA, "password": PASSWORD})


def came_in_us(home: House, operator: str, **shown: Any) -> None:
    """Let the copy of us say that the operator has come in there."""
    id_ = new_id()
    stream = f"region-us-signin_{operator.removeprefix('operator_')}"
    data = {"method": "password", "factors": ["factor_of_test"], **shown}
    bodies = [*opening(US, (128, 255)).bodies, body(stream, 1, id_, data=data, type="signin.succeeded")]
    home.ledger.append_copy(chained(US, bodies))


async def test_a_code_that_was_shown_in_another_region_is_spent_here_as_soon_as_its_log_says_so(home: House) -> None:
    person, _, app = await home.joined()
    ticket = (await first(home.browser())).json["ticket"]
    code, step = home.code(app), int(home.clock().timestamp()) // 30
    came_in_us(home, person.operator, step=step)
    answer = await home.browser().post("/v1/signin/factor", {"ticket": ticket, "code": code})
    assert answer.problem() == (401, "signin_failed")
    home.clock.forward(seconds=31)
    await home.sign_in(ANNA, app)


async def test_what_another_region_says_between_the_check_and_the_record_is_heard(home: House) -> None:
    person, _, _ = await home.joined()
    step = int(home.clock().timestamp()) // 30
    shown = Came(OperatorId(person.operator), Succeeded(method="password", factors=("factor_of_test",), step=step))
    came_in_us(home, person.operator, step=step)
    with pytest.raises(CodeUsed):
        await home.signing_in.came(shown, home.clock())
    later = shown._replace(succeeded=msgspec.structs.replace(shown.succeeded, step=step + 1))
    await home.signing_in.came(later, home.clock())


async def test_a_recovery_code_that_was_used_in_another_region_is_spent_here(home: House) -> None:
    person, browser, _ = await home.joined()
    codes = (await browser.post("/v1/me/recovery-codes")).json["codes"]
    who = await home.signing_in.credentials.of(OperatorId(person.operator))
    [factor] = who.factors(FactorKind.RECOVERY)
    id_ = new_id()
    stream = f"region-us-signin_{person.operator.removeprefix('operator_')}"
    used = body(stream, 1, id_, data={"n": 0, "factor": factor}, type="signin.recovery_used")
    home.ledger.append_copy(chained(US, [*opening(US, (128, 255)).bodies, used]))
    spent = (await home.signing_in.credentials.of(OperatorId(person.operator))).signins.used
    assert spent == {factor: (0,)}
    for number, status in ((0, 401), (1, 200)):
        ticket = (await first(home.browser())).json["ticket"]
        answer = await home.browser().post("/v1/signin/factor", {"ticket": ticket, "code": codes[number]})
        assert answer.status == status, number
        home.clock.forward(minutes=20)


async def test_whoever_was_handed_over_signs_in_here_as_before(home: House) -> None:
    person, _, app = await home.joined()
    partition = partition_of(person.operator)
    before = await home.facts(person)
    say_in(home.ledger, "eu", Released(((partition, partition, 1),), "us"))
    browser = await home.sign_in(ANNA, app)
    assert (await browser.get("/v1/me")).status == 200
    assert (await browser.post("/v1/me/factors/totp")).status == 200
    assert [name for name, _ in (await home.facts(person))[len(before) :]] == ["signin.succeeded"]


def test_what_is_spent_anywhere_is_spent_whatever_the_order() -> None:
    eu = Signins(step=5, counts={"a": 3, "b": 9}, used={"set": (1,)}, refusals=2)
    us = Signins(step=7, counts={"a": 4}, used={"set": (0,), "other": (2,)}, refusals=9)
    ap = Signins(step=6, counts={"b": 1, "c": 2})
    for elsewhere in ([us, ap], [ap, us]):
        found = together(eu, elsewhere)
        assert (found.step, found.counts, found.refusals) == (7, {"a": 4, "b": 9, "c": 2}, 2)
        assert {factor: set(codes) for factor, codes in found.used.items()} == {"set": {0, 1}, "other": {2}}
    assert together(eu, []) == eu
