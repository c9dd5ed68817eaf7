"""
The door for game providers, the seamless wallet: POST /v1/games/{provider}/{verb}, signed over its raw bytes.

The same commands may be sent
in a batch by who holds a token for it.

Invariants:
    - nothing of a message is read, and nothing recorded, before its signature was found right and recent;
    - an unknown provider and a wrong signature are answered alike;
    - what was signed as one verb is none other: the body says it, and the path must agree;
    - who relays for providers does so for those who name them, and for no others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import structlog
from fastapi import APIRouter
from starlette.types import Receive, Scope

from access.policy import Principal
from access.rates import ADMITTED
from app import lane, openapi, problems, sheltering
from app.batches import FORWARDED, Count, outcome
from app.commanding import AWAY
from app.forwarding import Hop, Played
from app.lane import Answered, Post, body_of, refusal, shape
from app.openapi import Schemas
from app.planning import BODY_BYTES_MAX, Services, decided, traced
from app.starting import Start
from commands import games, play
from commands.callbacks import UnknownVerb
from commands.edge import Endpoint, read_body
from commands.plan import Plan, Receipt
from domain.bets import TooManyEarly
from domain.errors import Forbidden, Invalid, InvalidId, KeyReused, NotFound, Rejected
from domain.kernel import PlayerId
from domain.play import PLAY, Due, TokenRefused, check_due
from domain.play import stream as play_of
from policies import play as policy
from providers.known import Known
from providers.signing import HEADER, BadSignature

PREFIX = "/v1/games/"
_HEADER = HEADER.lower().encode()
_NOTICED = "noticed_play"
_REFUSED_WHEN_DUE = "bet" if policy.HOUSE_CHECK_STOPS_BETS else ""
"""The verb that a reality check refuses, so that its answer never has one to tell."""

_log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder().encode


class VerbDiffers(Invalid):
    """Facts: expected."""

    code = "verb_differs"
    title = "The body is that of another verb than the path's"


class RealityCheck(msgspec.Struct, frozen=True):
    """The player is to be told that they have played for so many seconds; `rule`: what says how often."""

    played_s: int
    every_s: int
    rule: str


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What every answer says beside its own: where it stands in the log (null: nothing was recorded), and whether it was given
    before. `reality_check`: of this moment, and only if one is due.
    """

    position: str | None
    repeated: bool
    reality_check: RealityCheck | None = None


class _Verb(NamedTuple):
    """`describe(provider, said, now, secret, trace)`: the command."""

    endpoint: Endpoint
    decoder: msgspec.json.Decoder[Any]
    describe: Callable[[str, Any, datetime, bytes, str | None], Plan]


def _of_play(verb: str) -> _Verb:
    plan, body, answer, errors = play.THEIRS[verb]

    def describe(provider: str, said: Any, now: datetime, secret: bytes, trace: str | None) -> Plan:
        return plan(provider, said, play.context(provider, verb, said, now=now, secret=secret, trace=trace))

    return _verb(verb, plan, body, answer, errors, describe)


def _of_wallet(verb: str) -> _Verb:
    def describe(provider: str, said: games.GameCall, now: datetime, secret: bytes, trace: str | None) -> Plan:
        if said.token:
            said = _of_token(provider, said, secret)
        context = games.context(provider, verb, said, now=now, secret=secret, trace=trace)
        return games.plan(provider, verb, said, context)

    return _verb(
        verb, games.plan, games.GameCall, games.GameAnswer, (*games.REFUSALS, TooManyEarly, TokenRefused), describe
    )


def _of_token(provider: str, said: games.GameCall, secret: bytes) -> games.GameCall:
    """The same with the player and the session for whom its token stands. Raises TokenRefused."""
    player, session = play.subject_for(provider, said.token, secret)
    if said.player not in ("", player):
        raise TokenRefused
    return msgspec.structs.replace(said, player=player, session=said.session or session)


def _verb(verb: str, handler: Any, body: Any, answer: Any, errors: Any, describe: Any) -> _Verb:
    endpoint = Endpoint(f"{PREFIX}{{provider}}/{verb}", handler, body, answer, 200, errors)
    return _Verb(endpoint, msgspec.json.Decoder(body), describe)


