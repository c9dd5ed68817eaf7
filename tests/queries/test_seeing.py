"""What SQL answers is what deciding row by row would leave, and a page tells of nothing else."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from access import cedar, predicate
from access.policy import Action, Scope, principal
from access.predicate import Attribute, Compared, Has, Not, Untranslatable, Value, both
from domain.errors import NotFound
from queries import approvals, contacts, games, notices, players, seeing, tickets, transactions
from queries.context import Context
from tests.queries.house import House

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)  # a Monday
POLICIES = cedar.in_force()
WHO = [
    principal("operator:maria", roles, scope=Scope(brands, countries))
    for roles in (["support"], ["vip_manager"], ["risk"], ["vip_manager", "risk"], ["payments"], ["regulator"])
    for brands in (None, frozenset({"main"}), frozenset({"main", "o'ther"}), frozenset[str]())
    for countries in (None, frozenset({"AT"}))
]
ACTIONS = [Action.PLAYER_READ, Action.TICKET_READ, Action.TICKET_WORK, Action.NOTICE_WORK, Action.MONEY_ADJUST]
ACTIONS += [Action.PLAYER_BLOCK, Action.PERSONAL_READ, Action.WITHDRAWAL_REVIEW]


@pytest.fixture
async def rows(house: House) -> Mapping[str, dict[str, Mapping[str, str | int]]]:
    """By list and id, what policies may ask of each row."""
    draw = random.Random(7)
    found: dict[str, dict[str, Mapping[str, str | int]]] = {"player": {}, "ticket": {}, "transaction": {}}
    run = house.connection.execute
    for number in range(60):
        player = f"player_{number:026}"
        known: dict[str, Any] = {
            "brand": draw.choice(["main", "o'ther", "third"]),
            "country": draw.choice(["AT", "DE"]),
            "vip": draw.choice([0, 0, 1, 3]),
        }
        block = draw.choice([None, None, "aml", "fraud"])
        await run(
            """INSERT INTO read.player (id, registered_at, status, brand, country, block_reason, version, currency, sealed_by, personal)
               VALUES (%s, now(), 'active', %s, %s, %s, 1, 'EUR', 'x', '{}')""",
            [player, known["brand"], known["country"], block],
        )
        tags = {0: ["vip_x", "VIP", "vips"], 1: ["vip"], 3: ["vip_3", "vip"]}[known["vip"]]
        for tag in tags:
            await run("INSERT INTO read.player_tag (tag, player) VALUES (%s, %s)", [tag, player])
        if block == "aml":
            known["secrecy"] = "money_laundering"
        found["player"][player] = known
        assignee = draw.choice([None, "operator:maria", "operator:olga"])
        ticket, payment = f"ticket_{number:026}", f"transaction_{number:026}"
        await run(
            """INSERT INTO read.ticket (id, due_at, status, priority, assignee, version, player, channel, opened_by, opened_at,
                                        first_response_due, resolution_due, awaits_answer, first_response_missed, resolution_missed)
               VALUES (%s, now(), 'open', 'low', %s, 1, %s, 'email', 'player', now(), now(), now(), 0, 0, 0)""",
            [ticket, assignee, player],
        )
        found["ticket"][ticket] = {**known, "assignee": assignee} if assignee else known
        amount = draw.choice([1, 50_000, 50_001])
        currency = draw.choice(["EUR", "JPY"])
        await run(
            """INSERT INTO read.transaction (id, requested_at, status, kind, provider, version, player, amount, currency, reference)
               VALUES (%s, now(), 'settled', 'deposit', 'acme', 1, %s, %s, %s, '')""",
            [payment, player, amount, currency],
        )
        found["transaction"][payment] = {**known, "amount": amount, "currency": currency}
    return found


PAGES: Mapping[str, Any] = {"player": players.page, "ticket": tickets.page, "transaction": transactions.page}


async def listed(page: Any, context: Context, limit: int) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        some = await page(context, cursor=cursor, limit=limit)
        assert len(some.items) == limit or some.next_cursor is None, "a page is full, or the last one"
        assert some.items or not found, "no cursor leads to rows that are not seen"
        found += [item.id for item in some.items]
        cursor = some.next_cursor
        if cursor is None:
            return found


async def test_lists_hold_what_deciding_row_by_row_leaves(house: House, rows: Any) -> None:
    checked = set()
    for who in WHO:
        for action in ACTIONS:
            sees = POLICIES.sees(who, action, NOON)
            if sees in checked:
                continue
            checked.add(sees)
            context = dataclasses.replace(house.context, sees=sees)
            for table, page in PAGES.items():
                wanted = {id_ for id_, known in rows[table].items() if POLICIES.decide(who, action, known, NOON)}
                found = await listed(page, context, 17)
                assert len(found) == len(set(found))
                assert set(found) == wanted, (who, action, table)
    assert len(checked) > 25


async def test_filters_and_look_ups_meet_what_is_seen(house: House, rows: Any) -> None:
    context = dataclasses.replace(house.context, sees=POLICIES.sees(WHO[2], Action.PLAYER_READ, NOON))
    assert WHO[2].scope.brands == {"main"}
    main = {id_ for id_, known in rows["player"].items() if known["brand"] == "main"}
    vips = {id_ for id_ in main if rows["player"][id_]["vip"]}
    for chosen, wanted in (
        ({"among": list(rows["player"])}, main),
        ({"tag": "vip"}, vips),
        ({"brand": "third"}, set()),
        ({"tag": "vip", "country": "AT"}, {id_ for id_ in vips if rows["player"][id_]["country"] == "AT"}),
    ):
        some = await players.page(context, limit=200, **chosen)
        assert {item.id for item in some.items} == wanted, chosen


async def test_one_thing_is_found_if_it_is_seen(house: House, rows: Any) -> None:
    context = dataclasses.replace(house.context, sees=POLICIES.sees(WHO[2], Action.PLAYER_READ, NOON))
    refusals = set()
    for identifier, table in (("player_id", "player"), ("ticket_id", "ticket"), ("transaction_id", "transaction")):
        for id_, known in rows[table].items():
            if known["brand"] == "main":
                await seeing.require(context, identifier, id_)
                assert dict(await seeing.known(context, identifier, id_)).items() >= known.items()
            else:
                with pytest.raises(NotFound) as hidden:
                    await seeing.require(context, identifier, id_)
                refusals.add((identifier, hidden.value.code, str(hidden.value), str(hidden.value.facts)))
        with pytest.raises(NotFound) as none:
            await seeing.require(context, identifier, f"{table}_{'1' * 26}")
        refusals.add((identifier, none.value.code, str(none.value), str(none.value.facts)))
    assert len(refusals) == 3, "what is hidden and what there is not are refused in the same words"


@pytest.mark.parametrize(
    "page",
    [
        notices.page,
        contacts.page,
        approvals.page,
        lambda context, **given: games.rounds(context, NOON, **given),
        lambda context, **given: games.sessions(context, NOON, **given),
    ],
)
async def test_every_other_list_can_be_filtered_by_every_policy(house: House, page: Any) -> None:
    for sees in {POLICIES.sees(who, action, NOON) for who in WHO for action in ACTIONS}:
        context = dataclasses.replace(house.context, sees=sees)
        assert (await page(context, limit=3)).items == []


def test_an_attribute_that_rows_do_not_tell_is_not_guessed() -> None:
    some = {"brand": "p.brand", "vip": None}
    with pytest.raises(Untranslatable):
        seeing.where(Has("country"), some)  # type: ignore[arg-type]
    with pytest.raises(Untranslatable):
        seeing.where(Not(Has("secrecy")), some)  # type: ignore[arg-type]
    with pytest.raises(Untranslatable):
        seeing.where(Compared("=", Attribute("vip"), Value(1)), some)  # type: ignore[arg-type]
    guarded = both(Has("vip"), Compared("=", Attribute("vip"), Value(1)))
    assert seeing.where(guarded, some).text == "false"  # type: ignore[arg-type]


async def test_a_planted_fault_is_found(house: House, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that lets everything through, and one that forgets a NOT."""
    for planted in (lambda _sees, _columns: seeing.Sql("true", ()), _without_not):
        with monkeypatch.context() as patch:
            patch.setattr("queries.listing.where", planted)
            with pytest.raises(AssertionError):
                await test_lists_hold_what_deciding_row_by_row_leaves(house, rows)


def _without_not(sees: predicate.Predicate, columns: Any) -> seeing.Sql:
    found = seeing._sql(seeing._without(sees, columns), columns)
    return seeing.Sql(found.text.replace("NOT ", "", 1) if "(NOT" in found.text else found.text, found.values)
