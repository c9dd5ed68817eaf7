"""
Commands on operators: invite them, say what they may do and for whose players, suspend them.

Invariants:
    - whoever is given a role, a scope or a person, or is let in again, is so by two people (policies.approvals), and two invite
      somebody; taking away needs one;
    - once two persons administer without an end, nothing leaves fewer: who else does is a condition of the append, as far as they
      are written here;
    - the secret of an invitation is in no event, and is shown once: a repeat of the same request does not know it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec

from access.policy import ROLES, Action, Principal
from commands.approvals import PersonNeeded
from commands.edge import Country, Edge, Endpoint, Nothing, PersonalText, Word, whole
from commands.identity import command_id
from commands.plan import Context, Fact, Plan
from commands.sealing import KeyNotHeld
from domain import administrators, bootstraps, operators
from domain.administrators import LastAdministrator
from domain.approvals import SamePerson
from domain.errors import Invalid, NotFound
from domain.kernel import AnyStream, OperatorId, parse_instant, suffix, uuid7
from domain.operators import (
    ADMINISTRATOR,
    AlreadyJoined,
    IdentityUnknown,
    InThePast,
    LastMeans,
    Operator,
    OperatorEvent,
    RegulatorApart,
    Status,
)
from domain.players import DataKey
from eventstore.vault import Owed, Vault
from policies.approvals import PERSON, RESUME, ROLE, SCOPE

FOUND_BY = "operator_email"
"""The field of the blind index by which an operator's e-mail is found."""

INVITED_HOURS = 72
SYSTEM = Principal("system", frozenset())

