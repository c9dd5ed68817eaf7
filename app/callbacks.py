"""
The door for providers: POST /v1/providers/{provider}/callbacks, a message signed over its raw bytes.

Invariants:
    - nothing of a message is read, and nothing recorded, before its signature was found right and recent;
    - an unknown provider and a wrong signature are answered alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

import msgspec
import structlog
from fastapi import APIRouter, Request
from starlette.responses import Response

from access.rates import ADMITTED
from app import lane, openapi, problems
from app.batches import FORWARDED, Count, outcome
from app.commanding import AWAY, trace_of
from app.forwarding import Called, Hop
from app.lane import Answered, body_of, refusal
from app.openapi import Schemas
from app.planning import BODY_BYTES_MAX, Services, decided, edge_of
from app.starting import Start
from commands import callbacks
from commands.callbacks import Callback
from commands.edge import read_body
from commands.plan import Receipt
from domain.errors import Conflict, InvalidId, KeyReused, NotFound
from providers import signing
from providers.known import Known

PATH = "/v1/providers/{provider}/callbacks"

_log = structlog.get_logger(__name__)
_decoder = msgspec.json.Decoder(Callback)
_encode = msgspec.json.Encoder().encode


def router(
    services: Services,
    start: Start,
    schemas: Schemas,
    count: Count,
    known: Mapping[str, Known],
    clock: Callable[[], float] = time.time,
) -> APIRouter:
    """`clock`: seconds since 1970 UTC."""
    made = APIRouter(tags=["commands"])
    commands = _Callbacks(services, start, count, known)

    async def verified(provider: str, request: Request) -> Called:
        raw = await body_of(request.receive, BODY_BYTES_MAX)
        signature = request.headers.get(signing.HEADER, "")
        _verify(known.get(provider), provider, signature, raw, int(clock()))
        request.scope[ADMITTED] = True
        services.authentication.limits.admit_provider(provider)
        return Called(provider, raw, trace_of(request))

    async def post_callback(provider: str, request: Request) -> Response:
        """Take what a payment or KYC provider says has happened. The same verb and reference are one command for ever."""
        try:
            called = await verified(provider, request)
        except Exception as error:
            count({(PATH, outcome(error)): 1})
            raise
        answered = await commands.answer(called, Hop())
        response = Response(answered.body, answered.status)
        response.raw_headers = answered.headers
        return response

    if services.forwarding is not None:
        services.forwarding.takes(Called, commands.answer)

    made.add_api_route(
        PATH,
        post_callback,
        methods=["POST"],
        summary="Take what a provider says has happened",
        openapi_extra={
            "parameters": [*openapi.path_parameters(PATH), _SIGNATURE],
            "requestBody": {"required": True, "content": schemas.json(Callback)},
            "responses": schemas.refusals(_REFUSALS),
            "security": [],
        },
        responses={200: {"description": "Done, or done before: what the command of the verb answers"}},
    )
    return made


class _Callbacks:
    """Answers what a provider has signed, in whatever region it was said."""

    def __init__(self, services: Services, start: Start, count: Count, known: Mapping[str, Known]) -> None:
        self._services = services
        self._start = start
        self._count = count
        self._known = known

    async def answer(self, called: Called, hop: Hop) -> Answered:
        try:
            receipt = await self._taken(called, hop)
        except Exception as error:  # noqa: BLE001 — counted, and raised again unless it is a refusal
            self._count({(PATH, outcome(error)): 1})
            return refusal(error)
        if isinstance(receipt, Answered):
            self._count({(PATH, FORWARDED): 1})
            return receipt
        self._count({(PATH, outcome(receipt)): 1})
        more = [(b"ledger-position", receipt.position.encode())] if receipt.position else []
        if receipt.repeated:
            more.append((b"idempotency-replayed", b"true"))
        return lane.json(200, _encode(receipt.answer), *more)

    async def _taken(self, called: Called, hop: Hop) -> Receipt | Answered:
        self._start.require()
        speaker = self._known.get(called.provider)
        if speaker is None:
            raise problems.Unauthenticated("the region that owns this knows no such provider")
        services = self._services
        planned = callbacks.plan(
            called.provider,
            read_body(_decoder, called.body),
            speaks=speaker.speaks,
            now=datetime.now(UTC),
            secret=services.fingerprint_key,
            edge=partial(edge_of, services),
            trace=called.trace,
        )
        found = await decided(services, lambda: services.decider.decide(planned), hop)
        if isinstance(found, str) and services.forwarding is not None:
            return await services.forwarding.tell(found, called, hop)
        assert not isinstance(found, str)  # noqa: S101 — without forwarding there is nobody to name
        return found


_SIGNATURE = {
    "name": signing.HEADER,
    "in": "header",
    "required": True,
    "schema": {"type": "string"},
    "description": 't=<seconds since 1970>,v1=<hex HMAC-SHA-256 of t ‖ "." ‖ body>; at most five minutes from now.',
}
_REFUSALS = (
    problems.Unauthenticated,
    callbacks.UnknownVerb,
    callbacks.NotTheirs,
    InvalidId,
    NotFound,
    Conflict,
    KeyReused,
    *AWAY,
    problems.BodyTooLarge,
    problems.Busy,
)


def _verify(known: Known | None, provider: str, header: str, raw: bytes, now: int) -> None:
    """That this provider has signed the message. Raises Unauthenticated."""
    reason = "no provider is called so"
    if known is not None and known.secret is not None:
        try:
            signing.verify(known.secret, header, raw, now)
        except signing.BadSignature as error:
            reason = str(error)
        else:
            return
    _log.warning("a callback is refused", provider=provider[:40], reason=reason)
    raise problems.Unauthenticated("the message is not signed as it should be")
