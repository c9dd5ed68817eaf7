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
    PLAYER_BLOCK = "player.block"
    PLAYER_READ = "player.read"
    PERSONAL_READ = "player.read_personal"
    LIMIT_SET = "limit.set"
    DEPOSIT_REQUEST = "deposit.request"
    DEPOSIT_SETTLE = "deposit.settle"
    DEPOSIT_FAIL = "deposit.fail"
    HISTORY_IMPORT = "history.import"
    DASHBOARD_READ = "dashboard.read"
    SEGMENT_READ = "segment.read"
    AUDIT_READ = "audit.read"
    KEYS_DISCLOSE = "keys.disclose"


_VIEW = frozenset({Action.DASHBOARD_READ})
_READ = _VIEW | {Action.PLAYER_READ, Action.SEGMENT_READ}
_OPERATE = _READ | {
    Action.PERSONAL_READ,
    Action.PLAYER_REGISTER,
    Action.PLAYER_BLOCK,
    Action.LIMIT_SET,
    Action.DEPOSIT_REQUEST,
}

ROLES: Mapping[str, frozenset[Action]] = {
    "viewer": _VIEW,
    "operator": _OPERATE,
    "payments": _READ | {Action.DEPOSIT_SETTLE, Action.DEPOSIT_FAIL},
    "importer": _READ | {Action.PLAYER_REGISTER, Action.DEPOSIT_REQUEST, Action.HISTORY_IMPORT},
    "auditor": _READ | {Action.AUDIT_READ},
    "compliance": _READ | {Action.AUDIT_READ, Action.KEYS_DISCLOSE},
}


class Principal(NamedTuple):
    """Someone who was authenticated. `actor` stands in every event that they cause."""

    actor: str
    granted: frozenset[Action]

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
