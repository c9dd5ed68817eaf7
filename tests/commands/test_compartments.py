"""Compartments: who is inside is said by two people, and what is recorded there tells nobody outside what, of whom, or by whom."""

from __future__ import annotations

import json

import msgspec
import pytest

from access.policy import principal
from commands import compartments, identity
from commands.approvals import PersonNeeded
from commands.compartments import CaseNoted, CompartmentChanged, WriteCaseNote
from commands.edge import Edge
from commands.plan import Context, Receipt, WrongRegion
from commands.sealing import KeyNotHeld
from domain import sealed
from domain.approvals import SamePerson
from domain.compartments import Compartment, CompartmentExists, NotInside, ProposalDiffers, Status, evolve
from domain.errors import Forbidden, KeyReused, NotFound
from domain.kernel import partition_of
from domain.sealed import LENGTH, CaseNote, CaseRead
from eventstore.record import decode_body
from eventstore.vault import DataKey
from tests.commands.house import CODEC, OWNED, SECRET, House, Process

ANN, BEN, EVE = "operator:ann", "operator:ben", "operator:eve"
SAR = "/v1/compartments/north"


async def ask(house: House, path: str, body: object, actor: str = ANN, **more: object) -> CompartmentChanged:
    answer = (await house.process.post(path, body, actor=actor, roles=["compliance"], **more)).answer
    assert isinstance(answer, CompartmentChanged)
    return answer


async def opened(house: House, *members: str) -> None:
    inside = list(members or (ANN, BEN))
    await ask(house, "/v1/compartments", {"name": "north", "members": inside})
    await ask(house, f"{SAR}/confirm", {"members": inside}, actor=BEN)


def key_of(house: House) -> DataKey:
    [founded] = [event for event in house.log.events("region") if getattr(event, "tag", "") == "compartment.founded"]
    return house.vault.kept[founded.key.id]  # type: ignore[attr-defined]


