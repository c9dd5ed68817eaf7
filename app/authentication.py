"""
Who asks: the one place that turns a request into a Principal. By a bearer token (of the development file, or one that was issued),
or by the session of a browser.

Invariants:
    - a request that carries both counts by its token, which no browser sends by itself;
    - what changes something by the cookie of a session carries that session's own token too, and comes from our own pages;
    - whoever has shown only one factor is known, and may do nothing but enrol another;
    - a session ends with its operator's suspension, and none that was begun before that ends comes back;
    - an answer that goes on for long is nobody's sign of life: who gets it is asked anew (`still`), and it keeps no session awake;
    - nor does one that began before a password was changed, a factor removed or an identity taken away, wherever that was said;
    - once there is a second factor, no session is one that has not shown it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

from redis.exceptions import RedisError
from starlette.types import Scope

from access import policy, sessions
from access.directory import Directory, Standing
from access.policy import Principal
from access.rates import Limits
from access.sessions import Session, Sessions
from access.tokens import Tokens
from app import problems
from domain.kernel import OperatorId
from domain.operators import Operator

COOKIE = "__Host-countroom"
CSRF_HEADER = b"x-csrf-token"
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Present(NamedTuple):
    """Somebody at a browser. `id`: of the session, from the cookie; told to nobody."""

    id: str
    session: Session
    standing: Standing
    principal: Principal

    @property
    def operator_id(self) -> OperatorId:
        return self.standing.operator_id


class Authentication:
    """`directory` and `sessions`: None where nobody but the tokens of the file is let in."""

    def __init__(
        self,
        tokens: Tokens,
        directory: Directory | None = None,
        sessions: Sessions | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._tokens = tokens
        self._directory = directory
        self._sessions = sessions
        self._now = now

    async def __call__(self, scope: Scope) -> Principal:
        """Who sends this request; asked again of the same one, the same. Raises Unauthenticated, CsrfRefused, TooManyRequests."""
        if (before := scope.get("principal")) is not None:
            return cast("Principal", before)
        authorization = _header(scope, b"authorization")
        if not authorization:
            return (await self.present(scope)).principal
        known = await self._by_token(authorization)
        self.limits.admit(scope, known)
        scope["principal"] = known  # of whom is recorded what they are refused
        return known

    async def still(self, scope: Scope) -> Principal:
        """Who they are now whose request is being answered: neither another request, nor a sign that somebody is there.

        Raises Unauthenticated, Busy.
        """
        if authorization := _header(scope, b"authorization"):
            return await self._by_token(authorization)
        return (await self._by_session(scope, seen=False)).principal

    async def _by_token(self, authorization: str) -> Principal:
        known = self._tokens.principal(authorization)
        if known is None and self._directory is not None:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() == "bearer":
                known = await self._directory.by_token(hashlib.sha256(token.strip().encode()).hexdigest())
        if known is None:
            raise problems.Unauthenticated
        return known

    async def present(self, scope: Scope) -> Present:
        """Who sends this request from a browser. Raises Unauthenticated, CsrfRefused, TooManyRequests, Busy."""
        present = await self._by_session(scope, seen=True)
        self.limits.admit(scope, present.principal)
        if scope["method"] not in _READS and not (
            is_our_own(scope) and present.session.may_change(_header(scope, CSRF_HEADER))
        ):
            raise problems.CsrfRefused
        scope["principal"] = present.principal
        return present

    async def _by_session(self, scope: Scope, *, seen: bool) -> Present:
        session_id = cookie_of(scope, COOKIE)
        if not session_id or self._sessions is None or self._directory is None:
            raise problems.Unauthenticated
        try:
            session = await self._sessions.find(session_id, self._now(), seen=seen)
        except RedisError as error:
            raise problems.Busy("whose session this is cannot be looked up now") from error
        standing = await self._directory.operator(OperatorId(session.operator)) if session else None
        if session is None or standing is None:
            raise problems.Unauthenticated
        if standing.principal is None or session.since <= standing.operator.barred_until:
            await self._sessions.end(sessions.digest_of(session_id))
            raise problems.Unauthenticated
        if session.means < standing.operator.means:
            await self._sessions.end(sessions.digest_of(session_id))
            raise problems.Unauthenticated
        if session.stepped_up is None and standing.operator.has_second_factor:
            raise problems.Unauthenticated  # the one that enrols it goes on under another id in a moment
        return Present(session_id, session, standing, _acting(session, standing.principal))

    async def renew(self) -> None:
        """Hear of what changed for operators and tokens a moment ago, before `known` is asked."""
        if self._directory is not None:
            await self._directory.renew()

    def known(self, actor: str) -> Principal | None:
        """What an actor may do now, as far as they are known; None if they are not."""
        found = self._tokens.known(actor)
        return found if found is not None or self._directory is None else self._directory.known(actor)

    def administrators(self) -> Mapping[OperatorId, Operator]:
        """Operators who are active and administer without an end, as far as is known."""
        return self._directory.administrators() if self._directory else {}


def _acting(session: Session, standing: Principal) -> Principal:
    """The operator, with what this session adds: the roles of the provider's groups, and a second factor, or the lack of one."""
    roles: Iterable[str] = standing.roles | set(session.roles) if session.stepped_up else ()
    return policy.principal(
        standing.actor, roles, person=standing.person, scope=standing.scope, stepped_up=session.stepped_up
    )


def is_our_own(scope: Scope) -> bool:
    """Whether a browser says that one of our own pages sends this (Fetch Metadata); what says nothing is no such browser."""
    return _header(scope, b"sec-fetch-site") in ("", "same-origin", "none")


def address_of(scope: Scope) -> str:
    """From where the request comes."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def cookie_of(scope: Scope, name: str) -> str:
    """The value of a cookie; "" without it, or if there are two: a browser sends one `__Host-` cookie of a name."""
    found = [
        value
        for part in _header(scope, b"cookie").split(";")
        for key, _, value in [part.strip().partition("=")]
        if key == name
    ]
    return found[0] if len(found) == 1 else ""


def cookie(name: str, value: str, *, same_site: str = "Strict", seconds: int | None = None) -> str:
    """A Set-Cookie that no script reads and no other host gets. `seconds`: 0 takes it away."""
    lasts = "" if seconds is None else f"; Max-Age={seconds}"
    return f"{name}={value}; Path=/; Secure; HttpOnly; SameSite={same_site}{lasts}"


def _header(scope: Scope, name: bytes) -> str:
    headers: Iterable[tuple[bytes, Any]] = scope["headers"]
    found = [value for key, value in headers if key == name]
    separator = b"; " if name == b"cookie" else b", "
    return separator.join(found).decode("latin-1")
