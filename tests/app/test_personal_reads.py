"""Who was shown something personal over HTTP has left a read that names whose it was, whatever the route; who was not has left none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import msgspec
import pytest
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from access.policy import ROLES, principal
from app.openapi import needs
from app.opening import Opener
from app.seeing import everything
from domain.kernel import PlayerId
from domain.reads import Read, ReadsRecorded
from queries import players
from queries.context import Context, read_cursor
from tests.app.reading import Region, events
from tests.app.twins import ENDLESS, OF_POSITIONS, QUERIES, Places, Twin, places, twin
from tests.stack import Servers

MARK = "zaubermarke"
"""In everything that is personal, and nowhere else."""
LOOK_UP = "/v1/players/look-up"
OPENING = {
    "/v1/players/{player_id}",
    "/v1/players/{player_id}/notes",
    "/v1/players/{player_id}/transactions",
    "/v1/transactions",
    "/v1/transactions/{transaction_id}",
    "/v1/tickets/{ticket_id}",
    "/v1/contacts/{contact_id}",
    "/v1/approvals",
    "/v1/approvals/{approval_id}",
    "/v1/operators",
    "/v1/operators/{operator_id}",
    "/v1/audit/players/{player_id}",
}


class House(NamedTuple):
    twin: Twin
    ids: Mapping[str, str]

    async def get(self, path: str, role: str) -> Any:
        return await self.twin.ask("GET", path, role)

    async def looked_up(self, role: str = "operator", **wanted: Any) -> Any:
        return await self.twin.ask("POST", LOOK_UP, role, wanted)

    def reads(self) -> list[tuple[str, Read]]:
        return [
            (event.body.actor, read)
            for event in events(self.twin.ledger, "reads")
            if isinstance(event.event, ReadsRecorded)
            for read in event.event.reads
        ]

    def address(self, path: str) -> str:
        known = {"name": "players", "round": "round_1", "log": "eu", "position": "3", **self.ids}
        return re.sub(r"{(\w+)}", lambda found: known[found[1]], path) + QUERIES.get(path, "")


@pytest.fixture(scope="module")
def where(servers: Servers) -> Places:
    return places(servers)


def planted(made: Region) -> list[APIRouter]:
    """A route that shows a card and does not say so."""
    routes = APIRouter()

    async def peep(request: Request) -> Response:
        context = Context(made.read.pool, made.read.redis, Opener(made.read.vault, set()))
        found = await players.card(context, PlayerId(request.path_params["player_id"]))
        return Response(msgspec.json.encode(found), media_type="application/json")

    routes.add_api_route("/v1/peep/{player_id}", peep, methods=["GET"], openapi_extra=needs("player.read"))
    return [routes]


@pytest.fixture
async def house(where: Places) -> AsyncIterator[House]:
    await where.empty(0)
    async with twin(where, 0, planted=planted) as made:
        yield House(made, await written(made))


async def written(house: Twin) -> dict[str, str]:
    """Something personal of every kind; identifiers, by how paths name them."""
    asked = {"country": "AT", "currency": "EUR", "name": f"{MARK} Egger", "email": f"{MARK}@example.com"}
    player = (await house.post("/v1/players", "operator", asked, "player"))["player"]
    house.players.append(player)
    await house.post(f"/v1/players/{player}/notes", "operator", {"text": f"{MARK} called"}, "note")
    opening = {"channel": "email", "subject": MARK, "text": f"where is {MARK}", "priority": "normal"}
    ticket = (await house.post(f"/v1/players/{player}/tickets", "operator", opening, "ticket"))["ticket"]
    deposit = {"amount": {"amount": 500, "currency": "EUR"}, "provider": "acme"}
    transaction = (await house.post(f"/v1/players/{player}/deposits", "operator", deposit, "deposit"))["transaction"]
    why = {"kind": "complaint", "reason": f"{MARK} complained"}
    failed = {"reason": f"{MARK}'s card", "intervention": why}
    await house.post(f"/v1/transactions/{transaction}/fail", "cashier", failed, "fail")
    contact = (await house.post(f"/v1/players/{player}/contacts", "support", {"reason": "worried"}, "contact"))[
        "contact"
    ]
    said = {"channel": "phone", "outcome": "advised", "note": f"{MARK} lost the job"}
    await house.post(f"/v1/contacts/{contact}/make", "support", said, "made")
    money = {"amount": {"amount": 20_000, "currency": "EUR"}, "direction": "credit", "reason_code": "goodwill"}
    waits = await house.post(f"/v1/players/{player}/adjustments", "cashier", {**money, "intervention": why}, "adjust")
    invited = {"name": f"Maria {MARK}", "email": f"maria.{MARK}@house.example", "person": "staff-17"}
    operator = (await house.post("/v1/operators", "administrator", invited, "invite"))["operator"]
    assert {each.status // 100 for each in house.heard} == {2}, house.heard
    assert not [each for each in house.heard if MARK in each.said.lower()], (
        "a command's answer repeats nothing personal"
    )
    await house.project()
    return {
        "player_id": player,
        "ticket_id": ticket,
        "transaction_id": transaction,
        "contact_id": contact,
        "approval_id": waits["approval"],
        "operator_id": operator,
        "notice_id": "notice_01m81j18g0fs6r2yb5e8r30c1a",
        "command_id": "0" * 32,
        "disclosure_id": "019aab5c-4000-7000-8000-000000000001",
        "compartment": "north",
    }


async def walked(house: House) -> tuple[set[str], list[str]]:
    """The paths that have shown somebody something personal, and what was wrong with the reads that they left."""
    shown, faults = set(), []
    for path, methods in house.twin.app.openapi()["paths"].items():
        if "get" not in methods or path in ENDLESS or path.startswith(OF_POSITIONS):
            continue
        for role in ROLES:
            before = Counter(house.reads())
            answer = await house.get(house.address(path), role)
            assert answer.status_code not in (429, 500, 503), (path, role, answer.text)
            left = [read for _, read in (Counter(house.reads()) - before).elements()]
            whose = {each for read in left for each in read.subjects}
            if MARK in answer.text.lower():
                shown.add(path)
                told = house.ids["operator_id" if "operators" in path else "player_id"]
                if told not in whose:
                    faults.append(f"{role} GET {path}: shown, and not recorded")
                if left and left[0].what not in (f"GET {path}", "audit.player"):
                    faults.append(f"{role} GET {path}: recorded as {left[0].what}")
            elif whose:
                faults.append(f"{role} GET {path}: recorded, though nothing was shown")
            if answer.status_code == 403 and left:
                faults.append(f"{role} GET {path}: refused, and recorded")
    return shown, faults


async def test_whoever_was_shown_something_personal_has_left_a_read_whatever_the_route(house: House) -> None:
    shown, faults = await walked(house)
    unseen = "/v1/peep/{player_id}"
    assert [each for each in faults if unseen not in each] == []
    assert shown == {*OPENING, unseen}
    assert {each for each in faults if unseen in each} == {
        f"{role} GET {unseen}: shown, and not recorded" for role in ROLES
    }, "the walk finds a route that shows and does not record"
    assert MARK not in str(house.reads()).lower()


async def test_a_route_that_opens_says_that_its_read_may_not_be_recorded_now(house: House) -> None:
    paths = house.twin.app.openapi()["paths"]
    for path in {*OPENING, LOOK_UP}:
        [(_, told)] = [each for each in paths[path].items() if each[0] == ("post" if path == LOOK_UP else "get")]
        assert {"429", "503"} <= set(told["responses"]), path
        assert "`too_many_reads`" in told["responses"]["429"]["description"]
    assert "429" not in paths["/v1/players/{player_id}/history"]["get"]["responses"]


async def test_a_card_is_recorded_once_a_minute_and_again_for_another_reader(house: House) -> None:
    player = house.ids["player_id"]
    for role in ("operator", "operator", "support", "operator"):
        assert MARK in (await house.get(f"/v1/players/{player}", role)).text
    what = Read("GET /v1/players/{player_id}", f"player_id={player}", (PlayerId(player),))
    assert house.reads() == [("operator:test", what), ("support:test", what)]


async def test_a_look_up_names_whom_it_found_and_not_by_what(house: House) -> None:
    assert len((await house.looked_up(email=f"{MARK}@example.com", limit=7)).json()["items"]) == 1
    assert (await house.looked_up(name="nobody")).json()["items"] == []
    assert (await house.get("/v1/players?country=AT", "operator")).json()["items"] != []
    player = PlayerId(house.ids["player_id"])
    assert [read for _, read in house.reads()] == [Read("POST /v1/players/look-up", "email&limit=7", (player,))]
    for role in ROLES:
        answer = await house.looked_up(role, name=MARK)
        assert (answer.status_code, MARK in answer.text.lower()) in {(200, False), (403, False)}
    who = {actor for actor, read in house.reads() if read.query == "name"}
    sees = {role for role, granted in ROLES.items() if "player.read" in granted} - {"vip_manager"}  # nobody is one yet
    assert who == {f"{role}:test" for role in sees}


async def test_what_is_refused_or_stays_sealed_leaves_no_read(house: House) -> None:
    player = house.ids["player_id"]
    for path, role, status in (
        (f"/v1/players/{player}", "auditor", 200),
        (f"/v1/players/{player}/notes", "payments", 200),
        (f"/v1/tickets/{house.ids['ticket_id']}", "payments", 403),
    ):
        answer = await house.get(path, role)
        assert (answer.status_code, MARK in answer.text) == (status, False), path
    assert (await house.get("/v1/players/player_01m81j18g0fs6r2yb5e8r30c1a", "operator")).status_code == 404
    assert house.reads() == []


async def test_a_read_that_cannot_be_recorded_shows_nothing(house: House) -> None:
    path = f"/v1/players/{house.ids['player_id']}"
    house.twin.ledger.sql("SELECT ledger.guard(1::smallint)")
    try:
        refused = await house.get(path, "operator")
        sealed = await house.get(f"{path}/history", "operator")
    finally:
        house.twin.ledger.sql("DELETE FROM ledger.clearance")
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "unavailable", "1")
    assert MARK not in refused.text
    assert sealed.status_code == 200
    assert MARK in (await house.get(path, "operator")).text


async def test_the_cursors_of_what_is_recorded_hold_places_alone(house: House) -> None:
    """A cursor is recorded as it was given."""
    for number in range(2):
        asked = {"country": "AT", "currency": "EUR", "name": f"{MARK} {number}"}
        player = (await house.twin.post("/v1/players", "operator", asked, f"more{number}"))["player"]
        for kind in range(2):
            text = {"text": f"{MARK} again {kind}"}
            await house.twin.post(f"/v1/players/{player}/notes", "operator", text, f"again{number}{kind}")
    await house.twin.project()
    for answer in (
        await house.get("/v1/players?limit=1", "operator"),
        await house.get(f"/v1/players/{player}/notes?limit=1", "operator"),
        await house.looked_up(name=MARK, limit=1),
    ):
        for each in read_cursor(answer.json()["next_cursor"], tuple[Any, ...]):
            assert isinstance(each, int) or re.fullmatch(r"[a-z]+_[0-7][0-9a-z]{25}", each), answer.url


async def test_nothing_opens_once_it_is_recorded_whom_an_answer_tells_of(house: House) -> None:
    read, player = house.twin.made.read, PlayerId(house.ids["player_id"])
    asking = principal("operator:test", ["operator"], machine=True)
    async with read.opening(asking, "GET x", {}, everything(asking)) as context:
        assert (await players.card(context, player)).personal.name
    with pytest.raises(RuntimeError):
        await players.card(context, player)
