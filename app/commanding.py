"""
The write side on HTTP: each command endpoint, alone or in a batch, from bytes to a Plan and from a receipt to bytes.

Invariant: alone and in a batch a command takes the same way; only the envelope differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from access.policy import Principal
from app import denying, durability, lane, openapi, problems, registering, sheltering
from app.batching import BatchAnswer, Batched, BatchResult, NotMade, Wanted, elsewhere
from app.batching import made as made_there
from app.durability import HEADER, DurabilityRefused, Unconfirmed
from app.forwarding import Fate, Forwarding, Hop, Item, Items, Sent, owner_in, unknown
from app.lane import Answered, Post, body_of, refusal, shape
from app.openapi import Schemas
from app.planning import (
    BODY_BYTES_MAX,
    ROUTES,
    Asked,
    Route,
    Services,
    decided,
    headers_of,
    match,
    owner_elsewhere,
    owner_of,
    plan,
    traced,
)
from app.starting import Start
from commands import batch, identity
from commands.batch import Batch, BatchItem
from commands.edge import Endpoint, read_body
from commands.plan import Plan, PreconditionFailed, Receipt, WrongRegion
from commands.rights import RIGHTS
from domain.errors import Forbidden, InvalidId, KeyReused, NotFound, Rejected
from domain.protection import Answer
from eventstore.writer import Unavailable
from policies.durability import Durability
from replication.forwarding import Unknown

BATCH_BYTES_MAX = 8 * 1024 * 1024
ACCEPTED = 202

FORWARDED = "forwarded"
AWAY = (WrongRegion, problems.OwnerUnreachable)
_ALWAYS = (problems.KeyMissing, problems.Unauthenticated, Forbidden, problems.BodyTooLarge, problems.Busy)
_UNMET = (problems.IfMatchMalformed, PreconditionFailed)


Count = Callable[[Mapping[tuple[str, str], int]], None]
"""Told of commands, by endpoint ("none": no command has that path) and outcome."""

Relay = Callable[[Principal, str, bytes, str | None], tuple[Endpoint, Plan] | None]
"""(who asks, path, body, trace) → what an item of a batch is that no command of the house is; None: nothing. Raises Rejected."""


def _nothing(_principal: Principal, _path: str, _raw: bytes, _trace: str | None) -> None:
    return None


def router(services: Services, start: Start, schemas: Schemas, count: Count, relay: Relay = _nothing) -> APIRouter:
    """All command routes. They take commands once `start` is recorded. `relay` knows further items of batches."""
    made = APIRouter(tags=["commands"])
    commands = {fixed: _Command(services, start, count, route) for fixed, route in ROUTES.items()}
    for fixed, route in ROUTES.items():
        _add(made, schemas, route, commands[fixed])
    batches = _Batches(services, start, count, relay)

    async def post_batch(request: Request) -> Response:
        """Run many commands, each with its own key and result; items on one stream run in the order given."""
        principal = await services.authentication(request.scope)
        start.require()
        wanted: Batch = read_body(_batch_decoder, await body_of(request.receive, BATCH_BYTES_MAX))
        asked = request.headers.get(HEADER, "")
        answer = await batches.run(wanted, Batched(principal, wanted.dry_run, trace_of(request), durability=asked))
        return Response(_encode(answer), media_type="application/json")

    if services.forwarding is not None:
        _take(services.forwarding, commands, batches)

    made.add_api_route(
        "/v1/batch",
        post_batch,
        methods=["POST"],
        summary="Run many commands in one request",
        openapi_extra={
            "requestBody": {"required": True, "content": schemas.json(Batch)},
            "responses": schemas.refusals((problems.Unauthenticated, InvalidId, problems.BodyTooLarge, problems.Busy)),
        },
        responses={200: {"description": "A result for each item", "content": schemas.json(BatchAnswer)}},
    )
    return made


def _take(forwarding: Forwarding, commands: Mapping[str, _Command], batches: _Batches) -> None:
    """Answer what other regions send."""

    async def command(sent: Sent, hop: Hop) -> Answered:
        found = commands.get(shape(sent.target.partition("?")[0])[0])
        if found is None:  # a later release knows it
            return refusal(NotFound("no command has this path", path=sent.target[:200]))
        return await found.answer(Asked(forwarding.principal(sent.who), sent.target, sent.body, sent.headers, hop))

    async def items(sent: Items, hop: Hop) -> Answered:
        wanted = Batch(
            [BatchItem(each.key, each.path, msgspec.Raw(each.body), each.if_match) for each in sent.items], sent.dry_run
        )
        try:
            principal = forwarding.principal(sent.who)
            answer = await batches.run(wanted, Batched(principal, sent.dry_run, sent.trace, hop, sent.durability))
        except Exception as error:  # noqa: BLE001 — raised again unless it is a refusal
            return refusal(error)
        return lane.json(200, _encode(answer))

    forwarding.takes(Sent, command)
    forwarding.takes(Items, items)


class _Batches:
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
            denying.note(self._services.denials, _as_asked(batched.principal), result, name)
        answers = [_result(result, one.endpoints.get(place)) for place, result in enumerate(results)]
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

    async def run(self) -> list[Receipt | BatchResult | Exception]:
        wanted = self._wanted
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
        first = {
            place: each
            for place, each in _asking_first(self._wanted, paths).items()
            if not await owner_elsewhere(
                self._services, match(paths[place])[0], each[1], self._batched.hop
            )  # who asks there
        }
        asking = self._services.asking
        self._asked.update(await registering.before_each(asking, self._batched.principal, first))

    async def _decide(self, wave: Mapping[int, Plan]) -> Sequence[Receipt | BatchResult | Exception]:
        services, hop = self._services, self._batched.hop
        work = services.decider.rehearse if self._wanted.dry_run else services.decider.run
        results: dict[int, Receipt | BatchResult | Exception] = dict(
            zip(wave, await work(list(wave.values())), strict=True)
        )
        if services.forwarding is None:
            return list(results.values())
        wrong = {place: each for place, each in results.items() if isinstance(each, WrongRegion)}
        handed = [place for place, each in wrong.items() if hop.sender and owner_in(each) == hop.sender]
        ours = [
            place for place in handed if not await owner_of(services, int(str(wrong[place].facts["partition"])), hop)
        ]
        if ours:
            results.update(zip(ours, await work([wave[place] for place in ours]), strict=True))
        rest = {place: each for place, each in wrong.items() if place not in ours}
        results.update(await self._elsewhere(services.forwarding, rest))
        return [results[place] for place in wave]

    async def _elsewhere(
        self, forwarding: Forwarding, wrong: Mapping[int, WrongRegion]
    ) -> dict[int, Receipt | BatchResult | Exception]:
        """What became of items of other regions' players. Those that protect are recorded here if that is all that can be done."""
        results: dict[int, Receipt | BatchResult | Exception] = {}
        first_hand = not self._batched.hop.hops
        for place in wrong if first_hand else ():
            try:
                await sheltering.require_open(self._services, self.endpoints[place].path, self._described[place].plan)
            except Rejected as refused:
                results[place] = refused
        sent = {place: each for place, each in wrong.items() if place not in results}
        results.update(await elsewhere(forwarding, self._batched, sent, self._described))
        for place in sent if first_hand and not self._wanted.dry_run else ():
            if sheltering.is_unreached_item(results[place]):
                path, planned = self.endpoints[place].path, self._described[place].plan
                try:
                    results[place] = await sheltering.recorded(self._services, path, planned) or results[place]
                except (Rejected, Unavailable) as error:
                    results[place] = error
        return results


