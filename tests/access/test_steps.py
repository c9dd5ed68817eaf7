"""What is grave asks people for a second factor that is fresh."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from access.policy import Action, principal, service
from access.steps import StepUpRequired, require_fresh
from policies import steps

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_every_grave_action_is_one() -> None:
    assert steps.ACTIONS.keys() <= {str(action) for action in Action}


@pytest.mark.parametrize("action", sorted(steps.ACTIONS))
def test_a_second_factor_is_fresh_for_five_minutes(action: str) -> None:
    anna = principal("operator:anna", [], stepped_up=NOON)
    require_fresh(anna, [action], NOON + timedelta(minutes=4, seconds=59))
    with pytest.raises(StepUpRequired):
        require_fresh(anna, [action], NOON + timedelta(minutes=5))
    with pytest.raises(StepUpRequired):
        require_fresh(anna._replace(stepped_up=None), [action], NOON)


def test_what_takes_away_everything_at_once_is_grave_whether_as_a_file_or_live() -> None:
    assert {"audit.stream", "audit.live", "log.read", "projection.state"} == set(steps.EXPORTS)


def test_money_that_is_moved_by_hand_is_grave() -> None:
    for action in (Action.MONEY_ADJUST, Action.ROUND_VOID, Action.DEPOSIT_SETTLE, Action.WITHDRAWAL_SETTLE):
        with pytest.raises(StepUpRequired):
            require_fresh(principal("operator:anna", ["supervisor"]), [action], NOON)
        require_fresh(service("payments:acme", "provider"), [action], NOON)


def test_what_is_not_grave_and_programs_are_not_asked() -> None:
    require_fresh(principal("operator:anna", []), [Action.PLAYER_READ], NOON)
    require_fresh(service("service:payouts", "reaction"), [Action.MONEY_ADJUST], NOON)
