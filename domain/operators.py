"""
Operators: the people who work here, and regulators who look on. Who they are, what roles they hold and until when, for whose
players; and by what they sign in.

A person may have two accounts. `person` says who is behind one, in a word of the house (a staff number, never a name): four eyes
count persons, not accounts.

Invariants:
    - nobody has a role that was not granted to them, or whose time is over, or while they are not active;
    - an invitation is good once, until its time is over, and once a second person has confirmed it: whoever invites somebody says
      who they are and whose players are theirs; the log holds only its digest;
    - what a person comes in by counts the times that something of it was taken away or replaced (`means`): what was begun before
      is over;
    - a regulator has no other role, and a jurisdiction: countries whose players they may look at;
    - names, addresses and secrets are sealed under the operator's own key.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

import msgspec

from domain.approvals import SamePerson
from domain.errors import Conflict, Forbidden, Invalid, NotFound
from domain.kernel import EPOCH, STREAMS_CACHED, Aggregate, Event, OperatorId, Personal, Stream, parse_id
from domain.players import DataKey

ADMINISTRATOR, REGULATOR = "administrator", "regulator"

# Events: the tags and fields are the storage format.


class Invited(Event, frozen=True, kw_only=True, tag="operator.invited"):
    """Somebody may join until `until`, with the secret whose SHA-256 (hex) is `invitation`. `brands`, `countries`: whose players
    are theirs; null: all. `key`: their own data key. `by`: who is behind whoever invited them, and another one confirms it; "": the
    deployment itself, and nobody does.
    """

    name: Personal
    email: Personal
    person: str
    key: DataKey
    invitation: str
    until: datetime
    brands: tuple[str, ...] | None = None
    countries: tuple[str, ...] | None = None
    by: str = ""


class InvitedAgain(Event, frozen=True, tag="operator.invited_again"):
    """Another invitation takes the place of the last one. `by`: as in Invited."""

    invitation: str
    until: datetime
    by: str = ""


class InvitationConfirmed(Event, frozen=True, tag="operator.invitation_confirmed"):
    """A second person agreed to who was invited, and for whose players. `person`: who is behind them."""

    person: str


class Activated(Event, frozen=True, tag="operator.activated"):
    """Whom the invitation was for has come."""


class RoleGranted(Event, frozen=True, tag="operator.role_granted"):
    """The operator holds a role, until a time or (null) until it is revoked. The later grant of a role counts."""

    role: str
    until: datetime | None = None


class RoleRevoked(Event, frozen=True, tag="operator.role_revoked"):
    """The operator does not hold the role any more."""

    role: str


class Scoped(Event, frozen=True, tag="operator.scoped"):
    """Whose players are the operator's from now on; null: all."""

    brands: tuple[str, ...] | None = None
    countries: tuple[str, ...] | None = None


class Suspended(Event, frozen=True, tag="operator.suspended"):
    """Nothing is granted any more, and all sessions and tokens end. `reason`: a word."""

    reason: str


class Resumed(Event, frozen=True, tag="operator.resumed"):
    """The operator has again what they have been granted."""


class PersonNamed(Event, frozen=True, tag="operator.person_named"):
    """Who is behind the account."""

    person: str


class IdentityLinked(Event, frozen=True, tag="operator.identity_linked"):
    """An OpenID provider knows them: `subject` is SHA-256 (hex) of issuer LF subject."""

    issuer: str
    subject: str


class IdentityUnlinked(Event, frozen=True, tag="operator.identity_unlinked"):
    """They do not come in any more as this OpenID provider knows them."""

    issuer: str


class PasswordSet(Event, frozen=True, tag="operator.password_set"):
    """`hash`: argon2id, in its own text form."""

    hash: Personal


class FactorEnrolled(Event, frozen=True, kw_only=True, tag="operator.factor_enrolled"):
    """A second factor. `secret`: of a one-time password the shared secret, of recovery codes their hashes. `credential` and
    `public_key`: of a passkey, both base64url.
    """

    factor: str
    kind: FactorKind
    secret: Personal | None = None
    credential: str = ""
    public_key: str = ""


class FactorRemoved(Event, frozen=True, tag="operator.factor_removed"):
    """A second factor does not count any more."""

    factor: str


class FactorKind(StrEnum):
    TOTP = "totp"
    PASSKEY = "passkey"
    RECOVERY = "recovery"


