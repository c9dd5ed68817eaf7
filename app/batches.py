"""A batch under way: its items in waves, those of other regions' players sent there, and a result for each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog
from starlette.types import Scope

from access.policy import Principal
from app import denying, durability, problems, registering, sheltering
from app.batching import BatchAnswer, Batched, BatchResult, NotMade, Wanted, elsewhere
from app.batching import made as made_there
from app.forwarding import Forwarding, Item, owner_in, unknown
from app.lane import refusal, shape
from app.planning import BODY_BYTES_MAX, ROUTES, Services, match, owner_elsewhere, owner_of, plan
from app.starting import Start
from commands import batch
from commands.batch import Batch
from commands.edge import Endpoint
from commands.owners import InTransit
from commands.plan import Plan, Receipt, WrongRegion
from domain.errors import Rejected
from domain.protection import Answer
from eventstore.writer import Unavailable, Uncertain

ACCEPTED = 202
FORWARDED = "forwarded"

Count = Callable[[Mapping[tuple[str, str], int]], None]
"""Told of commands, by endpoint ("none": no command has that path) and outcome."""

Relay = Callable[[Principal, str, bytes, str | None], tuple[Endpoint, Plan] | None]
"""(who asks, path, body, trace) → what an item of a batch is that no command of the house is; None: nothing. Raises Rejected."""

_UNKNOWN = "nobody could find out which region owns the player; try again"
_CHANGED = "another region has just become the owner, or this one; try again"

_log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder().encode


class Batches:
    """Runs batches, wherever they came in."""

    def __init__(self, services: Services, start: Start, count: Count, relay: Relay) -> None:
        self._services = services
        self._start = start
        self._count = count
        self._relay = relay

    async def run(self, wanted: Batch, batched: Batched) -> BatchAnswer:
        self._start.require()
        await self._services.authentication.renew()
        one = _Batch(self._services, self._relay, wanted, batched)
        results = await one.run()
        names = [_name(one.endpoints.get(place)) for place in range(len(results))]
        self._count(Counter([(name, outcome(result)) for name, result in zip(names, results, strict=True)]))
        for name, result in zip(names, results, strict=True):
            denying.note(self._services.denials, as_asked(batched.principal), result, name)
        answers = [_result(one.told(n, result), one.endpoints.get(n)) for n, result in enumerate(results)]
        if self._services.durable is not None and not batched.dry_run:
            here = {place: each for place, each in one.lasting.items() if isinstance(results[place], Receipt)}
            answers = await self._services.durable.settled_items(answers, here)
        return BatchAnswer(answers)


class _Batch:
    """One batch under way."""

    def __init__(self, services: Services, relay: Relay, wanted: Batch, batched: Batched) -> None:
        self.endpoints: dict[int, Endpoint] = {}
        self.lasting: dict[int, durability.Item] = {}
        self._services = services
        self._relay = relay
        self._wanted = wanted
        self._batched = batched
        self._described: dict[int, Wanted] = {}
        self._asked: dict[int, Sequence[Answer] | Unavailable] = {}
        self._unasked: set[int] = set()  # of items about which their owner elsewhere asks

    async def run(self) -> list[Receipt | BatchResult | Exception]:
        wanted = self._wanted
        if not all(_travels(item.path) for item in wanted.items):
            await self._services.decider.owners.look()
        if wanted.dry_run:
            return await batch.run(wanted, plan=self._plan, decide=self._decide, made=_made)
        await self._ask({place: item.path for place, item in enumerate(wanted.items) if "$" not in item.path})
        return await batch.run(wanted, plan=self._plan, decide=self._decide, made=_made, ask=self._ask)

    def _plan(self, place: int, path: str) -> Plan:
        item = self._wanted.items[place]
        described = self._describe(place, path)
        if self._services.durable is not None:
            asked = self._services.durable.wanted(self.endpoints[place].path, self._batched.durability)
            self.lasting[place] = durability.Item(asked, described.context.command_id)
        self._described[place] = Wanted(Item(item.key, path, bytes(item.body), item.if_match), described)
        return described

    def _describe(self, place: int, path: str) -> Plan:
        principal, trace = self._batched.principal, self._batched.trace
        item = self._wanted.items[place]
        raw = bytes(item.body)
        if len(raw) > BODY_BYTES_MAX:
            raise problems.BodyTooLarge(f"a command's body has at most {BODY_BYTES_MAX} bytes")
        if (relayed := self._relay(principal, path, raw, trace)) is not None:
            self.endpoints[place], described = relayed
            return described
        route, arguments = match(path)
        self.endpoints[place] = route.endpoint
        said = self._asked.get(place, ())
        if isinstance(said, Unavailable):
            raise said
        return plan(self._services, principal, route, arguments, item.key, path, raw, trace, item.if_match, said)

    async def _ask(self, paths: Mapping[int, str]) -> None:
        asking, principal = self._services.asking, self._batched.principal
        if asking is None:
            return
        first = _asking_first(self._wanted, paths)
        for place, each in first.items():
            try:
                if await self._owner_elsewhere(paths[place], each, self._wanted.items[place].key):
                    self._unasked.add(place)
            except Exception:  # noqa: BLE001 — its own item's, and nobody else's
                _log.warning("nobody knows who owns the player of an item of a batch", path=each[0], exc_info=True)
                self._asked[place] = Unavailable(_UNKNOWN)
        done = self._unasked | self._asked.keys()
        ours = {place: each for place, each in first.items() if place not in done}
        self._asked.update(await registering.before_each(asking, principal, ours))

    async def _owner_elsewhere(self, path: str, first: tuple[str, Sequence[str], bytes], key: str) -> str:
        route, (_, arguments, raw) = match(path)[0], first
        actor, hop = self._batched.principal.actor, self._batched.hop
        return await owner_elsewhere(self._services, route, arguments, hop, actor=actor, key=key, raw=raw)

    async def _decide(self, wave: Mapping[int, Plan]) -> Sequence[Receipt | BatchResult | Exception]:
        """What is known to be another region's is done there while the rest is done here."""
        forwarding = self._services.forwarding
        if forwarding is None:
            return await self._work(list(wave.values()))
        away = await self._away(wave)
        here = {place: each for place, each in wave.items() if place not in away and place not in self._unasked}
        done = await asyncio.gather(
            self._here(forwarding, here), self._elsewhere(forwarding, away), return_exceptions=True
        )
        results: dict[int, Receipt | BatchResult | Exception] = dict.fromkeys(wave, Unavailable(_CHANGED))
        for places, found in zip((list(here), list(away)), done, strict=True):
            if isinstance(found, Exception):
                results.update(dict.fromkeys(places, found))
            elif isinstance(found, BaseException):
                raise found
            else:
                results.update(found)
        return [results[place] for place in wave]

    async def _away(self, wave: Mapping[int, Plan]) -> dict[int, WrongRegion]:
        """Those of a wave that another region was seen to own: not who sent them here, who has handed them over."""
        decider, sender = self._services.decider, self._batched.hop.sender
        away = {}
        for place, planned in wave.items():
            if planned.partition is not None and self._travels(place):
                try:
                    owner = await decider.owner(planned.partition)
                except Exception:  # noqa: BLE001 — whoever is to decide says why, each of its own item
                    _log.warning("nobody knows who owns the players of a batch", exc_info=True)
                    break
                if owner is not None and owner.log not in (decider.log, sender):
                    away[place] = WrongRegion(partition=planned.partition, owner=owner.log)
        return away

    async def _work(self, plans: Sequence[Plan]) -> Sequence[Receipt | BatchResult | Exception]:
        decider = self._services.decider
        return await (decider.rehearse if self._wanted.dry_run else decider.run)(plans)

    async def _here(
        self, forwarding: Forwarding, wave: Mapping[int, Plan]
    ) -> dict[int, Receipt | BatchResult | Exception]:
        """What becomes of these here; of those that turn out to be another region's, there."""
        if not wave:
            return {}
        results = dict(zip(wave, await self._work(list(wave.values())), strict=True))
        results.update(await self._sheltered(results))
        wrong = {
            place: each for place, each in results.items() if isinstance(each, WrongRegion) and self._travels(place)
        }
        try:
            results.update(await self._handed_over(forwarding, wave, wrong))
        except Exception as error:  # noqa: BLE001 — the others stand in the log
            _log.warning("items of a batch cannot be sent to who owns them", exc_info=True)
            results.update(dict.fromkeys(wrong, error))
        return results

    async def _handed_over(
        self, forwarding: Forwarding, wave: Mapping[int, Plan], wrong: Mapping[int, WrongRegion]
    ) -> dict[int, Receipt | BatchResult | Exception]:
        """What becomes of items that were not for this region a moment ago: here, if who sent them has released them to us."""
        services, hop = self._services, self._batched.hop
        results: dict[int, Receipt | BatchResult | Exception] = {}
        handed = {
            place: int(str(each.facts["partition"]))
            for place, each in wrong.items()
            if hop.sender and owner_in(each) == hop.sender
        }
        partitions = sorted(set(handed.values()))
        owners = await asyncio.gather(*[owner_of(services, each, hop) for each in partitions])
        owned = {each for each, owner in zip(partitions, owners, strict=True) if not owner}
        ours = [place for place, partition in handed.items() if partition in owned]
        if ours:
            results.update(zip(ours, await self._work([wave[place] for place in ours]), strict=True))
        rest = {place: each for place, each in wrong.items() if place not in ours}
        results.update(await self._elsewhere(forwarding, rest))
        return results

    def _travels(self, place: int) -> bool:
        return _travels(self.endpoints[place].path)

    def told(self, place: int, result: Receipt | BatchResult | Exception) -> Receipt | BatchResult | Exception:
        """A result, where it is not known what became of an item with the command's URL."""
        if not isinstance(result, Uncertain):
            return result
        fate = unknown(self._described[place].plan.context.command_id)
        return NotMade(BatchResult(fate.status, msgspec.Raw(fate.body)))

    async def _elsewhere(
        self, forwarding: Forwarding, wrong: Mapping[int, WrongRegion]
    ) -> dict[int, Receipt | BatchResult | Exception]:
        """What became of items of other regions' players: of what stands here already, its first answer. Those that protect are
        recorded here if that is all that can be done.
        """
        asked = {place: (self.endpoints[place].path, self._described[place].plan) for place in wrong}
        results: dict[int, Receipt | BatchResult | Exception] = {}
        first_hand = not self._batched.hop.hops
        try:
            results.update(await sheltering.standing_here(self._services, asked))
            if first_hand:
                results.update(await sheltering.not_to_be_sent(self._services, asked))
        except Exception as error:  # noqa: BLE001 — nothing of them was sent
            _log.warning("nobody knows what stands here of the players of a batch, or protects them", exc_info=True)
            return {**dict.fromkeys(wrong, error), **results}
        sent = {place: each for place, each in wrong.items() if place not in results}
        results.update(await elsewhere(forwarding, self._batched, sent, self._described))
        for place in sent if first_hand and not self._wanted.dry_run else ():
            if sheltering.is_unreached_item(results[place]):
                path, planned = self.endpoints[place].path, self._described[place].plan
                try:
                    results[place] = await sheltering.recorded(self._services, path, planned) or results[place]
                except Uncertain as error:
                    results[place] = error
                except (Rejected, Unavailable) as error:
                    if isinstance(results[place], problems.OwnerUnreachable):  # else the owner may have recorded it
                        results[place] = error
                except Exception:  # noqa: BLE001 — what is known of it stays true
                    _log.exception("what protects a player was not recorded here", path=path)
        return results

    async def _sheltered(self, results: Mapping[int, Receipt | BatchResult | Exception]) -> dict[int, Receipt]:
        """Items that protect players who are on their way here, recorded without waiting for that."""
        recorded = {}
        for place in [] if self._batched.hop.hops or self._wanted.dry_run else results:
            if isinstance(results[place], InTransit):
                path, planned = self.endpoints[place].path, self._described[place].plan
                try:
                    receipt = await sheltering.recorded(self._services, path, planned)
                except (Rejected, Unavailable):
                    continue
                except Exception:  # noqa: BLE001 — the others stand in the log
                    _log.exception("what protects a player was not recorded here", path=path)
                    continue
                if receipt is not None:
                    recorded[place] = receipt
        return recorded


