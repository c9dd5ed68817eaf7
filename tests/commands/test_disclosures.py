"""Handing keys to somebody outside is a command like any other: it stands in the log, or nothing happened."""

from __future__ import annotations

import pytest
from pyrage import x25519

from commands.disclosures import Disclosure
from commands.plan import WrongRegion
from domain.disclosures import KeysDisclosed, NamedKey
from domain.errors import Forbidden, Invalid, InvalidId, NotFound
from domain.kernel import PlayerId, suffix, uuid7
from domain.players import Registered
from eventstore.record import decode_body
from tests.commands.house import NOON, House

RECIPIENT = str(x25519.Identity.generate().to_public())


def ask(*players: str, recipient: str = RECIPIENT) -> dict[str, object]:
    return {"recipient": recipient, "reason": "an-order", "players": list(players)}


async def test_a_disclosure_names_the_keys_of_the_registrations_and_holds_none(house: House) -> None:
    asked = [await house.player(email="anna@example.com"), await house.player()]
    keys = [event.key.id for event in house.log.events() if isinstance(event, Registered)]

    receipt = await house.process.post("/v1/disclosures", ask(*asked))

    entry = house.log.entries[-1]
    body = decode_body(entry.body)
    assert (body.stream, body.partition) == ("region-eu-disclosures", None)
    assert receipt.answer == Disclosure(body.id, 2)
    named = tuple(NamedKey(PlayerId(player), key) for player, key in zip(asked, keys, strict=True))
    assert house.log.events("region")[-1] == KeysDisclosed(RECIPIENT, "an-order", named)
    assert not any(key.key.hex().encode() in entry.body for key in house.vault.kept.values())


async def test_a_repeat_is_the_same_disclosure(house: House) -> None:
    player = await house.player()
    first = await house.process.post("/v1/disclosures", ask(player), key="k")
    again = await house.another_process().post("/v1/disclosures", ask(player), key="k")
    assert (again.answer, again.repeated) == (first.answer, True)


async def test_only_who_may_disclose_does(house: House) -> None:
    player = await house.player(email="anna@example.com")
    for role in ("auditor", "operator", "payments", "importer", "viewer"):
        with pytest.raises(Forbidden):
            await house.process.post("/v1/disclosures", ask(player), roles=[role])
    assert len(house.log.entries) == 1


async def test_what_cannot_be_disclosed(house: House) -> None:
    player = await house.player()
    stranger = "player_" + suffix(uuid7(NOON, bytes(10), 1))
    elsewhere = "player_" + suffix(uuid7(NOON, bytes(10), 200))
    for error, body in (
        (NotFound, ask(player, stranger)),
        (WrongRegion, ask(player, elsewhere)),
        (InvalidId, ask(player, "player_x")),
        (Invalid, ask()),
        (Invalid, ask(*[player] * 501)),
        (Invalid, ask(player, recipient=RECIPIENT[:-1] + ("q" if RECIPIENT[-1] != "q" else "p"))),
        (Invalid, ask(player, recipient="ssh-ed25519 AAAA")),
        (Invalid, ask(player, recipient="age1tag1qt8lw0ual6avlwmwatk888yqnmdamm7xfd0wak53ut6elz5c4swx2yqdj4e")),
    ):
        with pytest.raises(error):
            await house.process.post("/v1/disclosures", body)
    assert len(house.log.entries) == 1


async def test_a_player_who_is_named_twice_is_disclosed_once(house: House) -> None:
    player = await house.player()
    receipt = await house.process.post("/v1/disclosures", ask(player, player))
    assert receipt.answer.keys == 1


async def test_the_most_that_can_be_asked_fits_into_an_entry(house: House) -> None:
    players = [await house.player() for _ in range(500)]
    body = {"recipient": RECIPIENT, "reason": "x" * 40, "players": players}
    await house.process.post("/v1/disclosures", body)
    assert 40_000 < len(house.log.entries[-1].body) <= 60 * 1024