OperatorEvent = (
    Invited | InvitedAgain | InvitationConfirmed | Activated | RoleGranted | RoleRevoked | Scoped | Suspended | Resumed
    | PersonNamed | IdentityLinked | IdentityUnlinked | PasswordSet | FactorEnrolled | FactorRemoved
)  # fmt: skip


# State


class Status(StrEnum):
    UNKNOWN = "unknown"
    AWAITING = "awaiting_second_person"
    INVITED = "invited"
    ACTIVE = "active"
    SUSPENDED = "suspended"


class Factor(msgspec.Struct, frozen=True):
    """What of a factor stands in the clear."""

    kind: FactorKind
    credential: str = ""
    public_key: str = ""


class Operator(msgspec.Struct, frozen=True):
    """`roles`: until when each that was granted holds (null: it lasts). `suspended_from`: what they come back to; `barred_until`:
    when the last suspension began, or ended: what they began to sign in by until then is over. `invited_by`: the person who knows the invitation's secret.
    `identities`: (issuer, subject). `means`: how often a way in was taken away or replaced. Secrets stand in the log alone.
    """

    status: Status = Status.UNKNOWN
    suspended_from: Status = Status.UNKNOWN
    barred_until: datetime = EPOCH
    person: str = ""
    key: str = ""
    commitment: str = ""
    brands: tuple[str, ...] | None = None
    countries: tuple[str, ...] | None = None
    roles: Mapping[str, datetime | None] = {}
    invitation: str = ""
    invited_until: datetime = EPOCH
    invited_by: str = ""
    identities: tuple[tuple[str, str], ...] = ()
    has_password: bool = False
    factors: Mapping[str, Factor] = {}
    means: int = 0

    @property
    def administers(self) -> bool:
        """Whether they are active, and hold that role without an end."""
        return self.status is Status.ACTIVE and ADMINISTRATOR in self.roles and self.roles[ADMINISTRATOR] is None

    @property
    def has_second_factor(self) -> bool:
        """One that is no recovery code."""
        return any(each.kind is not FactorKind.RECOVERY for each in self.factors.values())

    def holds(self, at: datetime) -> frozenset[str]:
        """The roles that are granted at that time, whether or not the operator is active."""
        return frozenset(role for role, until in self.roles.items() if until is None or at < until)

    def roles_at(self, at: datetime) -> frozenset[str]:
        """The roles by which the operator may act at that time."""
        return self.holds(at) if self.status is Status.ACTIVE else frozenset()

    def require(self) -> None:
        """Raises NotFound."""
        if self.status is Status.UNKNOWN:
            raise NotFound("no such operator")

    def require_active(self) -> None:
        """Raises NotFound, OperatorNotActive."""
        self.require()
        if self.status is not Status.ACTIVE:
            raise OperatorNotActive(status=self.status)

    def sealing_key(self) -> tuple[str, str]:
        """The data key under which what is personal is sealed, for Plan.key. Raises NotFound."""
        self.require()
        return self.key, self.commitment


_replace = msgspec.structs.replace


def evolve(operator: Operator, event: OperatorEvent, at: datetime) -> Operator:  # noqa: C901, PLR0911 — one case for each
    match event:
        case Invited():
            return Operator(
                _invited(event.by), person=event.person, key=event.key.id, commitment=event.key.commitment,
                brands=event.brands, countries=event.countries, invitation=event.invitation, invited_until=event.until,
                invited_by=event.by,
            )  # fmt: skip
        case InvitedAgain(invitation, until, by):
            return _replace(operator, status=_invited(by), invitation=invitation, invited_until=until, invited_by=by)
        case InvitationConfirmed():
            return _replace(operator, status=Status.INVITED)
        case Activated():
            return _replace(operator, status=Status.ACTIVE, invitation="")
        case RoleGranted(role, until):
            return _replace(operator, roles={**operator.roles, role: until})
        case RoleRevoked(role):
            return _replace(operator, roles={each: until for each, until in operator.roles.items() if each != role})
        case Scoped(brands, countries):
            return _replace(operator, brands=brands, countries=countries)
        case Suspended():
            return _replace(operator, status=Status.SUSPENDED, suspended_from=operator.status, barred_until=at)
        case Resumed():
            return _replace(operator, status=operator.suspended_from, suspended_from=Status.UNKNOWN, barred_until=at)
        case PersonNamed(person):
            return _replace(operator, person=person)
        case _:
            return _means(operator, event)


