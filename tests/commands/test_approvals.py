"""Four eyes, through the real write side: what waits, who may approve it, and that the very command runs, once."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from access.policy import principal, service
from commands import approvals as four_eyes
from commands import limits, players
from commands.adjustments import Adjusted
from commands.approvals import ApprovalDecided, AwaitingApproval, PersonNeeded, RequesterUnknown
from commands.catalog import ENDPOINTS
from commands.edge import Edge, Endpoint, InterventionMissing, read_body
from commands.identity import command_id
from commands.plan import Context, Receipt
from commands.sealing import KeyNotHeld
from domain.adjustments import Made, NotTheirTicket
from domain.approvals import (
    ApprovalClosed,
    ApprovalNotDue,
    Declined,
    Expired,
    HashDiffers,
    Requested,
    SamePerson,
)
from domain.errors import CurrencyMismatch, Forbidden, InvalidId, NotFound, TransactionClosed
from domain.players import Noted
from domain.wallets import Accounts, InsufficientFunds, Moved
from eventstore.record import decode_body, encode_body
from eventstore.vault import CannotOpen, DataKey
from policies.approvals import RULES, Rule
from tests.commands.house import House, euros, made
from tests.ledger import OWNED

MARIA, BO, CY = "operator:maria", "supervisor:bo", "supervisor:cy"
WHY = {"kind": "complaint", "reason": "the game froze"}


def adjustment(amount: int) -> dict[str, Any]:
    return {"amount": euros(amount), "direction": "credit", "reason_code": "goodwill", "intervention": WHY}


async def adjust(house: House, player: str, amount: int, *, process: Any = None, **context: Any) -> Receipt:
    body = adjustment(amount) | context.pop("body", {})
    given = {"roles": ["cashier"], **context}
    return await (process or house.process).post(f"/v1/players/{player}/adjustments", body, **given)


async def waiting(house: House, player: str, amount: int = 10_001, **context: Any) -> AwaitingApproval:
    receipt = await adjust(house, player, amount, **context)
    assert isinstance(receipt.answer, AwaitingApproval)
    return receipt.answer


async def approve(house: House, asked: AwaitingApproval, *, process: Any = None, **context: Any) -> Receipt:
    given = {"actor": BO, "roles": ["supervisor"], **context}
    hash_ = given.pop("hash", asked.hash)
    return await (process or house.process).post(f"/v1/approvals/{asked.approval}/approve", {"hash": hash_}, **given)


def moved(house: House) -> list[Any]:
    return [event for event in house.log.events("wallet") if isinstance(event, Moved)]


# Asking


async def test_up_to_the_threshold_one_person_adjusts_alone(house: House) -> None:
    receipt = await adjust(house, await house.player(), 10_000)
    answer = receipt.answer
    assert isinstance(answer, Adjusted)
    assert answer.accounts == Accounts(cash=10_000)
    [made] = house.opened("adjustment")
    [transfer] = moved(house)[0].movements
    assert isinstance(made, Made)
    assert (made.adjustment, made.operator, made.intervention.reason) == (answer.adjustment, MARIA, WHY["reason"])
    assert (transfer.transaction, transfer.source, transfer.target) == (
        answer.adjustment, "house:adjustments", "cash"
    )  # fmt: skip


async def test_above_the_threshold_only_the_request_is_recorded(house: House) -> None:
    player = await house.player()
    asked = await waiting(house, player)
    [requested] = house.opened("approval")
    assert isinstance(requested, Requested)
    assert moved(house) == house.log.events("adjustment") == []
    path = f"/v1/players/{player}/adjustments"
    assert (requested.path, requested.requester, requested.player) == (path, MARIA, player)
    assert (requested.action, requested.reasons) == ("money.adjust", ("operator_day",))
    assert asked.hash == hashlib.sha256(f"{path}\n{requested.salt}\n{requested.body}".encode()).hexdigest()
    assert isinstance(requested.body, str)
    assert msgspec.json.decode(requested.body) == adjustment(10_001)


async def test_what_was_asked_stands_sealed_in_the_log_and_its_hash_confirms_no_guess(house: House) -> None:
    player = await house.player()
    one, other = await waiting(house, player), await waiting(house, player)
    assert not any(b"froze" in entry.body or b"goodwill" in entry.body for entry in house.log.entries)
    path, body = f"/v1/players/{player}/adjustments", msgspec.json.encode(adjustment(10_001)).decode()
    guesses = {hashlib.sha256(text.encode()).hexdigest() for text in (body, f"{path}\n{body}", f"{path}\n\n{body}")}
    assert not guesses & {one.hash, other.hash}
    assert one.hash != other.hash, "the same was asked twice"


async def test_what_small_steps_add_up_to_needs_a_second_person(house: House) -> None:
    player, other = await house.player(), await house.player()
    await adjust(house, player, 6_000)
    assert isinstance((await adjust(house, other, 6_000)).answer, Adjusted)
    assert isinstance((await adjust(house, player, 4_001)).answer, AwaitingApproval)
    assert isinstance((await adjust(house, player, 4_000)).answer, Adjusted)


async def test_what_several_people_have_done_to_a_player_adds_up_too(house: House) -> None:
    player = await house.player()
    for number, amount in enumerate((10_000, 10_000, 5_000)):
        assert isinstance((await adjust(house, player, amount, actor=f"operator:{number}")).answer, Adjusted)
    await adjust(house, player, 1, actor="operator:9")
    assert house.log.events("approval")[-1].reasons == ("player_day",)


async def test_a_debit_does_not_make_room_for_a_credit(house: House) -> None:
    player = await house.player()
    await adjust(house, player, 8_000)
    await adjust(house, player, 2_000, body={"direction": "debit"})
    assert isinstance((await adjust(house, player, 1)).answer, AwaitingApproval)


async def test_what_would_be_refused_is_refused_before_anybody_is_asked(house: House) -> None:
    player = await house.player()
    with pytest.raises(InsufficientFunds):
        await adjust(house, player, 50_000, body={"direction": "debit"})
    with pytest.raises(CurrencyMismatch):
        await adjust(house, player, 1, body={"amount": {"amount": 99_999, "currency": "SEK"}})
    with pytest.raises(NotFound):
        await adjust(house, "player_01ka7g0000e00800000000001a", 50_000)
    with pytest.raises(Forbidden):
        await adjust(house, player, 50_000, roles=["operator"])
    with pytest.raises(InterventionMissing):
        await adjust(house, player, 50_000, body={"intervention": None})
    assert house.log.events("approval") == []


async def test_a_request_that_is_repeated_gets_its_first_answer(house: House) -> None:
    player = await house.player()
    first = await waiting(house, player, key="k")
    assert await waiting(house, player, key="k", process=house.another_process()) == first
    await approve(house, first)
    assert await waiting(house, player, key="k", process=house.another_process()) == first
    assert len(house.log.events("approval")) == 2


async def test_a_ticket_that_it_names_is_the_players(house: House) -> None:
    player, other = await house.player(), await house.player()
    opened = {"channel": "email", "subject": "Money", "text": "Where is it?"}
    theirs, anothers = [made(await house.process.post(f"/v1/players/{p}/tickets", opened)) for p in (player, other)]
    await adjust(house, player, 1, body={"ticket": theirs})
    assert house.log.events("adjustment")[-1].ticket == theirs
    suffix = player.partition("_")[2]
    for ticket in (anothers, f"ticket_{suffix}"):
        with pytest.raises(NotTheirTicket):
            await adjust(house, player, 1, body={"ticket": ticket})
    with pytest.raises(InvalidId):
        await adjust(house, player, 1, body={"ticket": "the other day"})
    asked = await waiting(house, player, 20_000, body={"ticket": theirs})
    await approve(house, asked)
    assert house.log.events("adjustment")[-1].ticket == theirs


# Approving


async def test_the_approved_command_runs_in_one_command_with_its_approval(house: House) -> None:
    player = await house.player()
    asked = await waiting(house, player)
    receipt = await approve(house, asked)
    assert receipt.answer == ApprovalDecided(asked.approval, "approved")
    bodies = [decode_body(entry.body) for entry in house.log.entries[-3:]]
    assert [body.type for body in bodies] == ["approval.approved", "adjustment.made", "wallet.moved"]
    assert {(body.command.id, body.command.n, body.actor) for body in bodies} == {(bodies[0].command.id, 3, BO)}
    assert house.log.events("adjustment")[0].operator == MARIA
    assert moved(house)[0].accounts == Accounts(cash=10_001)


async def test_nobody_approves_their_own_command(house: House) -> None:
    asked = await waiting(house, await house.player(), roles=["supervisor"])
    with pytest.raises(SamePerson):
        await approve(house, asked, actor=MARIA)
    assert moved(house) == []


async def test_approving_needs_the_right_to_and_a_person(house: House) -> None:
    asked = await waiting(house, await house.player())
    with pytest.raises(Forbidden):
        await approve(house, asked, roles=["cashier"])
    with pytest.raises(PersonNeeded):
        await approve(house, asked, actor="service:bot")
    assert moved(house) == []


async def test_only_what_was_asked_is_approved(house: House) -> None:
    asked = await waiting(house, await house.player())
    with pytest.raises(HashDiffers):
        await approve(house, asked, hash="0" * 64)


async def test_whoever_may_no_more_cannot_have_it_run(house: House) -> None:
    asked = await waiting(house, await house.player())
    house.known[MARIA] = principal(MARIA, ["support"])
    with pytest.raises(Forbidden):
        await approve(house, asked)
    del house.known[MARIA]
    with pytest.raises(RequesterUnknown):
        await approve(house, asked)
    house.known[MARIA] = principal(MARIA, ["cashier"])
    await approve(house, asked)
    assert len(moved(house)) == 1


async def test_it_is_decided_anew_when_it_runs(house: House) -> None:
    """The player's money was there when it was asked for, and is not there when it is approved."""
    player = await house.player()
    for number in range(2):
        await adjust(house, player, 10_000, actor=f"operator:{number}")
    asked = await waiting(house, player, 15_001, body={"direction": "debit"})
    await adjust(house, player, 5_000, actor="operator:2", body={"direction": "debit"})
    with pytest.raises(InsufficientFunds):
        await approve(house, asked)
    assert [type(event) for event in house.log.events("approval")] == [Requested]


