"""Histories of a player, made by hand: a sound one fits, and each way in which one may not fit is found."""

from __future__ import annotations

from chaos import linear
from chaos.record import Try
from tests.chaos.handmade import PLAYER, World, eur, replaced


def judged(world: World) -> str:
    return "\n".join(linear.judge(world.ops, world.ledger()))


def paid(amount: int = 100) -> World:
    world = World()
    world.registers()
    world.deposits(amount, 1)
    return world


def test_a_sound_history_fits_also_across_a_hand_over() -> None:
    world = paid()
    world.hand_over("eu", "us", epoch=1)
    world.deposits(50, 2, log="us", epoch=2)
    world.withdraws(120, 3, log="us", epoch=2)
    world.refused("withdraw", 422, {"code": "insufficient_funds"}, body={"amount": eur(31)})
    world.blocks()  # by eu, which does not own the player any more: it does not count
    assert judged(world) == ""
    assert world.ledger().states[PLAYER][-1].cash == 30


def test_who_was_answered_before_another_asked_stands_before_them() -> None:
    world = paid()
    world.withdraws(10, 2)
    late = world.withdraws(20, 3)
    assert judged(world) == ""
    world.ops[-2] = replaced(
        world.ops[-2], asked_ns=late.tries[0].answered_ns + 1, answered_ns=late.tries[0].answered_ns + 2
    )
    assert "was answered before" in judged(world)


def test_who_asked_at_the_same_time_may_stand_in_any_order() -> None:
    world = paid()
    first = world.withdraws(10, 2)
    second = world.withdraws(20, 3)
    world.ops[-2] = replaced(first, asked_ns=second.tries[0].asked_ns, answered_ns=second.tries[0].answered_ns + 3)
    assert judged(world) == ""


def test_a_balance_that_was_answered_is_the_one_that_there_was() -> None:
    world = paid()
    made = world.withdraws(10, 2)
    answer = {**made.tries[0].answer, "balance": eur(91)}
    world.ops[-1] = replaced(made, answer=answer)
    assert "the answer says a balance of 91, it is 90" in judged(world)


def test_also_where_the_answer_is_not_confirmed_yet() -> None:
    world = paid()
    made = world.withdraws(10, 2)
    answer = {"state": "unconfirmed", "answer": {**made.tries[0].answer, "balance": eur(91)}}
    world.ops[-1] = replaced(made, answer=answer, status=202)
    assert "the answer says a balance of 91, it is 90" in judged(world)


def test_more_than_there_was_is_not_paid_out() -> None:
    world = paid()
    world.withdraws(101, 2)
    assert "101 was reserved of 100" in judged(world)
    assert any("overdrawn" in fault for fault in world.ledger().faults) is False  # nobody has folded it yet
    ledger = world.ledger()
    assert ledger.states
    assert any("overdrawn" in fault for fault in ledger.faults)


def test_a_refusal_is_right_in_one_of_the_states_that_may_have_been_seen() -> None:
    world = paid()
    world.refused("withdraw", 422, {"code": "insufficient_funds"}, body={"amount": eur(101)})
    assert judged(world) == ""
    world.refused("withdraw", 422, {"code": "insufficient_funds"}, body={"amount": eur(100)})
    assert "insufficient_funds was answered, which is right in none of 1 states" in judged(world)


def test_a_refusal_beside_what_would_have_made_it_wrong_is_right() -> None:
    world = paid()
    body = {"amount": eur(150)}
    world.asked(
        "withdraw", [Try("eu", world.at + 1, world.at + 100, 422, {"code": "insufficient_funds"}, "", "")], body=body
    )
    world.deposits(100, 2)  # asked and answered meanwhile
    assert judged(world) == ""


def test_a_stale_refusal_is_found() -> None:
    world = paid()
    world.deposits(100, 2)
    world.refused(
        "withdraw", 422, {"code": "insufficient_funds"}, body={"amount": eur(150)}
    )  # it would have been right before
    assert "insufficient_funds" in judged(world)


def test_a_blocked_player_pays_nothing_in_and_says_so() -> None:
    world = paid()
    world.blocks()
    world.refused("deposit", 409, {"code": "player_blocked"}, body={"amount": eur(1)})
    assert judged(world) == ""
    world.requests(100, 2)
    assert "the player is blocked" in judged(world)


def test_nobody_is_told_that_they_are_blocked_who_is_not() -> None:
    world = paid()
    world.refused("deposit", 409, {"code": "player_blocked"}, body={"amount": eur(1)})
    assert "player_blocked was answered" in judged(world)


def test_what_another_region_has_recorded_for_protection_may_be_the_reason() -> None:
    world = paid()
    world.refused("deposit", 409, {"code": "excluded"}, body={"amount": eur(1)}, region="us")
    assert "excluded was answered" in judged(world)
    world = paid()
    world.excludes(log="us")
    world.refused("deposit", 409, {"code": "excluded"}, body={"amount": eur(1)}, region="us")
    assert judged(world) == ""


def test_a_limit_is_kept_and_a_refusal_by_it_is_right() -> None:
    world = paid()
    event = (f"limits-{PLAYER}", "limits.limit_set", {"kind": "deposit", "period": "day", "money": eur(150)})
    world.did("limit", [event], {"limit": eur(150)}, body={"limit": eur(150)})
    exceeded = {"code": "limit_exceeded", "limit": eur(150), "used": eur(100), "frees_at": "2026-11-23T00:00:00Z"}
    world.refused("deposit", 422, exceeded, body={"amount": eur(51)})
    assert judged(world) == ""
    world.refused("deposit", 422, exceeded, body={"amount": eur(50)})
    assert "limit_exceeded was answered" in judged(world)
    world.ops.pop()
    world.requests(51, 2)
    assert "151 is used of a limit of 150" in judged(world)


def test_a_payment_is_settled_once() -> None:
    world = paid()
    world.settles(100, "transaction_01ka7g0000e00800000000011a")
    assert "is settled, and is settled" in judged(world)


def test_what_nobody_was_answered_may_have_happened() -> None:
    world = paid()
    made = world.withdraws(10, 2)
    world.ops[-1] = replaced(made, answered_ns=None, status=0, answer={}, position="")
    world.refused("withdraw", 422, {"code": "insufficient_funds"}, body={"amount": eur(95)})
    assert judged(world) == ""


def test_it_is_so_already_is_said_of_what_is_so() -> None:
    world = paid()
    world.blocks()
    world.refused("block", 200, {"status": "blocked"}, body={"reason": "fraud"})
    assert judged(world) == ""
    world.refused("unblock", 200, {}, body={"reason": "settled"})
    assert "it is so already" in judged(world)


def test_a_refusal_for_no_reason_that_is_known_is_found() -> None:
    world = paid()
    world.refused("deposit", 409, {"code": "conflict"}, body={"amount": eur(1)})
    assert "conflict was answered" in judged(world)
