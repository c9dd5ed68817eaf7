"""
Step-up: what is grave asks for a second factor that was shown a moment ago (policies.steps).

Invariants:
    - it is asked of people; a program shows none, and is held by its roles alone;
    - an operator's own token shows none either, and does nothing that is grave: it would be a way around.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from access.policy import Action, Principal
from domain.errors import Forbidden
from policies import steps

_GRAVE = frozenset(steps.ACTIONS)
_OPERATOR = "operator:"


class StepUpRequired(Forbidden):
    """Facts: action, fresh_seconds."""

    code = "step_up_required"
    title = "Show your second factor again: this asks for one that was shown a moment ago"


class TokenRefused(Forbidden):
    """Facts: action."""

    code = "token_refused"
    title = "An operator does this signed in, with a second factor, and not by a token of theirs"


def require_fresh(principal: Principal, actions: Iterable[Action | str], at: datetime) -> None:
    """Raises StepUpRequired, or TokenRefused, unless none of the actions is grave, or the second factor is fresh."""
    for action in actions:
        if action in _GRAVE:
            require_stepped_up(principal, str(action), at)


def require_stepped_up(principal: Principal, what: str, at: datetime) -> None:
    """The same for something that has no action of its own. Raises StepUpRequired, TokenRefused."""
    if principal.machine:
        if principal.issued and principal.actor.startswith(_OPERATOR):
            raise TokenRefused(action=what)
        return
    shown = principal.stepped_up
    if shown is None or at >= shown + steps.FRESH:
        raise StepUpRequired(action=what, fresh_seconds=int(steps.FRESH.total_seconds()))