async def test_what_is_approved_again_has_no_second_effect(house: House) -> None:
    asked = await waiting(house, await house.player())
    first = await approve(house, asked, key="k")
    again = await approve(house, asked, key="k", process=house.another_process())
    another = await approve(house, asked, actor=CY, process=house.another_process())
    assert first.answer == again.answer == another.answer
    assert (again.repeated, another.position) == (True, None)
    assert len(moved(house)) == 1


async def test_what_ran_with_approval_counts_for_whoever_asked(house: House) -> None:
    player = await house.player()
    await approve(house, await waiting(house, player))
    assert isinstance((await adjust(house, player, 1)).answer, AwaitingApproval)
    assert isinstance((await adjust(house, player, 1, actor=BO)).answer, Adjusted)


# Not approving


async def test_a_rejected_command_never_runs(house: House) -> None:
    asked = await waiting(house, await house.player())
    path, context = f"/v1/approvals/{asked.approval}/reject", {"actor": BO, "roles": ["supervisor"]}
    receipt = await house.process.post(path, {"reason": "no ticket"}, **context)
    assert receipt.answer == ApprovalDecided(asked.approval, "rejected")
    assert (await house.process.post(path, {"reason": "really"}, **context)).position is None
    assert house.opened("approval")[1:] == [Declined("no ticket")]
    assert house.log.events("approval")[1:] != [Declined("no ticket")]
    with pytest.raises(ApprovalClosed):
        await approve(house, asked)
    assert moved(house) == []


