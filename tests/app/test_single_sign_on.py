"""People come from a real, certified provider of identities (npm oidc-provider), and leave when they sign out there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pyotp
import pytest

from access.identity_providers import SecondFactor
from access.sessions import provider_digest
from app.problems import Busy
from app.single_sign_on import COOKIE as AWAY
from tests.app import sso
from tests.app.signing import ORIGIN, Answer, Browser, House, house, provider
from tests.ledger import Ledger
from tests.stack import Servers

LOGOUT, FORM = "/v1/signin/oidc/office/logout", {"Content-Type": "application/x-www-form-urlencoded"}
CALLBACK = f"{ORIGIN}/v1/signin/oidc/office/callback"


class Told:
    """What the provider posts behind the browser's back, as it comes."""

    def __init__(self) -> None:
        self.bodies: asyncio.Queue[bytes] = asyncio.Queue()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        self.bodies.put_nowait(await reader.readexactly(size))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
def logout_port() -> Iterator[int]:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def idp(logout_port: int) -> Iterator[sso.Running]:
    with sso.running(CALLBACK, f"http://127.0.0.1:{logout_port}/logout") as made:
        yield made


@pytest.fixture
async def told(logout_port: int) -> AsyncIterator[Told]:
    made = Told()
    server = await asyncio.start_server(made.serve, "127.0.0.1", logout_port)
    async with server:
        yield made


@pytest.fixture
async def home(ledger: Ledger, servers: Servers, idp: sso.Running) -> AsyncIterator[House]:
    known = provider(idp.issuer, second_factor=SecondFactor(amr=("otp",)))
    async with house(ledger, servers, (known,)) as made:
        yield made


