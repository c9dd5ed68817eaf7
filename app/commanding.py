"""
The write side on HTTP: each command endpoint, alone or in a batch, from bytes to a Plan and from a receipt to bytes.

Invariant: alone and in a batch a command takes the same way; only the envelope differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog
from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from access.policy import Principal
from app import denying, durability, lane, openapi, problems, registering, sheltering
from app.batches import ACCEPTED, FORWARDED, Batches, Count, Relay, as_asked, outcome, status_for
from app.batching import BatchAnswer, Batched
from app.durability import HEADER, DurabilityRefused, Unconfirmed
from app.forwarding import Fate, Forwarding, Hop, Items, Sent, unknown
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
    owner_elsewhere,
    plan,
    traced,
)
from app.starting import Start
from commands import identity
from commands.batch import Batch, BatchItem
from commands.edge import Endpoint, read_body
from commands.owners import InTransit
from commands.plan import Plan, PreconditionFailed, Receipt, WrongRegion
from commands.rights import RIGHTS
from domain.errors import Forbidden, InvalidId, KeyReused, NotFound, Rejected
from domain.protection import Answer
from eventstore.writer import Unavailable, Uncertain
from policies.durability import Durability
from replication.forwarding import Unknown

BATCH_BYTES_MAX = 8 * 1024 * 1024

AWAY = (WrongRegion, problems.OwnerUnreachable)
_ALWAYS = (problems.KeyMissing, problems.Unauthenticated, Forbidden, problems.BodyTooLarge, problems.Busy)
_UNMET = (problems.IfMatchMalformed, PreconditionFailed)

_log = structlog.get_logger(__name__)


def _nothing(_principal: Principal, _path: str, _raw: bytes, _trace: str | None) -> None:
    return None


def router(services: Services, start: Start, schemas: Schemas, count: Count, relay: Relay = _nothing) -> APIRouter:
    """All command routes. They take commands once `start` is recorded. `relay` knows further items of batches."""
    made = APIRouter(tags=["commands"])
    commands = {fixed: _Command(services, start, count, route) for fixed, route in ROUTES.items()}
    for fixed, route in ROUTES.items():
        _add(made, schemas, route, commands[fixed])
    batches = Batches(services, start, count, relay)

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


def _take(forwarding: Forwarding, commands: Mapping[str, _Command], batches: Batches) -> None:
    """Answer what other regions send."""

    async def command(sent: Sent, hop: Hop) -> Answered:
        found = commands.get(shape(sent.target.partition("?")[0])[0])
        if found is None or not found.travels:  # a later release knows it
            return refusal(NotFound("no command from another region has this path", path=sent.target[:200]))
        return await found.answer(Asked(forwarding.principal(sent.who), sent.target, sent.body, sent.headers, hop))

    async def items(sent: Items, hop: Hop) -> Answered:
        for each in sent.items:
            if (known := commands.get(shape(each.path)[0])) is not None and not known.travels:
                return refusal(NotFound("no command from another region has this path", path=each.path[:200]))
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

    @property
    def travels(self) -> bool:
        return self._route.travels

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
        command_id = identity.command_id(asked.principal.actor, asked.headers.get("idempotency-key", ""))
        try:
            if durable is not None:
                wanted = durable.wanted(self._endpoint.path, asked.headers.get(HEADER, ""))
            receipt = await self._taken(asked)
        except Exception as error:  # noqa: BLE001 — counted, and raised again unless it is a refusal
            return self._refusal(error, as_asked(asked.principal), command_id)
        if isinstance(receipt, Answered):
            self._count({(self._endpoint.path, FORWARDED): 1})
            return receipt
        self._count({(self._endpoint.path, outcome(receipt)): 1})
        answered = lane.json(status_for(self._endpoint, receipt), _encode(receipt.answer), *_about(receipt, command_id))
        if durable is None or receipt.position is None:
            return answered
        return await durable.settled(answered, wanted, receipt.position, command_id)

    def _refusal(self, error: Exception, scope: Scope, command_id: bytes | None = None) -> Answered:
        self._count({(self._endpoint.path, outcome(error)): 1})
        if command_id is not None and isinstance(error, Uncertain):
            return unknown(command_id)
        denying.note(self._services.denials, scope, error, self._endpoint.path)
        refused = refusal(error)
        if command_id is None or not isinstance(error, Rejected) or error.position is None:
            return refused
        return refused._replace(headers=[*refused.headers, _fate(command_id)])

    async def _taken(self, asked: Asked) -> Receipt | Answered:
        services, route = self._services, self._route
        principal, target, body = asked.principal, asked.target, asked.body
        self._start.require()
        arguments = shape(target.partition("?")[0])[1]
        key = asked.headers.get("idempotency-key", "")
        if owner := await owner_elsewhere(
            services, route, arguments, asked.hop, actor=principal.actor, key=key, raw=body
        ):
            return await self._forward(asked, owner, arguments)
        if self._asks_others:
            await services.authentication.renew()
        said = await registering.before(services.asking, principal, self._endpoint.path, arguments, body)
        planned = self._plan(asked, arguments, said)
        try:
            if not route.travels:
                return await services.decider.decide(planned)
            found = await decided(services, lambda: services.decider.decide(planned), asked.hop)
        except InTransit:
            if asked.hop.hops or not (receipt := await sheltering.recorded(services, self._endpoint.path, planned)):
                raise
            return receipt
        return await self._forward(asked, found, arguments) if isinstance(found, str) else found

    async def _first_answer(self, asked: Asked, arguments: Sequence[str]) -> Receipt | None:
        """Of what stands here already: who owns its player now may not know of it yet. Raises Rejected, Unavailable."""
        path = self._endpoint.path
        if path not in sheltering.MAY_STAND_HERE:
            return None
        plans = {0: (path, self._plan(asked, arguments))}
        known = (await sheltering.standing_here(self._services, plans)).get(0)
        if isinstance(known, Exception):
            raise known
        return known

    def _plan(self, asked: Asked, arguments: Sequence[str], said: Sequence[Answer] = ()) -> Plan:
        principal, target, body, headers, _ = asked
        key, trace = headers.get("idempotency-key", ""), traced(headers.get("traceparent", ""))
        if_match = headers.get("if-match")
        return plan(self._services, principal, self._route, arguments, key, target, body, trace, if_match, said)

    async def _forward(self, asked: Asked, owner: str, arguments: Sequence[str]) -> Receipt | Answered:
        services, path, (principal, target, body, headers, hop) = self._services, self._endpoint.path, asked
        forwarding = services.forwarding
        assert forwarding is not None  # noqa: S101 — nobody else names an owner
        if known := await self._first_answer(asked, arguments):
            return known
        planned = None
        if not hop.hops and path in sheltering.CONCERNED:
            planned = self._plan(asked, arguments)
            if known := await sheltering.require_open(services, path, planned):
                return known
        sent = Sent(forwarding.who(principal), target, body, dict(headers))
        command_id = identity.command_id(principal.actor, headers.get("idempotency-key", ""))
        try:
            answered = await forwarding.ask(owner, sent, hop)
        except problems.OwnerUnreachable:
            if planned is not None and (receipt := await sheltering.recorded(services, path, planned)):
                return receipt
            raise
        except Unknown:
            answered = unknown(command_id)
        if planned is None or not sheltering.is_unreached(answered, command_id):
            return answered
        return await self._recorded_after(planned, answered)

    async def _recorded_after(self, planned: Plan, answered: Answered) -> Receipt | Answered:
        """What came of it here, or else of the owner, who may have recorded it: nobody is told then that it was refused, or failed."""
        try:
            return await sheltering.recorded(self._services, self._endpoint.path, planned) or answered
        except Uncertain:
            return unknown(planned.context.command_id)
        except (Rejected, Unavailable):
            return answered
        except Exception:  # noqa: BLE001 — what the owner has answered stays true
            _log.exception("what protects a player was not recorded here", path=self._endpoint.path)
            return answered


def _about(receipt: Receipt, command_id: bytes) -> list[tuple[bytes, bytes]]:
    """What the header says of a receipt: where it stands, and where its fate is told."""
    replayed = [(b"idempotency-replayed", b"true")] if receipt.repeated else []
    if receipt.position is None:
        return replayed
    return [(b"ledger-position", receipt.position.encode()), _fate(command_id), *replayed]


def _fate(command_id: bytes) -> tuple[bytes, bytes]:
    return b"content-location", durability.location(command_id).encode()


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


_encode = msgspec.json.Encoder().encode
_batch_decoder = msgspec.json.Decoder(Batch)


def trace_of(request: Request) -> str | None:
    """The caller's W3C traceparent, if it is one."""
    return traced(request.headers.get("traceparent", ""))
