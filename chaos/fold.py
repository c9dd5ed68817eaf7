"""
The logs as the judge reads them: which entries count, whose commands they are, in which order, and what they leave to each player.

A few lines of our own from the record format (docs/reference/record-format.md) and the events (docs/reference/events.md). They
share nothing with the product, so that a mistake of it is not made here a second time.

Invariants:
    - an entry counts within a term of its log as the owner of (partition, epoch), or on its log's own region streams;
    - what happened to a player is in one order: by epoch of their partition, and within an epoch by position.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_OWN_STREAMS = ("player", "wallet", "limits", "protection")
_MONEY = ("cash", "reserved", "bonus", "receivable")


class Entry(NamedTuple):
    """`raw`: the body as it is stored; `body`: as it reads."""

    log: str
    position: int
    recorded: int
    leaf: bytes
    raw: bytes
    body: dict[str, Any]


def entry(log: str, position: int, recorded: int, leaf: bytes, raw: bytes) -> Entry:
    """Raises ValueError for what is no JSON."""
    return Entry(log, position, recorded, leaf, raw, json.loads(raw))


def genesis(origin: str) -> bytes:
    return hashlib.sha256(f"countroom/log/v1\n{origin}".encode()).digest()


def leaf_of(before: bytes, position: int, recorded: int, raw: bytes) -> bytes:
    return hashlib.sha256(b"\0" + before + position.to_bytes(8) + recorded.to_bytes(8) + raw).digest()


def unchained(origin: str, entries: Sequence[Entry]) -> list[str]:
    """What does not follow: positions with gaps, leaves that are not the hash of what stands there."""
    before, broken = genesis(origin), []
    for number, each in enumerate(entries, 1):
        if each.position != number:
            broken.append(f"{each.log}/{each.position} stands where {number} should")
            break
        if leaf_of(before, each.position, each.recorded, each.raw) != each.leaf:
            broken.append(f"{each.log}/{each.position} does not hash to its leaf")
            break
        before = each.leaf
    return broken


def command_id(caller: str, key: str) -> str:
    """By the record format, for keys that are no UUIDv7."""
    name = caller.encode()
    return hashlib.sha256(len(name).to_bytes(4) + name + key.encode()).digest()[:16].hex()


def partition_of(suffix: str) -> int:
    """The last byte of the UUID that stands there in base32."""
    return (_ALPHABET.index(suffix[-2]) * 32 + _ALPHABET.index(suffix[-1])) % 256


class Command(NamedTuple):
    """Entries that count, side by side in one log. `player`: the suffix of the id of whom it is about; "": of nobody."""

    id: str
    log: str
    partition: int
    epoch: int
    player: str
    actor: str
    entries: tuple[Entry, ...]

    @property
    def last(self) -> Entry:
        return self.entries[-1]

    @property
    def refusal(self) -> bool:
        """Nothing but the record of a refusal."""
        return all(each.body["type"].endswith("_refused") for each in self.entries)

    @property
    def safeguard(self) -> bool:
        """What protects a player, recorded by a region that does not own them."""
        return self.epoch == 0 and all(each.body["type"].startswith("safeguard.") for each in self.entries)

    def first(self, type_: str) -> dict[str, Any] | None:
        """The data of its first event of this type."""
        return next((each.body["data"] for each in self.entries if each.body["type"] == type_), None)

    @property
    def types(self) -> list[str]:
        return [each.body["type"] for each in self.entries]

    def at(self) -> str:
        return f"{self.log}/{self.last.position}"


class Term(NamedTuple):
    """A log's time as the owner of a partition at an epoch: after `since`, up to `cut` (None: it goes on)."""

    log: str
    since: int
    cut: int | None


