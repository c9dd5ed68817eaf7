"""Compartments over HTTP: what those inside are told, and that nobody else is told anything."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from access.policy import ROLES
from app import api
from app.metrics import Metrics, Timed
from domain.kernel import partition_of
from eventstore.log import Command
from tests.app.reading import Region
from tests.app.twins import INSIDE, INSIDER, Places, Twin, differences, places, twin
from tests.ledger import body, new_id
from tests.stack import Servers

PLAYER = {"country": "AT", "currency": "EUR"}
WHO = {"members": [f"{INSIDER}:test"]}


@pytest.fixture(scope="module")
def where(servers: Servers) -> Places:
    return places(servers)


@pytest.fixture
async def house(where: Places) -> AsyncIterator[Twin]:
    await where.empty(0)
    async with twin(where, 0) as made:
        await opened(made)
        await register(made, "p0")
        yield made


async def opened(house: Twin) -> None:
    await house.post("/v1/compartments", INSIDER, {"name": "north", **WHO}, "found")
    assert (await house.post(f"{INSIDE}/confirm", "supervisor", WHO, "confirm"))["status"] == "open"


async def register(house: Twin, key: str, **more: str) -> None:
    house.players.append((await house.post("/v1/players", "operator", PLAYER | more, key))["player"])


async def note(house: Twin, text: str = "pays in cash", key: str = "n", role: str = INSIDER, number: int = 0) -> Any:
    path = f"{INSIDE}/players/{house.players[number]}/notes"
    return await house.ask("POST", path, role, {"text": text}, key)


async def look(house: Twin, what: str = "notes", role: str = INSIDER, number: int = 0, query: str = "") -> Any:
    return await house.ask("GET", f"{INSIDE}/players/{house.players[number]}/{what}{query}", role)


# Inside


async def test_who_is_inside_reads_what_was_written_there_and_who_has_read_it(house: Twin) -> None:
    await register(house, "p1")
    made = await note(house)
    assert (made.status_code, (await note(house)).json()) == (201, made.json())
    await note(house, "of somebody else", "other", number=1)
    found = (await look(house)).json()
    assert [(each["text"], each["actor"], each["entry"]) for each in found["items"]] == [
        ("pays in cash", "compliance:test", made.json()["entry"])
    ]
    assert [each["what"] for each in (await look(house, "reads")).json()["items"]] == ["notes", "reads"]


async def test_notes_are_read_page_by_page(house: Twin) -> None:
    for number in range(5):
        await note(house, f"{number}", f"n{number}")
    texts, query = [], "?limit=2"
    while query:
        page = (await look(house, query=query)).json()
        texts += [each["text"] for each in page["items"]]
        query = f"?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert texts == ["0", "1", "2", "3", "4"]


async def test_a_read_stands_in_the_log_before_it_is_answered_and_shows_nothing_there(house: Twin) -> None:
    before = len(house.ledger.entries())
    await look(house)
    [entry] = house.ledger.entries()[before:]
    assert b'"type":"sealed.recorded"' in entry.body
    assert house.players[0].removeprefix("player_").encode() not in entry.body
    assert b"compliance" not in entry.body


async def test_who_is_not_inside_is_answered_the_same_whatever_there_is(house: Twin) -> None:
    answers = []
    for written in (False, True):
        if written:
            await note(house)
        for path in ("north", "south"):
            asked = f"/v1/compartments/{path}/players/{house.players[0]}/notes"
            for role in ("risk", "operator", "auditor", "administrator"):
                answer = await house.ask("GET", asked, role)
                tried = await house.ask("POST", asked, role, {"text": "x"}, "k")
                answers.append((role, answer.status_code, answer.text, tried.status_code))
    assert set(answers) == set(answers[:4])
    assert {status for _, status, _, _ in answers} == {403}


async def test_whoever_looks_after_compartments_sees_who_is_inside_and_reads_nothing(house: Twin) -> None:
    await note(house)
    card = (await house.ask("GET", INSIDE, "supervisor")).json()
    assert (card["status"], card["members"], card["proposed"]) == ("open", ["compliance:test"], None)
    assert (await look(house, role="supervisor")).status_code == 403
    assert (await house.ask("GET", "/v1/compartments/south", "supervisor")).status_code == 404


async def test_an_erasure_of_the_player_leaves_what_is_inside_readable(house: Twin) -> None:
    await register(house, "anna", email="anna@example.com")
    await note(house, number=1)
    stream = f"player-{house.players[1].removeprefix('player_')}"
    [(version,)] = house.ledger.sql("SELECT max(version) FROM ledger.entry WHERE stream = %s", stream)
    data = {"key": "k", "basis": "asked", "closed_at": "2026-11-22T12:00:00Z", "kept": [], "rules": ""}
    id_ = new_id()
    on: dict[str, Any] = {"stream": stream, "partition": partition_of(stream), "type": "player.erased", "data": data}
    erased = Command(id_, [body("player 1", version + 1, id_, **on)], (), frozenset({stream}))
    assert house.ledger.append(erased) == [0]
    assert await house.made.read.vault.apply_erasures() == 1
    held = house.ledger.sql("SELECT subject FROM vault.data_key WHERE subject <> %s", house.players[0][7:])
    assert held == [("compartment:north",)]
    assert [each["text"] for each in (await look(house, number=1)).json()["items"]] == ["pays in cash"]


async def test_without_the_compartments_key_nothing_is_read_or_written(house: Twin) -> None:
    await note(house)
    house.ledger.sql("DELETE FROM vault.data_key WHERE subject = 'compartment:north'")
    house.made.read.vault.hears(True)  # and forget what was opened
    assert (await look(house)).json()["code"] == "key_not_held"
    assert (await note(house, key="again")).json()["code"] == "key_not_held"


# Outside

VISIBLE = st.sampled_from(["register", "tag", "note", "consent", "deposit", "block", "ticket", "aml"])
HIDDEN = st.sampled_from(["hidden note", "hidden read", "hidden reads"])
STEPS = st.lists(st.tuples(st.one_of(VISIBLE, HIDDEN), st.integers(0, 2)), min_size=4, max_size=10)


async def do(house: Twin, key: str, step: str, number: int) -> None:
    """A command that everybody may know of."""
    number %= len(house.players)
    one = f"/v1/players/{house.players[number]}"
    match step:
        case "register":
            await register(house, key, email=f"{key}@example.com")
        case "tag":
            await house.post(f"{one}/tags", "operator", {"tag": "vip"}, key)
        case "note":
            await house.post(f"{one}/notes", "operator", {"text": "called"}, key)
        case "consent":
            await house.post(f"{one}/consents", "operator", {"give": ["email"]}, key)
        case "block" | "aml":
            reason = "aml" if step == "aml" else "asked"
            await house.post(f"{one}/block", "supervisor", {"reason": reason}, key)
        case "deposit":
            asked = {"amount": {"amount": 500, "currency": "EUR"}, "provider": "acme"}
            made = await house.post(f"{one}/deposits", "operator", asked, key)
            house.transactions += [made["transaction"]] if "transaction" in made else []
        case "ticket":
            opening = {"channel": "email", "subject": "late", "text": "where is it", "priority": "normal"}
            made = await house.post(f"{one}/tickets", "operator", opening, key)
            house.tickets += [made["ticket"]] if "ticket" in made else []


async def do_inside(house: Twin, key: str, step: str, number: int) -> None:
    number %= len(house.players)
    if step == "hidden note":
        assert (await note(house, f"note {key}", key, number=number)).status_code == 201
    else:
        assert (
            await look(house, step.removeprefix("hidden ") + "s" * (step == "hidden read"), number=number)
        ) is not None


async def live(house: Twin, steps: Sequence[tuple[str, int]], roles: Sequence[str], *, inside: bool) -> None:
    await opened(house)
    await register(house, "first")
    await do(house, "a ticket", "ticket", 0)
    await do(house, "a deposit", "deposit", 0)
    for place, (step, number) in enumerate(steps):
        if not step.startswith("hidden"):
            await do(house, f"k{place}", step, number)
        elif inside:
            await do_inside(house, f"k{place}", step, number)
    await house.look(roles)


async def told_apart(
    where: Places, steps: Sequence[tuple[str, int]], roles: Sequence[str] = tuple(ROLES), **planted: Any
) -> list[str]:
    """What outsiders are told otherwise where the hidden steps were gone."""
    await where.empty(0, 1)
    async with twin(where, 0, **planted) as plain, twin(where, 1, **planted) as secret:
        await live(plain, steps, roles, inside=False)
        await live(secret, steps, roles, inside=True)
        found = b'"sealed.recorded"'
        hidden = sum(step.startswith("hidden") for step, _ in steps)
        assert sum(found in entry.body for entry in secret.ledger.entries()) == hidden
        assert not any(found in entry.body for entry in plain.ledger.entries())
        answered = {heard.asked for heard in plain.heard if heard.status == 200}
        assert len(answered) > 25, answered
        return differences(plain, secret)


@pytest.mark.parametrize("roles", [tuple(ROLES)[::2], tuple(ROLES)[1::2]], ids=["half of them", "the others"])
@settings(max_examples=1, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(steps=STEPS)
async def test_outsiders_of_each_role_are_told_the_same_whatever_is_inside(
    where: Places, roles: Sequence[str], steps: list[tuple[str, int]]
) -> None:
    steps = [*steps[:2], ("hidden note", 0), *steps[2:], ("hidden read", 1), ("deposit", 0)]
    assert await told_apart(where, steps, roles) == []


SOME, FEW = [("hidden note", 0), ("tag", 0)], ("operator", "auditor")


class Everything(Timed):
    """Measures what is asked inside, too: the fault that metrics must not have."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        class Blind(str):
            __slots__ = ()

            def startswith(self, *_: Any) -> bool:
                return False

        def request(scope: Any, status: int, seconds: float) -> None:
            route = getattr(scope.get("route"), "path", "none")
            metrics._request(scope["method"], Blind(route), str(status)).observe(seconds)

        super().__init__(app, metrics)
        metrics.request = request  # type: ignore[method-assign]


