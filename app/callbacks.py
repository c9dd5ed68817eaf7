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
from app import openapi, problems
from app.commanding import BODY_BYTES_MAX, Count, Services, edge_of, outcome, trace_of
from app.lane import body_of
from app.openapi import Schemas
from app.starting import Start
from commands import callbacks
from commands.callbacks import Callback
from commands.edge import read_body
from commands.plan import Receipt, WrongRegion
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

    async def receipt_of(provider: str, request: Request) -> Receipt:
        raw = await body_of(request.receive, BODY_BYTES_MAX)
        signature = request.headers.get(signing.HEADER, "")
        speaker = _verified(known.get(provider), provider, signature, raw, int(clock()))
        request.scope[ADMITTED] = True
        services.authentication.limits.admit_provider(provider)
        start.require()
        planned = callbacks.plan(
            provider,
            read_body(_decoder, raw),
            speaks=speaker.speaks,
            now=datetime.now(UTC),
            secret=services.fingerprint_key,
            edge=partial(edge_of, services),
            trace=trace_of(request),
        )
        return await services.decider.decide(planned)

    async def post_callback(provider: str, request: Request) -> Response:
        """Take what a payment or KYC provider says has happened. The same verb and reference are one command for ever."""
        try:
            receipt = await receipt_of(provider, request)
        except Exception as error:
            count({(PATH, outcome(error)): 1})
            raise
        count({(PATH, outcome(receipt)): 1})
        headers = {"Ledger-Position": receipt.position} if receipt.position else {}
        if receipt.repeated:
            headers["Idempotency-Replayed"] = "true"
        return Response(_encode(receipt.answer), 200, headers, media_type="application/json")

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
    WrongRegion,
    problems.BodyTooLarge,
    problems.Busy,
)


def _verified(known: Known | None, provider: str, header: str, raw: bytes, now: int) -> Known:
    """Who has signed the message. Raises Unauthenticated."""
    reason = "no provider is called so"
    if known is not None and known.secret is not None:
        try:
            signing.verify(known.secret, header, raw, now)
        except signing.BadSignature as error:
            reason = str(error)
        else:
            return known
    _log.warning("a callback is refused", provider=provider[:40], reason=reason)
    raise problems.Unauthenticated("the message is not signed as it should be")
