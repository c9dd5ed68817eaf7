"""
The write side on HTTP: each command endpoint, alone or in a batch, from bytes to a Plan and from a receipt to bytes.

Invariant: alone and in a batch a command takes the same way; only the envelope differs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from access.policy import Principal
from app import denying, lane, openapi, problems, registering
from app.authentication import Authentication
from app.lane import Answered, Handler, Post, body_of, refusal, shape
from app.openapi import Schemas
from app.starting import Start
from commands import batch, identity
from commands.asking import Asking
from commands.batch import Batch
from commands.catalog import ENDPOINTS
from commands.decider import Decider
from commands.denials import Denials
from commands.edge import READ_TOGETHER, Edge, Endpoint, read_body
from commands.plan import Context, Plan, PreconditionFailed, Receipt, Seen, WrongRegion
from commands.rights import RIGHTS, require_named
from domain.errors import Forbidden, InvalidId, KeyReused, NotFound
from domain.kernel import Stream
from domain.protection import Answer
from eventstore.vault import Vault
from eventstore.writer import Unavailable
from policies.protection import Silence
from policies.residency import EVERYWHERE, Residency

BODY_BYTES_MAX = 60 * 1024
BATCH_BYTES_MAX = 8 * 1024 * 1024
KEY_CHARACTERS_MAX = 200
ACCEPTED = 202

_TAG = r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"'
_TAGS = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_ALWAYS = (problems.KeyMissing, problems.Unauthenticated, Forbidden, problems.BodyTooLarge, problems.Busy)
_UNMET = (problems.IfMatchMalformed, PreconditionFailed)


class BatchResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the item would have been answered alone: `body` is the answer or the problem, `position` the Ledger-Position."""

    status: int
    body: msgspec.Raw
    position: str | None = None
    repeated: bool = False


class BatchAnswer(msgspec.Struct, frozen=True):
    """In the order of the items."""

    items: list[BatchResult]


class Services(NamedTuple):
    """What commands need at run time."""

    decider: Decider
    vault: Vault
    authentication: Authentication
    group: Sequence[int]
    fingerprint_key: bytes
    kyc_providers: Collection[str] = ()
    asking: Asking | None = None
    residency: Residency = EVERYWHERE
    denials: Denials | None = None


class _Route(NamedTuple):
    """`read_together`: what the ETag of the resource in its path is made of, if that has one."""

    endpoint: Endpoint
    decoder: msgspec.json.Decoder[Any]
    read_together: Sequence[Callable[[Any], Stream[Any]]]


def _route(endpoint: Endpoint) -> tuple[str, _Route]:
    fixed, identifiers = shape(endpoint.path)
    read_together = READ_TOGETHER[identifiers[0].strip("{}")] if identifiers else ()
    return fixed, _Route(endpoint, msgspec.json.Decoder(endpoint.body), read_together)


_ROUTES = dict(map(_route, ENDPOINTS))


Count = Callable[[Mapping[tuple[str, str], int]], None]
"""Told of commands, by endpoint ("none": no command has that path) and outcome."""

Relay = Callable[[Principal, str, bytes, str | None], tuple[Endpoint, Plan] | None]
"""(who asks, path, body, trace) → what an item of a batch is that no command of the house is; None: nothing. Raises Rejected."""


def _nothing(_principal: Principal, _path: str, _raw: bytes, _trace: str | None) -> None:
    return None