def _travels(path: str) -> bool:
    """What is said by a provider of games has no route of its own."""
    route = ROUTES.get(shape(path)[0])
    return route is None or route.travels


def _asking_first(wanted: Batch, paths: Mapping[int, str]) -> dict[int, tuple[str, Sequence[str], bytes]]:
    """Those of the items, by place with their paths, before which a register is asked."""
    first: dict[int, tuple[str, Sequence[str], bytes]] = {}
    for place, path in paths.items():
        fixed, identifiers = shape(path)
        route = ROUTES.get(fixed)
        if route is not None and route.endpoint.path in registering.PATHS:
            first[place] = (route.endpoint.path, identifiers, bytes(wanted.items[place].body))
    return first


def _made(result: Receipt | BatchResult) -> object:
    """The identifier that a command made: what its answer says first."""
    return made_there(result) if isinstance(result, BatchResult) else msgspec.structs.astuple(result.answer)[0]


def _result(result: Receipt | BatchResult | Exception, endpoint: Endpoint | None) -> BatchResult:
    if isinstance(result, BatchResult):
        return result
    if isinstance(result, NotMade):
        return result.result
    if isinstance(result, Receipt) and endpoint is not None:
        status = status_for(endpoint, result)
        return BatchResult(status, msgspec.Raw(_encode(result.answer)), result.position, result.repeated)
    try:
        refused = refusal(result)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 — the other items' results are true all the same
        _log.exception("an item of a batch failed")
        refused = refusal(problems.Fault())
    position = result.position if isinstance(result, Rejected) else None
    return BatchResult(refused.status, msgspec.Raw(refused.body), position)


def status_for(endpoint: Endpoint, receipt: Receipt) -> int:
    is_accepted = endpoint.accepted is not None and isinstance(receipt.answer, endpoint.accepted)
    return ACCEPTED if is_accepted else endpoint.status


def outcome(result: Receipt | BatchResult | Exception) -> str:
    """What became of a command, in a word: "ok", "repeated", "forwarded" (where it counts as what it came to), or the code of the
    problem.
    """
    if isinstance(result, BatchResult | NotMade):
        return FORWARDED
    if isinstance(result, Receipt):
        return "repeated" if result.repeated else "ok"
    try:
        return problems.rejected(result).code
    except Exception:  # noqa: BLE001 — it is on its way to its caller already
        return problems.Fault.code


def _name(endpoint: Endpoint | None) -> str:
    return endpoint.path if endpoint else "none"


def as_asked(principal: Principal) -> Scope:
    """As much of a request as a refusal's record takes, wherever the request came in."""
    return {"method": "POST", "principal": principal}