Person = Annotated[
    str,
    whole("[a-z0-9][a-z0-9_-]{0,39}", "Who is behind the account, in a word of the house: a staff number, no name."),
]
Instant = Annotated[
    str,
    whole(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", "An RFC 3339 time with its zone."),
]
Brands = Annotated[list[Word], msgspec.Meta(min_length=1, max_length=100)]
Countries = Annotated[list[Country], msgspec.Meta(min_length=1, max_length=250)]


class InviteOperator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`brands`, `countries`: whose players are theirs; not given: all."""

    name: PersonalText
    email: PersonalText
    person: Person
    brands: Brands | None = None
    countries: Countries | None = None


class OperatorInvited(msgspec.Struct, frozen=True):
    """`invitation`: the secret by which they join until `until`; null when the same request is answered again."""

    operator: str
    status: Status
    invitation: str | None
    until: datetime


class GrantRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`until`: when the role ends by itself; not given: it lasts."""

    role: Word
    until: Instant | None = None


class UnlinkIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`issuer`: of the provider, as the operator's card names it."""

    issuer: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class RevokeRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Word


class ScopeOperator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Not given: all."""

    brands: Brands | None = None
    countries: Countries | None = None


class SuspendOperator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Word


class NamePerson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    person: Person


class OperatorChanged(msgspec.Struct, frozen=True):
    operator: str


class RoleUnknown(Invalid):
    """Facts: known."""

    code = "role_unknown"
    title = "No role is called so"


class Secret:
    """A secret that was just made, and its digest. Whoever has the secret shows it once."""

    __slots__ = ("_secret", "digest")

    def __init__(self, prefix: str) -> None:
        self._secret = prefix + secrets.token_urlsafe(32)
        self.digest = digest_of(self._secret)

    def shown(self, digest: str) -> str | None:
        """The secret, to the command that recorded this digest."""
        return self._secret if digest == self.digest else None


def digest_of(secret: str) -> str:
    """What the log holds of a secret: SHA-256, in hex. It has 256 random bits, so nobody guesses it."""
    return hashlib.sha256(secret.encode()).hexdigest()


def known_role(role: str, pointer: str) -> str:
    """Raises RoleUnknown."""
    if role not in ROLES:
        raise RoleUnknown(pointer=pointer, known=sorted(ROLES))
    return role


def instant_of(text: str, pointer: str) -> datetime:
    """Raises Invalid."""
    try:
        return parse_instant(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Invalid(str(error), pointer=pointer) from None


def given(values: Sequence[str] | None) -> tuple[str, ...] | None:
    """As an event holds a set: sorted, each once."""
    return None if values is None else tuple(sorted(set(values)))


def invite(command: InviteOperator, edge: Edge) -> Plan:
    """Invite somebody to work here; they hold no role yet, and join once another person has confirmed it. Raises Forbidden."""
    by = edge.context.principal.behind
    return _inviting(command, edge.context, edge.vault, edge.new_own(), (Action.OPERATOR_INVITE,), by=by)


def _inviting(
    command: InviteOperator,
    context: Context,
    vault: Vault,
    suffix_: str,
    require: tuple[Action, ...],
    more: Sequence[OperatorEvent] = (),
    by: str = "",
) -> Plan:
    invitation, key = Secret("cri_"), vault.new_key(uuid7(context.now, os.urandom(10)))
    invited = operators.Invited(
        name=command.name,
        email=command.email,
        person=command.person,
        key=DataKey(key.id, key.commitment),
        invitation=invitation.digest,
        until=context.now + timedelta(hours=INVITED_HOURS),
        brands=given(command.brands),
        countries=given(command.countries),
        by=by,
    )

    def answer(facts: Sequence[Fact]) -> OperatorInvited:
        event, id_ = facts[0].event, "operator_" + facts[0].stream.partition("-")[2]
        assert isinstance(event, operators.Invited)  # noqa: S101 — it is the first that is recorded
        return OperatorInvited(id_, _status(event), invitation.shown(event.invitation), event.until)

    return Plan(
        context,
        require=require,
        writes={"operator": operators.stream(OperatorId("operator_" + suffix_))},
        fresh=frozenset({"operator"}),
        decision=lambda _at, operator: [*operators.invite(operator, invited=invited), *more],
        answer=answer,
        owed=Owed(suffix_, key, [(FOUND_BY, command.email)]),
    )


def invite_again(operator_id: str, _command: Nothing, edge: Edge) -> Plan:
    """Make another invitation for somebody who has not joined; the last one is void, and another person confirms this one.

    Raises NotFound, AlreadyJoined.
    """
    invitation, until = Secret("cri_"), edge.context.now + timedelta(hours=INVITED_HOURS)
    by = edge.context.principal.behind

    def answer(facts: Sequence[Fact]) -> OperatorInvited:
        event = facts[0].event
        assert isinstance(event, operators.InvitedAgain)  # noqa: S101 — nothing else is recorded
        return OperatorInvited(operator_id, _status(event), invitation.shown(event.invitation), event.until)

    return Plan(
        edge.context,
        require=(Action.OPERATOR_INVITE,),
        writes={"operator": operators.stream(OperatorId(operator_id))},
        decision=lambda _at, operator: operators.invite_again(
            operator, invitation=invitation.digest, until=until, by=by
        ),
        answer=answer,
    )


def _status(event: operators.Invited | operators.InvitedAgain) -> Status:
    return Status.AWAITING if event.by else Status.INVITED


def confirm(operator_id: str, _command: Nothing, edge: Edge) -> Plan:
    """Confirm whom another person has invited, and for whose players. Raises NotFound, SamePerson, PersonNeeded, AlreadyJoined."""
    principal = edge.context.principal

    def decision(_at: datetime, operator: Operator) -> Sequence[OperatorEvent]:
        if not principal.human:
            raise PersonNeeded
        return operators.confirm_invitation(operator, person=principal.behind)

    return Plan(
        edge.context,
        require=(Action.OPERATOR_INVITE,),
        writes={"operator": operators.stream(OperatorId(operator_id))},
        decision=decision,
        answer=lambda _facts: OperatorChanged(operator_id),
    )


def unlink_identity(operator_id: str, command: UnlinkIdentity, edge: Edge) -> Plan:
    """Let an operator not come in any more as a provider of identities knows them. Raises NotFound, IdentityUnknown, LastMeans."""
    return _changing(
        operator_id,
        edge,
        Action.OPERATOR_MANAGE,
        lambda _at, operator: operators.unlink_identity(operator, issuer=command.issuer),
    )


def grant(operator_id: str, command: GrantRole, edge: Edge) -> Plan:
    """Grant a role; another person has to approve. Raises NotFound, RoleUnknown, InThePast, RegulatorApart, LastAdministrator,
    KeyNotHeld.
    """
    role = known_role(command.role, "/role")
    until = None if command.until is None else instant_of(command.until, "/until")
    return _changing(
        operator_id,
        edge,
        Action.ROLE_GRANT,
        lambda at, operator: operators.grant(operator, role=role, until=until, at=at),
    )


def revoke(operator_id: str, command: RevokeRole, edge: Edge) -> Plan:
    """Take a role away, at once. Raises NotFound, LastAdministrator."""
    return _changing(
        operator_id, edge, Action.ROLE_GRANT, lambda _at, operator: operators.revoke(operator, role=command.role)
    )


def scope(operator_id: str, command: ScopeOperator, edge: Edge) -> Plan:
    """Say whose players are theirs; another person has to approve. Raises NotFound, RegulatorApart, KeyNotHeld."""
    brands, countries = given(command.brands), given(command.countries)
    return _changing(
        operator_id,
        edge,
        Action.OPERATOR_MANAGE,
        lambda at, operator: operators.scope(operator, brands=brands, countries=countries, at=at),
    )


def suspend(operator_id: str, command: SuspendOperator, edge: Edge) -> Plan:
    """Suspend an operator, at once: nothing is granted to them, their sessions and tokens end. Raises NotFound,
    LastAdministrator.
    """
    return _changing(
        operator_id,
        edge,
        Action.OPERATOR_MANAGE,
        lambda _at, operator: operators.suspend(operator, reason=command.reason),
    )


def resume(operator_id: str, _command: Nothing, edge: Edge) -> Plan:
    """End a suspension; another person has to approve. Raises NotFound, KeyNotHeld."""
    return _changing(operator_id, edge, Action.OPERATOR_MANAGE, lambda _at, operator: operators.resume(operator))


def name_person(operator_id: str, command: NamePerson, edge: Edge) -> Plan:
    """Say who is behind the account; another person has to approve. Raises NotFound, LastAdministrator, KeyNotHeld."""
    return _changing(
        operator_id,
        edge,
        Action.OPERATOR_MANAGE,
        lambda _at, operator: operators.name_person(operator, person=command.person),
    )


def _changing(
    operator_id: str, edge: Edge, action: Action, decision: Callable[[datetime, Operator], Sequence[OperatorEvent]]
) -> Plan:
    """`decision`: what is done, unless too few would administer then. Those of other regions count as they are known here."""
    others: dict[str, AnyStream[Any]] = {
        id_: operators.stream(id_) for id_ in edge.administrators() if id_ != operator_id
    }

    def decide(at: datetime, operator: Operator, **others: Operator) -> Sequence[OperatorEvent]:
        return administrators.keep(operator, decision(at, operator), list(others.values()), at)

    return Plan(
        edge.context,
        require=(action,),
        writes={"operator": operators.stream(OperatorId(operator_id))},
        reads=others,
        wherever=frozenset(others),
        decision=decide,
        answer=lambda _facts: OperatorChanged(operator_id),
    )


# The first ones


class Bootstrapped(msgspec.Struct, frozen=True):
    operators: tuple[OperatorId, ...]


def bootstrap(region: str, ids: Sequence[OperatorId], now: datetime) -> Plan:
    """Record who the first administrators are; `invite_first` invites them. Raises AlreadyBootstrapped."""
    return Plan(
        Context(SYSTEM, now, command_id(SYSTEM.actor, "\n".join(["bootstrap", *ids])), None),
        require=(),
        writes={"bootstrap": bootstraps.stream(region)},
        decision=lambda _at, bootstrap: bootstraps.make(bootstrap, operators=tuple(ids)),
        answer=lambda _facts: Bootstrapped(tuple(ids)),
    )


def invite_first(id_: OperatorId, command: InviteOperator, vault: Vault, now: datetime) -> Plan:
    """Invite one of the first administrators, who holds that role from the start: nobody is there yet to approve it."""
    context = Context(SYSTEM, now, command_id(SYSTEM.actor, f"invite\n{id_}"), None)
    first = [operators.RoleGranted(ADMINISTRATOR)]
    return _inviting(command, context, vault, id_.partition("_")[2], (), first)


class Recovered(msgspec.Struct, frozen=True):
    operators: tuple[OperatorId, ...]


def recover(
    region: str,
    ids: Sequence[OperatorId],
    without: Sequence[OperatorId],
    left: Mapping[OperatorId, str],
    now: datetime,
) -> Plan:
    """Record that further administrators are made from outside, which `invite_first` invites, and `suspend_lost` suspends those
    `without` whom it is. `left`: who administers, by person. Raises NotLost.
    """
    recovered = bootstraps.Recovered(tuple(ids), tuple(without))
    return Plan(
        Context(SYSTEM, now, command_id(SYSTEM.actor, "\n".join(["recover", *ids])), None),
        require=(),
        writes={"bootstrap": bootstraps.stream(region)},
        decision=lambda _at, bootstrap: bootstraps.recover(left, recovered=recovered),  # noqa: ARG005 — its name
        answer=lambda _facts: Recovered(tuple(ids)),
    )


def suspend_lost(id_: OperatorId, now: datetime) -> Plan:
    """Suspend somebody without whom the house is recovered, however many are left. Raises NotFound."""
    return Plan(
        Context(SYSTEM, now, command_id(SYSTEM.actor, f"suspend\n{id_}\n{now.isoformat()}"), None),
        require=(),
        writes={"operator": operators.stream(id_)},
        decision=lambda _at, operator: operators.suspend(operator, reason="recovered"),
        answer=lambda _facts: OperatorChanged(id_),
    )


def new_operator_id(own: Sequence[int], now: datetime) -> OperatorId:
    """In one of the `own` partitions."""
    random = os.urandom(10)
    return OperatorId("operator_" + suffix(uuid7(now, random, own[int.from_bytes(random) % len(own)])))


_ONE = "/v1/operators/{operator_id}"
ENDPOINTS = (
    Endpoint("/v1/operators", invite, InviteOperator, OperatorInvited, 201, ()),
    Endpoint(f"{_ONE}/invite-again", invite_again, Nothing, OperatorInvited, 200, (NotFound, AlreadyJoined)),
    Endpoint(
        f"{_ONE}/confirm", confirm, Nothing, OperatorChanged, 200, (NotFound, SamePerson, PersonNeeded, AlreadyJoined)
    ),
    Endpoint(
        ROLE,
        grant,
        GrantRole,
        OperatorChanged,
        200,
        (NotFound, RoleUnknown, InThePast, RegulatorApart, LastAdministrator, KeyNotHeld),
    ),
    Endpoint(f"{_ONE}/revoke-role", revoke, RevokeRole, OperatorChanged, 200, (NotFound, LastAdministrator)),
    Endpoint(SCOPE, scope, ScopeOperator, OperatorChanged, 200, (NotFound, RegulatorApart, KeyNotHeld)),
    Endpoint(f"{_ONE}/suspend", suspend, SuspendOperator, OperatorChanged, 200, (NotFound, LastAdministrator)),
    Endpoint(
        f"{_ONE}/unlink-identity",
        unlink_identity,
        UnlinkIdentity,
        OperatorChanged,
        200,
        (NotFound, IdentityUnknown, LastMeans),
    ),
    Endpoint(RESUME, resume, Nothing, OperatorChanged, 200, (NotFound, KeyNotHeld)),
    Endpoint(PERSON, name_person, NamePerson, OperatorChanged, 200, (NotFound, LastAdministrator, KeyNotHeld)),
)