def edge(house: House, actor: str, key: str, roles: list[str], said: str = "") -> Edge:
    context = Context(
        principal(actor, roles, stepped_up=house.now),
        house.now,
        identity.command_id(actor, key),
        identity.fingerprint(SECRET, "POST", SAR, said.encode()),
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    return Edge(context, house.vault, list(OWNED), "eu")  # type: ignore[arg-type]


async def note(
    house: House,
    player: str,
    text: str = "pays in cash, plays nothing",
    *,
    actor: str = ANN,
    key: str = "k",
    roles: tuple[str, ...] = ("compliance",),
    process: Process | None = None,
    held: DataKey | None = None,
) -> Receipt:
    plan = compartments.note(
        "north", player, WriteCaseNote(text), edge(house, actor, key, list(roles), text), held or key_of(house)
    )
    return await (process or house.process).decider.decide(plan)


def secrets(house: House) -> list[sealed.Secret]:
    return [sealed.opened(event.payload) for event in house.opened("sealed")]  # type: ignore[attr-defined]


# Who is inside


async def test_a_compartment_opens_when_a_second_person_names_the_same_people(house: House) -> None:
    asked = await ask(house, "/v1/compartments", {"name": "north", "members": [BEN, ANN, ANN]})
    assert asked == CompartmentChanged("north", Status.AWAITING)
    with pytest.raises(SamePerson):
        await ask(house, f"{SAR}/confirm", {"members": [ANN, BEN]}, actor=ANN)
    with pytest.raises(ProposalDiffers):
        await ask(house, f"{SAR}/confirm", {"members": [ANN, EVE]}, actor=BEN)
    with pytest.raises(PersonNeeded):
        await ask(house, f"{SAR}/confirm", {"members": [ANN, BEN]}, actor="service:robot")
    assert await ask(house, f"{SAR}/confirm", {"members": [ANN, BEN]}, actor=BEN) == CompartmentChanged(
        "north", Status.OPEN
    )
    with pytest.raises(CompartmentExists):
        await ask(house, "/v1/compartments", {"name": "north", "members": [EVE]})


async def test_whoever_is_let_in_later_is_so_by_two_and_put_out_by_one(house: House) -> None:
    player = await house.player()
    await opened(house)
    await ask(house, f"{SAR}/members", {"members": [ANN, BEN, EVE]})
    with pytest.raises(NotInside):
        await note(house, player, actor=EVE)
    await ask(house, f"{SAR}/confirm", {"members": [ANN, BEN, EVE]}, actor=BEN)
    await note(house, player, actor=EVE)
    await ask(house, f"{SAR}/remove", {"member": EVE})
    with pytest.raises(NotInside):
        await note(house, player, actor=EVE, key="another")


async def test_who_was_put_out_is_not_let_in_by_what_was_proposed_before(house: House) -> None:
    await opened(house)
    await ask(house, f"{SAR}/members", {"members": [ANN, EVE]})
    await ask(house, f"{SAR}/remove", {"member": EVE})
    with pytest.raises(ProposalDiffers):
        await ask(house, f"{SAR}/confirm", {"members": [ANN, EVE]}, actor=BEN)


async def test_only_who_looks_after_compartments_changes_them(house: House) -> None:
    for roles in (["operator"], ["auditor"], ["administrator"], ["risk"]):
        with pytest.raises(Forbidden):
            await house.process.post("/v1/compartments", {"name": "north", "members": [ANN]}, roles=roles)
    with pytest.raises(NotFound):
        await ask(house, f"{SAR}/members", {"members": [ANN]})
    assert house.vault.kept == {}


# What is recorded inside


async def test_the_log_shows_no_player_no_type_no_author_and_no_trace(house: House) -> None:
    player = await house.player(name="Anna")
    await opened(house)
    receipt = await note(house, player)
    raw = house.log.entries[-1].body
    body = decode_body(raw)
    assert isinstance(receipt.answer, CaseNoted)
    assert body.stream == receipt.answer.entry.replace("_", "-", 1)
    assert (body.type, body.actor, body.trace, body.version) == ("sealed.recorded", "compartment:north", None, 1)
    assert list(json.loads(bytes(body.data))) == ["compartment", "payload"]
    clear = json.dumps(json.loads(raw) | {"data": None}).encode()
    for told in (player.removeprefix("player_"), "ann", "case_note", "cash"):
        assert told.encode() not in clear
    assert secrets(house) == [CaseNote(ANN, "", player, "pays in cash, plays nothing")]  # type: ignore[arg-type]


async def test_what_is_written_and_that_it_was_read_look_alike(house: House) -> None:
    player = await house.player()
    await opened(house)
    await note(house, player, "x")
    await note(house, player, "\u00e9" * 1500, key="long")
    asked = edge(house, BEN, "read", ["risk"])
    await house.process.decider.decide(compartments.read("north", player, "notes", asked, key_of(house)))
    bodies = [decode_body(entry.body) for entry in house.log.entries[-3:]]
    assert len({len(bytes(body.data)) for body in bodies}) == 1
    assert len({(body.type, body.actor, body.version, body.command.fingerprint is None) for body in bodies}) == 1
    assert isinstance(secrets(house)[-1], CaseRead)


def test_what_is_sealed_is_of_whole_lengths_and_says_the_same() -> None:
    for characters in (1, LENGTH // 2, LENGTH, 2000):
        secret = CaseNote(ANN, "staff-1", "player_1", "\u20ac" * characters)  # type: ignore[arg-type]
        text = sealed.closed(secret)
        assert len(text.encode()) % LENGTH == 0
        assert sealed.opened(text) == secret


async def test_entries_lie_where_the_player_does_not(house: House) -> None:
    player = await house.player()
    await opened(house)
    streams = [str((await note(house, player, key=f"k{n}")).answer.entry) for n in range(20)]  # type: ignore[attr-defined]
    assert len({partition_of(stream) for stream in streams}) > 5
    assert not any(stream.endswith(player.removeprefix("player_")[-8:]) for stream in streams)


async def test_nothing_that_others_see_of_the_player_changes(house: House) -> None:
    player = await house.player()
    await opened(house)
    await note(house, player)
    versions = {body.stream: body.version for body in map(decode_body, (e.body for e in house.log.entries))}
    assert versions[f"player-{player.removeprefix('player_')}"] == 1
    await house.process.post(f"/v1/players/{player}/tags", {"tag": "new"}, seen="1.0.0.0")


async def test_entries_are_found_by_a_word_that_nobody_makes_without_the_key(house: House) -> None:
    ada, bob = await house.player(), await house.player()
    await opened(house)
    entry = (await note(house, ada)).answer.entry  # type: ignore[attr-defined]

    async def found(key: DataKey, player: str) -> list[str]:
        return await house.vault.find("sealed", compartments.word(key, "notes", player))  # type: ignore[arg-type]

    assert await found(key_of(house), ada) == [entry.removeprefix("sealed_")]
    assert await found(key_of(house), bob) == []
    assert await found(DataKey("x", bytes(32)), ada) == []
    assert await house.vault.find("sealed", ada) == []


async def test_who_is_not_inside_hears_the_same_of_every_compartment(house: House) -> None:
    player = await house.player()
    key = DataKey("x", bytes(32))
    refusals = []
    for members in (None, [ANN, BEN]):
        if members:
            await opened(house)
        with pytest.raises(NotInside) as refused:
            await note(house, player, actor=EVE, held=key)
        refusals.append((refused.value.detail, refused.value.facts))
    assert refusals[0] == refusals[1]
    with pytest.raises(Forbidden):
        await note(house, player, roles=("operator", "auditor"))


async def test_a_repeat_is_the_first_note_and_another_text_under_its_key_is_refused(house: House) -> None:
    player = await house.player()
    await opened(house)
    first = await note(house, player)
    again = await note(house, player, process=house.another_process())
    assert (again.answer, again.repeated) == (first.answer, True)
    with pytest.raises(KeyReused):
        await note(house, player, "something else")
    assert len(secrets(house)) == 1


async def test_without_its_key_nothing_is_recorded(house: House) -> None:
    player = await house.player()
    await opened(house)
    key = key_of(house)
    del house.vault.kept[key.id]
    with pytest.raises(KeyNotHeld):
        await note(house, player, held=key, process=house.another_process())


async def test_nobody_unknown_and_no_other_regions_player_is_noted(house: House) -> None:
    player = await house.player()
    await opened(house)
    stranger = player[:-1] + ("0" if player[-1] != "0" else "1")
    with pytest.raises(NotFound):
        await note(house, stranger)
    with pytest.raises(WrongRegion):
        await note(house, player[:-2] + "7z")


async def test_another_process_folds_the_same(house: House) -> None:
    await opened(house)
    state = Compartment()
    for entry in house.log.entries:
        read = CODEC.decode(entry)
        if read.body.stream.startswith("region-eu-compartment_"):
            state = evolve(state, read.event, read.at)
    assert (state.status, state.members, state.proposed) == (Status.OPEN, (ANN, BEN), None)
    assert msgspec.json.decode(msgspec.json.encode(state), type=Compartment) == state