def _invited(by: str) -> Status:
    return Status.AWAITING if by else Status.INVITED


def _means(
    operator: Operator, event: IdentityLinked | IdentityUnlinked | PasswordSet | FactorEnrolled | FactorRemoved
) -> Operator:
    """By what the operator signs in."""
    before = operator.means
    match event:
        case IdentityLinked(issuer, subject):
            others = tuple(each for each in operator.identities if each[0] != issuer)
            means = before + (len(others) < len(operator.identities))
            return _replace(operator, identities=(*others, (issuer, subject)), means=means)
        case IdentityUnlinked(issuer):
            left = tuple(each for each in operator.identities if each[0] != issuer)
            return _replace(operator, identities=left, means=before + 1)
        case PasswordSet():
            return _replace(operator, has_password=True, means=before + 1)
        case FactorEnrolled():
            factor = Factor(event.kind, event.credential, event.public_key)
            return _replace(operator, factors={**operator.factors, event.factor: factor})
        case FactorRemoved(factor):
            kept = {id_: each for id_, each in operator.factors.items() if id_ != factor}
            return _replace(operator, factors=kept, means=before + 1)


OPERATORS = Aggregate(
    "operator",
    initial=Operator(),
    evolve=evolve,
    events=[
        Invited, InvitedAgain, InvitationConfirmed, Activated, RoleGranted, RoleRevoked, Scoped, Suspended, Resumed,
        PersonNamed, IdentityLinked, IdentityUnlinked, PasswordSet, FactorEnrolled, FactorRemoved,
    ],
)  # fmt: skip


@lru_cache(STREAMS_CACHED)
def stream(operator_id: OperatorId) -> Stream[Operator]:
    return Stream(OPERATORS, parse_id("operator", operator_id))


def actor_of(operator_id: OperatorId) -> str:
    """What stands in the events that the operator causes: operator:<26 characters>."""
    return "operator:" + parse_id("operator", operator_id)


# Decisions


class OperatorNotActive(Conflict):
    """Facts: status."""

    code = "operator_not_active"
    title = "The operator has not joined yet, or is suspended"


class AlreadyJoined(Conflict):
    code = "already_joined"
    title = "The operator has joined already, and needs no invitation"


class InvitationRefused(Forbidden):
    code = "invitation_refused"
    title = "This invitation is not good, or not any more"


class RegulatorApart(Conflict):
    code = "regulator_apart"
    title = "A regulator has a jurisdiction (countries), and no other role"


class InThePast(Invalid):
    code = "in_the_past"
    title = "What is granted ends in the future"


class LastMeans(Conflict):
    code = "last_means"
    title = "They come in by nothing else: suspend them instead"


class MeansChanged(Forbidden):
    code = "means_changed"
    title = "What you sign in by was changed since this session began; sign in again"


class IdentityUnknown(NotFound):
    code = "identity_unknown"
    title = "The operator is not linked to this provider"


class FactorUnknown(NotFound):
    code = "factor_unknown"
    title = "The operator has no such factor"


def invite(operator: Operator, *, invited: Invited) -> list[OperatorEvent]:
    """Invite somebody, who holds no role yet."""
    if operator.status is not Status.UNKNOWN:
        raise Conflict("the operator exists already")
    return [invited]


def invite_again(operator: Operator, *, invitation: str, until: datetime, by: str) -> list[OperatorEvent]:
    """Another invitation for somebody who has not joined yet; the last one is void. `by`: who learns its secret, so that another
    person confirms it anew. Raises NotFound, AlreadyJoined.
    """
    operator.require()
    if operator.status not in (Status.AWAITING, Status.INVITED):
        raise AlreadyJoined
    return [InvitedAgain(invitation, until, by)]


def confirm_invitation(operator: Operator, *, person: str) -> list[OperatorEvent]:
    """Agree to an invitation, as another person than who made it. Raises NotFound, SamePerson, AlreadyJoined."""
    operator.require()
    if person == operator.invited_by:
        raise SamePerson("another person than who made it confirms an invitation")
    if operator.status not in (Status.AWAITING, Status.INVITED):
        raise AlreadyJoined
    return [] if operator.status is Status.INVITED else [InvitationConfirmed(person)]


