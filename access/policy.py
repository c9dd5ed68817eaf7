"""
Actions, roles, and who asks. What a role comes to is read off the policies (access/policies/*.cedar), so there is one source.

`Principal.require` is the coarse question, whether any role grants an action at all. Whether it does in this case (brand, country,
amount, …) access/cedar.py says.

Invariants:
    - what no role grants is forbidden;
    - an action's name is stable: it stands in policies and in the audit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from access import files
from domain.errors import Forbidden


class Action(StrEnum):
    PLAYER_REGISTER = "player.register"
    PLAYER_MANAGE = "player.manage"
    PLAYER_FLAG = "player.flag"
    DUPLICATES_NOTE = "player.note_duplicates"
    PLAYER_BLOCK = "player.block"
    PLAYER_READ = "player.read"
    PERSONAL_READ = "player.read_personal"
    CONSENT_SET = "consent.set"
    LOGIN_RECORD = "login.record"
    KYC_REQUEST = "kyc.request"
    KYC_DECIDE = "kyc.decide"
    LIMIT_SET = "limit.set"
    LIMIT_OPERATE = "limit.operate"
    PROTECTION_SET = "protection.set"
    PROTECTION_LIFT = "protection.lift"
    DEPOSIT_REQUEST = "deposit.request"
    DEPOSIT_AUTHORISE = "deposit.authorise"
    DEPOSIT_SETTLE = "deposit.settle"
    DEPOSIT_FAIL = "deposit.fail"
    DEPOSIT_DISPUTE = "deposit.dispute"
    DEPOSIT_REFUND = "deposit.refund"
    WITHDRAWAL_REQUEST = "withdrawal.request"
    WITHDRAWAL_CANCEL = "withdrawal.cancel"
    WITHDRAWAL_REVIEW = "withdrawal.review"
    WITHDRAWAL_SEND = "withdrawal.send"
    WITHDRAWAL_SETTLE = "withdrawal.settle"
    MONEY_ADJUST = "money.adjust"
    APPROVAL_DECIDE = "approval.decide"
    APPROVAL_READ = "approval.read"
    SESSION_LAUNCH = "session.launch"
    SESSION_OPEN = "session.open"
    TICKET_OPEN = "ticket.open"
    TICKET_WORK = "ticket.work"
    TICKET_READ = "ticket.read"
    NOTICE_RAISE = "notice.raise"
    NOTICE_READ = "notice.read"
    NOTICE_WORK = "notice.work"
    NOTICE_SUPPRESS = "notice.suppress"
    CONTACT_WORK = "contact.work"
    TIMER_FIRE = "timer.fire"
    GAME_BALANCE = "game.balance"
    GAME_BET = "game.bet"
    GAME_WIN = "game.win"
    GAME_ROLLBACK = "game.rollback"
    GAME_CLOSE = "game.close"
    ROUND_VOID = "round.void"
    HISTORY_IMPORT = "history.import"
    RULES_READ = "rules.read"
    DASHBOARD_READ = "dashboard.read"
    STATUS_READ = "status.read"
    SEGMENT_READ = "segment.read"
    AUDIT_READ = "audit.read"
    LOG_READ = "log.read"
    KEYS_DISCLOSE = "keys.disclose"
    PLAYER_ERASE = "player.erase"
    SECRET_READ = "secret.read"  # noqa: S105 — a name
    SECRET_WRITE = "secret.write"  # noqa: S105 — a name
    COMPARTMENT_MANAGE = "compartment.manage"
    OPERATOR_INVITE = "operator.invite"
    OPERATOR_MANAGE = "operator.manage"
    OPERATOR_READ = "operator.read"
    ROLE_GRANT = "role.grant"
    TOKEN_ISSUE = "token.issue"  # noqa: S105 — a name
    TOKEN_REVOKE = "token.revoke"  # noqa: S105 — a name
    ACCESS_EXPLAIN = "access.explain"
    POLICY_ADOPT = "policy.adopt"
    REGION_HANDOVER = "region.handover"


class Unknown(ValueError):
    """The policies name an action that there is not."""


def _granted(kind: str) -> dict[str, frozenset[Action]]:
    """What the policies grant each Role, or each Service, under whatever condition."""
    found: dict[str, frozenset[Action]] = {}
    for grant in files.grants(files.read().text):
        if grant.kind == kind:
            if unknown := grant.actions - set(Action):
                raise Unknown(f"{grant.id}: there is no action {', '.join(sorted(unknown))}")
            found[grant.name] = found.get(grant.name, frozenset()) | {Action(name) for name in grant.actions}
    return found


ROLES: Mapping[str, frozenset[Action]] = _granted("Role")
"""What people, and programs outside, may be granted: read off access/policies/*.cedar, conditions left aside."""

SERVICES: Mapping[str, frozenset[Action]] = _granted("Service")
"""What our own processes act as; no token has these."""

_MACHINES = ("service:", "provider:", "reaction:", "payments:", "importer:", "system")


class Scope(NamedTuple):
    """Whose matters someone deals with: players of these brands and countries; None: of all."""

    brands: frozenset[str] | None = None
    countries: frozenset[str] | None = None


EVERYWHERE = Scope()


class Principal(NamedTuple):
    """Someone who was authenticated. `actor` stands in every event that they cause.

    `granted`: what the roles add up to, before attributes are asked. `person`: who is behind the actor; "": the actor
    itself. `stepped_up`: when a fresh second factor was last shown; None: never. `machine`: a program, which cannot show
    one and is not asked. `issued`: it comes by a token that stands in the log. `relayed`: another region says who it is, which is
    believed about players, and about nothing else.
    """

    actor: str
    granted: frozenset[Action]
    roles: frozenset[str] = frozenset()
    person: str = ""
    scope: Scope = EVERYWHERE
    stepped_up: datetime | None = None
    machine: bool = False
    issued: bool = False
    relayed: bool = False

    @property
    def behind(self) -> str:
        """Whom four eyes count: one person behind two accounts is one."""
        return self.person or self.actor

    @property
    def human(self) -> bool:
        """Whether a person acts here, who may be the second one of two. No token that was issued is a person: others may know it."""
        return not self.issued and not self.actor.startswith(_MACHINES)

    @property
    def by_hand(self) -> bool:
        """Whether this counts as done by hand, and is explained when money or games are concerned. Only our own processes, and
        providers whose signatures were checked, tell what they have seen.
        """
        return self.issued or not self.actor.startswith(_MACHINES)

    def may(self, action: Action) -> bool:
        return action in self.granted

    def require(self, *actions: Action) -> None:
        """Raises Forbidden unless all actions are granted."""
        for action in actions:
            if not self.may(action):
                raise Forbidden(f"{self.actor} may not {action}", action=str(action))


def principal(
    actor: str,
    roles: Iterable[str],
    *,
    person: str = "",
    scope: Scope = EVERYWHERE,
    stepped_up: datetime | None = None,
    machine: bool = False,
    issued: bool = False,
) -> Principal:
    """What an actor's roles add up to. An unknown role grants nothing."""
    known = frozenset(roles).intersection(ROLES)
    granted: frozenset[Action] = frozenset().union(*(ROLES[role] for role in known))
    return Principal(actor, granted, known, person, scope, stepped_up, machine, issued)


def with_roles(who: Principal, more: Iterable[str]) -> Principal:
    """The same with further roles."""
    roles = who.roles.union(more).intersection(ROLES)
    return who._replace(roles=roles, granted=frozenset().union(*(ROLES[role] for role in roles)))


def service(actor: str, kind: str) -> Principal:
    """One of our own processes, by the name that stands in its events. Raises KeyError for an unknown kind."""
    return Principal(actor, SERVICES[kind], frozenset({kind}), machine=True)
