"""
A command, described: what it reads and writes, what is decided from that, and what its answer is. Nothing has happened yet.

Invariant: an answer follows from the command's own events, so that a repeat can be answered again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from access.policy import Action, Principal
from domain.errors import Rejected
from domain.kernel import AnyStream, Event, at_versions, instant
from eventstore.vault import Owed

_LEAF_PREFIX_BYTES = 8


class Context(msgspec.Struct, frozen=True):
    """Who asks what, and when: all that a decision may know beside the folded states.

    `fingerprint`: of the request; None where nobody asked, and the service itself has something to record. `cause`: the id of
    the event to which it reacts. `whole`: of the request with what is personal in it, where something is (commands.identity).
    """

    principal: Principal
    now: datetime
    command_id: bytes
    fingerprint: str | None
    trace: str | None = None
    cause: str | None = None
    whole: str | None = None


class Fact(msgspec.Struct, frozen=True):
    """An event of a command, on its stream. `id` names the event; `at`: when it was recorded, of an earlier command's and where
    the plan is `timed`.
    """

    stream: str
    event: Event
    id: str
    at: datetime | None = None


class RefusedFact(NamedTuple):
    """A refusal that a regulator must see: `events` are appended, then `error` is raised."""

    error: Rejected
    events: Sequence[Event]


class PreconditionFailed(Rejected):
    code = "precondition_failed"
    title = "This has changed since it was read; read it again"


class Seen(NamedTuple):
    """The states in which the caller wants something changed (If-Match): `tags`, of all that its `streams` are together.

    The first stream is its own. If that one is empty there is nothing to be seen, which the decision says better.
    """

    streams: Mapping[str, AnyStream[Any]] = MappingProxyType({})
    tags: frozenset[str] = frozenset()

    def require(self, versions: Mapping[str, int]) -> None:
        """Raises PreconditionFailed."""
        now = [versions[name] for name in self.streams]
        if now and now[0] and at_versions(*now) not in self.tags:
            raise PreconditionFailed


class Plan(msgspec.Struct, frozen=True):
    """A command, described. Nothing has happened yet.

    `decision(at, **states)` gets the folded states under the names of `writes` and `reads`, and `at`, the later of now and
    the newest entry loaded. Its events belong to the written stream of their aggregate; these streams are all of one
    partition, or all the region's own. What is read must be owned here as well, or a region's own, but for the roles in `wherever`:
    of these counts what is held here, and is a condition only where it is ours. `answer(facts)` must follow from the command's own events; it gets none if nothing
    was recorded, and raises where they record a refusal. `fresh` names streams whose id was minted just now.
    `follow(**states)` gives further written streams, known only from these states; it is asked again with those, until it names
    no others. What `seen` names is a condition too, of which the decision hears nothing.

    Personal fields are sealed under the key that is `owed`, or under the one that `key(**states)` names: (id, commitment); it
    raises NotFound as long as these states do not tell. `opens`, a role, asks for the first event of that written stream with
    its personal fields opened: the decision, and `follow`, get it as `opened`, or None where the key is not held here.
    What is owed is kept once the decision has events. `alike` are fields of `owed.found_by`: the decision gets, as `alike`,
    which other subjects have the same values (commands.alike); it is asked a first time as if there were none. Who has them
    once its events stand in the log may be more: `introduce(answer, alike)` gives the commands by which these hear of it, and
    it of them, before anybody hears the answer.

    `refers` names earlier commands by their ids, and `series` the n-th of a row of them, from 1: the decision gets, under the
    same roles, the facts of that command, or of the last one of the row, and none where there is none (commands.referring).
    `claims(events)` gives, by the place of an event from 1 (never the first), the id of another command that counts as taken
    from now on. Should that one come, its own plan's `claimed(facts)` answers it from what stands there instead.
    `tells(**states)` is the answer of a plan that records nothing, from states that the log has confirmed. `timed`: the answer
    asks when its facts were recorded (`Fact.at`), which is not yet where a command is only rehearsed.

    `about`: attributes for the policies that the command itself says (access/resources.py). `authorise(at, states)` asks them where
    `require` alone does not settle it (commands/authorising.py).
    """

    context: Context
    require: tuple[Action, ...]
    writes: Mapping[str, AnyStream[Any]]
    decision: Callable[..., Sequence[Event] | RefusedFact]
    answer: Callable[[Sequence[Fact]], msgspec.Struct]
    reads: Mapping[str, AnyStream[Any]] = MappingProxyType({})
    wherever: Collection[str] = ()
    follow: Callable[..., Mapping[str, AnyStream[Any]]] | None = None
    fresh: frozenset[str] = frozenset()
    owed: Owed | None = None
    key: Callable[..., tuple[str, str]] | None = None
    opens: str = ""
    alike: frozenset[str] = frozenset()
    introduce: Callable[[Any, Mapping[str, Sequence[str]]], Sequence[Plan]] | None = None
    occurred: datetime | None = None
    seen: Seen = Seen()
    refers: Mapping[str, bytes] = MappingProxyType({})
    series: Mapping[str, Callable[[int], bytes]] = MappingProxyType({})
    claims: Callable[[Sequence[Event]], Mapping[int, bytes]] | None = None
    claimed: Callable[[Sequence[Fact]], msgspec.Struct] | None = None
    tells: Callable[..., msgspec.Struct] | None = None
    about: Mapping[str, str | int] = MappingProxyType({})
    authorise: Callable[[datetime, Mapping[str, Any]], None] | None = None
    timed: bool = False

    @property
    def partition(self) -> int | None:
        """That of every stream which it writes; None if those are the region's own."""
        return next((stream.partition for stream in self.writes.values()), None)

    @property
    def anywhere(self) -> Sequence[AnyStream[Any]]:
        """What it reads wherever it is."""
        return [stream for role, stream in self.reads.items() if role in self.wherever] if self.wherever else ()


class Receipt(msgspec.Struct, frozen=True):
    """The answer to a command; `position` (log/position/leaf prefix) is where its last event stands, if it has any."""

    answer: msgspec.Struct
    position: str | None
    repeated: bool


class WrongRegion(Rejected):
    """Facts: partition, owner (the name of the log that owns it; "" if nobody was seen to)."""

    code = "wrong_region"
    title = "Another region owns this player"


class NotPassedOn(Rejected):
    """Facts: owner."""

    code = "not_passed_on"
    title = "This is about an operator, and another region's word for who asks does not count; send it to the region that owns it"


def timed(facts: Sequence[Fact], recorded: int) -> list[Fact]:
    """Facts of one command, of which the first was recorded then (µs since 1970)."""
    return [msgspec.structs.replace(fact, at=instant(recorded + place)) for place, fact in enumerate(facts)]


def ledger_position(log: str, position: int, leaf: bytes) -> str:
    """Where an event stands, with enough of its leaf to notice that it was stranded since."""
    return f"{log}/{position}/{leaf[:_LEAF_PREFIX_BYTES].hex()}"