def _add(made: APIRouter, schemas: Schemas, route: Route, command: _Command) -> None:
    endpoint = route.endpoint
    conditional, unmet = ([openapi.IF_MATCH], _UNMET) if route.read_together else ([], ())
    made.add_api_route(
        endpoint.path,
        Post(command.handle),
        methods=["POST"],
        status_code=endpoint.status,
        name=endpoint.handler.__name__,
        summary=(endpoint.handler.__doc__ or "").partition(".")[0],
        description=endpoint.handler.__doc__,
        openapi_extra={
            "parameters": [
                *openapi.path_parameters(endpoint.path),
                openapi.IDEMPOTENCY_KEY,
                durability.PARAMETER,
                *conditional,
            ],
            "requestBody": {"required": True, "content": schemas.json(endpoint.body)},
            "responses": schemas.refusals(
                (*_ALWAYS, InvalidId, KeyReused, DurabilityRefused, *AWAY, *unmet, *endpoint.errors)
            ),
            **openapi.needs(*RIGHTS[endpoint.path]),
        },
        responses=_answers(endpoint, schemas),
    )


class _Command:
    """A command of one endpoint: who lets in whoever asks, and who answers them then."""

    def __init__(self, services: Services, start: Start, count: Count, route: Route) -> None:
        self._services = services
        self._start = start
        self._count = count
        self._route = route
        self._endpoint = route.endpoint
        # What is approved is asked of whoever requested it, and what is done to an operator of who else administers.
        self._asks_others = route.endpoint.path.startswith(("/v1/approvals", "/v1/operators"))

    async def handle(self, scope: Scope, receive: Receive) -> Answered:
        try:
            principal = await self._services.authentication(scope)
            self._start.require()
            body = await body_of(receive, BODY_BYTES_MAX)
        except Exception as error:  # noqa: BLE001 — counted, and raised again unless it is a refusal
            return self._refusal(error, scope)
        path, query = scope["path"], scope["query_string"].decode("latin-1")
        return await self.answer(Asked(principal, f"{path}?{query}" if query else path, body, headers_of(scope)))

    async def answer(self, asked: Asked) -> Answered:
        """What somebody who was let in is answered, wherever that was."""
        durable, wanted = self._services.durable, Durability.REGION
        try:
            if durable is not None:
                wanted = durable.wanted(self._endpoint.path, asked.headers.get(HEADER, ""))
            receipt = await self._taken(asked)
        except Exception as error:  # noqa: BLE001 — counted, and raised again unless it is a refusal
            return self._refusal(error, _as_asked(asked.principal))
        if isinstance(receipt, Answered):
            self._count({(self._endpoint.path, FORWARDED): 1})
            return receipt
        self._count({(self._endpoint.path, outcome(receipt)): 1})
        command_id = identity.command_id(asked.principal.actor, asked.headers.get("idempotency-key", ""))
        answered = lane.json(_status(self._endpoint, receipt), _encode(receipt.answer), *_about(receipt, command_id))
        if durable is None or receipt.position is None:
            return answered
        return await durable.settled(answered, wanted, receipt.position, command_id)

    def _refusal(self, error: Exception, scope: Scope) -> Answered:
        self._count({(self._endpoint.path, outcome(error)): 1})
        denying.note(self._services.denials, scope, error, self._endpoint.path)
        return refusal(error)

    async def _taken(self, asked: Asked) -> Receipt | Answered:
        services, route = self._services, self._route
        principal, target, body = asked.principal, asked.target, asked.body
        self._start.require()
        arguments = shape(target.partition("?")[0])[1]
        if owner := await owner_elsewhere(services, route, arguments, asked.hop):
            return await self._forward(asked, owner, arguments)
        if self._asks_others:
            await services.authentication.renew()
        said = await registering.before(services.asking, principal, self._endpoint.path, arguments, body)
        planned = self._plan(asked, arguments, said)
        found = await decided(services, lambda: services.decider.decide(planned), asked.hop)
        return await self._forward(asked, found, arguments) if isinstance(found, str) else found

    def _plan(self, asked: Asked, arguments: Sequence[str], said: Sequence[Answer] = ()) -> Plan:
        principal, target, body, headers, _ = asked
        key, trace = headers.get("idempotency-key", ""), traced(headers.get("traceparent", ""))
        if_match = headers.get("if-match")
        return plan(self._services, principal, self._route, arguments, key, target, body, trace, if_match, said)

    async def _forward(self, asked: Asked, owner: str, arguments: Sequence[str]) -> Receipt | Answered:
        services, path, (principal, target, body, headers, hop) = self._services, self._endpoint.path, asked
        forwarding = services.forwarding
        assert forwarding is not None  # noqa: S101 — nobody else names an owner
        planned = None
        if not hop.hops and path in sheltering.CONCERNED:
            planned = self._plan(asked, arguments)
            await sheltering.require_open(services, path, planned)
        sent = Sent(forwarding.who(principal), target, body, dict(headers))
        try:
            answered = await forwarding.ask(owner, sent, hop)
            if planned is None or not sheltering.is_unreached(answered):
                return answered
            return await sheltering.recorded(services, path, planned) or answered
        except problems.OwnerUnreachable:
            if planned is not None and (receipt := await sheltering.recorded(services, path, planned)):
                return receipt
            raise
        except Unknown:
            if planned is not None and (receipt := await sheltering.recorded(services, path, planned)):
                return receipt
            return unknown(identity.command_id(principal.actor, headers.get("idempotency-key", "")))


