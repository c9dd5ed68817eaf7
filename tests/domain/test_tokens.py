"""Tokens: two people let a program in, and one ends it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from domain import tokens
from domain.approvals import SamePerson
from domain.errors import NotFound
from domain.operators import Activated, InThePast, Invited, Operator, OperatorNotActive, RoleGranted
from domain.operators import evolve as of_operator
from domain.players import DataKey
from domain.tokens import (
    Confirmed,
    HolderIsAnother,
    Issued,
    Revoked,
    RolesNotTheirs,
    Status,
    Token,
    TokenEvent,
    TokenRevoked,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=72)
ISSUED = Issued(holder="service:reports", digest="aa", roles=("viewer",), expires=LATER, person="staff-17")


def given(*events: TokenEvent) -> Token:
    token = Token()
    for event in events:
        token = tokens.evolve(token, event, NOON)
    return token


def operator(*roles: str, active: bool = True) -> Operator:
    invited = Invited(name="M", email="m", person="staff-1", key=DataKey("k", "0"), invitation="i", until=LATER)
    state = of_operator(Operator(), invited, NOON)
    for event in (*map(RoleGranted, roles), *([Activated()] if active else [])):
        state = of_operator(state, event, NOON)
    return state


def test_a_token_gives_nothing_until_a_second_person_has_confirmed_it_nor_when_it_is_over_or_revoked() -> None:
    assert given(ISSUED).roles_at(NOON) == frozenset()
    confirmed = given(ISSUED, Confirmed("staff-18"))
    assert confirmed.roles_at(LATER - timedelta(microseconds=1)) == {"viewer"}
    assert confirmed.roles_at(LATER) == frozenset()
    assert given(ISSUED, Confirmed("staff-18"), Revoked()).roles_at(NOON) == frozenset()


def test_the_issuer_does_not_confirm_by_whatever_account() -> None:
    with pytest.raises(SamePerson):
        tokens.confirm(given(ISSUED), person="staff-17")
    assert tokens.confirm(given(ISSUED), person="staff-18") == [Confirmed("staff-18")]


def test_a_revoked_token_stays_revoked() -> None:
    with pytest.raises(TokenRevoked):
        tokens.confirm(given(ISSUED, Revoked()), person="staff-18")
    assert tokens.revoke(given(ISSUED, Revoked())) == []
    with pytest.raises(NotFound):
        tokens.revoke(Token())


def test_an_operators_own_token_gives_no_role_that_they_do_not_have() -> None:
    own = msgspec.structs.replace(ISSUED, holder="operator:01m81j18g0e1pa2yb5e8r30c1a", roles=("risk", "support"))
    assert tokens.issue(Token(), operator("risk", "support", "payments"), issued=own, by=own.holder, at=NOON) == [own]
    with pytest.raises(RolesNotTheirs):
        tokens.issue(Token(), operator("risk"), issued=own, by=own.holder, at=NOON)
    with pytest.raises(OperatorNotActive):
        tokens.issue(Token(), operator("risk", "support", active=False), issued=own, by=own.holder, at=NOON)
    with pytest.raises(NotFound):
        tokens.issue(Token(), Operator(), issued=own, by=own.holder, at=NOON)


def test_nobody_else_issues_an_operators_own_token() -> None:
    """Its secret would make its issuer them, and two people of one."""
    own = msgspec.structs.replace(ISSUED, holder="operator:01m81j18g0e1pa2yb5e8r30c1a", roles=("risk",))
    with pytest.raises(HolderIsAnother):
        tokens.issue(Token(), operator("risk"), issued=own, by="operator:01m81j18g0e1pa2yb5e8r30c42", at=NOON)


@pytest.mark.parametrize(
    ("holder", "roles", "countries"),
    [
        ("regulator:bmf", ("viewer",), ("AT",)),
        ("regulator:bmf", ("regulator",), None),
        ("regulator:bmf", ("regulator",), ()),
        ("regulator:bmf", ("regulator", "viewer"), ("AT",)),
        ("service:reports", ("regulator",), ("AT",)),
    ],
)
def test_a_regulators_program_only_reads_and_only_of_its_countries(
    holder: str, roles: tuple[str, ...], countries: tuple[str, ...] | None
) -> None:
    wrong = msgspec.structs.replace(ISSUED, holder=holder, roles=roles, countries=countries)
    with pytest.raises(RolesNotTheirs):
        tokens.issue(Token(), None, issued=wrong, by="operator:anna", at=NOON)
    right = msgspec.structs.replace(ISSUED, holder="regulator:bmf", roles=("regulator",), countries=("AT",))
    assert tokens.issue(Token(), None, issued=right, by="operator:anna", at=NOON) == [right]


def test_a_token_ends_in_the_future() -> None:
    with pytest.raises(InThePast):
        tokens.issue(Token(), None, issued=ISSUED, by="operator:anna", at=LATER)
    assert given(ISSUED).status is Status.AWAITING
