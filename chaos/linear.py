"""
Linearizability, player by player: what callers were answered fits one order of all that happened to the player, and that order fits
the time at which they asked and were answered.

The order is not searched for. The product claims one, by epoch and position, and answers name their positions; so it is enough to
hold that one against the record, which is exact and takes one pass, where a search takes for ever after a few unknown outcomes:

    - who was answered before another asked stands before them;
    - each answer is what the state before it and the request come to (balances are booked by the judge, from postings);
    - a refusal, and «it is so already», is right in one of the states between what was answered before it was asked and what was
      asked after it was answered;
    - what nobody was answered may stand anywhere after it was asked, or nowhere.

What another region has recorded for a player's protection binds there before the owner has taken it up; so it may be the reason of a
refusal from the moment on in which it was asked for.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import NamedTuple

from chaos.fold import Command, Ledger, Payments, State, command_id, day_counted
from chaos.record import Answered, Op, Try

PROTECTIVE = frozenset({"exclude", "block", "limit"})
"""What another region than the owner may record."""
_NOBODY = [State()]
_PROBLEM = 400
_DONE = 300


def inner(answer: Answered) -> Answered:
    """The answer itself, also of one that is not confirmed yet."""
    return dict(answer.get("answer", {})) if answer.get("state") == "unconfirmed" else answer


def recorded(each: Try) -> bool:
    """It was answered that this is recorded."""
    return each.answered_ns is not None and 200 <= each.status < _DONE and bool(each.position)


def refused(each: Try) -> bool:
    """A refusal that says something of the player: neither «later» nor «not here»."""
    return each.answered_ns is not None and _PROBLEM <= each.status < 500 and each.status not in {408, 421, 425, 429}


def unchanged(each: Try) -> bool:
    """It was answered that it is so already."""
    done = each.answered_ns is not None and 200 <= each.status < _DONE
    return done and not each.position and each.answer.get("state") != "unknown"


class Placed(NamedTuple):
    """A command of the record where it stands in its player's history. `answered_ns` None: nobody was."""

    op: Op
    place: int
    asked_ns: int
    answered_ns: int | None


def placed(ops: Iterable[Op], ledger: Ledger) -> dict[str, list[Placed]]:
    """By player, in the order of their history."""
    found: dict[str, list[Placed]] = {}
    names = {command_id(op.caller, op.key): op for op in ops if op.key}
    for player, history in ledger.histories.items():
        for place, command in enumerate(history):
            op = names.get(command.id)
            if op is not None and not command.refusal:
                answers = [each.answered_ns for each in op.tries if recorded(each) and each.answered_ns is not None]
                one = Placed(op, place, op.tries[0].asked_ns, min(answers, default=None))
                found.setdefault(player, []).append(one)
    return found


def judge(ops: Sequence[Op], ledger: Ledger) -> list[str]:
    """What does not fit, as text."""
    broken = []
    where = placed(ops, ledger)
    for player, found in where.items():
        broken += backwards(((one.op.op, one.asked_ns, one.answered_ns) for one in found), f"player {player}")
        history, states = ledger.histories[player], ledger.states[player]
        for one in found:
            before, after = states[one.place], states[one.place + 1]
            wrong = _unfit(one.op, history[one.place], before, after)
            broken += [f"{one.op.op} {one.op.kind} at {history[one.place].at()}: {why}" for why in wrong]
    asked_ns = {command_id(op.caller, op.key): op.tries[0].asked_ns for op in ops if op.key}
    windows: dict[str, Windows] = {}
    for op in ops:
        if not op.key or not op.player:
            continue
        for each in op.tries:
            if refused(each) or unchanged(each):
                if op.player not in windows:
                    states = ledger.states.get(op.player, _NOBODY)
                    windows[op.player] = Windows(where.get(op.player, []), len(states))
                why = _unfounded(op, each, ledger, windows[op.player], asked_ns)
                if why:
                    broken.append(f"{op.op} {op.kind}: {why}")
    return broken


def backwards(order: Iterable[tuple[str, int, int | None]], what: str) -> list[str]:
    """(name, asked, answered) in the order that is claimed: nobody was answered before somebody who stands earlier had asked."""
    broken = []
    latest, by = 0, ""
    for name, asked_ns, answered_ns in order:
        if answered_ns is not None and answered_ns < latest:
            broken.append(f"{what}: {name} was answered before {by} was asked, and stands behind it")
        if asked_ns > latest:
            latest, by = asked_ns, name
    return broken


