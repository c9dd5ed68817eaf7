"""
Actions, roles, and the one question that the rest of the house asks: `Principal.require`.

Invariants:
    - what no role grants is forbidden;
    - an action's name is stable: it will stand in policies and in the audit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

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
    SEGMENT_READ = "segment.read"
    AUDIT_READ = "audit.read"
    KEYS_DISCLOSE = "keys.disclose"


_VIEW = frozenset({Action.DASHBOARD_READ, Action.RULES_READ})
_READ = _VIEW | {Action.PLAYER_READ, Action.SEGMENT_READ}
_SUPPORT = _READ | {
    Action.PROTECTION_SET,
    Action.PERSONAL_READ,
    Action.CONSENT_SET,
    Action.KYC_REQUEST,
    Action.WITHDRAWAL_CANCEL,
    Action.TICKET_OPEN,
    Action.TICKET_WORK,
    Action.TICKET_READ,
    Action.NOTICE_READ,
    Action.NOTICE_WORK,
    Action.CONTACT_WORK,
}
_OPERATE = _SUPPORT | {
    Action.PLAYER_REGISTER,
    Action.PLAYER_MANAGE,
    Action.PLAYER_BLOCK,
    Action.LOGIN_RECORD,
    Action.LIMIT_SET,
    Action.DEPOSIT_REQUEST,
    Action.WITHDRAWAL_REQUEST,
    Action.SESSION_LAUNCH,
}
_PROVIDER = frozenset(
    {
        Action.DEPOSIT_AUTHORISE,
        Action.DEPOSIT_SETTLE,
        Action.DEPOSIT_FAIL,
        Action.DEPOSIT_DISPUTE,
        Action.DEPOSIT_REFUND,
        Action.WITHDRAWAL_SETTLE,
    }
)
_GAMES = frozenset(
    {Action.GAME_BALANCE, Action.GAME_BET, Action.GAME_WIN, Action.GAME_ROLLBACK, Action.GAME_CLOSE}
    | {Action.SESSION_OPEN}
)
_CASHIER = (
    _READ
    | _PROVIDER
    | {
        Action.PERSONAL_READ,
        Action.WITHDRAWAL_REVIEW,
        Action.WITHDRAWAL_CANCEL,
        Action.WITHDRAWAL_SEND,
        Action.MONEY_ADJUST,
        Action.ROUND_VOID,
        Action.APPROVAL_READ,
    }
    | {Action.TICKET_READ}
)

ROLES: Mapping[str, frozenset[Action]] = {
    "viewer": _VIEW,
    "support": _SUPPORT,
    "operator": _OPERATE,
    "payments": _READ | _PROVIDER,
    "cashier": _CASHIER,
    "supervisor": _OPERATE
    | _CASHIER
    | {Action.APPROVAL_DECIDE, Action.PLAYER_FLAG, Action.LIMIT_OPERATE, Action.PROTECTION_LIFT}
    | {Action.NOTICE_SUPPRESS},
    "aggregator": _GAMES,
    "importer": _READ | {Action.PLAYER_REGISTER, Action.DEPOSIT_REQUEST, Action.HISTORY_IMPORT},
    "auditor": _READ | {Action.AUDIT_READ, Action.APPROVAL_READ, Action.NOTICE_READ},
    "compliance": _READ
    | {Action.PERSONAL_READ, Action.AUDIT_READ, Action.KEYS_DISCLOSE, Action.KYC_REQUEST, Action.KYC_DECIDE}
    | {Action.PLAYER_BLOCK, Action.PLAYER_MANAGE, Action.PLAYER_FLAG, Action.APPROVAL_READ}
    | {Action.PROTECTION_SET, Action.PROTECTION_LIFT}
    | {Action.LIMIT_OPERATE, Action.NOTICE_READ, Action.NOTICE_WORK, Action.NOTICE_SUPPRESS, Action.CONTACT_WORK},
}
"""What people, and programs outside, may be granted."""

SERVICES: Mapping[str, frozenset[Action]] = {
    "provider": _PROVIDER | {Action.KYC_DECIDE},
    "game_provider": _GAMES,
    "reaction": frozenset(
        {Action.TIMER_FIRE, Action.WITHDRAWAL_SEND, Action.WITHDRAWAL_SETTLE, Action.DUPLICATES_NOTE}
        | {Action.PROTECTION_SET}
        | {Action.NOTICE_RAISE}
    ),
}
"""What our own processes act as; no token has these."""

_MACHINES = ("service:", "provider:", "reaction:", "payments:", "importer:", "system")


class Principal(NamedTuple):
    """Someone who was authenticated. `actor` stands in every event that they cause."""

    actor: str
    granted: frozenset[Action]

    @property
    def human(self) -> bool:
        """Whether a person acts here, who says why when money or games are concerned."""
        return not self.actor.startswith(_MACHINES)

    def may(self, action: Action) -> bool:
        return action in self.granted

    def require(self, *actions: Action) -> None:
        """Raises Forbidden unless all actions are granted."""
        for action in actions:
            if not self.may(action):
                raise Forbidden(f"{self.actor} may not {action}", action=str(action))


def principal(actor: str, roles: Iterable[str]) -> Principal:
    """What an actor's roles add up to. An unknown role grants nothing."""
    return Principal(actor, frozenset().union(*(ROLES.get(role, frozenset()) for role in roles)))


def service(actor: str, kind: str) -> Principal:
    """One of our own processes, by the name that stands in its events. Raises KeyError for an unknown kind."""
    return Principal(actor, SERVICES[kind])
