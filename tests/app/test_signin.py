"""People come in by two factors, over real HTTP, PostgreSQL and Valkey; whoever shows less, or shows it twice, does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from domain import operators
from tests.app.signing import PASSWORD, Authenticator, Browser, House, house
from tests.ledger import Ledger
from tests.stack import Servers

ANNA = "anna@example.com"


@pytest.fixture
async def home(ledger: Ledger, servers: Servers) -> AsyncIterator[House]:
    async with house(ledger, servers) as made:
        yield made


@pytest.fixture
async def office(ledger: Ledger, servers: Servers) -> AsyncIterator[House]:
    """The same, with all commands and queries."""
    async with house(ledger, servers, whole=True) as made:
        yield made


async def first(browser: Browser, email: str = ANNA, password: str = PASSWORD) -> Any:
    return await browser.post("/v1/signin/password", {"email": email, "password": password})


async def test_somebody_invited_joins_enrols_and_comes_back_with_two_factors(office: House) -> None:
    home = office
    person, browser, app = await home.joined()
    me = (await browser.get("/v1/me")).json
    assert (me["operator"], me["roles"], [each["kind"] for each in me["factors"]]) == (
        person.operator,
        ["administrator"],
        ["totp"],
    )
    again = await home.sign_in("  ANNA@example.com ", app)
    assert (await again.get("/v1/dashboard")).status == 200
    assert [tag for tag, _ in await home.facts(person)] == ["signin.succeeded"] * 3
    stored = b"".join(entry.body for entry in home.ledger.entries())
    for secret in (PASSWORD, app.secret, ANNA, "$argon2id$"):
        assert secret.encode() not in stored


async def test_a_password_alone_opens_nothing(home: House) -> None:
    await home.joined()
    browser = home.browser()
    step = await first(browser)
    assert (step.status, step.json["factors"], step.json["signed_in"]) == (200, ["totp"], None)
    assert browser.session == ""
    assert (await browser.get("/v1/me")).problem() == (401, "unauthenticated")


async def test_until_a_second_factor_is_enrolled_nothing_else_can_be_done(office: House) -> None:
    person, browser = await office.invited(), office.browser()
    joining = {"operator": person.operator, "invitation": person.invitation, "password": PASSWORD}
    assert (await browser.post("/v1/me/password", joining)).json["enrol"]
    assert (await browser.get("/v1/me")).json["actions"] == []
    assert (await browser.get("/v1/dashboard")).problem() == (403, "forbidden")
    assert (await browser.post("/v1/me/recovery-codes")).problem() == (403, "step_up_required")
    again = await browser.post("/v1/me/password", joining)
    assert again.problem() == (403, "invitation_refused")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"invitation": "cri_guessed"}, "invitation_refused"),
        ({"operator": "operator_" + "0" * 26}, "invitation_refused"),
        ({"password": "short"}, "password_too_weak"),
        ({"password": "aaaaaaaaaaaaaaaaaaaa"}, "password_too_weak"),
        ({"password": "passwordpassword"}, "password_common"),
        ({"password": "the cat of anna is old"}, "password_names_somebody"),
        ({"password": "the cat of anna is old", "invitation": "cri_guessed"}, "invitation_refused"),
        ({"password": "it is countroom, again"}, "password_names_somebody"),
    ],
)
async def test_nobody_joins_by_a_guess_or_with_a_weak_password(
    home: House, changed: dict[str, str], expected: str
) -> None:
    person = await home.invited()
    given = {"operator": person.operator, "invitation": person.invitation, "password": PASSWORD, **changed}
    assert (await home.browser().post("/v1/me/password", given)).json["code"] == expected


async def test_a_new_password_names_nobody_and_is_none_of_those_that_are_tried_first(home: House) -> None:
    _, browser, _ = await home.joined()
    for password, code in (
        ("passwordpassword", "password_common"),
        ("P@ssw0rd, P@ssw0rd!", "password_common"),
        ("the cat of ANNA is old", "password_names_somebody"),
    ):
        refused = await browser.post("/v1/me/password", {"password": password})
        assert refused.problem() == (422, code)
        assert refused.json["title"].endswith(("belong together", "this program"))
        assert "anna" not in refused.raw.decode().lower()
    assert (await browser.post("/v1/me/password", {"password": "the cat of somebody is old"})).status == 200


async def test_whatever_is_wrong_the_answer_is_the_same(home: House) -> None:
    person, _, _ = await home.joined()
    unknown = await first(home.browser(), "nobody@example.com")
    wrong = await first(home.browser(), password="not the password at all")
    await home.change(person, lambda _at, operator: operators.suspend(operator, reason="left"))
    suspended = await first(home.browser())
    assert (unknown.status, unknown.raw) == (wrong.status, wrong.raw) == (suspended.status, suspended.raw)
    assert unknown.problem() == (401, "signin_failed")
    assert [key for key, _ in unknown.headers] == [key for key, _ in wrong.headers]


async def test_an_unknown_account_costs_as_many_hashes_as_a_known_one(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home.joined()
    hashed: list[str] = []
    verify = home.signing_in.passwords._verify
    monkeypatch.setattr(
        home.signing_in.passwords, "_verify", lambda kept, text: hashed.append(kept) or verify(kept, text)
    )
    for email in (ANNA, "nobody@example.com"):
        await first(home.browser(), email, "not the password at all")
    assert len(hashed) == 2
    assert hashed[0] != hashed[1]


async def test_a_locked_account_answers_as_a_wrong_password_does_and_opens_again(home: House) -> None:
    person, _, app = await home.joined()
    for _ in range(5):
        assert (await first(home.browser(), password="not the password at all")).problem() == (401, "signin_failed")
    locked = await first(home.browser())
    assert locked.problem() == (401, "signin_failed")
    refusals = [event.why for tag, event in await home.facts(person) if tag == "signin.refused"]
    assert refusals
    home.clock.forward(seconds=31)
    await home.sign_in(ANNA, app)


async def test_the_wait_doubles_and_ends_at_a_quarter_of_an_hour(home: House) -> None:
    attempts, clock = home.signing_in.attempts, home.clock
    for _ in range(5):
        assert await attempts.may_try("x", "198.51.100.7", clock())
    for wait in (30, 60, 120, 240, 480, 900, 900):
        clock.forward(seconds=wait - 1)
        assert not await attempts.may_try("x", "198.51.100.7", clock())
        clock.forward(seconds=1)
        assert await attempts.may_try("x", "198.51.100.7", clock())


async def test_an_address_that_tries_many_accounts_has_to_wait_and_others_need_not(home: House) -> None:
    attempts, at = home.signing_in.attempts, home.clock()
    tries = [await attempts.may_try(f"account {n}", f"2001:db8::{n:x}", at) for n in range(1, 32)]
    assert tries == [True] * 30 + [False]
    assert await attempts.may_try("one more", "2001:db8:1::1", at)


async def test_whoever_lost_everything_is_invited_anew_under_the_same_address(home: House) -> None:
    before, _, old = await home.joined()
    await home.change(before, lambda _at, operator: operators.suspend(operator, reason="lost"))
    after, _, new = await home.joined()
    browser = await home.sign_in(ANNA, new)
    assert (await browser.get("/v1/me")).json["operator"] == after.operator != before.operator
    ticket = (await first(home.browser())).json["ticket"]
    assert (await home.browser().post("/v1/signin/factor", {"ticket": ticket, "code": home.code(old)})).status == 401


async def test_a_code_is_good_once_also_after_redis_forgot_everything(home: House) -> None:
    _, _, app = await home.joined()
    code = home.code(app)
    browser = home.browser()
    ticket = (await first(browser)).json["ticket"]
    assert (await browser.post("/v1/signin/factor", {"ticket": ticket, "code": code})).status == 200
    await home.redis.flushdb()
    ticket = (await first(home.browser())).json["ticket"]
    again = await home.browser().post("/v1/signin/factor", {"ticket": ticket, "code": code})
    assert again.problem() == (401, "signin_failed")


async def test_of_two_who_show_one_code_at_once_one_comes_in(home: House) -> None:
    import asyncio

    _, _, app = await home.joined()
    tickets = [(await first(home.browser())).json["ticket"] for _ in range(3)]
    code = home.code(app)
    answers = await asyncio.gather(
        *(home.browser().post("/v1/signin/factor", {"ticket": each, "code": code}) for each in tickets)
    )
    assert sorted(each.status for each in answers) == [200, 401, 401]


async def test_a_ticket_is_good_once_and_no_other_proof_goes_with_it(home: House) -> None:
    _, _, app = await home.joined()
    browser = home.browser()
    ticket = (await first(browser)).json["ticket"]
    for wrong in ("000000", "12345", "a" * 16, ""):
        assert (await browser.post("/v1/signin/factor", {"ticket": ticket, "code": wrong})).status == 401
    home.clock.forward(minutes=20)
    ticket = (await first(browser)).json["ticket"]
    assert (await browser.post("/v1/signin/factor", {"ticket": ticket, "code": home.code(app)})).status == 200
    home.clock.forward(seconds=31)
    assert (await browser.post("/v1/signin/factor", {"ticket": ticket, "code": home.code(app)})).status == 401


async def test_a_recovery_code_opens_once_and_new_ones_void_the_old(home: House) -> None:
    person, browser, _ = await home.joined()
    codes = (await browser.post("/v1/me/recovery-codes")).json["codes"]
    assert len(set(codes)) == 10
    for place, status in ((0, 200), (0, 401), (1, 200)):
        other = home.browser()
        ticket = (await first(other)).json["ticket"]
        shown = await other.post(
            "/v1/signin/factor", {"ticket": ticket, "code": codes[place].upper().replace("-", " ")}
        )
        assert shown.status == status
    assert [event.n for tag, event in await home.facts(person) if tag == "signin.recovery_used"] == [0, 1]
    await browser.post("/v1/me/recovery-codes")
    other = home.browser()
    ticket = (await first(other)).json["ticket"]
    assert (await other.post("/v1/signin/factor", {"ticket": ticket, "code": codes[2]})).status == 401


async def test_signing_in_makes_a_new_id_and_ends_what_the_browser_brought(home: House) -> None:
    """Session fixation: an id that somebody planted opens nothing afterwards."""
    _, victim, app = await home.joined()
    planted = victim.session
    await home.sign_in(ANNA, app, victim)
    assert victim.session != planted
    fixed = home.browser()
    fixed.cookies = {"__Host-countroom": planted}
    assert (await fixed.get("/v1/me")).status == 401
    fixed.cookies = {"__Host-countroom": "chosen-by-somebody"}
    assert (await fixed.get("/v1/me")).status == 401


@pytest.mark.parametrize(
    "headers", [{"X_CSRF_Token": ""}, {"X_CSRF_Token": "guessed"}, {"Sec_Fetch_Site": "cross-site"}]
)
async def test_another_site_changes_nothing_by_our_cookie(office: House, headers: dict[str, str]) -> None:
    _, browser, _ = await office.joined()
    assert (await browser.post("/v1/signin/out", **headers)).problem() == (403, "csrf_refused")
    command = await browser.post("/v1/players", {"country": "DE", "currency": "EUR"}, Idempotency_Key="k", **headers)
    assert command.problem() == (403, "csrf_refused")
    assert (await browser.get("/v1/me")).status == 200


async def test_a_form_of_another_site_is_not_read(home: House) -> None:
    answer = await home.browser().send(
        "POST", "/v1/signin/password", b'{"email":"a","password":"b"}', {"Content-Type": "text/plain"}
    )
    assert answer.problem() == (422, "invalid")


@pytest.mark.parametrize(
    ("forward", "status"), [({"minutes": 29}, 200), ({"minutes": 31}, 401), ({"hours": 12, "minutes": 1}, 401)]
)
async def test_a_session_that_nobody_uses_ends(home: House, forward: dict[str, float], status: int) -> None:
    _, browser, _ = await home.joined()
    home.clock.forward(**forward)
    assert (await browser.get("/v1/me")).status == status


async def test_a_session_ends_after_twelve_hours_however_much_it_is_used(home: House) -> None:
    _, browser, _ = await home.joined()
    for _ in range(35):
        home.clock.forward(minutes=20)
        assert (await browser.get("/v1/me")).status == 200
    home.clock.forward(minutes=21)
    assert (await browser.get("/v1/me")).status == 401


async def test_redis_flushed_everybody_signs_in_again_and_nobody_gets_in(home: House) -> None:
    _, browser, app = await home.joined()
    await home.redis.flushdb()
    assert (await browser.get("/v1/me")).problem() == (401, "unauthenticated")
    assert (await browser.post("/v1/signin/out")).problem() == (401, "unauthenticated")
    await home.sign_in(ANNA, app, browser)
    assert (await browser.get("/v1/me")).status == 200


async def test_redis_holds_neither_ids_nor_passwords(home: House) -> None:
    _, browser, app = await home.joined()
    await first(home.browser())
    kept = b""
    for key in await home.redis.keys():
        kept += key + (await home.redis.get(key) if await home.redis.type(key) == b"string" else b"")
    for secret in (browser.session, PASSWORD, ANNA, app.secret):
        assert secret
        assert secret.encode() not in kept


async def test_a_suspension_ends_sessions_and_they_do_not_come_back(home: House) -> None:
    person, browser, _ = await home.joined()
    await home.change(person, lambda _at, operator: operators.suspend(operator, reason="left"))
    await home.change(person, lambda _at, operator: operators.resume(operator))
    assert (await browser.get("/v1/me")).status == 401


async def test_sessions_are_listed_and_ended_from_another_one(home: House) -> None:
    person, one, app = await home.joined()
    other = await home.sign_in(ANNA, app)
    listed = (await other.get("/v1/me/sessions")).json["items"]
    assert sorted(each["current"] for each in listed) == [False, True]
    [first_one] = [each["session"] for each in listed if not each["current"]]
    assert first_one != one.session
    assert (await other.post(f"/v1/me/sessions/{first_one}/revoke")).status == 200
    assert (await one.get("/v1/me")).status == 401
    assert (await other.post("/v1/signin/out")).status == 200
    assert (await other.get("/v1/me")).status == 401
    assert [event.how for tag, event in await home.facts(person) if tag == "signin.ended"] == ["revoked", "signed_out"]


async def test_nobody_ends_or_sees_the_sessions_of_others_unless_they_manage_them(home: House) -> None:
    anna, hers, _ = await home.joined()
    ben, his, _ = await home.joined("ben@example.com")
    await home.change(ben, lambda _at, operator: operators.revoke(operator, role="administrator"))
    [session] = [each["session"] for each in (await hers.get("/v1/me/sessions")).json["items"]]
    assert (await his.get(f"/v1/me/sessions?operator={anna.operator}")).problem() == (403, "forbidden")
    assert (await his.post(f"/v1/me/sessions/{session}/revoke")).problem() == (404, "not_found")
    [his_own] = [each["session"] for each in (await hers.get(f"/v1/me/sessions?operator={ben.operator}")).json["items"]]
    assert (await hers.post(f"/v1/me/sessions/{his_own}/revoke")).status == 200
    assert (await his.get("/v1/me")).status == 401


async def test_what_is_grave_asks_for_a_second_factor_shown_a_moment_ago(office: House) -> None:
    """Commands have a clock of their own, which is now."""
    home = office
    home.clock.forward(minutes=-10)
    person, browser, app = await home.joined()

    async def invite_again() -> Any:
        path = f"/v1/operators/{person.operator}/invite-again"
        return await browser.post(path, {}, Idempotency_Key=str(home.clock.at))

    refused = await invite_again()
    assert refused.problem() == (403, "step_up_required")
    assert (refused.json["action"], refused.json["fresh_seconds"]) == ("operator.invite", 300)
    before = browser.session
    wrong = await browser.post("/v1/signin/step-up", {"code": "000000"})
    assert wrong.problem() == (401, "signin_failed")
    home.clock.forward(minutes=9)
    assert (await browser.post("/v1/signin/step-up", {"code": home.code(app)})).status == 200
    assert browser.session != before
    assert (await invite_again()).problem() == (409, "already_joined")
    old = home.browser()
    old.cookies = {"__Host-countroom": before}
    assert (await old.get("/v1/me")).status == 401


async def test_one_factor_is_not_enough_to_enrol_another(home: House) -> None:
    _, browser, _ = await home.joined()
    home.clock.forward(minutes=6)
    for path in ("/v1/me/factors/totp", "/v1/me/factors/passkey", "/v1/me/recovery-codes"):
        assert (await browser.post(path)).problem() == (403, "step_up_required")
    set_again = await browser.post("/v1/me/password", {"password": PASSWORD + " again"})
    assert set_again.problem() == (403, "step_up_required")


async def test_a_new_password_ends_other_sessions_and_the_old_one_is_wrong(home: House) -> None:
    _, browser, app = await home.joined()
    other = await home.sign_in(ANNA, app)
    assert (await browser.post("/v1/me/password", {"password": PASSWORD + " again"})).status == 200
    assert (await other.get("/v1/me")).status == 401
    assert (await browser.get("/v1/me")).status == 200
    assert (await first(home.browser())).status == 401
    assert (await first(home.browser(), password=PASSWORD + " again")).status == 200


async def test_the_last_second_factor_stays(home: House) -> None:
    _, browser, _ = await home.joined()
    [factor] = [each["factor"] for each in (await browser.get("/v1/me")).json["factors"]]
    assert (await browser.post(f"/v1/me/factors/{factor}/remove")).problem() == (409, "last_factor")
    await enrolled(browser)
    assert (await browser.post(f"/v1/me/factors/{factor}/remove")).status == 200


# Passkeys


async def enrolled(browser: Browser) -> Authenticator:
    authenticator = Authenticator()
    begun = (await browser.post("/v1/me/factors/passkey")).json
    made = {"handle": begun["handle"], "response": authenticator.create(begun["options"])}
    answer = await browser.post("/v1/me/factors/passkey", made)
    assert answer.status == 200, answer
    return authenticator


async def by_passkey(browser: Browser, authenticator: Authenticator, ticket: str = "", **changed: Any) -> Any:
    begun = (await browser.post("/v1/signin/passkey/options", {"ticket": ticket})).json
    response = authenticator.get(begun["options"], **changed)
    return await browser.post(
        "/v1/signin/passkey/verify", {"handle": begun["handle"], "ticket": ticket, "response": response}
    )


async def test_a_passkey_signs_in_alone_or_as_second_factor(home: House) -> None:
    person, browser, _ = await home.joined()
    authenticator = await enrolled(browser)
    alone = home.browser()
    assert (await by_passkey(alone, authenticator)).status == 200
    assert (await alone.get("/v1/me")).json["operator"] == person.operator
    second = home.browser()
    step = (await first(second)).json
    assert step["factors"] == ["totp", "passkey"]
    assert (await by_passkey(second, authenticator, step["ticket"], flags=0x01)).status == 200
    assert (await second.get("/v1/me")).json["method"] == "password"


@pytest.mark.parametrize(
    "changed",
    [
        {"flags": 0x01},
        {"flags": 0x04},
        {"type": "webauthn.create"},
        {"challenge": "AAAA"},
        {"origin": "https://office.example.evil.test"},
    ],
)
async def test_a_passkey_shown_otherwise_than_it_was_asked_for_opens_nothing(
    home: House, changed: dict[str, Any]
) -> None:
    _, browser, _ = await home.joined()
    authenticator = await enrolled(browser)
    assert (await by_passkey(home.browser(), authenticator, **changed)).problem() == (401, "signin_failed")


async def test_a_passkey_whose_counter_goes_back_is_refused_and_so_is_its_answer_again(home: House) -> None:
    _, browser, _ = await home.joined()
    authenticator = await enrolled(browser)
    assert (await by_passkey(home.browser(), authenticator)).status == 200
    authenticator.count -= 1  # a copy has counted as far
    assert (await by_passkey(home.browser(), authenticator)).status == 401
    begun = (await browser.post("/v1/signin/passkey/options")).json
    shown = {"handle": begun["handle"], "response": authenticator.get(begun["options"])}
    assert (await home.browser().post("/v1/signin/passkey/verify", shown)).status == 200
    assert (await home.browser().post("/v1/signin/passkey/verify", shown)).status == 401


async def test_a_passkey_shown_again_makes_the_second_factor_fresh(home: House) -> None:
    _, browser, _ = await home.joined()
    authenticator = await enrolled(browser)
    home.clock.forward(minutes=6)
    begun = (await browser.post("/v1/signin/passkey/options", {"again": True})).json
    shown = {"handle": begun["handle"], "response": authenticator.get(begun["options"])}
    assert (await browser.post("/v1/signin/step-up", shown)).status == 200
    assert (await browser.post("/v1/me/recovery-codes")).status == 200


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda r: {},
        lambda r: {**r, "id": "x"},
        lambda r: {**r, "response": None},
        lambda r: {**r, "response": {**r["response"], "signature": "AAAA"}},
        lambda r: {**r, "response": {**r["response"], "authenticatorData": "AA"}},
        lambda r: {**r, "response": {**r["response"], "userHandle": "b3BlcmF0b3I"}},
        lambda r: {**r, "response": {**r["response"], "clientDataJSON": 7}},
    ],
)
async def test_a_response_that_is_none_is_refused_and_is_no_fault(home: House, spoilt: Callable[[Any], Any]) -> None:
    _, browser, _ = await home.joined()
    authenticator = await enrolled(browser)
    begun = (await browser.post("/v1/signin/passkey/options")).json
    response = spoilt(authenticator.get(begun["options"]))
    answer = await home.browser().post("/v1/signin/passkey/verify", {"handle": begun["handle"], "response": response})
    assert answer.problem() == (401, "signin_failed")
