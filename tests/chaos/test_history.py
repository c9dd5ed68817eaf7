"""The judge over histories made by hand: one that keeps every law, and each law broken once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from chaos import checker, history, linear, record
from chaos.place import Place, Region
from chaos.record import Line, Recorder, Try
from tests.chaos.handmade import PLAYER, World, again, eur, place, replaced, view


def paid() -> World:
    world = World()
    world.registers()
    world.deposits(100, 1)
    return world


def broken(world: World, **changes: Any) -> dict[str, list[str]]:
    """The laws that do not hold, where both regions show all of it."""
    shown = [view(world, "eu"), view(world, "us")]
    shown[0] = shown[0]._replace(**changes)
    return found(world, shown)


def found(world: World, shown: list[Any], verified: tuple[int, str] = (0, "")) -> dict[str, list[str]]:
    judged = checker.judge(world.ops, shown, verified, place())
    return {law: each for law, each in judged.broken.items() if each}


def test_a_sound_history_breaks_no_law() -> None:
    world = paid()
    judged = checker.judge(world.ops, [view(world, "eu"), view(world, "us")], (0, ""), place())
    assert judged.holds, judged.broken
    assert (judged.acknowledged, judged.lost, judged.duplicated) == (3, 0, 0)
    assert {law for law, each in judged.to_json()["laws"].items() if each["holds"]} == set(checker.LAWS)


def test_what_was_acknowledged_and_is_not_there_is_lost() -> None:
    world = paid()
    shown = [view(world, "eu"), view(world, "us")]
    asked, answered = world.step()
    world.asked("block", [Try("eu", asked, answered, 200, {"status": "blocked"}, "eu/9/0011223344556677", "")])
    laws = found(world, shown)
    assert set(laws) == {"acknowledged_once", "positions"}
    assert "was acknowledged at eu/9/0011223344556677 and is not there" in laws["acknowledged_once"][0]


def test_what_a_log_holds_beyond_its_time_as_owner_is_lost() -> None:
    world = paid()
    world.hand_over("eu", "us", epoch=1)
    world.blocks()
    assert "is not there" in broken(world)["acknowledged_once"][0]


def test_what_is_there_twice_is_found() -> None:
    world = paid()
    op = world.blocks()
    id_ = world.logs["eu"][-1].body["command"]["id"]
    world.append("eu", id_, [(f"player-{PLAYER}", "player.blocked", {"reason": "fraud"})], actor=op.caller)
    assert history.once(world.ops, world.ledger()).duplicated == [f"command {id_} is there 2 times: eu/7, eu/8"]


def test_what_protects_may_be_there_twice_in_two_logs() -> None:
    world = paid()
    op = world.excludes()
    id_ = world.logs["eu"][-1].body["command"]["id"]
    event = (f"region-us-protection_{PLAYER}", "safeguard.excluded", {"until": "2027-05-22T12:00:00Z"})
    world.append("us", id_, [event], actor=op.caller)
    assert history.once(world.ops, world.ledger()) == ([], [], [])


def test_what_nobody_has_asked_for_is_found() -> None:
    world = paid()
    world.append("eu", "a" * 32, [(f"player-{PLAYER}", "player.blocked", {"reason": "fraud"})])
    assert "nobody has asked for the player.blocked of operator:dev" in broken(world)["acknowledged_once"][0]


def test_half_a_command_is_found() -> None:
    world = paid()
    raw = {**world.logs["eu"][-1].body, "version": 2, "stream": f"wallet-{PLAYER}"}
    raw["command"] = {"id": "b" * 32, "i": 2, "n": 2}
    world.put("eu", orjson.dumps(raw))
    assert any("of the 2 events" in each for each in world.ledger().torn)


def test_two_that_write_the_same_version_of_a_stream_are_found() -> None:
    world = paid()
    world.blocks()
    raw = orjson.dumps({**world.logs["eu"][-1].body, "command": {"id": "c" * 32, "i": 1, "n": 1}})
    world.put("eu", raw)
    assert any(f"player-{PLAYER}: version 2" in each for each in broken(world)["acknowledged_once"])


def test_a_position_with_another_leaf_is_found() -> None:
    world = paid()
    world.ops[-1] = replaced(world.ops[-1], position="eu/6/0011223344556677")
    assert set(broken(world)) == {"positions"}


def test_two_players_in_one_log_stand_in_the_order_of_time() -> None:
    world = paid()
    first, last = world.ops[0], world.ops[2]
    world.ops[0] = replaced(first, asked_ns=last.tries[0].answered_ns + 1, answered_ns=last.tries[0].answered_ns + 2)
    assert "in_time" in broken(world)


def test_what_is_said_again_is_answered_as_the_first_time() -> None:
    world = paid()
    last = world.ops[-1]
    world.ops[-1] = again(last, world.at + 20)
    assert broken(world) == {}
    world.ops[-1] = again(last, world.at + 20, answer={**last.tries[0].answer, "status": "requested"})
    assert set(broken(world)) == {"first_answers"}
    world.ops[-1] = again(last, world.at + 20, position=world.ops[-2].tries[0].position)
    assert set(broken(world)) == {"first_answers", "positions"}


def test_what_is_recorded_is_not_refused_any_more() -> None:
    world = paid()
    world.ops[-2] = again(world.ops[-2], world.at + 20, status=409, answer={"code": "player_blocked"}, position="")
    assert "and then refused with player_blocked" in broken(world)["first_answers"][0]


def test_an_answer_that_was_not_confirmed_is_the_same_once_it_is() -> None:
    world = paid()
    first = world.ops[-1]
    late = {"state": "unconfirmed", "position": first.tries[0].position, "answer": first.tries[0].answer}
    world.ops[-1] = first._replace(
        tries=[first.tries[0]._replace(status=202, answer=late), *again(first, world.at + 20).tries[1:]]
    )
    assert broken(world) == {}


@pytest.mark.parametrize(
    "answer", [(422, {"code": "limit_raise"}), (503, {"code": "owner_unreachable", "region": "eu"})]
)
def test_what_was_refused_stands_in_no_log(answer: tuple[int, dict[str, str]]) -> None:
    world = paid()
    world.ops[-1] = replaced(world.ops[-1], status=answer[0], answer=answer[1], position="")
    assert "stands at eu/6" in history.nothing_after_refusal(world.ops, world.ledger())[0]


def test_a_refusal_that_stands_in_the_log_is_the_answer_for_ever() -> None:
    world = paid()
    refusal = {"code": "limit_exceeded", "limit": eur(150), "used": eur(100), "frees_at": "2026-11-23T00:00:00Z"}
    limit = (f"limits-{PLAYER}", "limits.limit_set", {"kind": "deposit", "period": "day", "money": eur(150)})
    world.did("limit", [limit], {"limit": eur(150)}, body={"limit": eur(150)})
    event = (f"limits-{PLAYER}", "limits.deposit_refused", {"money": eur(60), "code": "limit_exceeded"})
    made = world.did("deposit", [event], refusal, body={"amount": eur(60)}, status=422)
    world.deposits(20, 2)
    world.ops[-3] = again(made, world.at + 10)  # 120 is used by now, and 100 is said
    assert linear.judge(world.ops, world.ledger()) == []
    assert history.first_refusals(world.ops, world.ledger()) == []
    for position in (made.tries[0].position, ""):
        world.ops[-3] = again(made, world.at + 10, answer={**refusal, "used": eur(120)}, position=position)
        assert "for ever, and then answered 422" in history.first_refusals(world.ops, world.ledger())[0]
        assert "first_answers" in broken(world)


def test_what_was_refused_before_it_was_decided_on_may_be_refused_for_another_reason_then() -> None:
    world = paid()
    refusal = {"code": "limit_exceeded", "limit": eur(150), "used": eur(100)}
    event = (f"limits-{PLAYER}", "limits.deposit_refused", {"money": eur(60), "code": "limit_exceeded"})
    made = world.did("deposit", [event], refusal, body={"amount": eur(60)}, status=422)
    earlier = replaced(made, status=409, answer={"code": "player_blocked"}, position="").tries[0]
    shifted = made.tries[0]._replace(asked_ns=world.at + 20, answered_ns=world.at + 25)
    world.ops[-1] = made._replace(tries=[earlier, shifted])
    assert history.first_refusals(world.ops, world.ledger()) == []


def test_what_may_have_been_heard_may_stand_in_a_log() -> None:
    world = paid()
    world.ops[-1] = replaced(world.ops[-1], status=503, answer={"code": "unavailable"}, position="")
    assert history.nothing_after_refusal(world.ops, world.ledger()) == []


def test_a_region_that_has_excluded_a_player_takes_no_deposit() -> None:
    world = paid()
    world.excludes(log="us")
    world.requests(100, 2)  # in eu, which does not know yet
    assert "protection_binds" not in broken(world)
    world.ops[-1] = replaced(world.ops[-1], region="us")
    assert "was taken after us had excluded them" in broken(world)["protection_binds"][0]


def test_a_read_includes_what_it_was_told_to_include() -> None:
    world = paid()
    settled = world.ops[-1].tries[0].position
    world.card(cash=100, at={"eu": 6, "us": 1}, at_least=settled)
    assert broken(world) == {}
    world.card(cash=0, at={"eu": 4, "us": 1}, at_least=settled, deposits=0, deposited=0)
    assert set(broken(world)) == {"read_your_writes"}


def test_a_card_that_is_said_not_to_exist_is_found() -> None:
    world = paid()
    world.read("card", "/v1/players/x", {"code": "not_found"}, at_least=world.ops[0].tries[0].position, status=404)
    assert set(broken(world)) == {"read_your_writes"}


def test_a_card_of_somebody_whose_registration_was_not_to_be_included_may_not_exist_yet() -> None:
    world = paid()
    world.read("card", "/v1/players/x", {"code": "not_found"}, at_least="us/1/0000000000000000", status=404)
    assert broken(world) == {}


def test_a_card_shows_what_the_log_holds_up_to_its_positions() -> None:
    world = paid()
    world.card(cash=0, at={"eu": 6, "us": 1})
    assert set(broken(world)) == {"reads_exact"}


def test_a_card_beyond_a_hand_over_that_lacks_what_came_before_is_found() -> None:
    world = paid()
    world.hand_over("eu", "us", epoch=1)
    world.deposits(50, 2, log="us", epoch=2)
    world.card(cash=150, at={"eu": 4, "us": len(world.logs["us"])})
    shown = history.reads(world.ops, world.ledger())[1]
    assert "where what came later is there and what came before is not" in shown[0]


def test_a_fate_is_the_one_that_was_answered() -> None:
    world = paid()
    op = world.ops[-1]
    path = f"/v1/commands/{world.logs['eu'][-1].body['command']['id']}"
    world.read("fate", path, {"state": "recorded", "position": op.tries[0].position})
    assert broken(world) == {}
    world.read("fate", path, {"state": "recorded", "position": "eu/5/0011223344556677"})
    assert set(broken(world)) == {"read_your_writes"}


def test_a_balance_that_is_not_what_postings_come_to_is_found() -> None:
    world = paid()
    world.cash += 1
    world.withdraws(10, 2)
    assert "the wallet's postings come to cash 90, its event says 91" in broken(world)["books_zero"][0]


def test_a_trial_balance_that_is_not_zero_is_found() -> None:
    world = paid()
    trial = {**view(world).trial, "sums": {"EUR": 1}, "balanced": False}
    assert len(broken(world, trial=trial)["books_zero"]) == 2


@pytest.mark.parametrize("change", ["recorded", "body", "more", "unchained"])
def test_a_copy_that_differs_is_found(change: str) -> None:
    world = paid()
    shown = [view(world, "eu"), view(world, "us")]
    held = shown[1].logs["eu"]
    if change == "recorded":
        held[2] = held[2]._replace(recorded=held[2].recorded + 1)
    elif change == "body":
        held[2] = held[2]._replace(raw=held[2].raw + b" ")
    elif change == "more":
        world.blocks()
        held.append(world.logs["eu"][-1])
        world.ops.pop()
    else:
        for each in shown:
            each.logs["eu"][2] = each.logs["eu"][2]._replace(raw=each.logs["eu"][2].raw + b" ")
    assert "copies_equal" in found(world, shown)


def test_what_verify_says_counts() -> None:
    world = paid()
    assert set(found(world, [view(world, "eu"), view(world, "us")], (1, "eu/3"))) == {"intact"}


@pytest.mark.parametrize(
    ("model", "table", "place", "value"),
    [
        ("players", "balance", 3, 99), ("players", "player", 1, "blocked"), ("transactions", "transaction", 4, "requested"),
        ("transactions", "payments", 3, 2), ("wallets", "account", 2, 99), ("funds", "funds", 3, 99),
        ("dashboard", "counts", 1, 2), ("dashboard", "amounts", 1, 99), ("dashboard", "totals", 1, 2),
        ("segments", "deposited:EUR", 1, 99),
    ],
)  # fmt: skip
def test_a_read_model_that_is_not_what_the_log_comes_to_is_found(
    model: str, table: str, place: int, value: object
) -> None:
    world = paid()
    shown = view(world)
    shown.models[model].tables[table][1][0][place] = value
    assert set(broken(world, models=shown.models)) == {"read_models"}


def test_a_read_model_that_lacks_somebody_or_has_one_more_is_found() -> None:
    world = paid()
    shown = view(world)
    shown.models["segments"].tables["deposited:EUR"][1].append(["other", 1])
    shown.models["players"].tables["player"][1].clear()
    laws = broken(world, models=shown.models)
    assert len(laws["read_models"]) == 2


def test_a_read_model_that_has_stopped_is_found() -> None:
    assert broken(paid(), stops=("wallets has stopped: …",)) == {"read_models": ["eu: wallets has stopped: …"]}


# The record


def test_a_line_that_was_torn_by_a_death_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    with Recorder(file) as recorder:
        recorder.write(
            Line(op="a", client="c0", at_ns=1, phase="asked", key="k"),
            Line(op="b", client="c0", at_ns=2, phase="asked"),
        )
    file.write_bytes(file.read_bytes()[:-5])
    assert [line.op for line in record.lines(file)] == ["a"]
    file.write_bytes(b"{torn\n" + file.read_bytes())
    with pytest.raises(record.Torn):
        list(record.lines(file))


def test_tries_belong_to_what_was_asked() -> None:
    lines = [
        Line(op="a", client="c0", at_ns=1, phase="asked", kind="block", key="k", region="eu"),
        Line(op="a", client="c0", at_ns=2, phase="failed", reason="ReadTimeout", region="eu"),
        Line(op="a", client="c0", at_ns=3, phase="asked", attempt=2, region="us"),
        Line(op="a", client="c0", at_ns=4, phase="answered", attempt=2, status=200, position="eu/1/00", region="us"),
    ]
    [op] = record.ops(lines)
    assert [(each.region, each.asked_ns, each.answered_ns, each.status) for each in op.tries] == [
        ("eu", 1, None, 0),
        ("us", 3, 4, 200),
    ]
    with pytest.raises(record.Torn):
        record.ops(lines[1:])


def test_a_record_of_twenty_thousand_lines_is_judged_in_a_minute(tmp_path: Path) -> None:
    """The bound is generous on purpose: it tells a quadratic judge from a linear one, not a fast machine from a slow one."""
    world = World()
    world.registers()
    for number in range(1, 10_000):
        world.requests(1, number) if number % 2 else world.refused(
            "withdraw", 422, {"code": "insufficient_funds"}, body={"amount": eur(1)}
        )
    began = time.process_time()
    ledger = world.ledger()
    assert history.once(world.ops, ledger) == ([], [], [])
    assert linear.judge(world.ops, ledger) == []
    assert time.process_time() - began < 60


def test_every_word_of_a_line_is_read_back(tmp_path: Path) -> None:
    line = Line(
        op="a", client="c", at_ns=1, phase="answered", attempt=2, region="eu", kind="card", player="p", caller="operator:dev", key="k",
        path="/", body={"a": 1}, batch="b", at_least="eu/1", status=200, answer={"x": 1}, position="eu/1/00", replayed=True, reason="r",
    )  # fmt: skip
    with Recorder(tmp_path / "h") as recorder:
        recorder.write(line)
    assert list(record.lines(tmp_path / "h")) == [line]
    assert msgspec.json.decode((tmp_path / "h").read_bytes())["replayed"] is True


def test_who_cannot_look_does_not_say_that_something_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = "postgresql://nobody@127.0.0.1:9/none?connect_timeout=2"
    regions = {name: Region(f"http://127.0.0.1:9/{name}", nobody, name) for name in ("eu", "us")}
    (tmp_path / "site.json").write_bytes(msgspec.json.encode(Place(regions, {}, "example")))
    (tmp_path / "history").touch()
    arguments = ["chaos.checker", "--site", str(tmp_path / "site.json"), "--history", str(tmp_path / "history")]
    monkeypatch.setattr("sys.argv", arguments)
    assert checker.main() == 2
    assert "OperationalError" in json.loads(capsys.readouterr().out)["error"]