VERBS: Mapping[str, _Verb] = {
    **{verb: _of_play(verb) for verb in play.THEIRS},
    **{verb: _of_wallet(verb) for verb in sorted(games.VERBS)},
}


class _Taken(NamedTuple):
    receipt: Receipt
    due: Due | None


def _path(verb: str) -> str:
    return VERBS[verb].endpoint.path if verb in VERBS else "none"


class Door:
    """`clock`: seconds since 1970 UTC."""

    def __init__(
        self,
        services: Services,
        start: Start,
        count: Count,
        known: Mapping[str, Known],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._services = services
        self._start = start
        self._count = count
        self._known = known
        self._clock = clock
        if services.forwarding is not None:
            services.forwarding.takes(Played, self.answer)

    async def take(self, provider: str, verb: str, signature: str, raw: bytes, trace: str | None) -> Answered:
        """Answer a message, whatever it is. Raises what is a fault of ours."""
        try:
            self._verify(provider, signature, raw)
            self._services.authentication.limits.admit_provider(provider)
        except Exception as error:  # noqa: BLE001 — counted, and raised again unless it is a refusal
            self._count({(_path(verb), outcome(error)): 1})
            return refusal(error)
        return await self.answer(Played(provider, verb, raw, trace), Hop())

    async def answer(self, played: Played, hop: Hop) -> Answered:
        """Answer what a provider has signed, in whatever region it was said."""
        path = _path(played.verb)
        try:
            answered = await self._taken(played, hop)
        except Exception as error:  # noqa: BLE001 — counted, and raised again unless it is a refusal
            self._count({(path, outcome(error)): 1})
            return refusal(error)
        if isinstance(answered, Answered):
            self._count({(path, FORWARDED): 1})
            return answered
        receipt, due = answered
        self._count({(path, outcome(receipt)): 1})
        return _answered(receipt, due)

    async def _taken(self, played: Played, hop: Hop) -> _Taken | Answered:
        self._start.require()
        plan = self._plan(played.provider, played.verb, played.body, played.trace)
        found = await decided(self._services, lambda: self._decided(played.verb, plan), hop)
        if isinstance(found, str) and self._services.forwarding is not None:
            if not hop.hops:
                await sheltering.require_open(self._services, _path(played.verb), plan)
            return await self._services.forwarding.tell(found, played, hop)
        assert not isinstance(found, str)  # noqa: S101 — without forwarding there is nobody to name
        return found

    async def _decided(self, verb: str, plan: Plan) -> _Taken:
        if verb == _REFUSED_WHEN_DUE:
            return _Taken(await self._services.decider.decide(plan), None)
        plan, noticed = _noticing(plan)
        receipt = await self._services.decider.decide(plan)
        return _Taken(receipt, noticed[-1] if noticed else None)

    def relay(self, principal: Principal, path: str, raw: bytes, trace: str | None) -> tuple[Endpoint, Plan] | None:
        """What an item of a batch asks for, said by somebody who speaks for this provider. Raises Rejected."""
        if not path.startswith(PREFIX):
            return None
        provider, _, verb = path.removeprefix(PREFIX).partition("/")
        if (known := self._known.get(provider)) is None or known.games is None:
            raise NotFound("no provider of games is called so")
        if principal.actor not in known.aggregators:
            raise Forbidden("this provider has not named the caller as one who speaks for it")
        plan = self._plan(provider, verb, raw, trace)
        return VERBS[verb].endpoint, msgspec.structs.replace(
            plan, context=msgspec.structs.replace(plan.context, principal=principal)
        )

    def _plan(self, provider: str, verb: str, raw: bytes, trace: str | None) -> Plan:
        found = VERBS.get(verb)
        if found is None:
            raise UnknownVerb(verbs=sorted(VERBS))
        said = read_body(found.decoder, raw)
        if said.verb != verb:
            raise VerbDiffers(pointer="/verb", expected=verb)
        return found.describe(provider, said, datetime.now(UTC), self._services.fingerprint_key, trace)

    def _verify(self, provider: str, header: str, raw: bytes) -> None:
        """Raises Unauthenticated."""
        known = self._known.get(provider)
        reason = "no provider of games is called so"
        if known is not None and known.games is not None:
            try:
                known.games.verify(header, raw, int(self._clock()))
            except BadSignature as error:
                reason = str(error)
            else:
                return
        _log.warning("a game call is refused", provider=provider[:40], reason=reason)
        raise problems.Unauthenticated("the message is not signed as it should be")


def _noticing(plan: Plan) -> tuple[Plan, list[Due | None]]:
    """The plan, and a list to which each of its decisions adds the reality check that was due at that moment."""
    noticed: list[Due | None] = []
    role = next(
        (role for streams in (plan.writes, plan.reads) for role, each in streams.items() if each.aggregate is PLAY), ""
    )

    def decision(at: datetime, **states: Any) -> Any:
        played = states[role] if role else states.pop(_NOTICED)
        noticed.append(check_due(played, states["player"], at))
        return plan.decision(at, **states)

    if role:
        return msgspec.structs.replace(plan, decision=decision), noticed
    player = plan.reads["player"].name.partition("-")[2]
    reads = {**plan.reads, _NOTICED: play_of(PlayerId(f"player_{player}"))}
    tells = plan.tells and _without_play(plan.tells)
    return msgspec.structs.replace(plan, reads=reads, decision=decision, tells=tells), noticed


def _without_play(tells: Callable[..., msgspec.Struct]) -> Callable[..., msgspec.Struct]:
    def told(**states: Any) -> msgspec.Struct:
        del states[_NOTICED]
        return tells(**states)

    return told


def _answered(receipt: Receipt, due: Due | None) -> Answered:
    check = None
    if due is not None:
        check = RealityCheck(int(due.played.total_seconds()), int(due.every.every.total_seconds()), due.every.rule)
    told = _encode(Told(receipt.position, receipt.repeated, check))
    body = _encode(receipt.answer)[:-1] + b"," + told[1:]  # two objects as one
    return lane.json(200, body)


def router(door: Door, schemas: Schemas) -> APIRouter:
    """A route for each verb."""
    made = APIRouter(tags=["games"])
    for verb in VERBS:
        _add(made, door, schemas, verb)
    return made


def _add(made: APIRouter, door: Door, schemas: Schemas, verb: str) -> None:
    endpoint = VERBS[verb].endpoint

    async def handle(scope: Scope, receive: Receive) -> Answered:
        try:
            raw = await body_of(receive, BODY_BYTES_MAX)
        except problems.BodyTooLarge as error:
            return refusal(error)
        (provider,) = shape(scope["path"])[1]
        headers = dict(scope["headers"])
        signature, trace = (headers.get(name, b"").decode("latin-1") for name in (_HEADER, b"traceparent"))
        answered = await door.take(provider, verb, signature, raw, traced(trace))
        scope[ADMITTED] = answered.status != problems.status_of(problems.Unauthenticated)
        return answered

    made.add_api_route(
        endpoint.path,
        Post(handle),
        methods=["POST"],
        name=verb,
        summary=f"Game providers: {verb.replace('_', ' ')}",
        openapi_extra={
            "parameters": [*openapi.path_parameters(endpoint.path), _SIGNATURE],
            "requestBody": {"required": True, "content": schemas.json(endpoint.body)},
            "responses": schemas.refusals((*_ALWAYS, *endpoint.errors)),
            "security": [],
        },
        responses={
            200: {
                "description": "Done, or done before",
                "content": {
                    "application/json": {"schema": {"allOf": [schemas.ref(endpoint.answer), schemas.ref(Told)]}}
                },
            }
        },
    )


_SIGNATURE = {
    "name": HEADER,
    "in": "header",
    "required": True,
    "schema": {"type": "string"},
    "description": (
        't=<seconds since 1970>, then v1=<hex HMAC-SHA-256> or rsa=<base64 RSA-SHA-256> of t ‖ "." ‖ body; at most five minutes from now.'
    ),
}
_ALWAYS: tuple[type[Rejected], ...] = (
    problems.Unauthenticated,
    VerbDiffers,
    InvalidId,
    KeyReused,
    *AWAY,
    problems.BodyTooLarge,
    problems.Busy,
)
