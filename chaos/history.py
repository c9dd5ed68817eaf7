"""
The laws that a record and a region's logs must keep together, each by itself and pure. What they find broken they say as text.

Whether one order explains all answers is judged in chaos/linear.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from chaos.fold import Ledger, command_id
from chaos.linear import PROTECTIVE, backwards, inner, recorded, refused
from chaos.place import caller
from chaos.record import Op, Try

_SAID = frozenset({"player", "transaction", "status", "amount", "balance", "limit", "period", "until"})
_CALLERS = frozenset(caller(role) for role in ("operator", "supervisor", "payments"))
"""Whom the load speaks as."""


class Place(NamedTuple):
    log: str
    position: int
    leaf: str


def place(said: str) -> Place:
    """Of one position, as `Ledger-Position` says it."""
    log, position, leaf = said.split("/")
    return Place(log, int(position), leaf)


def vector(said: str) -> list[Place]:
    return [place(each) for each in said.split(",")] if said else []


def acknowledged(ops: Iterable[Op]) -> Iterator[tuple[Op, Try]]:
    """The commands of which somebody was told that they are recorded, with the first such answer."""
    for op in ops:
        first = next((each for each in op.tries if op.key and recorded(each)), None)
        if first is not None:
            yield op, first


# What was acknowledged is there, once


class Counted(NamedTuple):
    """`lost`: acknowledged commands that are not there, or not to this region's view. `duplicated`: commands that are there twice."""

    lost: list[str]
    duplicated: list[str]
    strangers: list[str]


def once(ops: Sequence[Op], ledger: Ledger) -> Counted:
    lost = [
        f"{op.op} {op.kind} was acknowledged at {first.position} and is not there"
        for op, first in acknowledged(ops)
        if command_id(op.caller, op.key) not in ledger.by_id
    ]
    kinds = {command_id(op.caller, op.key): op for op in ops if op.key}
    duplicated = []
    for id_, found in ledger.by_id.items():
        places = [each.at() for each in found]
        owned = [each for each in found if each.epoch]
        guards = {each.log for each in found if each.safeguard}
        region = {each.log for each in found if not each.epoch and not each.safeguard}
        if len(owned) + len(guards) + len(region) != len(found) or len(owned) > 1:
            duplicated.append(f"command {id_} is there {len(found)} times: {', '.join(places)}")
        elif owned and guards and (id_ in kinds and kinds[id_].kind not in PROTECTIVE):
            duplicated.append(f"command {id_} protects nobody, and is there {len(found)} times: {', '.join(places)}")
    players = {op.player for op in ops if op.player} | {
        str(first.answer.get("player")).partition("_")[2] for op, first in acknowledged(ops)
    }
    strangers = [
        f"{each.at()}: nobody has asked for the {each.types[0]} of {each.actor}"
        for found in ledger.by_id.values()
        for each in found
        if each.player in players and each.actor in _CALLERS and each.id not in kinds and not each.refusal
    ]
    return Counted(lost, duplicated, strangers)


def positions(ops: Sequence[Op], ledger: Ledger) -> list[str]:
    """Each position that was told is the end of that command, and has the leaf that was told."""
    broken = []
    for op in ops:
        found = (
            {(each.log, each.last.position) for each in ledger.by_id.get(command_id(op.caller, op.key), ())}
            if op.key
            else set()
        )
        for each in op.tries:
            if not op.key or not recorded(each):
                continue
            said = place(each.position)
            entry = ledger.entry(said.log, said.position)
            if entry is None or not entry.leaf.hex().startswith(said.leaf):
                broken.append(
                    f"{op.op} {op.kind} was told {each.position}; there is {entry.leaf.hex()[:16] if entry else 'nothing'}"
                )
            elif (said.log, said.position) not in found:
                broken.append(f"{op.op} {op.kind} was told {each.position}, which is not the end of its command")
    return broken


def in_time(ops: Sequence[Op], ledger: Ledger) -> list[str]:
    """In each log: who was answered before another asked stands before them."""
    names = {command_id(op.caller, op.key): op for op in ops if op.key}
    order: dict[str, list[tuple[int, str, int, int | None]]] = defaultdict(list)
    for command in ledger.commands:
        op = names.get(command.id)
        if op is None or command.refusal:
            continue
        answers = [each.answered_ns for each in op.tries if recorded(each) and place(each.position).log == command.log]
        first = min((each for each in answers if each is not None), default=None)
        order[command.log].append((command.last.position, op.op, op.tries[0].asked_ns, first))
    return [
        broken
        for log, found in order.items()
        for broken in backwards((each[1:] for each in sorted(found)), f"log {log}")
    ]


# What is said again


def first_answers(ops: Sequence[Op]) -> list[str]:
    """A command that was said again after its answer has that answer, and one that is recorded is not refused any more."""
    broken = []
    for op in ops:
        told = [each for each in op.tries if op.key and recorded(each)]
        by_log: dict[str, Try] = {}
        for each in told:
            first = by_log.setdefault(place(each.position).log if op.kind in PROTECTIVE else "", each)
            if (first.position, _said(first)) != (each.position, _said(each)):
                broken.append(
                    f"{op.op} {op.kind} was answered {_said(first)} at {first.position}, and then {_said(each)} at {each.position}"
                )
        known = min((each.answered_ns for each in told if each.answered_ns is not None), default=None)
        broken += [
            f"{op.op} {op.kind} was recorded, and then refused with {each.answer.get('code')}"
            for each in op.tries
            if known is not None and refused(each) and each.asked_ns > known
        ]
    return broken