def _about(receipt: Receipt, command_id: bytes) -> list[tuple[bytes, bytes]]:
    """What the header says of a receipt: where it stands, and where its fate is told."""
    replayed = [(b"idempotency-replayed", b"true")] if receipt.repeated else []
    if receipt.position is None:
        return replayed
    fate = durability.location(command_id).encode()
    return [(b"ledger-position", receipt.position.encode()), (b"content-location", fate), *replayed]


def _as_asked(principal: Principal) -> Scope:
    """As much of a request as a refusal's record takes, wherever the request came in."""
    return {"method": "POST", "principal": principal}


def _answers(endpoint: Endpoint, schemas: Schemas) -> dict[int | str, dict[str, Any]]:
    text = {"schema": {"type": "string"}}
    headers = {
        "Ledger-Position": {**text, "description": "log/position/leaf prefix"},
        "Content-Location": {**text, "description": "where the command's fate is told"},
        "Durability": {**text, "description": "how safe it is: region or geo"},
    }
    later = [schemas.ref(kind) for kind in (Unconfirmed, Fate, endpoint.accepted) if kind is not None]
    return {
        endpoint.status: {
            "description": "Done, or done before",
            "content": schemas.json(endpoint.answer),
            "headers": headers,
        },
        ACCEPTED: {
            "description": "Recorded, and another person decides, or no other region is known to hold it yet; or what became of it in the region that owns the player is not known",
            "content": {"application/json": {"schema": {"anyOf": later}}},
            "headers": headers,
        },
    }


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
        status = _status(endpoint, result)
        return BatchResult(status, msgspec.Raw(_encode(result.answer)), result.position, result.repeated)
    refused = problems.rejected(result)  # type: ignore[arg-type]
    return BatchResult(problems.status_of(type(refused)), msgspec.Raw(problems.document(refused)))


def _status(endpoint: Endpoint, receipt: Receipt) -> int:
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


_encode = msgspec.json.Encoder().encode
_batch_decoder = msgspec.json.Decoder(Batch)


def trace_of(request: Request) -> str | None:
    """The caller's W3C traceparent, if it is one."""
    return traced(request.headers.get("traceparent", ""))