class Payments:
    """How each payment of a player stands, and its amount, at one moment of their history. All moments share what they know."""

    __slots__ = ("_known", "_moment")

    def __init__(self, known: dict[str, list[tuple[int, str, int]]] | None = None, moment: int = 0) -> None:
        self._known = {} if known is None else known
        self._moment = moment

    def after(self, id_: str, standing: str, amount: int) -> Payments:
        """The next moment. Only of the newest one, since a history has one order."""
        self._known.setdefault(id_, []).append((self._moment + 1, standing, amount))
        return Payments(self._known, self._moment + 1)

    def get(self, id_: str) -> tuple[str, int]:
        """("", 0) for one that there is not yet."""
        found = self._known.get(id_, [])
        place = bisect_right(found, self._moment, key=lambda each: each[0])
        return found[place - 1][1:] if place else ("", 0)

    def items(self) -> Iterator[tuple[str, tuple[str, int]]]:
        return ((id_, self.get(id_)) for id_ in self._known)


class State(NamedTuple):
    """What a player has, in minor units of their one currency. `limit`: of deposits a day. `used`: of it, by day. `payments`: how
    each stands, and its amount. `wallet`: the version of the wallet.
    """

    registered: bool = False
    blocked: bool = False
    closed: bool = False
    excluded: bool = False
    wallet: int = 0
    cash: int = 0
    reserved: int = 0
    bonus: int = 0
    receivable: int = 0
    deposits: int = 0
    deposited: int = 0
    limit: int | None = None
    used: Mapping[str, int] = {}
    payments: Payments = Payments()