def first_refusals(ops: Sequence[Op], ledger: Ledger) -> list[str]:
    """A refusal that stands in the log is the answer for ever. (What was refused before may have been for another reason, and stands
    nowhere: who is told of what stands is told its position.)
    """
    broken = []
    for op in ops:
        found = ledger.by_id.get(command_id(op.caller, op.key), ()) if op.key else ()
        told = [each for each in op.tries if refused(each) or recorded(each)]
        stood = [each for each in told if each.position and each.answered_ns is not None]
        if stood and any(command.refusal for command in found):
            first = min(stood, key=lambda each: each.answered_ns or 0)
            broken += [
                f"{op.op} {op.kind} was refused with {_refusal(first)} for ever, and then answered {each.status} {_refusal(each)}"
                for each in told
                if (each.position or each.asked_ns > (first.answered_ns or 0)) and _refusal(each) != _refusal(first)
            ]
    return broken


def _refusal(each: Try) -> tuple[Any, ...]:
    return tuple(each.answer.get(name) for name in ("code", "limit", "used", "until"))


def _said(each: Try) -> dict[str, Any]:
    return {name: value for name, value in inner(each.answer).items() if name in _SAID}


def nothing_after_refusal(ops: Sequence[Op], ledger: Ledger) -> list[str]:
    """What was refused each time it was asked, or could not be brought to its owner, stands in no log (but as a refusal)."""
    broken = []
    for op in ops:
        if op.key and op.tries and all(_nothing(each) for each in op.tries):
            found = [each for each in ledger.by_id.get(command_id(op.caller, op.key), ()) if not each.refusal]
            codes = {str(each.answer.get("code")) for each in op.tries}
            broken += [f"{op.op} {op.kind} was {'/'.join(sorted(codes))}, and stands at {each.at()}" for each in found]
    return broken


def _nothing(each: Try) -> bool:
    return refused(each) or (
        each.answered_ns is not None and each.answer.get("code") in {"owner_unreachable", "too_many_requests"}
    )


def protection_binds(ops: Sequence[Op]) -> list[str]:
    """A region that has answered an exclusion takes no deposit that is asked of it from then on."""
    since: dict[tuple[str, str], int] = {}
    for op in ops:
        if op.kind == "exclude":
            for each in op.tries:
                if recorded(each) and each.answered_ns is not None:
                    key = op.player, each.region
                    since[key] = min(since.get(key, each.answered_ns), each.answered_ns)
    broken = []
    for op in ops:
        if op.kind == "deposit" and any(recorded(each) for each in op.tries):
            late = [since.get((op.player, each.region)) for each in op.tries]
            if all(at is not None and each.asked_ns > at for at, each in zip(late, op.tries, strict=True)):
                broken.append(
                    f"{op.op}: a deposit of player {op.player} was taken after {op.tries[0].region} had excluded them"
                )
    return broken


# What is read


def reads(ops: Sequence[Op], ledger: Ledger) -> tuple[list[str], list[str]]:
    """(reads that lack what they were told to include, cards that are not what the log holds up to their own positions)."""
    unread, unlike = [], []
    fates = {f"/v1/commands/{command_id(op.caller, op.key)}": first for op, first in acknowledged(ops)}
    for op in ops:
        for each in op.tries:
            if op.key or each.answered_ns is None:
                continue
            if op.at_least and each.status in {404, 409}:
                # Who reads of a player whom somebody else has registered may not have been told to include that.
                if each.status == 404 and op.kind == "card" and _includes(op, ledger) == 0:
                    continue
                unread.append(f"{op.op}: {op.path} with {op.at_least} is {each.status} {each.answer.get('code')}")
            elif each.status != 200:
                continue
            elif op.kind == "fate":
                unread += _fate(op, each, fates.get(op.path))
            elif op.kind == "card":
                unread += _unread(op, each)
                unlike += _unlike(op, each, ledger)
    return unread, unlike


def _includes(op: Op, ledger: Ledger) -> int | None:
    """How much of the player's history a read was told to include."""
    return ledger.visible(op.player, {said.log: said.position for said in vector(op.at_least)})


def _fate(op: Op, each: Try, first: Try | None) -> list[str]:
    if first is None or (each.answer.get("state"), each.answer.get("position")) == ("recorded", first.position):
        return []
    return [f"{op.op}: {op.path} was acknowledged at {first.position}; its fate is told as {each.answer}"]


def _unread(op: Op, each: Try) -> list[str]:
    made = {said.log: said.position for said in vector(each.position)}
    return [
        f"{op.op}: {op.path} was to include {said.log}/{said.position}, and was made at {each.position}"
        for said in vector(op.at_least)
        if made.get(said.log, 0) < said.position
    ]


def _unlike(op: Op, each: Try, ledger: Ledger) -> list[str]:
    card = each.answer["card"]
    seen = ledger.visible(op.player, card["positions"])
    if seen is None:
        return [
            f"{op.op}: {op.path} was made at {card['positions']}, where what came later is there and what came before is not"
        ]
    state = ledger.states[op.player][seen] if op.player in ledger.states else None
    held = {
        name: getattr(state, name, 0) for name in ("cash", "reserved", "bonus", "receivable", "deposits", "deposited")
    }
    shown = card["balances"][0] if card["balances"] else dict.fromkeys(held, 0)
    if shown == held:
        return []
    return [f"{op.op}: {op.path} at {card['positions']} shows {shown}; the log comes to {held}"]
