"""What the policy says of every command there is."""

from __future__ import annotations

import pytest

from commands.catalog import ENDPOINTS
from commands.safeguards import PATHS as PROTECTIVE
from policies.durability import COMMANDS, Durability, rule

PATHS = [endpoint.path for endpoint in ENDPOINTS]
MONEY_OUT = {
    "/v1/players/{player_id}/withdrawals",
    "/v1/transactions/{transaction_id}/approve",
    "/v1/transactions/{transaction_id}/send",
    "/v1/transactions/{transaction_id}/refund",
    "/v1/approvals/{approval_id}/approve",
}


@pytest.mark.parametrize("path", PATHS)
def test_a_command_is_geo_by_default_if_money_leaves_the_house_by_it_or_it_protects_a_player(path: str) -> None:
    assert (rule(path).default is Durability.GEO) == (path in MONEY_OUT | PROTECTIVE)
    assert rule(path).least is Durability.REGION or rule(path).default is Durability.GEO


def test_no_rule_is_about_a_command_that_there_is_not() -> None:
    assert set(COMMANDS) <= set(PATHS)
    assert set(PATHS) >= MONEY_OUT | PROTECTIVE


def test_only_what_moves_no_money_yet_may_be_less_than_geo() -> None:
    lighter = {path for path, each in COMMANDS.items() if each.default != each.least}
    assert lighter == {"/v1/players/{player_id}/withdrawals"} | PROTECTIVE