def router(services: Services, start: Start, schemas: Schemas, count: Count, relay: Relay = _nothing) -> APIRouter:
    """All command routes. They take commands once `start` is recorded. `relay` knows further items of batches."""
    made = APIRouter(tags=["commands"])
    for route in _ROUTES.values():
        _add(made, services, start, schemas, count, route)

    async def post_batch(request: Request) -> Response:
        """Run many commands, each with its own key and result; items on one stream run in the order given."""
        principal = await services.authentication(request.scope)
        await services.authentication.renew()
        start.require()
        wanted: Batch = read_body(_batch_decoder, await body_of(request.receive, BATCH_BYTES_MAX))
        trace = trace_of(request)

        endpoints: dict[int, Endpoint] = {}

        def plan_item(place: int, path: str) -> Plan:
            item = wanted.items[place]
            raw = bytes(item.body)
            if len(raw) > BODY_BYTES_MAX:
                raise problems.BodyTooLarge(f"a command's body has at most {BODY_BYTES_MAX} bytes")
            if (relayed := relay(principal, path, raw, trace)) is not None:
                endpoints[place], planned = relayed
                return planned
            route, arguments = match(path)
            endpoints[place] = route.endpoint
            said = asked.get(place, ())
            if isinstance(said, Unavailable):
                raise said
            return plan(services, principal, route, arguments, item.key, path, raw, trace, item.if_match, said)

        asked: dict[int, Sequence[Answer] | Unavailable] = {}

        async def ask(paths: Mapping[int, str]) -> None:
            asked.update(await registering.before_each(services.asking, principal, _asking_first(wanted, paths)))

        if wanted.dry_run:
            results = await batch.run(wanted, plan=plan_item, decide=services.decider.rehearse, made=_made)
        else:
            await ask({place: item.path for place, item in enumerate(wanted.items) if "$" not in item.path})
            results = await batch.run(wanted, plan=plan_item, decide=services.decider.run, made=_made, ask=ask)
        answers = [_result(result, endpoints.get(place)) for place, result in enumerate(results)]
        count(Counter([(_name(endpoints.get(place)), outcome(result)) for place, result in enumerate(results)]))
        for place, result in enumerate(results):
            denying.note(services.denials, request.scope, result, _name(endpoints.get(place)))
        return Response(_encode(BatchAnswer(answers)), media_type="application/json")

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


def _add(made: APIRouter, services: Services, start: Start, schemas: Schemas, count: Count, route: _Route) -> None:
    endpoint = route.endpoint
    conditional, unmet = ([openapi.IF_MATCH], _UNMET) if route.read_together else ([], ())
    made.add_api_route(
        endpoint.path,
        Post(_handler(services, start, count, route)),
        methods=["POST"],
        status_code=endpoint.status,
        name=endpoint.handler.__name__,
        summary=(endpoint.handler.__doc__ or "").partition(".")[0],
        description=endpoint.handler.__doc__,
        openapi_extra={
            "parameters": [*openapi.path_parameters(endpoint.path), openapi.IDEMPOTENCY_KEY, *conditional],
            "requestBody": {"required": True, "content": schemas.json(endpoint.body)},
            "responses": schemas.refusals((*_ALWAYS, InvalidId, KeyReused, WrongRegion, *unmet, *endpoint.errors)),
            **openapi.needs(*RIGHTS[endpoint.path]),
        },
        responses=_answers(endpoint, schemas),
    )


def _handler(services: Services, start: Start, count: Count, route: _Route) -> Handler:
    endpoint = route.endpoint
    # What is approved is asked of whoever requested it, and what is done to an operator of who else administers.
    asks_others = endpoint.path.startswith(("/v1/approvals", "/v1/operators"))

    async def receipt_of(scope: Scope, receive: Receive) -> Receipt:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        principal = await services.authentication(scope)
        if asks_others:
            await services.authentication.renew()
        start.require()
        raw = await body_of(receive, BODY_BYTES_MAX)
        path, query = scope["path"], scope["query_string"].decode("latin-1")
        arguments = shape(path)[1]
        if_match = None
        if b"if-match" in headers:
            if_match = b", ".join(value for name, value in scope["headers"] if name == b"if-match").decode("latin-1")
        said = await registering.before(services.asking, principal, endpoint.path, arguments, raw)
        target, key = f"{path}?{query}" if query else path, _text(headers, b"idempotency-key")
        trace = traced(_text(headers, b"traceparent"))
        planned = plan(services, principal, route, arguments, key, target, raw, trace, if_match, said)
        return await services.decider.decide(planned)

    async def handle(scope: Scope, receive: Receive) -> Answered:
        try:
            receipt = await receipt_of(scope, receive)
        except Exception as error:  # noqa: BLE001 — counted, and raised again unless it is a refusal
            count({(endpoint.path, outcome(error)): 1})
            denying.note(services.denials, scope, error)
            return refusal(error)
        count({(endpoint.path, outcome(receipt)): 1})
        more = [(b"ledger-position", receipt.position.encode())] if receipt.position else []
        if receipt.repeated:
            more.append((b"idempotency-replayed", b"true"))
        return lane.json(_status(endpoint, receipt), _encode(receipt.answer), *more)

    return handle


def _answers(endpoint: Endpoint, schemas: Schemas) -> dict[int | str, dict[str, Any]]:
    position = {"schema": {"type": "string"}, "description": "log/position/leaf prefix"}
    answers: dict[int | str, dict[str, Any]] = {
        endpoint.status: {
            "description": "Done, or done before",
            "content": schemas.json(endpoint.answer),
            "headers": {"Ledger-Position": position},
        }
    }
    if endpoint.accepted is not None:
        answers[ACCEPTED] = {
            "description": "Recorded; another person decides",
            "content": schemas.json(endpoint.accepted),
            "headers": {"Ledger-Position": position},
        }
    return answers