class Windows:
    """Of a player: which states somebody may have seen who asked and was answered at some time."""

    def __init__(self, found: Sequence[Placed], states: int) -> None:
        self._states = states
        self._answered = sorted((one.answered_ns, one.place + 1) for one in found if one.answered_ns is not None)
        self._asked = sorted((one.asked_ns, one.place) for one in found)
        self._first = list(accumulate((place for _, place in self._answered), max, initial=0))
        last = accumulate((place for _, place in reversed(self._asked)), min, initial=states - 1)
        self._last = list(last)[::-1]

    def of(self, asked_ns: int, answered_ns: int) -> range:
        """From behind all that was answered before it was asked, to before all that was asked after it was answered."""
        first = self._first[bisect_left(self._answered, (asked_ns,))]
        last = self._last[bisect_right(self._asked, (answered_ns, self._states))]
        return range(first, last + 1)


# What an answer must be


def _unfit(op: Op, command: Command, before: State, after: State) -> list[str]:
    wrong = _UNFIT[op.kind](op, command, before, after) if op.kind in _UNFIT else []
    for each in op.tries:
        if recorded(each):
            answer = inner(each.answer)
            balance = answer.get("balance")
            if balance is not None and balance["amount"] != after.cash:
                wrong.append(f"the answer says a balance of {balance['amount']}, it is {after.cash}")
            wrong += _told(op, answer, command, after)
    return wrong


def _told(op: Op, answer: Answered, command: Command, after: State) -> list[str]:
    """Where the answer says something else than the log, beside the balance."""
    wrong = []
    if op.kind in {"deposit", "withdraw"}:
        id_ = str(answer.get("transaction"))
        if not after.payments.get(id_)[0] or id_.partition("_")[2] not in str(command.entries[0].body["stream"]):
            wrong.append(f"the answer names {id_}, which this command did not make")
        if answer.get("amount", {}).get("amount") != op.body["amount"]["amount"]:
            wrong.append(f"the answer says an amount of {answer.get('amount')}")
    if op.kind == "register" and answer.get("player") != f"player_{command.player}":
        wrong.append(f"the answer names {answer.get('player')}, the log player_{command.player}")
    if (
        op.kind == "exclude"
        and (made := command.first("protection.excluded"))
        and answer.get("until") != made.get("until")
    ):
        wrong.append(f"the answer says until {answer.get('until')}, the log {made.get('until')}")
    return wrong


def _registered(_: Op, __: Command, before: State, ___: State) -> list[str]:
    return ["the player was registered before"] if before.registered else []


def _deposited(op: Op, command: Command, before: State, after: State) -> list[str]:
    wrong = _shut(before, deposits=True)
    made = command.first("transaction.deposit_requested")
    if made is None or made["money"] != op.body["amount"]:
        wrong.append(f"asked for {op.body['amount']}, recorded {made}")
    days = [day_counted(each) for each in command.entries if each.body["type"] == "limits.headroom_consumed"]
    if before.limit is not None and any(after.used[day] > before.limit for day in days):
        wrong.append(f"with it {max(after.used[day] for day in days)} is used of a limit of {before.limit}")
    return wrong


def _settled(op: Op, command: Command, before: State, after: State) -> list[str]:
    id_ = op.path.split("/")[3]
    standing, amount = before.payments.get(id_)
    if standing != "requested":
        return [f"{id_} is {standing or 'unknown'}, and is settled"]
    if command.first("wallet.credited") is None or after.cash != before.cash + amount:
        return [f"{amount} was asked for, cash went from {before.cash} to {after.cash}"]
    return []


def _withdrawn(op: Op, _: Command, before: State, after: State) -> list[str]:
    amount = op.body["amount"]["amount"]
    wrong = _shut(before, deposits=False)
    if amount > before.cash:
        wrong.append(f"{amount} was reserved of {before.cash}")
    if (after.cash, after.reserved) != (before.cash - amount, before.reserved + amount):
        wrong.append(f"{amount} was asked for, cash went from {before.cash} to {after.cash}")
    return wrong


def _cancelled(op: Op, _: Command, before: State, after: State) -> list[str]:
    id_ = op.path.split("/")[3]
    standing, amount = before.payments.get(id_)
    if standing not in _CANCELLABLE:
        return [f"{id_} is {standing or 'unknown'}, and is cancelled"]
    if (after.cash, after.reserved) != (before.cash + amount, before.reserved - amount):
        return [f"{amount} was reserved, cash went from {before.cash} to {after.cash}"]
    return []


def _limited(op: Op, _: Command, before: State, after: State) -> list[str]:
    amount = op.body["limit"]["amount"]
    if before.limit is not None and amount > before.limit:
        return [f"a limit of {before.limit} was raised to {amount}"]
    return [] if after.limit == amount else [f"asked for a limit of {amount}, it is {after.limit}"]


def _shut(before: State, *, deposits: bool) -> list[str]:
    wrong = []
    if not before.registered:
        wrong.append("there is no such player")
    if before.blocked:
        wrong.append("the player is blocked")
    if deposits and before.excluded:
        wrong.append("the player is excluded")
    return wrong


