"""
Who may come in by what the log says: operators, with the roles that they hold now, and tokens.

It reads the log itself, past all read models, so a revocation counts in every region as soon as its event is there, at most
FRESH_SECONDS later.

Invariants:
    - an operator who is not active, and a token that is not confirmed, is revoked or over, is nobody;
    - an operator's own token gives no more than the operator has, and only if the same person has issued it;
    - what cannot be read lets nobody in: the error goes to whoever asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from access.policy import Principal, Scope, principal
from domain.kernel import Aggregate, OperatorId, TokenId
from domain.operators import OPERATORS, Operator, Status, actor_of
from domain.tokens import TOKENS, Token
from eventstore.log import Streams
from eventstore.record import Codec

FRESH_SECONDS = 0.5
_KNOWN_SECONDS = 2.0

S = TypeVar("S")


class Standing(NamedTuple):
    """An operator as the log knows them. `principal`: who they are when they act now; None: they may not."""

    operator_id: OperatorId
    operator: Operator
    principal: Principal | None


class _Held(NamedTuple, Generic[S]):
    version: int
    state: S


class Directory:
    """The operators and tokens of all logs held here. `monotonic` gives seconds."""

    def __init__(
        self,
        streams: Streams,
        codec: Codec,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._streams = streams
        self._codec = codec
        self._now = now
        self._monotonic = monotonic
        self._fresh_until = float("-inf")
        self._reading = asyncio.Lock()
        self._operators: Mapping[str, _Held[Operator]] = {}
        self._tokens: Mapping[str, _Held[Token]] = {}
        self._by_digest: Mapping[str, TokenId] = {}

    async def by_token(self, digest: str) -> Principal | None:
        """Whose token this is, by the SHA-256 (hex) of its secret; None: nobody's who may come in."""
        await self.renew()
        id_ = self._by_digest.get(digest)
        return None if id_ is None else self._acting(self._tokens[_stream(id_)].state)

    async def operator(self, operator_id: OperatorId) -> Standing | None:
        """An operator, whatever their status; None: there is no such one."""
        await self.renew()
        held = self._operators.get(_stream(operator_id))
        return None if held is None else Standing(operator_id, held.state, self._person(operator_id, held.state))

    async def by_identity(self, issuer: str, subject: str) -> Standing | None:
        """Whom a provider of identities knows so; `subject` as the log has it (operator.identity_linked)."""
        await self.renew()
        linked = [name for name, each in self._operators.items() if (issuer, subject) in each.state.identities]
        return await self.operator(_id(linked[0])) if len(linked) == 1 else None

    async def somebody(self, seed: bytes) -> OperatorId | None:
        """One of those who are active and have a password, for the same seed the same one; None if there is none."""
        await self.renew()
        held = self._operators.items()
        able = [name for name, each in held if each.state.status is Status.ACTIVE and each.state.has_password]
        return _id(able[int.from_bytes(seed, "big") % len(able)]) if able else None

    async def everybody(self) -> list[Standing]:
        """All operators, in the order of their identifiers."""
        await self.renew()
        found = [(_id(name), held.state) for name, held in sorted(self._operators.items())]
        return [Standing(id_, state, self._person(id_, state)) for id_, state in found]

    async def token(self, token_id: TokenId) -> Token | None:
        await self.renew()
        held = self._tokens.get(_stream(token_id))
        return held.state if held else None

    def known(self, actor: str) -> Principal | None:
        """What an actor may do, with all of their tokens together; None if there is no such one, or nothing was read lately: then
        `renew` first.
        """
        if self._monotonic() > self._fresh_until + _KNOWN_SECONDS:
            return None
        kind, _, name = actor.partition(":")
        if kind == "operator":
            held = self._operators.get(f"operator-{name}")
            return self._person(OperatorId(f"operator_{name}"), held.state) if held else None
        acting = [
            found
            for each in self._tokens.values()
            if each.state.holder == actor and (found := self._acting(each.state)) is not None
        ]
        if not acting:
            return None
        roles = frozenset().union(*(each.roles for each in acting))
        people = {each.person for each in acting}
        person = people.pop() if len(people) == 1 else ""
        return principal(actor, roles, person=person, machine=True, issued=True)

    def administrators(self) -> Mapping[OperatorId, Operator]:
        """Who is active and administers without an end, as far as was read; nobody if nothing was read lately."""
        if self._monotonic() > self._fresh_until + _KNOWN_SECONDS:
            return {}
        return {_id(name): held.state for name, held in self._operators.items() if held.state.administers}

    async def renew(self) -> None:
        """Read what is new, unless that was done a moment ago. Raises what the database raises."""
        if self._monotonic() < self._fresh_until:
            return
        async with self._reading:
            begun = self._monotonic()
            if begun < self._fresh_until:
                return
            self._operators = await self._read(OPERATORS, self._operators)
            self._tokens = await self._read(TOKENS, self._tokens)
            self._by_digest = {each.state.digest: _id(name) for name, each in self._tokens.items()}
            self._fresh_until = begun + FRESH_SECONDS

    async def look_again(self) -> None:
        """Whoever asks next reads what is new, however lately that was done: somebody has come whose joining may not be held yet."""
        async with self._reading:
            self._fresh_until = min(self._fresh_until, self._monotonic())

    async def _read(self, aggregate: Aggregate[S], held: Mapping[str, _Held[S]]) -> Mapping[str, _Held[S]]:
        """What the streams of an aggregate have come to. A stream that was longer before is read anew: its log was cut."""
        versions = await self._streams.versions(aggregate.name)
        nothing = _Held(0, aggregate.initial)
        before = {
            name: known if (known := held.get(name, nothing)).version <= version else nothing
            for name, version in versions.items()
        }
        behind = {name: before[name].version for name, version in versions.items() if before[name].version < version}
        now: dict[str, _Held[S]] = dict(before)
        for name, entries in (await self._streams.load(behind)).items() if behind else ():
            version, state = before[name]
            for entry in entries:
                read = self._codec.decode(entry)
                version, state = read.body.version, aggregate.evolve(state, read.event, read.at)
            now[name] = _Held(version, state)
        return now

    def _person(self, operator_id: OperatorId, operator: Operator) -> Principal | None:
        if operator.status is not Status.ACTIVE:
            return None
        roles = operator.roles_at(self._now())
        return principal(actor_of(operator_id), roles, person=operator.person, scope=_scope(operator))

    def _acting(self, token: Token) -> Principal | None:
        now = self._now()
        roles, scope, person = token.roles_at(now), _scope(token), token.person
        kind, _, name = token.holder.partition(":")
        if kind == "operator":
            held = self._operators.get(f"operator-{name}")
            if held is None or token.person != held.state.person:
                return None  # somebody else has seen the secret
            roles &= held.state.roles_at(now)
            scope, person = _both(scope, _scope(held.state)), held.state.person
        if not roles:
            return None
        return principal(token.holder, roles, person=person, scope=scope, machine=True, issued=True)


def _stream(id_: str) -> str:
    return id_.replace("_", "-", 1)


def _id(stream: str) -> Any:
    return stream.replace("-", "_", 1)


def _scope(of: Operator | Token) -> Scope:
    return Scope(_set(of.brands), _set(of.countries))


def _set(values: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(values)


def _both(one: Scope, other: Scope) -> Scope:
    return Scope(_common(one.brands, other.brands), _common(one.countries, other.countries))


def _common(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other
