"""
Load → authorise → decide → append, for many commands at a time.

Invariants:
    - every stream that a decision saw is a condition of its append: a lost race is decided again;
    - a command id is looked up inside the append: a repeat, whatever has happened since, gets the first answer;
    - a refusal, or a decision that records nothing, is confirmed against the log before anyone hears of it, so a stale
      cache never refuses;
    - personal fields are sealed, and their keys kept, before anything is appended;
    - nothing is kept for a command that may not be made, or records nothing;
    - a partition that another region owns is not decided on here; one that is being handed over to this region is waited for;
    - a decision is never earlier than what this process has seen of the log's time, nor much later, whatever its own clock says
      (commands.log_time).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec
import structlog

from commands.alike import Alike
from commands.authorising import asking
from commands.everywhere import Logs, everywhere
from commands.gathering import Gathering, Results
from commands.judging import Folded, Saw, judge, saw_by, seeing, tells
from commands.keys import Held, Keys, asks_the_same, key_of
from commands.log_time import LogTime
from commands.owners import InTransit, Owners, Patience
from commands.plan import Fact, Plan, Receipt, RefusedFact, ledger_position, timed
from commands.referring import Referring
from commands.sealing import personal, seal, sealed_under
from domain.errors import KeyReused, Rejected
from domain.kernel import EPOCH, Aggregate, AnyStream, Event, instant, uuid7_texts
from domain.ownership import Owner
from eventstore.log import (
    Appended,
    Command,
    Malformed,
    Outcome,
    Place,
    Reason,
    Refused,
    Snapshot,
    Streams,
    state_schema,
)
from eventstore.record import Body, Codec, CommandPart, Entry, encode_body
from eventstore.vault import CannotOpen, DataKey, Vault
from eventstore.writer import Unavailable, Uncertain, Writer

SNAPSHOT_EVERY = 500
_CACHED_STATES = 50_000
_ATTEMPTS = 12

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger(__name__)


class _Decided(msgspec.Struct, frozen=True):
    """`versions`: of all streams that were seen. `streams`: where the facts stand, in their order. `told`: without facts."""

    plan: Plan
    command: Command
    versions: dict[str, int]
    facts: Sequence[Fact]
    streams: Sequence[AnyStream[Any]]
    error: Rejected | None
    told: msgspec.Struct | None = None

    def receipt(self, position: str | None) -> Receipt:
        """Raises what Plan.answer raises."""
        answer = self.plan.answer(self.facts) if self.told is None else self.told
        return Receipt(answer, position, repeated=False)


class Decider:
    """Runs plans against one log; `log` is its name. `owners`: whose partitions are."""

    def __init__(
        self, log: str, writer: Writer, streams: Streams, vault: Vault, codec: Codec, times: LogTime | None = None
    ) -> None:
        self.log = log
        self.owners = Owners(log, streams)
        self._writer = writer
        self._streams = streams
        self._vault = vault
        self._alike = Alike(vault)
        self._keys = Keys(vault, streams, codec)
        self._referring = Referring(streams, codec)
        self._codec = codec
        self._states: OrderedDict[str, Folded] = OrderedDict()
        self._logs = Logs(streams)
        self._due: list[Snapshot] = []
        self._times = times or LogTime()
        self._gathering: Gathering[Plan, Receipt] = Gathering(self._run)

    def decide(self, plan: Plan) -> Awaitable[Receipt]:
        """Raises Rejected, Unavailable. Plans that are asked for at the same moment are run together."""
        if plan.partition is None or self.owners.holds(plan.partition):
            return self._gathering.ask(plan)
        return self._once_adopted(plan)

    async def _once_adopted(self, plan: Plan) -> Receipt:
        patience = Patience()
        while True:
            try:
                return await self._gathering.ask(plan)
            except InTransit:
                if not await patience.lasts():
                    raise

    async def run(self, plans: Sequence[Plan]) -> list[Receipt | Exception]:
        """Each plan's receipt, or why it was refused. Plans should not depend on one another: they would race."""
        results: Results[Receipt] = Results()
        patience = Patience()
        waiting: Sequence[int] = range(len(plans))
        while True:
            again: Results[Receipt] = Results()
            try:
                await self._run([plans[place] for place in waiting], again)
            except Exception as error:  # noqa: BLE001 — theirs who have no result yet
                for n in range(len(waiting)):
                    again.setdefault(n, error)
            results.update({place: again[n] for n, place in enumerate(waiting)})
            waiting = [place for place in waiting if isinstance(results[place], InTransit)]
            if not waiting or not await patience.lasts():
                return [results[place] for place in range(len(plans))]

    async def repeats(self, plans: Sequence[Plan]) -> list[Receipt | Exception | None]:
        """The first answers of those that stand in a log that is held here, whoever owns what they are about; None of all others."""
        results: Results[Receipt] = Results()
        await self._answer_repeats(plans, range(len(plans)), results)
        return [results.get(place) for place in range(len(plans))]

    async def owner(self, partition: int) -> Owner | None:
        """Who owns a partition, as of 0.2 s ago or later; None if nobody was seen to. Not `adopted` while it is on its way there."""
        return await self.owners.owner(partition)

    async def logs(self) -> Sequence[str]:
        """The names of all logs held here, as of 2 s ago or later; none if there is one only."""
        return await self._logs.names()

    async def look(self, streams: Mapping[str, AnyStream[Any]]) -> dict[str, Any]:
        """The states of streams by now, under the same names, whoever owns them: what is held here, and a condition of nothing."""
        folded = await self._fold({stream.name: stream.aggregate for stream in streams.values()})
        return {role: folded[stream.name].state for role, stream in streams.items()}

    async def rehearse(self, plans: Sequence[Plan]) -> list[Receipt | Exception]:
        """What each plan would come to by itself, or why it would be refused. Nothing is recorded, and no key is kept.

        A repeat comes to the first answer.
        """
        results: Results[Receipt] = Results()
        plans = await self._complete(plans)
        await self._answer_repeats(plans, range(len(plans)), results)
        pending = [place for place in range(len(plans)) if place not in results]
        for place, decided in await self._decide_all(list(plans), pending, results):
            if decided.error is None:
                results.put(place, decided.receipt, None)
            else:
                results[place] = decided.error
        return [results[place] for place in range(len(plans))]

    async def _run(self, plans: list[Plan], results: Results[Receipt]) -> None:
        await self._alike.run(await self._complete(plans), results, record=self._record, then=self.run)

    async def _complete(self, plans: Sequence[Plan]) -> list[Plan]:
        """With what no plan says itself: whom it is about, for the policies, and what protects them in other regions' logs."""
        logs = await self._logs.names()
        return [asking(everywhere(plan, logs)) for plan in plans]

    async def _record(self, plans: list[Plan], results: Results[Receipt]) -> None:
        owing = [place for place, plan in enumerate(plans) if plan.owed is not None]
        await self._answer_repeats(plans, owing, results)  # a second key for what was recorded would open nothing
        joined: list[Plan] = []
        kept: set[int] = set()
        try:
            for _ in range(_ATTEMPTS):
                pending = [place for place in range(len(plans)) if place not in results]
                if not pending:
                    break
                sent = await self._decide_all(plans, pending, results, joined)
                await self._keep_owed(sent, kept)
                outcomes = await self._writer.append([decided.command for _, decided in sent])
                await self._first_answers(plans, self._take_up(sent, outcomes, results), results)
        finally:
            self._alike.leave(joined)
        for place in range(len(plans)):
            if place not in results:
                results[place] = Unavailable("the streams kept changing; try again")
        await self._snapshot()

    async def _decide_all(
        self, plans: list[Plan], pending: Sequence[int], results: Results[Receipt], joined: list[Plan] | None = None
    ) -> list[tuple[int, _Decided]]:
        """What the pending plans come to. An error that is to be confirmed by nobody is a result at once.

        `joined`: of this run, those of which others hear; from here on the ones that will be recorded. None: nothing will.
        """
        states, elsewhere = await self._load([plans[place] for place in pending])
        plans = list(plans)  # followed anew at each attempt: a newer state may lead to other streams
        held = await self._keys.held(seeing([plans[place] for place in pending], states))
        opened: Mapping[str, Event | CannotOpen] = {}
        while followed := self._follow(plans, pending, states, opened):
            more, beside = await self._load(followed)
            states, elsewhere = more | states, elsewhere | beside  # what they were followed from is what is decided on
            needing = seeing(followed, states)
            held = {**held, **await self._keys.held(needing)}
            opened = {**opened, **await self._keys.opened(needing, held)}
        telling = {place: plans[place] for place in pending if plans[place].owed and tells(plans[place], states)}
        if joined is not None:
            self._alike.leave(joined)
            joined[:] = telling.values()
            self._alike.join(joined)
        alike = await self._alike.heard(telling)
        referred = await self._referring.look_up({place: plans[place] for place in pending})
        sent = []
        for place in pending:
            try:
                time = self._times.bound(plans[place].context.now)
                saw = saw_by(plans[place], states, opened, referred.get(place, _NOTHING), time, elsewhere)
                sent.append((place, self._decide(plans[place], saw, held, alike.get(place, {}))))
            except Exception as error:  # noqa: BLE001 — its own caller's, and nobody else's
                results[place] = error
        return sent

    def _take_up(
        self, sent: Sequence[tuple[int, _Decided]], outcomes: Sequence[Outcome | Malformed], results: Results[Receipt]
    ) -> list[tuple[int, Place]]:
        """Answer what was appended and forget what was stale; returns the repeats, and where their first events stand."""
        repeats: list[tuple[int, Place]] = []
        for (place, decided), outcome in zip(sent, outcomes, strict=True):
            if isinstance(outcome, Appended):
                results.put(place, self._appended, decided, outcome)
            elif isinstance(outcome, Malformed):
                results[place] = outcome
            elif outcome.first is not None:
                repeats.append((place, outcome.first))
            else:
                self._forget(decided, outcome)
        return repeats

    async def _keep_owed(self, sent: Sequence[tuple[int, _Decided]], kept: set[int]) -> None:
        """Commit the data keys and words of what is about to be appended, once each."""
        owing = {place: owed for place, decided in sent if decided.facts and (owed := decided.plan.owed)}
        if new := owing.keys() - kept:
            await self._vault.keep([owing[place] for place in sorted(new)])
            kept |= new

    async def _answer_repeats(self, plans: Sequence[Plan], asked: Sequence[int], results: Results[Receipt]) -> None:
        """Give those of the `asked` plans whose commands stand in the log their first answers."""
        if not asked:
            return
        known = await self._streams.find([plans[place].context.command_id for place in asked])
        repeats = [(place, first) for place in asked if (first := known.get(plans[place].context.command_id))]
        await self._first_answers(plans, repeats, results)

    # Loading

    async def _load(self, plans: Sequence[Plan]) -> tuple[dict[str, Folded], set[str]]:
        """The state of every stream that the plans name; and which are others', of which no condition can be made."""
        await self.owners.know({partition for plan in plans for partition in _partitions(plan, wherever=True)})
        kept = self._states
        states: dict[str, Folded] = {}
        missing: dict[str, Aggregate[Any]] = {}
        others: set[str] = set()
        for plan in plans:
            elsewhere = self.owners.elsewhere(plan)  # no condition would say that what is kept of these is old
            others |= elsewhere
            for streams in (plan.writes, plan.reads, plan.seen.streams):
                for role, stream in streams.items():
                    name = stream.name
                    if name in kept and name not in elsewhere:
                        kept.move_to_end(name)
                        states[name] = kept[name]
                    elif role in plan.fresh:
                        states[name] = kept[name] = Folded(stream.aggregate.initial, 0, EPOCH, b"")
                    else:
                        missing[name] = stream.aggregate
        if missing:
            for name, folded in (await self._fold(missing)).items():
                newer = self._states.get(name)  # another task may have appended meanwhile
                states[name] = self._states[name] = newer if newer and newer.version > folded.version else folded
        while len(self._states) > _CACHED_STATES:
            self._states.popitem(last=False)
        return states, others

    def _follow(
        self,
        plans: list[Plan],
        pending: Sequence[int],
        states: Mapping[str, Folded],
        opened: Mapping[str, Event | CannotOpen],
    ) -> list[Plan]:
        """Complete the plans whose further streams are known by now; returns those."""
        followed = []
        for place in pending:
            plan = plans[place]
            if plan.follow is None:
                continue
            try:
                further = plan.follow(**saw_by(plan, states, opened).known)
            except Exception:  # noqa: BLE001, S112 — there is nothing to follow: the decision will say so
                continue
            if further.keys() - plan.writes.keys() - plan.reads.keys():
                beside = {role: stream for role, stream in further.items() if role in plan.wherever}
                more = {role: stream for role, stream in further.items() if role not in beside}
                reads, writes = {**plan.reads, **beside}, {**plan.writes, **more}
                plans[place] = msgspec.structs.replace(plan, reads=reads, writes=writes)
                followed.append(plans[place])
        return followed

    async def _fold(self, streams: Mapping[str, Aggregate[Any]]) -> dict[str, Folded]:
        folded = {}
        resumed = await self._streams.resume({name: state_schema(aggregate) for name, aggregate in streams.items()})
        for name, (snapshot, entries) in resumed.items():
            aggregate = streams[name]
            state, version, at, leaf = aggregate.initial, 0, EPOCH, b""
            if snapshot is not None:
                state = msgspec.json.decode(snapshot.state, type=aggregate.state)
                version, at, leaf = snapshot.version, instant(snapshot.recorded), snapshot.leaf
            for entry in entries:
                read = self._codec.decode(entry)
                at = max(at, read.at)
                state = aggregate.evolve(state, read.event, read.at)
                version, leaf = read.body.version, entry.leaf
            folded[name] = Folded(state, version, at, leaf)
        return folded

    # Deciding

    def _decide(self, plan: Plan, saw: Saw, held: Held, alike: Mapping[str, Sequence[str]]) -> _Decided:
        """Raises WrongRegion, InTransit, KeyNotHeld, CannotOpen. Any other refusal is to be confirmed, with the versions that it was decided from."""
        context = plan.context
        versions = saw.versions
        for partition in _partitions(plan):
            self.owners.require(partition)
        error: Rejected | None = None
        events: Sequence[Event] = ()
        try:
            decision = judge(plan, saw, alike)
            error, events = decision if isinstance(decision, RefusedFact) else (None, decision)
        except Rejected as refused:
            error = refused
        if not events:
            told = plan.tells(**saw.known) if plan.tells and error is None else None
            confirmed = Command(context.command_id, (), tuple(versions.items()))
            return _Decided(plan, confirmed, versions, (), (), error, told)
        facts, written, bodies = self._encode(plan, events, versions, key_of(plan, saw.known, held))
        reads = versions.copy()
        for each in written:
            reads.pop(each.name, None)
        writes = frozenset(versions.keys() - reads.keys())
        command = Command(context.command_id, bodies, tuple(reads.items()), writes)
        return _Decided(plan, command, versions, facts, written, error)

    def _encode(
        self, plan: Plan, events: Sequence[Event], versions: dict[str, int], key: DataKey | None
    ) -> tuple[list[Fact], list[AnyStream[Any]], list[bytes]]:
        context = plan.context
        homes = {stream.aggregate.name: stream for stream in plan.writes.values()}
        new_ids = uuid7_texts(context.now, os.urandom(10 * len(events)))
        next_version = versions.copy()
        events = [seal(event, key, new_ids[i]) if personal(type(event)) else event for i, event in enumerate(events)]
        command, actor = context.command_id.hex(), context.principal.actor
        fingerprint = context.fingerprint
        if context.whole and key and any(map(sealed_under, events)):
            fingerprint = key.fingerprint(context.whole)
        occurred = _rfc3339(plan.occurred) if plan.occurred else None
        claims = plan.claims(events) if plan.claims else {}
        facts, streams, bodies = [], [], []
        for i, event in enumerate(events, 1):
            stream = homes[event.tag.partition(".")[0]]
            name, partition, event_id = stream.name, stream.partition, new_ids[i - 1]
            next_version[name] = version = next_version[name] + 1
            body = Body(
                stream=name,
                version=version,
                type=event.tag,
                partition=partition,
                epoch=None if partition is None else self.owners.epochs[partition],
                command=CommandPart(i, len(events), command, fingerprint),
                id=event_id,
                actor=actor,
                claims=claims[i].hex() if i in claims else None,
                occurred=occurred,
                cause=context.cause,
                trace=context.trace,
                data=msgspec.Raw(_encode(event)),
            )
            facts.append(Fact(name, event, event_id))
            streams.append(stream)
            bodies.append(encode_body(body))
        return facts, streams, bodies

    # After the append

    def _appended(self, decided: _Decided, outcome: Appended) -> Receipt | Exception:
        position = None
        if decided.facts:
            self._times.note(outcome.recorded)
            self._remember(decided, outcome)
            if decided.plan.timed:
                decided = msgspec.structs.replace(decided, facts=timed(decided.facts, outcome.recorded))
            position = ledger_position(self.log, outcome.position + len(outcome.leaves) - 1, outcome.leaves[-1])
        return decided.error.recorded(position) if decided.error else decided.receipt(position)

    def _remember(self, decided: _Decided, appended: Appended) -> None:
        versions = decided.versions.copy()
        for place, stream in enumerate(decided.streams):
            name, aggregate = stream.name, stream.aggregate
            known = self._states.get(name)
            versions[name] = version = versions[name] + 1
            if known is None or known.version != version - 1:  # dropped since, or loaded again with this very event
                continue
            recorded, leaf = appended.recorded + place, appended.leaves[place]
            at = instant(recorded)
            state = aggregate.evolve(known.state, decided.facts[place].event, at)
            self._states[name] = Folded(state, version, max(at, known.at), leaf)
            if version % SNAPSHOT_EVERY == 0:
                encoded = msgspec.json.encode(state, order="sorted")
                self._due.append(Snapshot(name, version, leaf, recorded, state_schema(aggregate), encoded))

    def _forget(self, decided: _Decided, refused: Refused) -> None:
        """Drop what turned out to be stale, unless another task has renewed it since."""
        if refused.reason is Reason.NOT_OWNED:
            self.owners.forget()
        for stream, version in decided.versions.items():
            known = self._states.get(stream)
            if known is not None and known.version == version:
                del self._states[stream]

    async def _first_answers(
        self, plans: Sequence[Plan], repeats: Sequence[tuple[int, Place]], results: Results[Receipt]
    ) -> None:
        if not repeats:
            return
        try:
            commands = await self._streams.commands([first for _, first in repeats])
            naming = [each for (place, _), each in zip(repeats, commands, strict=True) if plans[place].context.whole]
            keys = await self._keys.to_compare(naming) if naming else {}
        except Exception as error:  # noqa: BLE001 — they stand in the log: nobody hears that they do not
            _log.warning("what was answered first cannot be read", error=str(error).strip(), commands=len(repeats))
            for place, _ in repeats:
                results[place] = Uncertain("it stands in the log, and what it came to cannot be read just now")
            return
        for (place, _), entries in zip(repeats, commands, strict=True):
            results.put(place, self._first_answer, plans[place], entries, keys)

    def _first_answer(self, plan: Plan, entries: Sequence[Entry], keys: Mapping[str, DataKey]) -> Receipt | Exception:
        try:
            plan.context.principal.require(*plan.require)
        except Rejected as refused:
            return refused
        read = [self._codec.decode(entry) for entry in entries]
        of_itself = read[0].body.command.id == plan.context.command_id.hex()
        answers = plan.answer if of_itself else plan.claimed
        if answers is None or (of_itself and not asks_the_same(plan.context, read, keys)):
            return KeyReused()
        last = entries[-1]
        position = ledger_position(last.log, last.position, last.leaf)
        try:
            answer = answers([Fact(r.body.stream, r.event, r.body.id, r.at if plan.timed else None) for r in read])
        except Rejected as refused:
            return refused.recorded(position)
        return Receipt(answer, position, repeated=True)

    async def _snapshot(self) -> None:
        due, self._due = self._due, []
        if not due:
            return
        try:
            await self._streams.keep(due)
        except Exception as error:  # noqa: BLE001 — only the next start takes longer
            _log.warning("a snapshot is not kept", error=str(error).strip())


def _partitions(plan: Plan, *, wherever: bool = False) -> set[int]:
    """Those that must be ours; or all that the plan names."""
    read = [stream for role, stream in plan.reads.items() if wherever or role not in plan.wherever]
    return {stream.partition for stream in (*plan.writes.values(), *read) if stream.partition is not None}


def _rfc3339(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