class Ledger:
    """The logs that a region holds, folded."""

    def __init__(self, logs: Mapping[str, Sequence[Entry]]) -> None:
        self.logs = logs
        self.terms = _terms(logs)
        self.faults: list[str] = []
        """What no log may hold: books that do not follow from their own postings, streams with gaps."""

    def entry(self, log: str, position: int) -> Entry | None:
        found = self.logs.get(log, ())
        return found[position - 1] if 0 < position <= len(found) else None

    def counts(self, each: Entry) -> bool:
        body = each.body
        if "partition" not in body:
            return str(body["stream"]).startswith(f"region-{each.log}-")
        term = self.terms.get((body["partition"], body["epoch"]))
        return (
            term is not None
            and term.log == each.log
            and term.since < each.position
            and (term.cut is None or each.position <= term.cut)
        )

    @cached_property
    def commands(self) -> list[Command]:
        """All that count, log by log, in the order of positions."""
        made = []
        payments: dict[str, str] = {}
        for entries in self.logs.values():
            for each in entries:
                if each.body["type"] in {"transaction.deposit_requested", "transaction.withdrawal_requested"}:
                    payments[str(each.body["stream"]).partition("-")[2]] = str(each.body["data"]["player"]).partition(
                        "_"
                    )[2]
        for entries in self.logs.values():
            open_: list[Entry] = []
            for each in entries:
                if not self.counts(each):
                    open_ = []
                    continue
                open_.append(each)
                if each.body["command"]["i"] == each.body["command"]["n"]:
                    made.append(_command(open_, payments))
                    open_ = []
        return made

    @cached_property
    def torn(self) -> list[str]:
        """Commands of which not every event counts, and streams whose versions have gaps or stand twice."""
        broken = []
        versions: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for each in self.commands:
            first, last = each.entries[0].body["command"], each.last.body["command"]
            if (first["i"], last["i"], len(each.entries)) != (1, last["n"], last["n"]):
                broken.append(f"{each.at()}: of the {last['n']} events of command {each.id} {len(each.entries)} count")
            for one in each.entries:
                versions[one.body["stream"]].append((each.epoch, one.position, one.body["version"]))
        for stream, found in versions.items():
            for number, (_, position, version) in enumerate(sorted(found), 1):
                if version != number:
                    broken.append(f"{stream}: version {version} (at {position}) stands where {number} should")
                    break
        return broken

    @cached_property
    def by_id(self) -> dict[str, list[Command]]:
        found: dict[str, list[Command]] = defaultdict(list)
        for each in self.commands:
            found[each.id].append(each)
        return found

    @cached_property
    def histories(self) -> dict[str, list[Command]]:
        """By player (the suffix): what has happened on the player's own streams and payments, in its order."""
        found: dict[str, list[Command]] = defaultdict(list)
        for each in self.commands:
            if each.player and each.epoch:
                found[each.player].append(each)
        for commands in found.values():
            commands.sort(key=lambda each: (each.epoch, each.last.position))
        return found

    @cached_property
    def stretches(self) -> dict[str, list[tuple[str, list[int]]]]:
        """By player: their history as stretches in one log each, with the position at which each command ends."""
        found: dict[str, list[tuple[str, list[int]]]] = {}
        for player, commands in self.histories.items():
            made = found[player] = []
            for _, group in groupby(commands, key=lambda each: each.epoch):
                stretch = list(group)
                made.append((stretch[0].log, [each.last.position for each in stretch]))
        return found

    def visible(self, player: str, at: Mapping[str, int]) -> int | None:
        """How much of a player's history stands up to these positions. None: not a beginning of it, as where a barrier is missing."""
        count, whole = 0, True
        for log, positions in self.stretches.get(player, ()):
            there = bisect_right(positions, at.get(log, 0))
            if there and not whole:
                return None
            count += there
            whole = whole and there == len(positions)
        return count

    @cached_property
    def safeguards(self) -> dict[str, list[Command]]:
        """By player: what other regions than the owner have recorded for their protection."""
        found: dict[str, list[Command]] = defaultdict(list)
        for each in self.commands:
            if each.safeguard:
                found[each.player].append(each)
        return found

    @cached_property
    def states(self) -> dict[str, list[State]]:
        """By player: what they have before everything, and after each command of their history."""
        found = {}
        for player, commands in self.histories.items():
            state = State(payments=Payments())
            states = [state]
            for command in commands:
                for each in command.entries:
                    state = self._after(state, each, command)
                states.append(state)
            found[player] = states
        return found

    def _after(self, state: State, each: Entry, command: Command) -> State:
        type_, data = str(each.body["type"]), each.body["data"]
        context = str(each.body["stream"]).partition("-")[0]
        if context == "wallet":
            return self._paid(state, each, command)
        if context == "transaction":
            return _payment(state, each)
        if type_ == "limits.limit_set":
            own = (data["kind"], data["period"], "source" in data) == ("deposit", "day", False)
            return state._replace(limit=data["money"]["amount"]) if own else state
        if type_ in {"limits.headroom_consumed", "limits.headroom_released"}:
            amount = int(data["money"]["amount"]) * (1 if type_ == "limits.headroom_consumed" else -1)
            day = day_counted(each)
            return state._replace(used={**state.used, day: state.used.get(day, 0) + amount})
        change = _STANDING.get(type_)
        return change(state) if change else state

    def _paid(self, state: State, each: Entry, command: Command) -> State:
        """Postings, booked by us; what the event says of the balances afterwards must be that."""
        data = each.body["data"]
        held = {name: getattr(state, name) for name in _MONEY}
        for account, amount in postings(each):
            if account in held:
                held[account] += amount
        said = data.get("balance") or data.get("accounts") or {}
        where = f"{each.log}/{each.position}"
        for name in said:
            if held[name] != said[name]:
                self.faults.append(
                    f"{where}: the wallet's postings come to {name} {held[name]}, its event says {said[name]}"
                )
        if each.body["version"] != state.wallet + 1:
            self.faults.append(f"{where}: version {each.body['version']} of the wallet follows {state.wallet}")
        if min(held["cash"], held["reserved"], held["bonus"]) < 0 or held["receivable"] > 0:
            self.faults.append(f"{where}: an account of the player is overdrawn: {held}")
        settled = "transaction.deposit_settled" in command.types and each.body["type"] == "wallet.credited"
        amount = int(data["transfer"]["money"]["amount"]) if settled else 0
        return state._replace(
            **held, wallet=each.body["version"], deposits=state.deposits + settled, deposited=state.deposited + amount
        )


def postings(each: Entry) -> list[tuple[str, int]]:
    """(account, what is added to it) of an event of a wallet, in minor units."""
    data = each.body["data"]
    moved = [data["transfer"]] if "transfer" in data else data.get("movements", [])
    made = []
    for transfer in moved:
        amount = int(transfer["money"]["amount"])
        made += [(str(transfer["source"]), -amount), (str(transfer["target"]), amount)]
    return made


