"""The sign-in page in a real browser (Chromium, where the machine has one): joining, enrolling, signing in and out."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyotp
import pytest
from websockets.asyncio.client import ClientConnection, connect

from access.passkeys import Site
from tests.app.signing import PASSWORD, House, house
from tests.ledger import Ledger
from tests.stack import Servers

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="this machine has no Chromium")


class Page:
    """One tab, by the Chrome DevTools Protocol."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self.session = ""
        self.told: list[str] = []

    async def command(self, method: str, **parameters: Any) -> Any:
        id_ = next(self._ids)
        to = {"sessionId": self.session} if self.session else {}
        await self._connection.send(json.dumps({"id": id_, "method": method, "params": parameters, **to}))
        while True:
            answer = json.loads(await self._connection.recv())
            if answer.get("id") == id_:
                assert "error" not in answer, answer
                return answer["result"]
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.told.append(json.dumps(answer["params"]))

    async def run(self, script: str) -> Any:
        found = await self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, script: str) -> Any:
        async with asyncio.timeout(60):
            while not (found := await self.run(script)):  # noqa: ASYNC110 — the page has no event for it
                await asyncio.sleep(0.05)
        return found

    async def fill(self, form: str, **fields: str) -> None:
        for name, value in fields.items():
            await self.run(f"document.querySelector('#{form} [name={name}]').value = {json.dumps(value)}")
        await self.run(f"document.querySelector('#{form}').requestSubmit()")

    async def shown(self, section: str) -> None:
        await self.until(f"!document.getElementById('{section}').hidden")

    async def go(self, url: str) -> None:
        await self.command("Page.navigate", url="about:blank")
        await self.command("Page.navigate", url=url)
        await self.until(
            "document.readyState === 'complete' && document.querySelector('main section:not([hidden])') !== null"
        )

    async def picture(self, file: Path) -> None:
        made = await self.command("Page.captureScreenshot", format="png")
        await asyncio.to_thread(file.write_bytes, base64.b64decode(made["data"]))


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0",
        "--host-resolver-rules=MAP localhost 127.0.0.1", "--window-size=900,820", f"--user-data-dir={folder}", "about:blank",
        stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        async with asyncio.timeout(60):
            while not (line := (await process.stderr.readline()).decode()).startswith("DevTools listening on "):
                assert line, "Chromium has ended"
        async with connect(line.split()[-1], max_size=2**25) as connection:
            page = Page(connection)
            target = await page.command("Target.createTarget", url="about:blank")
            attached = await page.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            page.session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "WebAuthn"):
                await page.command(f"{domain}.enable")
            yield page
            page.session = ""
            await page.command("Browser.close")  # which leaves nothing in the system's folder, as a signal does
            await asyncio.wait_for(process.wait(), 60)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


@pytest.fixture
async def home(ledger: Ledger, servers: Servers) -> AsyncIterator[House]:
    async with house(ledger, servers) as made:
        made.url = made.url.replace("127.0.0.1", "localhost")
        made.signing_in.site = Site(made.url)
        yield made


async def test_somebody_joins_enrols_and_signs_in_with_the_page_alone(home: House, tmp_path: Path) -> None:
    person = await home.invited()
    async with browser(tmp_path / "profile") as page:
        await page.go(f"{home.url}/signin#operator={person.operator}&invitation={person.invitation}")
        await page.shown("join")
        assert await page.run("location.hash") == ""
        await page.picture(tmp_path / "join.png")
        await page.fill("by-invitation", password=PASSWORD)
        await page.shown("enrol")
        await page.run("document.getElementById('enrol-totp').click()")
        secret = await page.until("document.getElementById('secret').textContent.replaceAll(' ', '')")
        await page.picture(tmp_path / "enrol.png")
        app = pyotp.TOTP(secret)
        await page.fill("totp", code=home.code(app))
        await page.shown("done")
        await page.until("document.querySelectorAll('#codes li').length === 10")
        await page.picture(tmp_path / "done.png")
        assert await page.run("document.cookie") == ""
        await page.run("document.getElementById('out').click()")
        await page.shown("first")

        home.clock.forward(seconds=31)
        await page.fill("by-password", email=person.email, password="not the password at all")
        await page.until("document.getElementById('said').textContent.startsWith('That did not sign you in')")
        await page.fill("by-password", email=person.email, password=PASSWORD)
        await page.shown("second")
        await page.picture(tmp_path / "second.png")
        await page.fill("by-code", code=home.code(app))
        await page.shown("done")
        await page.go(f"{home.url}/signin")
        await page.shown("done")
        assert [each for each in page.told if "401" not in each] == []


async def test_a_passkey_is_enrolled_and_signs_in_alone(home: House, tmp_path: Path) -> None:
    person = await home.invited()
    async with browser(tmp_path / "profile") as page:
        options = {
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
            "isUserVerified": True, "automaticPresenceSimulation": True,
        }  # fmt: skip
        await page.command("WebAuthn.addVirtualAuthenticator", options=options)
        await page.go(f"{home.url}/signin#operator={person.operator}&invitation={person.invitation}")
        await page.shown("join")
        await page.fill("by-invitation", password=PASSWORD)
        await page.shown("enrol")
        await page.run("document.getElementById('enrol-passkey').click()")
        await page.shown("done")
        await page.until("document.querySelectorAll('#codes li').length === 10")
        await page.run("document.getElementById('out').click()")
        await page.shown("first")
        await page.picture(tmp_path / "first.png")
        await page.run("document.getElementById('by-passkey').click()")
        await page.shown("done")
        assert person.operator in await page.run("document.getElementById('who').textContent")


async def test_every_field_has_a_label_and_nothing_comes_from_elsewhere(home: House, tmp_path: Path) -> None:
    async with browser(tmp_path / "profile") as page:
        await page.go(f"{home.url}/signin")
        assert await page.run("[...document.querySelectorAll('input')].every(each => each.labels.length === 1)")
        assert await page.run("[...document.querySelectorAll('button')].every(each => each.textContent.trim())")
        assert await page.run("document.documentElement.lang") == "en"
        loaded = await page.run("performance.getEntriesByType('resource').map(each => new URL(each.name).host)")
        assert set(loaded) <= {home.url.partition("//")[2]}
        blocked = "fetch('https://elsewhere.example').then(() => 'sent', () => 'blocked')"
        assert await page.run(blocked) == "blocked"
