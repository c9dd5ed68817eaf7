"""
Commands of sign-in: who came in by what, who was not let in, which session ended; and by what an operator comes in from now on.

Nobody posts these: app.signing_in and app.own describe them once it has checked what was shown. A one-time code is spent by the
very append that says who came in, so of two that show it at once one is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from access.policy import Principal, principal
from commands.identity import command_id
from commands.plan import Context, Plan
from domain import operators, signins
from domain.errors import Conflict
from domain.kernel import AnyStream, Event, OperatorId, suffix, uuid7, uuid7_texts
from domain.operators import Activated, FactorEnrolled, FactorKind, Operator
from domain.signins import Refused, Signins, Succeeded

NOBODY = Principal("system", frozenset())
"""Who records that somebody was refused."""


class LastFactor(Conflict):
    code = "last_factor"
    title = "This is the only second factor; enrol another one before it is removed"


class Done(msgspec.Struct, frozen=True):
    """`operator`: whom it was about."""

    operator: str


class Came(NamedTuple):
    """Somebody came in. `spent`: of recovery codes the set, and the number of the one that is spent by it."""

    operator_id: OperatorId
    succeeded: Succeeded
    spent: tuple[str, int] | None = None


def new_factor(at: datetime) -> str:
    """The name of a factor that is enrolled now."""
    return "factor_" + suffix(uuid7(at, os.urandom(10)))


def succeed(log: str, came: Came, at: datetime, *, elsewhere: Sequence[str] = ()) -> Plan:
    """Record that somebody came in. Where the operator's own stream is written, a suspension that is recorded at the same moment is
    not overlooked. `elsewhere`: the other logs that are held here, by whose sign-ins codes are spent, too.
    Raises CodeUsed, OperatorNotActive, NotFound.
    """

    def decide(_at: datetime, state: Signins, operator: Operator, **there: Signins) -> Sequence[Event]:
        operator.require_active()
        state = signins.together(state, there.values())
        if came.spent is None:
            return signins.succeed(state, succeeded=came.succeeded)
        factor, n = came.spent
        return signins.use_recovery(state, n=n, factor=factor, succeeded=came.succeeded)

    reads: dict[str, AnyStream[Any]] = {f"in {log}": signins.stream(log, came.operator_id) for log in elsewhere}
    reads["operator"] = operators.stream(came.operator_id)
    writes = {"state": signins.stream(log, came.operator_id)}
    return _plan(came.operator_id, at, writes, decide, reads=reads, wherever=frozenset({"operator"}))


def refuse(log: str, operator_id: OperatorId, method: str, why: str, at: datetime) -> Plan:
    """Record that somebody was not let in as this operator; of many tries one in a while."""
    refused = Refused(method, why)
    writes = {"state": signins.stream(log, operator_id)}
    return _plan(operator_id, at, writes, lambda now, state: signins.refuse(state, refused=refused, at=now), NOBODY)


def end(log: str, operator_id: OperatorId, how: str, at: datetime, by: Principal | None = None) -> Plan:
    """Record that a session has ended. `by`: who ended it, if not the operator."""
    writes = {"state": signins.stream(log, operator_id)}
    return _plan(operator_id, at, writes, lambda _now, state: signins.end(state, how=how), by)


# By what an operator comes in from now on


def join(operator_id: OperatorId, invitation: str, means: Callable[[Operator], Sequence[Event]], at: datetime) -> Plan:
    """Join by an invitation (the digest of its secret), with the first means of coming in. Raises InvitationRefused."""

    def decide(now: datetime, operator: Operator) -> Sequence[Event]:
        joined = operators.activate(operator, invitation=invitation, at=now)
        return [*joined, *means(operators.evolve(operator, Activated(), now))]

    return _own(operator_id, at, decide)


class Session(NamedTuple):
    """In whose session something is changed, and how far it has heard of what they come in by (Operator.means): of two sessions that
    would shut each other out, the first one does.
    """

    operator_id: OperatorId
    means: int


def set_password(by: Session, hashed: str, at: datetime) -> Plan:
    """Raises OperatorNotActive, MeansChanged."""
    return _within(by, at, lambda _now, operator: operators.set_password(operator, hash=hashed))


def enrol(by: Session, enrolled: FactorEnrolled, at: datetime) -> Plan:
    """Raises OperatorNotActive, MeansChanged."""
    return _within(by, at, lambda _now, operator: operators.enrol(operator, enrolled=enrolled))


def link(by: Session, issuer: str, subject: str, at: datetime) -> Plan:
    """Raises OperatorNotActive, MeansChanged."""
    return _within(by, at, lambda _now, operator: operators.link_identity(operator, issuer=issuer, subject=subject))


def remove_factor(by: Session, factor: str, at: datetime) -> Plan:
    """Raises FactorUnknown, LastFactor, MeansChanged."""

    def decide(_now: datetime, operator: Operator) -> Sequence[Event]:
        removed = operators.remove_factor(operator, factor=factor)
        left = [each for id_, each in operator.factors.items() if id_ != factor]
        if all(each.kind is FactorKind.RECOVERY for each in left):
            raise LastFactor
        return removed

    return _within(by, at, decide)


def _within(by: Session, at: datetime, decide: Callable[[datetime, Operator], Sequence[Event]]) -> Plan:
    def decided(now: datetime, operator: Operator) -> Sequence[Event]:
        operators.require_means(operator, by.means)
        return decide(now, operator)

    return _own(by.operator_id, at, decided)


def _own(operator_id: OperatorId, at: datetime, decide: Callable[..., Sequence[Event]]) -> Plan:
    writes = {"operator": operators.stream(operator_id)}
    return _plan(operator_id, at, writes, decide, key=lambda operator: operator.sealing_key())


def _plan(
    operator_id: OperatorId,
    at: datetime,
    writes: Mapping[str, AnyStream[Any]],
    decide: Callable[..., Sequence[Event]],
    by: Principal | None = None,
    *,
    reads: Mapping[str, AnyStream[Any]] | None = None,
    wherever: frozenset[str] = frozenset(),
    key: Callable[..., tuple[str, str]] | None = None,
) -> Plan:
    """Each call describes another command."""
    acting = by or principal(operators.actor_of(operator_id), [])
    id_ = command_id(acting.actor, f"signin\n{uuid7_texts(at, os.urandom(10))[0]}")
    return Plan(
        Context(acting, at, id_, None),
        require=(),
        writes=writes,
        decision=decide,
        answer=lambda _facts: Done(operator_id),
        reads=reads or {},
        wherever=wherever,
        key=key,
    )
