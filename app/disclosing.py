"""
A disclosure's file on HTTP: data keys, encrypted to the recipient that the log names, and to nobody else.

Invariants:
    - a key is in the file only if a `keys.disclosed` in the log names it, and the registration commits to it;
    - no key is ever in an answer, a log line or a span in the clear.
"""

from __future__ import annotations

import base64
from typing import Annotated

import msgspec
import structlog
from fastapi import APIRouter, Path, Request
from pyrage import encrypt, x25519
from starlette.responses import Response

from access.policy import Action
from app import problems
from app.commanding import authenticate
from app.openapi import Schemas
from app.querying import UNRECORDED, ReadSide
from domain.errors import Forbidden, Invalid, NotFound
from domain.kernel import PlayerId
from eventstore.vault import CannotOpen, DataKey
from queries import disclosures
from queries.disclosures import Disclosed

FORMAT = "countroom/data-keys/1"
_AGE = "application/age"
_UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
_log = structlog.get_logger(__name__)


class DisclosedKey(msgspec.Struct, frozen=True):
    """`secret`: the 32 bytes of the AES-256 key in unpadded base64url; `commitment`: that of the registration, in hex."""

    player: str
    key: str
    secret: str
    commitment: str


class DataKeys(msgspec.Struct, frozen=True):
    """What the recipient finds in the file. `missing`: players whose key is not here, or was destroyed."""

    format: str
    keys: list[DisclosedKey]
    missing: list[PlayerId]


def router(read: ReadSide, schemas: Schemas) -> APIRouter:
    """The file of a disclosure; /v1/disclosures itself is a command."""
    routes = APIRouter(tags=["queries"])

    async def file(request: Request, disclosure_id: Annotated[str, Path(pattern=_UUID)]) -> Response:
        """The keys of a disclosure, encrypted to its recipient: an age file."""
        principal = authenticate(read.tokens, request)
        principal.require(Action.KEYS_DISCLOSE)
        disclosed = await disclosures.get(read.context(principal), read.log, disclosure_id)
        try:
            keys = await read.vault.keys_to_disclose({each.key: each.commitment for each in disclosed.keys})
        except CannotOpen as error:
            _log.error("a data key is not disclosed", reason=str(error))
            raise problems.Unopenable(str(error)) from error
        await read.recorded(principal, "disclosure", disclosure_id=disclosure_id)
        return Response(
            encrypted(disclosed, keys),
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


def encrypted(disclosed: Disclosed, keys: dict[str, DataKey]) -> bytes:
    """An age file (C2SP age) for the recipient alone."""
    found = [
        DisclosedKey(each.player, each.key, _base64url(keys[each.key].key), each.commitment)
        for each in disclosed.keys
        if each.key in keys
    ]
    missing = [each.player for each in disclosed.keys if each.key not in keys]
    text = msgspec.json.encode(DataKeys(FORMAT, found, missing))
    sealed: bytes = encrypt(text, [x25519.Recipient.from_str(disclosed.recipient)])
    return sealed


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
