"""Who sends the calls of several providers at once, with a token of ours and without their signatures."""

from __future__ import annotations

from tests.commands.house import CODEC
from tests.reactions.table import Table, batch


async def test_an_aggregator_sends_many_calls_at_once(table: Table) -> None:
    await table.sit()
    bets = [{"verb": "bet", **table.bet(100)} for _ in range(5)]
    results = await batch(table, "aggregator:test", *(("/v1/games/reel/bet", bet) for bet in bets))
    assert [each["body"]["balance"]["cash"] for each in results] == [9_900, 9_800, 9_700, 9_600, 9_500]
    signed = await table.say(**bets[0])
    assert signed.json()["repeated"] is True
    bodies = [CODEC.decode(entry).body for entry in table.region.ledger.entries()]
    assert {body.actor for body in bodies if body.type == "wallet.staked"} == {"aggregator:test"}


async def test_nobody_else_speaks_for_providers(table: Table) -> None:
    await table.sit()
    bet = {"verb": "bet", **table.bet()}
    for nobody in ("operator:test", "aggregator:other"):
        [refused] = await batch(table, nobody, ("/v1/games/reel/bet", bet))
        assert (refused["status"], refused["body"]["code"]) == (403, "forbidden")
    unknown = await batch(
        table,
        "aggregator:test",
        ("/v1/games/nobody/bet", bet),
        ("/v1/games/reel/dance", bet),
        ("/v1/games/reel/win", bet),
    )
    assert [each["body"]["code"] for each in unknown] == ["not_found", "unknown_verb", "verb_differs"]


async def test_an_aggregator_speaks_for_the_providers_that_name_it_and_for_no_others(table: Table) -> None:
    await table.sit("spin")
    bet = {"verb": "bet", **table.bet()}
    for actor, path, status, code in (
        ("aggregator:other", "/v1/games/spin/bet", 200, None),
        ("aggregator:other", "/v1/games/reel/bet", 403, "forbidden"),
        ("aggregator:test", "/v1/games/old/bet", 403, "forbidden"),
    ):
        [answer] = await batch(table, actor, (path, bet))
        assert (answer["status"], answer["body"].get("code")) == (status, code)


async def test_nobody_speaks_for_a_provider_that_has_no_games(table: Table) -> None:
    await table.sit()
    before = len(table.region.events())
    for verb in ("bet", "win", "balance"):
        said = {"verb": verb, **table.bet()}
        [answer] = await batch(table, "aggregator:test", (f"/v1/games/acme/{verb}", said))
        assert (answer["status"], answer["body"]["code"]) == (404, "not_found")
    assert len(table.region.events()) == before


async def test_an_item_that_names_what_a_game_has_said_is_refused_alone(table: Table) -> None:
    await table.sit()
    bet = {"verb": "bet", **table.bet()}
    results = await batch(
        table, "aggregator:test", ("/v1/games/reel/bet", bet), ("/v1/players/$0/block", {"reason": "fraud"})
    )
    assert [each["status"] for each in results] == [200, 424]