_CANCELLABLE = frozenset({"requested", "approved"})
_UNFIT: Mapping[str, Callable[[Op, Command, State, State], list[str]]] = {
    "register": _registered,
    "deposit": _deposited,
    "settle": _settled,
    "withdraw": _withdrawn,
    "cancel": _cancelled,
    "limit": _limited,
}


# What a refusal must be


class Guards(NamedTuple):
    """What any region may know of a player's protection at a moment, beside what the owner has recorded."""

    excluded: bool = False
    blocked: bool = False
    limits: frozenset[int] = frozenset()


def _guards(ledger: Ledger, player: str, asked_ns: Mapping[str, int], until_ns: int) -> Guards:
    events = [
        each.body
        for command in ledger.safeguards.get(player, ())
        if asked_ns.get(command.id, 0) < until_ns
        for each in command.entries
    ]
    types = {body["type"] for body in events}
    limits = frozenset(int(body["data"]["money"]["amount"]) for body in events if body["type"] == "safeguard.limit_set")
    return Guards("safeguard.excluded" in types, "safeguard.blocked" in types, limits)


def _unfounded(op: Op, each: Try, ledger: Ledger, windows: Windows, asked_ns: Mapping[str, int]) -> str:
    """Why this refusal, or «it is so already», is right in no state that may have been seen; "" if it is in one."""
    if each.answered_ns is None:
        return ""
    states = ledger.states.get(op.player, _NOBODY)
    # A refusal that stands in the log is the first answer for ever: it was decided at any time since the command was asked first.
    stands = any(command.refusal for command in ledger.by_id.get(command_id(op.caller, op.key), ()))
    began_ns = op.tries[0].asked_ns if stands else each.asked_ns
    seen = [states[place] for place in windows.of(began_ns, each.answered_ns)]
    guards = _guards(ledger, op.player, asked_ns, each.answered_ns)
    if unchanged(each):
        so = _SO.get(op.kind)
        right = so is not None and any(so(op, state, guards) for state in seen)
        return "" if right else f"it is so already, was answered, and was so in none of {len(seen)} states"
    right = any(_may_refuse(op, each.answer, state, guards) for state in seen)
    said = each.answer.get("code")
    return "" if right else f"{said} was answered, which is right in none of {len(seen)} states, such as {_short(seen)}"


def _short(seen: Sequence[State]) -> str:
    return repr(seen[-1]._replace(payments=Payments())) if seen else "none"


def _standing(op: Op, state: State) -> str:
    """How the payment stands that the path names."""
    return state.payments.get(op.path.split("/")[3])[0]


def _limits(state: State, guards: Guards) -> set[int]:
    return {*guards.limits, *([state.limit] if state.limit is not None else [])}


_SO: Mapping[str, Callable[[Op, State, Guards], bool]] = {
    "block": lambda _, state, guards: state.blocked or guards.blocked,
    "unblock": lambda _, state, __: not state.blocked,
    "exclude": lambda _, state, guards: state.excluded or guards.excluded,
    "limit": lambda op, state, guards: op.body["limit"]["amount"] in _limits(state, guards),
    "settle": lambda op, state, _: _standing(op, state) == "settled",
    "cancel": lambda op, state, _: _standing(op, state) == "cancelled",
}
"""By what was asked: when it is so already."""

_PAID: Mapping[tuple[str, str], Callable[[Op, State, Guards, Answered], bool]] = {
    ("deposit", "player_blocked"): lambda _, state, guards, __: state.blocked or guards.blocked,
    ("withdraw", "player_blocked"): lambda _, state, guards, __: state.blocked or guards.blocked,
    ("deposit", "excluded"): lambda _, state, guards, __: state.excluded or guards.excluded,
    ("deposit", "limit_exceeded"): lambda op, state, guards, answer: _exceeds(op, answer, state, guards),
    ("withdraw", "insufficient_funds"): lambda op, state, _, __: op.body["amount"]["amount"] > state.cash,
    ("limit", "limit_raise"): lambda op, state, guards, _: (
        min(_limits(state, guards), default=_NONE) < op.body["limit"]["amount"]
    ),
    ("cancel", "transaction_closed"): lambda op, state, _, __: _standing(op, state) not in _CANCELLABLE,
}
"""By what was asked, and the code of the refusal: when it is right."""
_NONE = 1 << 62


def _may_refuse(op: Op, answer: Answered, state: State, guards: Guards) -> bool:
    code = str(answer.get("code"))
    if code == "not_found":
        return not state.registered
    right = _PAID.get((op.kind, code))
    return right is not None and right(op, state, guards, answer)


def _exceeds(op: Op, answer: Answered, state: State, guards: Guards) -> bool:
    amount, limit, used = op.body["amount"]["amount"], answer["limit"]["amount"], answer["used"]["amount"]
    day = (datetime.fromisoformat(str(answer["frees_at"])) - timedelta(days=1)).date().isoformat()
    return limit in _limits(state, guards) and used == state.used.get(day, 0) and used + amount > limit
