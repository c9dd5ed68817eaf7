"""
Compartments on HTTP, as those see them who are inside: notes on players, and who has read them.

Invariants:
    - a read is recorded inside the compartment, and stands in the log, before anything is opened for it;
    - these requests are counted by no metric, make no span, and leave nothing in the log of the process but a fault without its
      path: all of that is read outside;
    - whether a compartment exists, is another's, or holds nothing, who is not inside is answered the same.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import structlog
from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from access import cedar
from access.policy import Action, Principal
from app import causal, denying, lane, openapi, problems
from app.lane import Answered, body_of
from app.openapi import Schemas
from app.planning import BODY_BYTES_MAX, KEY_CHARACTERS_MAX, Services, edge_of
from app.querying import ReadSide
from commands import compartments, identity
from commands.compartments import FIELD, NOTES, PATH, READS, CaseNoted, WriteCaseNote, word
from commands.edge import Edge, read_body
from commands.plan import Context, Plan, Receipt, WrongRegion
from commands.sealing import KeyNotHeld
from domain.compartments import NotInside
from domain.errors import Forbidden, Invalid, InvalidId, KeyReused, NotFound, Rejected
from domain.kernel import PlayerId, uuid7_texts
from eventstore.vault import CannotOpen, DataKey
from queries import compartments as inside
from queries.compartments import CompartmentCard, CompartmentNotes, CompartmentReads
from queries.context import LIMIT_MAX

_ONE = f"{PATH}/{{compartment}}"
_OF_PLAYER = f"{_ONE}/players/{{player_id}}"
_ALWAYS: tuple[type[Rejected], ...] = (
    problems.Unauthenticated,
    Forbidden,
    NotInside,
    InvalidId,
    NotFound,
    WrongRegion,
    KeyNotHeld,
    problems.Unopenable,
    problems.Busy,
)
_decoder = msgspec.json.Decoder(WriteCaseNote)
_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger(__name__)


class _Asked(NamedTuple):
    """Somebody inside who asks. `key`: the compartment's."""

    edge: Edge
    key: DataKey


class _Door:
    """Lets in who is inside."""

    def __init__(self, services: Services, read: ReadSide) -> None:
        self._services = services
        self._read = read

    async def write(self, request: Request, compartment: str, player_id: str) -> Answered:
        principal = await self._admitted(request, Action.SECRET_WRITE)
        key = request.headers.get("Idempotency-Key", "")
        if not 0 < len(key) <= KEY_CHARACTERS_MAX:
            raise problems.KeyMissing
        raw = await body_of(request.receive, BODY_BYTES_MAX)
        command = read_body(_decoder, raw or b"{}")
        asked = await self._inside(request, principal, compartment, key, raw)
        receipt = await self._decide(compartments.note(compartment, player_id, command, asked.edge, asked.key))
        more = [(b"ledger-position", receipt.position.encode())] if receipt.position else []
        if receipt.repeated:
            more.append((b"idempotency-replayed", b"true"))
        return lane.json(201, _encode(receipt.answer), *more)

    async def look(
        self, request: Request, compartment: str, player_id: str, what: str, limit: int, cursor: str | None
    ) -> Answered:
        principal = await self._admitted(request, Action.SECRET_READ)
        key = uuid7_texts(datetime.now(UTC), os.urandom(10))[0]
        asked = await self._inside(request, principal, compartment, key, key.encode())
        await self._decide(compartments.read(compartment, player_id, what, asked.edge, asked.key))
        player = PlayerId(player_id)
        among = await self._read.vault.find(FIELD, word(asked.key, what, player))
        page: Callable[..., Awaitable[Any]] = inside.notes if what == NOTES else inside.reads
        found = await page(self._read.context(), asked.key, compartment, player, among, limit, cursor)
        return lane.json(200, _encode(found), (b"cache-control", b"no-store"))

    async def card(self, request: Request, compartment: str) -> Answered:
        principal = await self._admitted(request, Action.COMPARTMENT_MANAGE)
        cedar.in_force().require(principal, [Action.COMPARTMENT_MANAGE], cedar.NOTHING, datetime.now(UTC))
        return lane.json(200, _encode(await inside.card(self._read.context(), self._read.log, compartment)))

    async def _admitted(self, request: Request, action: Action) -> Principal:
        principal = await self._services.authentication(request.scope)
        self._read.start.require()
        principal.require(action)
        return principal

    async def _inside(self, request: Request, principal: Principal, name: str, key: str, raw: bytes) -> _Asked:
        """Raises NotInside, KeyNotHeld, CannotOpen."""
        state = await inside.state(self._read.context(), self._read.log, name)
        committed = inside.committed(state, principal.actor)
        held = await self._services.vault.keys({committed.id: committed.commitment})
        if committed.id not in held:
            raise KeyNotHeld
        own = held[committed.id]
        asked = identity.fingerprint(self._services.fingerprint_key, request.method, request.url.path, raw)
        # Both are keyed by the compartment: outside, somebody could try out who has written here, of whom, and what.
        context = Context(
            principal,
            datetime.now(UTC),
            identity.command_id(principal.actor, own.fingerprint(f"key\n{key}")),
            own.fingerprint(asked),
        )
        await self._services.decider.owners.look()
        return _Asked(edge_of(self._services, context), own)

    async def _decide(self, plan: Plan) -> Receipt:
        return await self._services.decider.decide(plan)


