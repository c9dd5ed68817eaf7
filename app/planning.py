"""
From what came in to a command, described: the table of paths, and what a handler may use.

Invariant: a command that came in here, in a batch or from another region is described alike.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
from starlette.types import Scope

from access.policy import Principal
from app import problems
from app.authentication import Authentication
from app.durability import Durable
from app.forwarding import HEADERS, Forwarding, Hop, nobody_seen, owner_in, partition_in
from app.lane import shape
from commands import identity
from commands.asking import Asking
from commands.catalog import ENDPOINTS
from commands.decider import Decider
from commands.denials import Denials
from commands.edge import READ_TOGETHER, Edge, Endpoint, read_body
from commands.plan import Context, Plan, Seen, WrongRegion
from commands.players import RegisterPlayer
from commands.rights import require_named
from domain.errors import NotFound, Rejected
from domain.kernel import Stream
from domain.protection import Answer
from eventstore.vault import Vault
from policies.protection import Silence
from policies.residency import EVERYWHERE, Residency

BODY_BYTES_MAX = 60 * 1024
KEY_CHARACTERS_MAX = 200
PATIENCE_S = 2.0
_AGAIN_S = 0.05
_REGISTRATION = "/v1/players"
_ABOUT_PLAYERS = frozenset({"player", "transaction", "ticket", "contact", "notice", "approval"})

T = TypeVar("T")

_TAG = r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"'
_TAGS = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Services(NamedTuple):
    """What commands need at run time."""

    decider: Decider
    vault: Vault
    authentication: Authentication
    fingerprint_key: bytes
    kyc_providers: Collection[str] = ()
    asking: Asking | None = None
    residency: Residency = EVERYWHERE
    denials: Denials | None = None
    forwarding: Forwarding | None = None
    durable: Durable | None = None


class Asked(NamedTuple):
    """A command as it came in, from somebody who was let in. `target`: path and query; `headers`: of forwarding.HEADERS."""

    principal: Principal
    target: str
    body: bytes
    headers: Mapping[str, str]
    hop: Hop = Hop()


class Route(NamedTuple):
    """`read_together`: what the ETag of the resource in its path is made of, if that has one. `kind`: of its identifier, if that
    is of something that has a partition.
    """

    endpoint: Endpoint
    decoder: msgspec.json.Decoder[Any]
    read_together: Sequence[Callable[[Any], Stream[Any]]]
    kind: str

    @property
    def travels(self) -> bool:
        """Whether it may come from another region: it is about a player, and says nothing of who may do what, or of a region's own."""
        return self.kind in _ABOUT_PLAYERS or self.endpoint.path == _REGISTRATION


def _route(endpoint: Endpoint) -> tuple[str, Route]:
    fixed, identifiers = shape(endpoint.path)
    name = identifiers[0].strip("{}") if identifiers else ""
    read_together = READ_TOGETHER[name] if name else ()
    kind = name.removesuffix("_id") if name.endswith("_id") else ""
    return fixed, Route(endpoint, msgspec.json.Decoder(endpoint.body), read_together, kind)


ROUTES = dict(map(_route, ENDPOINTS))


def plan(
    services: Services,
    principal: Principal,
    route: Route,
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
        services.decider.owners.own,
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


def match(path: str) -> tuple[Route, tuple[str, ...]]:
    """The route of a path, and the identifiers in it. Raises NotFound."""
    fixed, identifiers = shape(path)
    if (route := ROUTES.get(fixed)) is not None:
        return route, identifiers
    raise NotFound("no command has this path", path=path[:200])


async def owner_elsewhere(
    services: Services, route: Route, arguments: Sequence[str], hop: Hop, *, actor: str, key: str, raw: bytes
) -> str:
    """The other region that owns what a command's path names, or the player whom it makes; "" if it is for this one, or the command
    itself will say.
    """
    if not route.travels:
        await services.decider.owners.look()
    if services.forwarding is None or not route.travels:
        return ""
    if route.endpoint.path == _REGISTRATION:
        partition = _of_new_player(services, route, identity.command_id(actor, key), raw) if key else None
    else:
        partition = partition_in(route.kind, arguments[0])
    return "" if partition is None else await owner_of(services, partition, hop)


def _of_new_player(services: Services, route: Route, command: bytes, raw: bytes) -> int | None:
    """The partition of whom a registration makes; None if it will be refused for what it says."""
    try:
        told: RegisterPlayer = read_body(route.decoder, raw or b"{}")
    except Rejected:
        return None
    return identity.partition_for(command, services.residency.group(told.jurisdiction or told.country))


async def owner_of(services: Services, partition: int, hop: Hop) -> str:
    """The other region that owns a partition; "" if this one does, or nobody was seen to.

    Who has sent a command here has handed its partition over: if that has not been copied yet, it is waited for.
    """
    until = time.monotonic() + min(hop.within_s or 0.0, PATIENCE_S)
    while True:
        owner = await services.decider.owner(partition)
        name = "" if owner is None or owner.log == services.decider.log else owner.log
        if not name or name != hop.sender or time.monotonic() >= until:
            return name
        await asyncio.sleep(_AGAIN_S)


async def decided(services: Services, decide: Callable[[], Awaitable[T]], hop: Hop) -> T | str:
    """What `decide` comes to, or the other region that owns what it is about. Raises Rejected, Unavailable; OwnerUnreachable where no
    log that is held here says yet who that is.
    """
    try:
        return await decide()
    except WrongRegion as wrong:
        if services.forwarding is None:
            raise
        if not (owner := owner_in(wrong)):
            raise nobody_seen() from wrong
        partition = int(str(wrong.facts["partition"]))
    if owner != hop.sender:
        return owner
    return await owner_of(services, partition, hop) or await decide()


def headers_of(scope: Scope) -> dict[str, str]:
    """Those fields that go with a command. Of If-Match there may be several (RFC 9110, 5.3)."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    found = {name: value.decode("latin-1") for name in HEADERS if (value := headers.get(name.encode())) is not None}
    if "if-match" in found:
        found["if-match"] = b", ".join(value for name, value in scope["headers"] if name == b"if-match").decode(
            "latin-1"
        )
    return found


def traced(given: str) -> str | None:
    """What was given, if it is a W3C traceparent."""
    return given if _TRACE.fullmatch(given) else None