async def test_what_nobody_has_decided_lapses(house: House) -> None:
    asked = await waiting(house, await house.player())
    path = f"/v1/approvals/{asked.approval}/expire"
    with pytest.raises(ApprovalNotDue):
        await fire(house, path)
    house.now = asked.expires_at
    with pytest.raises(ApprovalClosed):
        await approve(house, asked)
    await fire(house, path)
    assert (await fire(house, path)).position is None
    assert house.log.events("approval")[1:] == [Expired()]
    with pytest.raises(ApprovalClosed):
        await house.process.post(f"/v1/approvals/{asked.approval}/reject", {"reason": "x"}, actor=BO)


async def fire(house: House, path: str) -> Receipt:
    plan = house.plan(path, {}, actor="reaction:timers")
    context = msgspec.structs.replace(plan.context, principal=service("reaction:timers", "reaction"))
    return await house.process.decider.decide(msgspec.structs.replace(plan, context=context))


async def test_an_approval_that_does_not_exist(house: House) -> None:
    nothing = AwaitingApproval("approval_01ka7g0000e00800000000001a", "awaiting_approval", house.now, "0" * 64)
    with pytest.raises(NotFound):
        await approve(house, nothing)


async def test_where_the_key_is_gone_nothing_is_asked_and_nothing_runs(house: House) -> None:
    player = await house.player()
    asked = await waiting(house, player)
    kept = dict(house.vault.kept)
    house.vault.kept.clear()
    for process in (house.process, house.another_process()):
        with pytest.raises(KeyNotHeld):
            await approve(house, asked, process=process)
        with pytest.raises(KeyNotHeld):
            await waiting(house, player, process=process)
    assert [type(event) for event in house.log.events("approval")] == [Requested]
    assert moved(house) == []
    house.vault.kept |= kept
    await approve(house, asked)
    assert len(moved(house)) == 1