def activate(operator: Operator, *, invitation: str, at: datetime) -> list[OperatorEvent]:
    """Join by an invitation: `invitation` is the digest of the secret that was shown. Raises InvitationRefused, and tells no more."""
    if operator.status is not Status.INVITED or invitation != operator.invitation or at >= operator.invited_until:
        raise InvitationRefused
    return [Activated()]


def grant(operator: Operator, *, role: str, until: datetime | None, at: datetime) -> list[OperatorEvent]:
    """Grant a role. Granting again what is held for as long records nothing. Raises NotFound, InThePast, RegulatorApart."""
    operator.require()
    if until is not None and until <= at:
        raise InThePast(pointer="/until")
    _refuse_mixed(operator.holds(at) | {role}, operator.countries)
    if role in operator.holds(at) and operator.roles[role] == until:
        return []
    return [RoleGranted(role, until)]


def revoke(operator: Operator, *, role: str) -> list[OperatorEvent]:
    """Take a role away. Raises NotFound."""
    operator.require()
    return [RoleRevoked(role)] if role in operator.roles else []


def scope(
    operator: Operator, *, brands: tuple[str, ...] | None, countries: tuple[str, ...] | None, at: datetime
) -> list[OperatorEvent]:
    """Say whose players are theirs. Raises NotFound, RegulatorApart."""
    operator.require()
    _refuse_mixed(operator.holds(at), countries)
    return [] if (brands, countries) == (operator.brands, operator.countries) else [Scoped(brands, countries)]


def suspend(operator: Operator, *, reason: str) -> list[OperatorEvent]:
    """Let them do nothing more, whatever they hold. Raises NotFound."""
    operator.require()
    return [] if operator.status is Status.SUSPENDED else [Suspended(reason)]


def resume(operator: Operator) -> list[OperatorEvent]:
    """End a suspension. Raises NotFound."""
    operator.require()
    return [Resumed()] if operator.status is Status.SUSPENDED else []


def name_person(operator: Operator, *, person: str) -> list[OperatorEvent]:
    """Say who is behind the account. Raises NotFound."""
    operator.require()
    return [] if person == operator.person else [PersonNamed(person)]


def link_identity(operator: Operator, *, issuer: str, subject: str) -> list[OperatorEvent]:
    """Let them come in as an OpenID provider knows them; of each provider one. Raises NotFound, OperatorNotActive."""
    operator.require_active()
    return [] if (issuer, subject) in operator.identities else [IdentityLinked(issuer, subject)]


def unlink_identity(operator: Operator, *, issuer: str) -> list[OperatorEvent]:
    """Let them not come in any more as a provider knows them. Raises NotFound, IdentityUnknown, LastMeans."""
    operator.require()
    if all(each != issuer for each, _ in operator.identities):
        raise IdentityUnknown
    has_passkey = any(each.kind is FactorKind.PASSKEY for each in operator.factors.values())
    if not (operator.has_password or has_passkey or len(operator.identities) > 1):
        raise LastMeans
    return [IdentityUnlinked(issuer)]


def set_password(operator: Operator, *, hash: str) -> list[OperatorEvent]:  # noqa: A002 — its name
    """Raises NotFound, OperatorNotActive."""
    operator.require_active()
    return [PasswordSet(hash)]


def enrol(operator: Operator, *, enrolled: FactorEnrolled) -> list[OperatorEvent]:
    """Another second factor. Recovery codes take the place of those before. Raises NotFound, OperatorNotActive."""
    operator.require_active()
    if enrolled.factor in operator.factors:
        return []
    before = [id_ for id_, each in operator.factors.items() if each.kind is FactorKind.RECOVERY]
    replaced = before if enrolled.kind is FactorKind.RECOVERY else []
    return [*map(FactorRemoved, replaced), enrolled]


def remove_factor(operator: Operator, *, factor: str) -> list[OperatorEvent]:
    """Raises NotFound, FactorUnknown."""
    operator.require()
    if factor not in operator.factors:
        raise FactorUnknown
    return [FactorRemoved(factor)]


def require_means(operator: Operator, known: int) -> None:
    """`known`: how far a session has heard of `means`. Raises MeansChanged."""
    if operator.means > known:
        raise MeansChanged


def _refuse_mixed(held: frozenset[str], countries: tuple[str, ...] | None) -> None:
    if REGULATOR in held and (len(held) > 1 or not countries):
        raise RegulatorApart
