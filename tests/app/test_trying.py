"""How often people may try to come in, from where; who tries too often waits, and keeps nobody else out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pyotp
import pytest

from access.attempts import Attempts, Rule
from access.credentials import Credentials
from domain import operators
from domain.kernel import OperatorId
from tests.app.signing import PASSWORD, Browser, House, Person, house
from tests.app.test_signin import ANNA, by_passkey, enrolled, first
from tests.ledger import Ledger
from tests.stack import Servers

OFFICE, THIEF = "192.0.2.1", "198.51.100.7"
FEW = Rule(free=3, first=30, most=900, forgotten=3_600)
WRONG = "not the password at all"


@pytest.fixture
async def home(ledger: Ledger, servers: Servers) -> AsyncIterator[House]:
    async with house(ledger, servers) as made:
        yield made


def tries_of_an_address(home: House, rule: Rule = FEW) -> Attempts:
    home.signing_in.attempts = Attempts(home.redis, address=rule)
    return home.signing_in.attempts


async def test_an_office_does_not_lock_itself_out_by_passkeys_that_are_right(home: House) -> None:
    _, browser, _ = await home.joined()
    authenticator = await enrolled(browser)
    tries_of_an_address(home)
    for _ in range(7):
        assert (await by_passkey(home.browser(), authenticator)).status == 200
    for status in (401, 401, 401, 401):
        assert (await by_passkey(home.browser(), authenticator, flags=0x01)).status == status
    assert (await by_passkey(home.browser(), authenticator)).status == 401, "wrong ones count"


async def test_any_number_of_apps_is_enrolled_and_who_guesses_counts_for_their_own_address(home: House) -> None:
    _, browser, _ = await home.joined()
    attempts = tries_of_an_address(home)

    async def enrols(code: str = "") -> int:
        begun = (await browser.post("/v1/me/factors/totp")).json
        shown = {"handle": begun["handle"], "code": code or home.code(pyotp.TOTP(begun["secret"]))}
        status: int = (await browser.post("/v1/me/factors/totp", shown)).status
        home.clock.forward(seconds=0 if code else 31)
        return status

    assert [await enrols() for _ in range(5)] == [200] * 5
    assert [await enrols("000000") for _ in range(3)] == [401] * 3
    assert await enrols() == 401
    assert await attempts.address_may_try("", home.clock()), "what has no address shares no counter"


async def test_an_address_that_waits_locks_no_account_any_longer(home: House) -> None:
    attempts, clock = tries_of_an_address(home), home.clock
    for n in range(3):
        assert await attempts.may_try(f"account {n}", THIEF, clock())
    for _ in range(20):
        assert not await attempts.may_try(ANNA, THIEF, clock())
    tries = [await attempts.may_try(ANNA, f"192.0.2.{n}", clock()) for n in range(6)]
    assert tries == [True] * 5 + [False], "it has all that an account has"


async def test_what_was_right_is_taken_off_and_nothing_more(home: House) -> None:
    attempts, clock = tries_of_an_address(home), home.clock
    for _ in range(50):
        await attempts.succeeded("x", OFFICE)
    for _ in range(2):
        assert await attempts.address_may_try(OFFICE, clock())
    for _ in range(4):
        assert await attempts.address_may_try(OFFICE, clock()), "two were wrong, this one is right"
        await attempts.succeeded(None, OFFICE)
    assert await attempts.address_may_try(OFFICE, clock())
    assert not await attempts.address_may_try(OFFICE, clock())


async def test_whoever_joins_is_owed_no_tries(home: House) -> None:
    """Coming in is one try, whatever it takes."""
    person, browser = await home.invited(), home.browser()
    tries_of_an_address(home, FEW._replace(free=5))
    for _ in range(3):
        assert (await first(home.browser(), password=WRONG)).status == 401
    joining = {"operator": person.operator, "invitation": person.invitation, "password": PASSWORD}
    assert (await browser.post("/v1/me/password", joining)).status == 200
    assert (await first(home.browser())).json["signed_in"]["enrol"]
    left = [(await first(home.browser(), password=WRONG)).status for _ in range(2)]
    assert left == [401, 401]
    assert (await first(home.browser())).status == 401


async def test_an_address_that_waits_is_refused_before_anything_is_read_or_hashed(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home.joined()
    tries_of_an_address(home)
    hashed: list[str] = []
    verify, of = home.signing_in.passwords._verify, home.signing_in.credentials.of
    monkeypatch.setattr(
        home.signing_in.passwords, "_verify", lambda kept, text: hashed.append(kept) or verify(kept, text)
    )
    answers = [await first(home.browser(), password=WRONG) for _ in range(3)]
    assert len(hashed) == 3
    monkeypatch.setattr(home.signing_in.credentials, "of", lambda _id: pytest.fail("it was read"))
    waits = await first(home.browser())
    assert (waits.status, waits.raw) == (answers[0].status, answers[0].raw)
    assert len(hashed) == 3
    monkeypatch.setattr(home.signing_in.credentials, "of", of)
    home.clock.forward(seconds=31)
    assert (await first(home.browser())).status == 200


async def test_of_an_unknown_address_as_much_is_read_and_opened_as_of_a_known_one(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [(await home.joined(email))[0] for email in (ANNA, "ben@example.com")]
    read: list[Credentials] = []
    of = home.signing_in.credentials.of

    async def reading(operator_id: OperatorId) -> Credentials:
        read.append(await of(operator_id))
        return read[-1]

    monkeypatch.setattr(home.signing_in.credentials, "of", reading)
    for email in (ANNA, "nobody@example.com", "nobody@example.com", "somebody@example.com"):
        assert (await first(home.browser(), email, WRONG)).status == 401
    assert read[0].operator_id == people[0].operator
    assert {each.operator_id for each in read} <= {each.operator for each in people}
    assert read[1].operator_id == read[2].operator_id, "and always of the same one"
    for each in read:
        assert each.password is not None
        assert len(each.secrets) == len(read[0].secrets)
    assert len(read) == 4


async def test_nobody_comes_in_by_the_password_of_who_stands_in_for_them(home: House) -> None:
    await home.joined()
    assert (await first(home.browser(), "nobody@example.com", PASSWORD)).problem() == (401, "signin_failed")


async def test_whoever_is_suspended_between_two_factors_hears_what_everybody_hears(home: House) -> None:
    person, _, app = await home.joined()
    ticket = (await first(home.browser())).json["ticket"]
    await home.change(person, lambda _at, operator: operators.suspend(operator, reason="left"))
    suspended, guessed = await by_code(home, ticket, app), await by_code(home, "no ticket", app)
    assert (suspended.status, suspended.raw) == (guessed.status, guessed.raw)
    assert suspended.problem() == (401, "signin_failed")
    assert await refusals(home, person) == ["not_active"]


async def test_a_suspension_that_is_recorded_at_the_same_moment_is_heard_like_any_other(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, _, app = await home.joined()
    ticket = (await first(home.browser())).json["ticket"]
    before = await home.signing_in.credentials.of(person.operator)
    await home.change(person, lambda _at, operator: operators.suspend(operator, reason="left"))

    async def as_before(_operator: OperatorId) -> Credentials:
        return before

    monkeypatch.setattr(home.signing_in.credentials, "of", as_before)
    assert (await by_code(home, ticket, app)).problem() == (401, "signin_failed")
    assert await refusals(home, person) == ["not_active"]


async def test_what_was_begun_before_a_suspension_ended_is_over(home: House) -> None:
    home.clock.forward(minutes=-5)  # the log has a clock of its own, which is now
    person, _, app = await home.joined()
    means = (await home.signing_in.credentials.of(person.operator)).operator.means
    ticket = (await first(home.browser())).json["ticket"]
    await home.change(person, lambda _at, operator: operators.suspend(operator, reason="left"))
    home.clock.at = at = datetime.now(UTC)  # after it began, and before it ends
    begun = await home.signing_in.sessions.begin(person.operator, "oidc", at, stepped_up=at, means=means)
    await home.change(person, lambda _at, operator: operators.resume(operator))
    browser = home.browser()
    browser.cookies = {"__Host-countroom": begun.id}
    assert (await browser.get("/v1/me")).problem() == (401, "unauthenticated")
    assert (await by_code(home, ticket, app)).problem() == (401, "signin_failed")
    home.clock.forward(minutes=10)
    assert (await (await home.sign_in(ANNA, app)).get("/v1/me")).status == 200


async def by_code(home: House, ticket: str, app: Any, browser: Browser | None = None) -> Any:
    return await (browser or home.browser()).post("/v1/signin/factor", {"ticket": ticket, "code": home.code(app)})


async def refusals(home: House, person: Person) -> list[str]:
    return [event.why for tag, event in await home.facts(person) if tag == "signin.refused"]