async def test_where_the_key_is_gone_it_can_be_rejected_and_lapses(house: House) -> None:
    player = await house.player()
    one, other = await waiting(house, player), await waiting(house, player)
    house.vault.kept.clear()
    await house.process.post(f"/v1/approvals/{one.approval}/reject", {"reason": "gone"}, actor=BO, roles=["supervisor"])
    house.now = other.expires_at
    await fire(house, f"/v1/approvals/{other.approval}/expire")
    assert house.log.events("approval")[2:] == [Declined(), Expired()]


async def test_a_key_that_is_not_the_players_opens_nothing(house: House) -> None:
    asked = await waiting(house, await house.player())
    house.vault.kept = {id_: DataKey(id_, bytes(32)) for id_ in house.vault.kept}
    with pytest.raises(CannotOpen):
        await approve(house, asked)
    assert moved(house) == []


async def test_a_body_that_was_moved_to_another_approval_does_not_open(house: House) -> None:
    player = await house.player()
    asked = [await waiting(house, player, amount) for amount in (10_001, 20_000)]
    [small, large] = [place for place, entry in enumerate(house.log.entries) if b"approval.requested" in entry.body]
    sealed = [msgspec.json.decode(decode_body(house.log.entries[place].body).data) for place in (small, large)]
    swapped = {**sealed[0], "body": sealed[1]["body"]}
    body = encode_body(
        msgspec.structs.replace(
            decode_body(house.log.entries[small].body), data=msgspec.Raw(msgspec.json.encode(swapped))
        )
    )
    forged = house.log.entries[small]._replace(body=body)
    for entries in house.log._streams.values():
        entries[:] = [forged if each.position == forged.position else each for each in entries]
    with pytest.raises(CannotOpen):
        await approve(house, asked[0], process=house.another_process())
    assert moved(house) == []


# Races


async def test_two_who_approve_at_once_have_one_effect(house: House) -> None:
    asked = await waiting(house, await house.player())
    processes = [house.process] * 3 + [house.another_process() for _ in range(3)]
    results = await asyncio.gather(
        *(approve(house, asked, process=each, actor=f"supervisor:{n}") for n, each in enumerate(processes))
    )
    assert {result.answer for result in results} == {ApprovalDecided(asked.approval, "approved")}
    assert sum(result.position is not None for result in results) == 1
    assert len(moved(house)) == len(house.log.events("adjustment")) == 1


async def test_of_approving_and_rejecting_at_once_one_wins(house: House) -> None:
    asked = await waiting(house, await house.player())
    path = f"/v1/approvals/{asked.approval}/reject"
    one, other = await asyncio.gather(
        approve(house, asked, process=house.another_process()),
        house.another_process().post(path, {"reason": "no"}, actor=CY, roles=["supervisor"]),
        return_exceptions=True,
    )
    assert isinstance(one, ApprovalClosed) != isinstance(other, ApprovalClosed)
    assert len(moved(house)) == (0 if isinstance(one, ApprovalClosed) else 1)
    assert len(house.log.events("approval")) == 2


async def test_people_who_adjust_one_player_at_once_do_not_pass_the_threshold_together(house: House) -> None:
    player = await house.player()
    processes = [house.another_process() for _ in range(8)]
    answers = await asyncio.gather(*(adjust(house, player, 2_500, process=each) for each in processes))
    assert sum(isinstance(each.answer, Adjusted) for each in answers) == 4
    assert sum(isinstance(each.answer, AwaitingApproval) for each in answers) == 4
    assert moved(house)[-1].accounts == Accounts(cash=10_000)


# Payouts


async def withdrawal(house: House, amount: int) -> str:
    """One that waits for a person, of a player who has the money, in a country where no rule asks who they are."""
    player = await house.player(country="CH")
    await approve(house, await waiting(house, player, 300_000))
    receipt = await house.process.post(
        f"/v1/players/{player}/withdrawals", {"amount": euros(amount), "provider": "acme"}
    )
    assert receipt.answer.status == "under_review"
    return made(receipt)