def parameters(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


async def away(browser: Browser, more: str = "") -> str:
    """Where the browser is sent."""
    answer = await browser.get(f"/v1/signin/oidc/office/start{more}")
    assert answer.status == 303, answer
    return answer.header("location")


async def joining(browser: Browser, person: Any) -> str:
    """Where the browser is sent that brings an invitation."""
    given = {"operator": person.operator, "invitation": person.invitation}
    answer = await browser.post("/v1/signin/oidc/office/start", given)
    assert answer.status == 200, answer
    url: str = answer.json["url"]
    assert person.invitation not in url
    return url


async def at_provider(url: str, user: str, there: Browser | None = None) -> str:
    """Sign in there; returns where the provider sends the browser back."""
    there = there or Browser("")
    there.cookies = {name: value for name, value in there.cookies.items() if not name.startswith("__Host")}
    while not url.startswith(ORIGIN):
        answer = await asyncio.to_thread(there._send, "GET", url, None, {"X-Test-User": user})
        for name, value in answer.headers:
            if name.lower() == "set-cookie":
                key, _, rest = value.partition("=")
                there.cookies[key] = rest.partition(";")[0]
        assert answer.status in (302, 303), answer
        onward = answer.header("location")
        url = onward if "://" in onward else f"{urlsplit(url).scheme}://{urlsplit(url).netloc}{onward}"
    return url


async def back(browser: Browser, url: str, **changed: str) -> Answer:
    given = parameters(url) | changed
    return await browser.get(f"/v1/signin/oidc/office/callback?{urlencode(given)}")


def outcome(answer: Answer) -> dict[str, str]:
    """What the sign-in page is told."""
    assert answer.status == 303, answer
    fragment = urlsplit(answer.header("location")).fragment
    return {name: values[0] for name, values in parse_qs(fragment).items()} or {fragment: ""}


async def joined(home: House, user: str = "anna") -> tuple[Any, Browser]:
    """Somebody who was invited, and came from the provider."""
    person, browser = await home.invited(f"{user}@example.com", user), home.browser()
    url = await joining(browser, person)
    answer = await back(browser, await at_provider(url, user))
    assert outcome(answer) == {"done": ""}
    return person, browser


async def test_somebody_joins_and_comes_back_with_the_roles_of_their_groups(home: House) -> None:
    person, _ = await joined(home)
    browser = home.browser()
    assert outcome(await back(browser, await at_provider(await away(browser), "anna"))) == {"done": ""}
    me = (await browser.get("/v1/me")).json
    assert (me["operator"], me["method"], me["roles"], me["enrol"]) == (
        person.operator, "oidc", ["administrator", "payments"], False,
    )  # fmt: skip
    assert AWAY not in browser.cookies
    facts = [event for _, event in await home.facts(person)]
    assert [(event.method, event.factors, event.roles) for event in facts] == [("oidc", ("office",), ("payments",))] * 2


async def test_whoever_has_shown_one_factor_there_shows_a_second_one_here(home: House) -> None:
    _, browser = await joined(home, "ben")
    assert (await browser.get("/v1/me")).json["enrol"]
    begun = (await browser.post("/v1/me/factors/totp", X_CSRF_Token=(await browser.get("/v1/me")).json["csrf"])).json
    import pyotp

    app = pyotp.TOTP(begun["secret"])
    enrolled = await browser.post("/v1/me/factors/totp", {"handle": begun["handle"], "code": home.code(app)})
    assert enrolled.status == 200
    home.clock.forward(seconds=31)
    again = home.browser()
    told = outcome(await back(again, await at_provider(await away(again), "ben")))
    assert told["factors"] == "totp"
    assert again.session == ""
    assert (await again.post("/v1/signin/factor", {"ticket": told["ticket"], "code": home.code(app)})).status == 200
    assert (await again.get("/v1/me")).json["roles"] == ["administrator"]


async def test_an_invitation_is_taken_from_no_address(home: House) -> None:
    """Addresses stand in the logs of proxies, and in the browser's history."""
    person, browser = await home.invited(), home.browser()
    url = await away(browser, f"?invitation={person.operator}:{person.invitation}")
    assert outcome(await back(browser, await at_provider(url, "anna"))) == {"failed": "signin_failed"}
    elsewhere = await browser.post(
        "/v1/signin/oidc/office/start",
        {"operator": person.operator, "invitation": person.invitation},
        Sec_Fetch_Site="cross-site",
    )
    assert elsewhere.problem() == (403, "csrf_refused")


async def test_the_second_factor_of_a_provider_is_as_old_as_it_says_and_is_shown_there_anew(home: House) -> None:
    """It is asked when somebody signed in there (max_age), which it would not say by itself."""
    await joined(home)
    there, browser = Browser(""), home.browser()
    assert outcome(await back(browser, await at_provider(await away(browser), "anna", there))) == {"done": ""}
    first = (await browser.get("/v1/me")).json["stepped_up"]
    await asyncio.sleep(1.1)  # the provider counts in seconds
    assert outcome(await back(browser, await at_provider(await away(browser), "anna", there))) == {"done": ""}
    assert (await browser.get("/v1/me")).json["stepped_up"] == first, "it was not shown again"
    url = await away(browser, "?again=true")
    assert parameters(url)["max_age"] == "0"
    home.clock.forward(seconds=10)
    assert outcome(await back(browser, await at_provider(url, "anna", there))) == {"done": ""}
    assert (await browser.get("/v1/me")).json["stepped_up"] > first


async def test_a_provider_makes_nobody_an_operator(home: House) -> None:
    browser = home.browser()
    assert outcome(await back(browser, await at_provider(await away(browser), "anna"))) == {"failed": "signin_failed"}
    assert browser.session == ""


async def test_a_user_of_the_provider_is_one_operator(home: House) -> None:
    await joined(home)
    person, browser = await home.invited("other@example.com", "other"), home.browser()
    url = await joining(browser, person)
    assert outcome(await back(browser, await at_provider(url, "anna"))) == {"failed": "signin_failed"}


async def test_a_code_is_redeemed_once_and_so_is_a_state(home: House) -> None:
    await joined(home)
    browser = home.browser()
    url = await at_provider(await away(browser), "anna")
    cookies = dict(browser.cookies)
    assert outcome(await back(browser, url)) == {"done": ""}
    browser.cookies = dict(cookies)
    assert outcome(await back(browser, url)) == {"failed": "signin_failed"}
    used = parameters(url)["code"]
    await away(browser)
    fresh = parameters(await at_provider(await away(browser), "anna"))
    replayed = await browser.get(f"/v1/signin/oidc/office/callback?{urlencode({**fresh, 'code': used})}")
    assert outcome(replayed) == {"failed": "signin_failed"}


@pytest.mark.parametrize("changed", [{"state": "x" * 43}, {"state": ""}, {"iss": "https://evil.test"}, {"code": "x"}])
async def test_an_answer_to_another_question_is_not_heard(home: House, changed: dict[str, str]) -> None:
    await joined(home)
    browser = home.browser()
    url = await at_provider(await away(browser), "anna")
    assert outcome(await back(browser, url, **changed)) == {"failed": "signin_failed"}
    assert browser.session == ""


async def test_another_browser_does_not_come_back_with_somebody_elses_answer(home: House) -> None:
    """Login CSRF: who has the link has not the cookie."""
    await joined(home)
    one, other = home.browser(), home.browser()
    url = await at_provider(await away(one), "anna")
    assert outcome(await back(other, url)) == {"failed": "signin_failed"}
    again = home.browser()
    url = await at_provider(await away(again), "anna")
    again.cookies[AWAY] = "x" * 43
    assert outcome(await back(again, url)) == {"failed": "signin_failed"}


@pytest.mark.parametrize("field", ["nonce", "verifier"])
async def test_a_wrong_nonce_or_verifier_opens_nothing(
    home: House, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await joined(home)
    from msgspec import structs

    browser, put = home.browser(), home.signing_in.pending.put
    monkeypatch.setattr(
        home.signing_in.pending, "put", lambda thing, name="": put(structs.replace(thing, **{field: "x" * 43}), name)
    )
    assert outcome(await back(browser, await at_provider(await away(browser), "anna"))) == {"failed": "signin_failed"}


async def test_the_provider_changes_its_keys_and_people_go_on_coming(home: House, idp: sso.Running) -> None:
    await joined(home)
    await asyncio.to_thread(Browser("")._send, "GET", f"{idp.issuer}/test/rotate", None, {})
    browser = home.browser()
    url = await at_provider(await away(browser), "anna")
    assert outcome(await back(browser, url)) == {"failed": "signin_failed"}, "keys are not asked for all the time"
    home.clock.forward(seconds=31)
    browser = home.browser()
    assert outcome(await back(browser, await at_provider(await away(browser), "anna"))) == {"done": ""}


async def test_an_account_is_linked_by_its_operator_with_a_fresh_second_factor(home: House) -> None:
    person, browser, _ = await home.joined()
    url = await away(browser, "?link=true")
    assert outcome(await back(browser, await at_provider(url, "anna"))) == {"done": ""}
    other = home.browser()
    assert outcome(await back(other, await at_provider(await away(other), "anna"))) == {"done": ""}
    assert (await other.get("/v1/me")).json["operator"] == person.operator
    home.clock.forward(minutes=6)
    assert (await other.get("/v1/signin/oidc/office/start?link=true")).problem() == (403, "step_up_required")


async def test_who_signs_out_at_the_provider_is_out_here(home: House, told: Told, idp: sso.Running) -> None:
    person, _ = await joined(home)
    browser, there = home.browser(), Browser("")
    assert outcome(await back(browser, await at_provider(await away(browser), "anna", there))) == {"done": ""}
    body = await signed_out(there, idp, told)
    said = await Browser(home.url).send("POST", LOGOUT, body, FORM)
    assert said.status == 200, said
    assert said.header("cache-control") == "no-store"
    assert (await browser.get("/v1/me")).status == 401
    assert [event.how for tag, event in await home.facts(person) if tag == "signin.ended"] == ["provider"]
    again = await Browser(home.url).send("POST", LOGOUT, body, FORM)
    assert again.problem() == (400, "logout_refused")


async def test_who_signs_out_at_the_provider_between_two_factors_goes_no_further(
    home: House, told: Told, idp: sso.Running
) -> None:
    person, browser = await joined(home, "ben")
    csrf = (await browser.get("/v1/me")).json["csrf"]
    begun = (await browser.post("/v1/me/factors/totp", X_CSRF_Token=csrf)).json
    app = pyotp.TOTP(begun["secret"])
    shown = {"handle": begun["handle"], "code": home.code(app)}
    assert (await browser.post("/v1/me/factors/totp", shown, X_CSRF_Token=csrf)).status == 200
    home.clock.forward(seconds=31)
    other, there = home.browser(), Browser("")
    step = outcome(await back(other, await at_provider(await away(other), "ben", there)))
    body = await signed_out(there, idp, told)
    assert (await Browser(home.url).send("POST", LOGOUT, body, FORM)).status == 200
    second = {"ticket": step["ticket"], "code": home.code(app)}
    assert (await other.post("/v1/signin/factor", second)).problem() == (401, "signin_failed")
    assert [event.why for tag, event in await home.facts(person) if tag == "signin.refused"] == ["provider_ended"]
    assert (await browser.get("/v1/me")).status == 200, "that is another session of the provider's"
    home.clock.forward(seconds=31)
    other = home.browser()
    step = outcome(await back(other, await at_provider(await away(other), "ben")))
    second = {"ticket": step["ticket"], "code": home.code(app)}
    assert (await other.post("/v1/signin/factor", second)).status == 200


async def test_a_logout_that_could_not_be_done_is_done_when_it_comes_again(
    home: House, told: Told, idp: sso.Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, _ = await joined(home)
    browser, there = home.browser(), Browser("")
    assert outcome(await back(browser, await at_provider(await away(browser), "anna", there))) == {"done": ""}
    body, decide = await signed_out(there, idp, told), home.signing_in.decide

    async def silent(_plan: Any) -> Any:
        raise Busy("the log cannot be written now")

    monkeypatch.setattr(home.signing_in, "decide", silent)
    failed = await Browser(home.url).send("POST", LOGOUT, body, FORM)
    assert failed.problem() == (503, "unavailable")
    assert (await browser.get("/v1/me")).status == 401, "it is over nevertheless"
    monkeypatch.setattr(home.signing_in, "decide", decide)
    assert (await Browser(home.url).send("POST", LOGOUT, body, FORM)).status == 200
    assert (await Browser(home.url).send("POST", LOGOUT, body, FORM)).problem() == (400, "logout_refused")
    assert [event.how for tag, event in await home.facts(person) if tag == "signin.ended"] == ["provider"]


async def test_what_a_provider_ends_while_it_moves_to_another_id_is_over(home: House) -> None:
    """By its user: what was begun before is over, and they may come again."""
    sessions, user, at = home.signing_in.sessions, provider_digest("https://id.example", "sub", "anna"), home.clock()
    begun = await sessions.begin("operator_x", "oidc", at, stepped_up=at, means=0, providers=[user])
    listed = await sessions.of_provider(user)
    moved = await sessions.step_up(begun.id, at)
    assert moved is not None
    await sessions.refuse_of(user, at)
    assert await sessions.end(listed[0].digest) is None, "nothing is called so any more"
    assert await sessions.find(moved.id, at) is None
    later = at + timedelta(seconds=1)
    again = await sessions.begin("operator_x", "oidc", later, stepped_up=later, means=0, providers=[user])
    assert await sessions.find(again.id, later) is not None


async def signed_out(there: Browser, idp: sso.Running, told: Told) -> bytes:
    """What the provider posts when somebody signs out there."""
    import re

    def ask(method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        answer = there._send(method, f"{idp.issuer}{path}", body, headers)
        for name, value in answer.headers:
            if name.lower() == "set-cookie":
                key, _, rest = value.partition("=")
                there.cookies[key] = rest.partition(";")[0]
        return answer

    shown = await asyncio.to_thread(ask, "GET", "/session/end")
    secret = re.search(rb'name="xsrf" value="([^"]+)"', shown.raw)
    assert secret, shown
    form = urlencode({"xsrf": secret[1].decode(), "logout": "yes"}).encode()
    header = {"Content-Type": "application/x-www-form-urlencoded"}
    await asyncio.to_thread(lambda: ask("POST", "/session/end/confirm", form, **header))
    async with asyncio.timeout(60):
        return await told.bodies.get()


async def test_an_unknown_provider_is_no_resource(home: House) -> None:
    assert (await home.browser().get("/v1/signin/oidc/other/start")).problem() == (404, "not_found")
    assert (await home.browser().get("/v1/signin")).json == {"providers": {"office": "office"}}