async def _quietly(services: Services, request: Request, asked: Awaitable[Answered]) -> Response:
    """The answer, or the refusal. A fault is told in the log of the process without whom it was about."""
    try:
        answered = await asked
    except ClientDisconnect:
        raise
    except CannotOpen as error:
        _log.error("what is inside a compartment does not open", reason=str(error))
        answered = lane.refusal(problems.Unopenable("an entry of the compartment does not open"))
    except Exception as error:  # noqa: BLE001 — whatever it is, its path stays here
        denying.note(services.denials, request.scope, error)
        try:
            answered = lane.refusal(error)
        except Exception:  # noqa: BLE001 — the same
            _log.error("a request inside a compartment failed", exc_info=error)
            answered = lane.refusal(problems.Fault())
    response = Response(answered.body, answered.status)
    response.raw_headers = answered.headers
    return response


def router(services: Services, read: ReadSide, schemas: Schemas) -> APIRouter:
    """What is asked inside a compartment. Who is inside is said by commands (commands/compartments.py)."""
    routes, door = APIRouter(tags=["compartments"], route_class=causal.routes(read, schemas)), _Door(services, read)

    async def write(request: Request, compartment: str, player_id: str) -> Response:
        """Write a note on a player inside a compartment."""
        return await _quietly(services, request, door.write(request, compartment, player_id))

    async def notes(
        request: Request,
        compartment: str,
        player_id: str,
        limit: int = Query(50, ge=1, le=LIMIT_MAX),
        cursor: str | None = None,
    ) -> Response:
        """The notes on a player inside a compartment; that they were read is recorded there."""
        return await _quietly(services, request, door.look(request, compartment, player_id, NOTES, limit, cursor))

    async def reads(
        request: Request,
        compartment: str,
        player_id: str,
        limit: int = Query(50, ge=1, le=LIMIT_MAX),
        cursor: str | None = None,
    ) -> Response:
        """Who has read what there is on a player inside a compartment; this too is recorded there."""
        return await _quietly(services, request, door.look(request, compartment, player_id, READS, limit, cursor))

    async def card(request: Request, compartment: str) -> Response:
        """Who is inside a compartment, and who is to be."""
        return await _quietly(services, request, door.card(request, compartment))

    routes.add_api_route(
        f"{_OF_PLAYER}/notes",
        write,
        methods=["POST"],
        status_code=201,
        name="compartments.write",
        summary="Write a note on a player inside a compartment",
        openapi_extra={
            **openapi.needs(Action.SECRET_WRITE),
            "parameters": [openapi.IDEMPOTENCY_KEY],
            "requestBody": {"required": True, "content": schemas.json(WriteCaseNote)},
            "responses": schemas.refusals((*_ALWAYS, problems.KeyMissing, problems.BodyTooLarge, KeyReused, Invalid)),
        },
        responses={201: {"description": "Done, or done before", "content": schemas.json(CaseNoted)}},
    )
    for name, endpoint, answer, action in (
        (f"{_OF_PLAYER}/notes", notes, CompartmentNotes, Action.SECRET_READ),
        (f"{_OF_PLAYER}/reads", reads, CompartmentReads, Action.SECRET_READ),
        (_ONE, card, CompartmentCard, Action.COMPARTMENT_MANAGE),
    ):
        routes.add_api_route(
            name,
            endpoint,
            methods=["GET"],
            name=f"compartments.{endpoint.__name__}",
            summary=(endpoint.__doc__ or "").partition(";")[0].rstrip("."),
            openapi_extra={**openapi.needs(action), **causal.reads(causal.LOG)},
            responses={
                200: {"description": "Found", "content": schemas.json(answer)},
                **schemas.refusals((*_ALWAYS, Invalid)),  # type: ignore[dict-item]
            },
        )
    return routes