def currency_of(each: Entry) -> str:
    data = each.body["data"]
    moved = [data["transfer"]] if "transfer" in data else data.get("movements", [])
    return str(moved[0]["money"]["currency"]) if moved else ""


def day_of(recorded: int) -> str:
    """The day (UTC) of a time in microseconds."""
    return datetime.fromtimestamp(recorded // 1_000_000, UTC).date().isoformat()


def day_counted(each: Entry) -> str:
    """The day to which a limit counts this: the player's, or that of the recording if it is later."""
    data = each.body["data"]
    return max(str(data["day"]), day_of(each.recorded + int(data.get("utc_offset", 0)) * 60_000_000))


_STANDING: Mapping[str, Callable[[State], State]] = {
    "player.registered": lambda state: state._replace(registered=True),
    "player.blocked": lambda state: state._replace(blocked=True),
    "player.unblocked": lambda state: state._replace(blocked=False),
    "player.closed": lambda state: state._replace(closed=True),
    "protection.excluded": lambda state: state._replace(excluded=True),
}
_ENDS = {
    "transaction.deposit_settled": "settled",
    "transaction.deposit_settled_for": "settled",
    "transaction.deposit_failed": "failed",
    "transaction.deposit_expired": "expired",
    "transaction.withdrawal_approved": "approved",
    "transaction.withdrawal_sent": "sent",
    "transaction.withdrawal_settled": "settled",
    "transaction.withdrawal_cancelled": "cancelled",
    "transaction.withdrawal_rejected": "rejected",
    "transaction.withdrawal_expired": "expired",
    "transaction.withdrawal_returned": "returned",
}


def _payment(state: State, each: Entry) -> State:
    id_, type_ = str(each.body["stream"]).replace("-", "_"), str(each.body["type"])
    _, amount = state.payments.get(id_)
    if type_ in {"transaction.deposit_requested", "transaction.withdrawal_requested"}:
        standing, amount = "requested", int(each.body["data"]["money"]["amount"])
    elif type_ in _ENDS:
        standing = _ENDS[type_]
    else:
        return state
    return state._replace(payments=state.payments.after(id_, standing, amount))


def _command(entries: list[Entry], payments: Mapping[str, str]) -> Command:
    body = entries[0].body
    player = next((found for each in entries if (found := _player(str(each.body["stream"]), payments))), "")
    return Command(
        str(body.get("claims") or body["command"]["id"]),
        entries[0].log,
        body.get("partition", -1),
        body.get("epoch", 0),
        player,
        str(body["actor"]),
        tuple(entries),
    )


def _player(stream: str, payments: Mapping[str, str]) -> str:
    aggregate, _, suffix = stream.partition("-")
    if aggregate in _OWN_STREAMS:
        return suffix
    if aggregate == "transaction":
        return payments.get(suffix, "")
    if aggregate == "region" and "-protection_" in stream:
        return stream.partition("-protection_")[2]
    return ""


def _terms(logs: Mapping[str, Sequence[Entry]]) -> dict[tuple[int, int], Term]:
    found: dict[tuple[int, int], Term] = {}
    cuts: dict[tuple[int, int], int] = {}
    for name, entries in logs.items():
        for each in _ownership(entries):
            data = each.body["data"]
            if each.body["type"] == "log.opened":
                for first, last in data["partitions"]:
                    for partition in range(first, last + 1):
                        found[partition, data["epoch"]] = Term(name, each.position, None)
                continue
            for first, last, epoch in data["partitions"]:
                for partition in range(first, last + 1):
                    if each.body["type"] == "log.released":
                        cuts[partition, epoch] = each.position
                    else:
                        found[partition, epoch] = Term(name, each.position, None)
                        cuts[partition, epoch - 1] = data["cut"]["position"]
    return {key: term._replace(cut=cuts.get(key)) for key, term in found.items()}


def _ownership(entries: Iterable[Entry]) -> Iterable[Entry]:
    return (each for each in entries if each.body["type"] in {"log.opened", "log.released", "log.adopted"})