def plan(
    services: Services,
    principal: Principal,
    route: _Route,
    arguments: Sequence[str],
    key: str,
    target: str,
    raw: bytes,
    trace: str | None,
    if_match: str | None = None,
    asked: Sequence[Answer] = (),
) -> Plan:
    """Describe the command that a request asks for. `asked`: what registers have said for it. Raises Rejected."""
    if not 0 < len(key) <= KEY_CHARACTERS_MAX:
        raise problems.KeyMissing
    command = read_body(route.decoder, raw or b"{}")
    printed = identity.prints(services.fingerprint_key, "POST", target, raw, route.endpoint.body)
    context = Context(
        principal,
        datetime.now(UTC),
        identity.command_id(principal.actor, key),
        printed.fingerprint,
        trace,
        whole=printed.whole,
    )
    edge = edge_of(services, context, target.partition("?")[0], raw.decode() or "{}", asked)
    made = require_named(route.endpoint.path, route.endpoint.handler(*arguments, command, edge))
    if if_match is None or not route.read_together or (tags := entity_tags(if_match)) is None:
        return made
    streams = [stream(*arguments) for stream in route.read_together]
    return msgspec.structs.replace(made, seen=Seen({stream.name: stream for stream in streams}, tags))


def edge_of(
    services: Services, context: Context, path: str = "", body: str = "{}", asked: Sequence[Answer] = ()
) -> Edge:
    """What a handler may use; `path` and `body` as they were sent."""
    return Edge(
        context,
        services.vault,
        services.group,
        services.decider.log,
        path=path,
        body=body,
        known=services.authentication.known,
        administrators=services.authentication.administrators,
        kyc_providers=services.kyc_providers,
        asked=asked,
        unasked=services.asking.unasked if services.asking else Silence.NOT_CONFIGURED,
        residency=services.residency,
        secret=services.fingerprint_key,
    )


def entity_tags(if_match: str) -> frozenset[str] | None:
    """What an If-Match (RFC 9110, 13.1.1) names, None if any state will do. Weak tags never match. Raises IfMatchMalformed."""
    if if_match.strip() == "*":
        return None
    if not _TAGS.fullmatch(if_match):
        raise problems.IfMatchMalformed
    return frozenset([tag for weak, tag in re.findall(_TAG, if_match) if not weak])


def match(path: str) -> tuple[_Route, tuple[str, ...]]:
    """The route of a path, and the identifiers in it. Raises NotFound."""
    fixed, identifiers = shape(path)
    if (route := _ROUTES.get(fixed)) is not None:
        return route, identifiers
    raise NotFound("no command has this path", path=path[:200])


def _asking_first(wanted: Batch, paths: Mapping[int, str]) -> dict[int, tuple[str, Sequence[str], bytes]]:
    """Those of the items, by place with their paths, before which a register is asked."""
    first: dict[int, tuple[str, Sequence[str], bytes]] = {}
    for place, path in paths.items():
        fixed, identifiers = shape(path)
        route = _ROUTES.get(fixed)
        if route is not None and route.endpoint.path in registering.PATHS:
            first[place] = (route.endpoint.path, identifiers, bytes(wanted.items[place].body))
    return first


def _made(receipt: Receipt) -> str:
    """The identifier that a command made: what its answer says first."""
    made: str = msgspec.structs.astuple(receipt.answer)[0]
    return made


def _result(result: Receipt | Exception, endpoint: Endpoint | None) -> BatchResult:
    if isinstance(result, Receipt) and endpoint is not None:
        status = _status(endpoint, result)
        return BatchResult(status, msgspec.Raw(_encode(result.answer)), result.position, result.repeated)
    refused = problems.rejected(result)  # type: ignore[arg-type]
    return BatchResult(problems.status_of(type(refused)), msgspec.Raw(problems.document(refused)))


def _status(endpoint: Endpoint, receipt: Receipt) -> int:
    is_accepted = endpoint.accepted is not None and isinstance(receipt.answer, endpoint.accepted)
    return ACCEPTED if is_accepted else endpoint.status


def outcome(result: Receipt | Exception) -> str:
    """What became of a command, in a word: "ok", "repeated" or the code of the problem."""
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


def traced(given: str) -> str | None:
    """What was given, if it is a W3C traceparent."""
    return given if _TRACE.fullmatch(given) else None


def _text(headers: Mapping[bytes, bytes], name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1")
