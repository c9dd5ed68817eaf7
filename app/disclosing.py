"""
A disclosure's file on HTTP: data keys, encrypted to the recipient that the log names, and to nobody else.

Invariants:
    - a key is in the file only if a `keys.disclosed` in the log names it, and the registration commits to it;
    - no key is ever in an answer, a log line or a span in the clear.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from access.policy import Action
from access.steps import require_fresh
from app import causal, openapi, problems, seeing
from app.keyfile import DataKeys, disclosed, encrypted
from app.openapi import Schemas
from app.querying import UNRECORDED, ReadSide
from domain.errors import Forbidden, Invalid, NotFound
from eventstore.vault import CannotOpen
from queries import disclosures

_AGE = "application/age"
_UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
_log = structlog.get_logger(__name__)


def router(read: ReadSide, schemas: Schemas) -> APIRouter:
    """The file of a disclosure; /v1/disclosures itself is a command."""
    routes = APIRouter(tags=["queries"], route_class=causal.routes(read, schemas))

    async def file(request: Request, disclosure_id: Annotated[str, Path(pattern=_UUID)]) -> Response:
        """The keys of a disclosure, encrypted to its recipient: an age file."""
        principal = await read.authentication(request.scope)
        await seeing.require_of(read, principal, Action.KEYS_DISCLOSE)
        require_fresh(principal, [Action.KEYS_DISCLOSE], datetime.now(UTC))
        found = await disclosures.get(read.context(), read.log, disclosure_id)
        try:
            keys = await read.vault.keys_to_disclose({each.key: each.commitment for each in found.keys})
        except CannotOpen as error:
            _log.error("a data key is not disclosed", reason=str(error))
            raise problems.Unopenable(str(error)) from error
        await read.recorded(principal, "disclosure", disclosure_id=disclosure_id)
        return Response(
            encrypted(
                [disclosed(each.player, keys[each.key], each.commitment) for each in found.keys if each.key in keys],
                [each.player for each in found.keys if each.key not in keys],
                found.recipient,
            ),
            media_type=_AGE,
            headers={
                "Cache-Control": "no-store",
                "Content-Disposition": f'attachment; filename="keys-{disclosure_id}.age"',
            },
        )

    routes.add_api_route(
        "/v1/disclosures/{disclosure_id}",
        file,
        methods=["GET"],
        name="disclosures.file",
        summary="The keys of a disclosure, encrypted to its recipient",
        openapi_extra={**openapi.needs(Action.KEYS_DISCLOSE), **causal.reads(causal.LOG)},
        responses={
            200: {
                "description": "An age file; inside, JSON: " + (DataKeys.__doc__ or ""),
                "content": {_AGE: {"schema": {"type": "string", "format": "binary"}}},
            },
            **schemas.refusals(  # type: ignore[dict-item]
                (problems.Unauthenticated, Forbidden, Invalid, NotFound, problems.Unopenable, *UNRECORDED)
            ),
        },
    )
    return routes