async def let_it_be_paid(house: House, transaction: str, **context: Any) -> Receipt:
    given = {"roles": ["cashier"], **context}
    return await house.process.post(f"/v1/transactions/{transaction}/approve", {"intervention": WHY}, **given)


async def test_a_payout_up_to_the_threshold_needs_one_person(house: House) -> None:
    transaction = await withdrawal(house, 200_000)
    assert (await let_it_be_paid(house, transaction)).answer.status == "approved"


async def test_a_large_payout_needs_two(house: House) -> None:
    transaction = await withdrawal(house, 200_001)
    asked = (await let_it_be_paid(house, transaction)).answer
    assert isinstance(asked, AwaitingApproval)
    with pytest.raises(SamePerson):
        await approve(house, asked, actor=MARIA)
    await approve(house, asked, process=house.another_process())
    types = [decode_body(entry.body).type for entry in house.log.entries]
    assert types[types.index("transaction.withdrawal_requested") :].count("transaction.withdrawal_approved") == 1
    assert house.log.events("approval")[-2].reasons == ("amount",)
    again = (await let_it_be_paid(house, transaction)).answer
    assert again.status == "approved"


async def test_a_payout_that_was_cancelled_meanwhile_is_not_paid(house: House) -> None:
    transaction = await withdrawal(house, 200_001)
    asked = (await let_it_be_paid(house, transaction)).answer
    await house.process.post(f"/v1/transactions/{transaction}/cancel", {})
    with pytest.raises(TransactionClosed):
        await approve(house, asked)


# By policy


def test_any_command_can_be_made_to_need_approval_by_a_rule() -> None:
    made = four_eyes.guarded(limits.ENDPOINTS, {limits.ENDPOINTS[0].path: Rule(1)})
    [wrapped, *_], own = made[: len(limits.ENDPOINTS)], made[len(limits.ENDPOINTS) :]
    assert wrapped.accepted is AwaitingApproval
    assert wrapped.handler.__doc__ == limits.ENDPOINTS[0].handler.__doc__
    assert [each.path.rpartition("/")[2] for each in own] == ["approve", "reject", "expire"]


@pytest.mark.parametrize("path", ["/v1/players", "/v1/players/{player_id}/profile"])
def test_what_players_are_found_by_cannot_wait(path: str) -> None:
    with pytest.raises(ValueError, match="found by"):
        four_eyes.guarded(players.ENDPOINTS, {path: Rule(1)})


async def test_what_is_sealed_anyway_can_wait_too(house: House) -> None:
    guarded = four_eyes.guarded(players.ENDPOINTS, {"/v1/players/{player_id}/notes": Rule(1)})
    note, approve = (find(guarded, verb) for verb in ("/notes", "/approve"))
    player = await house.player()
    asked = await asks(house, note, player, {"text": "Called twice."}, MARIA)
    assert isinstance(asked, AwaitingApproval)
    assert house.log.events("player")[1:] == []
    await asks(house, approve, asked.approval, {"hash": asked.hash}, BO)
    assert house.opened("player")[1:] == [Noted("Called twice.")]


def find(endpoints: Sequence[Endpoint], verb: str) -> Endpoint:
    return next(each for each in endpoints if each.path.endswith(verb))


async def asks(house: House, endpoint: Endpoint, id_: str, body: dict[str, str], actor: str) -> Any:
    """An endpoint of other rules than the catalogue's."""
    path, raw = re.sub(r"\{\w+\}", id_, endpoint.path), msgspec.json.encode(body)
    who = house.known[actor] = principal(actor, ["supervisor"], machine=True)
    context = Context(who, house.now, command_id(actor, raw.decode()), fingerprint="f")
    edge = Edge(context, house.vault, list(OWNED), "eu", path, raw.decode(), house.known.get)  # type: ignore[arg-type]
    plan = endpoint.handler(id_, read_body(msgspec.json.Decoder(endpoint.body), raw), edge)
    return (await house.process.decider.decide(plan)).answer


def test_a_rule_names_a_command() -> None:
    with pytest.raises(ValueError, match="no command"):
        four_eyes.guarded((), RULES)
    assert set(RULES) <= {each.path for each in ENDPOINTS if each.accepted is AwaitingApproval}