def counting(made: Region) -> Sequence[APIRouter]:
    """A route that counts what is inside."""
    routes = APIRouter()

    async def count() -> dict[str, int]:
        async with made.read.pool.connection() as connection:
            rows = await connection.execute("SELECT count(*) FROM ledger.entry WHERE starts_with(stream, 'sealed-')")
            return {"count": (await rows.fetchone() or (0,))[0]}

    routes.add_api_route("/v1/planted", count, methods=["GET"])
    return [routes]


async def test_a_metric_that_measures_what_is_asked_inside_is_caught(where: Places) -> None:
    found = await told_apart(where, SOME, FEW, timed=Everything)
    assert {each.partition(": ")[2] for each in found} == {"GET /metrics"}


async def test_a_counter_of_what_is_inside_and_a_note_on_the_players_own_stream_are_caught(
    where: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tests.app.test_compartments as here

    as_it_is = do_inside

    async def in_the_open(house: Twin, key: str, _step: str, number: int) -> None:
        await as_it_is(house, key, "hidden note", number)
        await house.ask("POST", f"/v1/players/{house.players[0]}/notes", "operator", {"text": "secret"}, f"{key} open")

    monkeypatch.setattr(here, "do_inside", in_the_open)
    found = {each.partition(": ")[2] for each in await told_apart(where, SOME, FEW, planted=counting)}
    on_the_player = {"GET /v1/players/{player_id}", "GET /v1/players/{player_id}/notes", "GET /v1/audit"}
    assert {"GET /v1/planted", *on_the_player} <= found


def test_the_twins_have_every_router_of_the_api_that_tells_of_players() -> None:
    """Sign-in tells people of themselves, game providers and callbacks answer who signs: none of them has a GET on players."""
    text = Path(api.__file__).read_text()
    included = set(re.findall(r"include_router\((?:(\w+)\.router|(\w+)\))", text))
    names = {one or other for one, other in included}
    assert names == {
        "commands", "games", "callbacks", "querying", "tiling", "disclosing", "compartments", "auditing", "explaining",
        "metrics", "signin", "fates",
    }  # fmt: skip
