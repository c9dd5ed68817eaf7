"""
Step-up: what is grave asks for a second factor that was shown a moment ago (policies.steps).

Invariant: it is asked of people; a program shows none, and is held by its roles alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from access.policy import Action, Principal
from domain.errors import Forbidden
from policies import steps

_GRAVE = frozenset(steps.ACTIONS)


class StepUpRequired(Forbidden):
    """Facts: action, fresh_seconds."""

    code = "step_up_required"
    title = "Show your second factor again: this asks for one that was shown a moment ago"


def require_fresh(principal: Principal, actions: Iterable[Action | str], at: datetime) -> None:
    """Raises StepUpRequired unless none of the actions is grave, or the second factor is fresh."""
    if principal.machine:
        return
    for action in actions:
        if action in _GRAVE:
            require_stepped_up(principal, str(action), at)


def require_stepped_up(principal: Principal, what: str, at: datetime) -> None:
    """The same for something that has no action of its own. Raises StepUpRequired."""
    shown = principal.stepped_up
    if not principal.machine and (shown is None or at >= shown + steps.FRESH):
        raise StepUpRequired(action=what, fresh_seconds=int(steps.FRESH.total_seconds()))
