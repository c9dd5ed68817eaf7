"""By what people come in changes: whoever came in by what is gone is out, and one factor does no more than enrol the second."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pyotp
import pytest

from app.authentication import COOKIE
from domain import operators
from tests.app.signing import PASSWORD, Browser, House, Person, house
from tests.ledger import Ledger
from tests.stack import Servers

ANNA = "anna@example.com"
NEW = PASSWORD + " again"


@pytest.fixture
async def home(ledger: Ledger, servers: Servers) -> AsyncIterator[House]:
    async with house(ledger, servers) as made:
        yield made


async def came(home: House) -> tuple[Person, Browser]:
    """Somebody who has joined by a password, and has enrolled nothing."""
    person, browser = await home.invited(), home.browser()
    joining = {"operator": person.operator, "invitation": person.invitation, "password": PASSWORD}
    assert (await browser.post("/v1/me/password", joining)).json["enrol"]
    return person, browser


async def enrols(home: House, browser: Browser) -> tuple[Any, Any]:
    begun = await browser.post("/v1/me/factors/totp")
    if begun.status != 200:
        return begun, None
    app = pyotp.TOTP(begun.json["secret"])
    return await browser.post("/v1/me/factors/totp", {"handle": begun.json["handle"], "code": home.code(app)}), app


async def ticket(home: House, password: str = PASSWORD) -> str:
    answer = await home.browser().post("/v1/signin/password", {"email": ANNA, "password": password})
    assert answer.status == 200, answer
    named: str = answer.json["ticket"]
    return named


async def test_who_came_by_a_providers_second_factor_enrols_none_here_once_it_is_stale(home: House) -> None:
    person, _ = await came(home)
    means = (await home.signing_in.credentials.of(person.operator)).operator.means
    for age, status in ((timedelta(hours=1), 403), (timedelta(), 200)):
        at = home.clock()
        begun = await home.signing_in.sessions.begin(person.operator, "oidc", at, stepped_up=at - age, means=means)
        browser = home.browser()
        browser.cookies[COOKIE], browser.csrf = begun.id, begun.session.csrf
        enrolled, _ = await enrols(home, browser)
        assert enrolled.status == status
        if status != 200:
            assert enrolled.problem() == (403, "step_up_required")


async def test_a_session_of_one_factor_is_over_when_the_second_is_enrolled(home: House) -> None:
    _, browser = await came(home)
    thief = home.browser()
    assert (await thief.post("/v1/signin/password", {"email": ANNA, "password": PASSWORD})).json["signed_in"]["enrol"]
    enrolled, _ = await enrols(home, browser)
    assert enrolled.status == 200
    for path in ("/v1/me", "/v1/me/sessions"):
        assert (await thief.get(path)).problem() == (401, "unauthenticated")
    assert (await browser.get("/v1/me")).status == 200


async def test_by_one_factor_nobody_sees_or_ends_sessions(home: House) -> None:
    _, browser = await came(home)
    assert (await browser.get("/v1/me/sessions")).problem() == (403, "step_up_required")
    assert (await browser.post(f"/v1/me/sessions/{'0' * 64}/revoke")).problem() == (403, "step_up_required")


async def test_a_removed_factor_ends_what_others_have_open_and_this_session_goes_on(home: House) -> None:
    _, browser, app = await home.joined()
    other = await home.sign_in(ANNA, app)
    enrolled, _ = await enrols(home, browser)
    assert enrolled.status == 200
    old = (await browser.get("/v1/me")).json["factors"][0]["factor"]
    before = browser.session
    assert (await browser.post(f"/v1/me/factors/{old}/remove")).status == 200
    assert (await other.get("/v1/me")).problem() == (401, "unauthenticated")
    assert browser.session != before
    assert (await browser.get("/v1/me")).status == 200
    stolen = home.browser()
    stolen.cookies[COOKIE] = before
    assert (await stolen.get("/v1/me")).status == 401


async def test_new_recovery_codes_end_who_came_in_by_the_old_ones(home: House) -> None:
    _, browser, _ = await home.joined()
    codes = (await browser.post("/v1/me/recovery-codes")).json["codes"]
    thief = home.browser()
    shown = {"ticket": await ticket(home), "code": codes[0]}
    assert (await thief.post("/v1/signin/factor", shown)).status == 200
    assert (await browser.post("/v1/me/recovery-codes")).status == 200
    assert (await thief.get("/v1/me")).status == 401
    assert (await browser.post("/v1/me/recovery-codes")).status == 200, "its own token stays"


async def test_a_first_factor_that_was_shown_before_a_change_goes_no_further(home: House) -> None:
    _, browser, app = await home.joined()
    begun = await ticket(home)
    assert (await browser.post("/v1/me/password", {"password": NEW})).status == 200
    shown = await home.browser().post("/v1/signin/factor", {"ticket": begun, "code": home.code(app)})
    assert shown.problem() == (401, "signin_failed")
    home.clock.forward(seconds=31)
    again = {"ticket": await ticket(home, NEW), "code": home.code(app)}
    assert (await home.browser().post("/v1/signin/factor", again)).status == 200


async def test_what_was_changed_in_another_region_ends_sessions_here(home: House) -> None:
    """Nothing of Redis goes there or comes from there: the log says so."""
    person, browser, app = await home.joined()
    begun = await ticket(home)
    linked = operators.IdentityLinked("https://id.example", "00" * 32)
    await home.change(person, lambda _at, operator: [linked] if operator.means == 1 else [])
    assert (await browser.get("/v1/me")).status == 200, "another way in takes none away"
    await home.change(person, lambda _at, operator: operators.unlink_identity(operator, issuer="https://id.example"))
    assert (await browser.get("/v1/me")).status == 401
    assert (await home.browser().post("/v1/signin/factor", {"ticket": begun, "code": home.code(app)})).status == 401
    await home.sign_in(ANNA, app)
