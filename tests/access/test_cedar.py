"""The policies: sound, of one mind with what roles are said to come to, and asked by values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from access import cedar, files, predicate
from access.cedar import Policies
from access.files import Files, Malformed
from access.policy import ROLES, SERVICES, Action, Principal, Scope, principal, service
from access.predicate import Untranslatable
from app.access import table
from domain.errors import Forbidden

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)  # a Monday
SUNDAY = datetime(2026, 11, 22, 12, tzinfo=UTC)
READ = files.read()
POLICIES = cedar.in_force()

SCOPES = st.sampled_from(
    [
        Scope(),
        Scope(frozenset({"main"})),
        Scope(frozenset({"main", "other"}), frozenset({"AT"})),
        Scope(None, frozenset({"AT", "DE"})),
        Scope(frozenset(), None),
    ]
)
PEOPLE = st.builds(
    lambda roles, scope, machine: principal("operator:maria", roles, scope=scope, machine=machine),
    st.sets(st.sampled_from(sorted(ROLES)), max_size=3),
    SCOPES,
    st.booleans(),
)
MATTERS = st.fixed_dictionaries(
    {},
    optional={
        "brand": st.sampled_from(["main", "other", "third"]),
        "country": st.sampled_from(["AT", "DE", "SE"]),
        "vip": st.integers(0, 3),
        "amount": st.sampled_from([1, 50_000, 50_001]),
        "currency": st.sampled_from(["EUR", "JPY"]),
        "assignee": st.sampled_from(["operator:maria", "operator:olga"]),
        "secrecy": st.sampled_from(["money_laundering", "other"]),
    },
)
TIMES = st.datetimes(datetime(2026, 11, 20), datetime(2026, 11, 25)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001


def changed(old: str, new: str, file: str = "conditions.cedar") -> Files:
    assert old in READ.policies[file]
    return Files({**READ.policies, file: READ.policies[file].replace(old, new, 1)}, READ.schema)


# Sound


def test_the_policies_are_sound() -> None:
    assert files.faults(READ) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("resource.vip >= 1", "resource.vipp >= 1"),
        ("resource has vip && resource.vip", "resource.vip"),
        ("context.hour", "context.hours"),
        ("principal.brands", "principal.brand"),
        ('Action::"about players"', 'Action::"about playres"'),
        ('Action::"segment.read"', 'Action::"segment.raed"'),
        ('Role::"vip_manager"', 'Rolle::"vip_manager"'),
        ("resource.vip >= 1", 'resource.vip == "1"'),
        ('@id("scope.country")', '@id("scope.brand")'),
        ('@id("scope.country")\n', ""),
        ('@reason("outside_brands")\n', ""),
        ("when {", "wenn {"),
        ('principal in Role::"marketing"', "principal"),
        ('action == Action::"segment.read"', "action"),
    ],
)
def test_a_planted_typo_is_found(old: str, new: str) -> None:
    assert files.faults(changed(old, new)), (old, new)
    with pytest.raises(Malformed):
        Policies(changed(old, new))


def test_an_action_that_only_one_side_knows_is_found() -> None:
    schema = READ.schema.replace('"player.read",', '"player.read", "player.raed",')
    with pytest.raises(Malformed, match=r"player\.raed"):
        Policies(Files(READ.policies, schema))


def test_the_hash_follows_from_every_byte_and_name() -> None:
    hashes = {READ.digest, changed("vip >= 1", "vip >= 2").digest, Files(READ.policies, READ.schema + " ").digest}
    renamed = Files({name + "x": text for name, text in READ.policies.items()}, READ.schema)
    assert len(hashes | {renamed.digest}) == 4


def test_a_condition_that_no_predicate_can_say_is_refused() -> None:
    files_ = changed("resource.vip >= 1", "resource.vip * 2 >= 2")
    with pytest.raises(Untranslatable):
        Policies(files_).rule(principal("operator:maria", ["vip_manager"]), Action.PLAYER_READ)


# Of one mind

ATTRIBUTES = [
    {"brand": "main", "country": "AT", "vip": 1, "amount": 1, "currency": "EUR"},
    {},
]


@pytest.mark.parametrize("role", [*ROLES, *SERVICES])
def test_what_a_role_is_said_to_come_to_is_what_the_policies_grant_somewhere(role: str) -> None:
    who = service("provider:x", role) if role in SERVICES else principal("operator:maria", [role])
    for action in Action:
        granted = {POLICIES.decide(who._replace(granted=frozenset(Action)), action, each, NOON) for each in ATTRIBUTES}
        assert (True in granted) is (action in who.granted), action


def test_roles_and_services_have_different_names() -> None:
    assert not ROLES.keys() & SERVICES.keys()


@given(PEOPLE, st.sampled_from(list(Action)), MATTERS, TIMES)
@settings(max_examples=400)
def test_what_is_left_of_the_policies_says_the_same_as_cedar(
    who: Principal, action: Action, known: Mapping[str, str | int], at: datetime
) -> None:
    asked = POLICIES._ask(_who(who), action, tuple(sorted(known.items())), cedar.moment(at)).allowed
    seen = POLICIES.sees(who._replace(granted=frozenset(Action)), action, at)
    assert predicate.holds(seen, known) is asked
    assert POLICIES.decide(who, action, known, at) is (asked and action in who.granted)
    if (settled := POLICIES.rule(who, action).settled) is not None:
        assert settled is asked
    said = POLICIES.explain(who, action, known, at)
    assert said.allowed is (asked and action in who.granted)
    assert asked <= bool(said.policies), "an explanation names what permits"


@given(PEOPLE, st.sampled_from(sorted(ROLES)), st.sampled_from(list(Action)), MATTERS, TIMES)
@settings(max_examples=200)
def test_one_more_role_never_takes_anything_away(
    who: Principal, role: str, action: Action, known: Mapping[str, str | int], at: datetime
) -> None:
    more = principal(who.actor, who.roles | {role}, scope=who.scope, machine=who.machine)
    assert POLICIES.decide(who, action, known, at) <= POLICIES.decide(more, action, known, at)


@given(PEOPLE, st.sampled_from(list(Action)), MATTERS, TIMES)
@settings(max_examples=200)
def test_nobody_reaches_beyond_their_brands_and_countries(
    who: Principal, action: Action, known: Mapping[str, str | int], at: datetime
) -> None:
    of_house = Action(action) in {Action(name) for name in Action if _about_the_house(name)}
    inside = (who.scope.brands is None or known.get("brand") in who.scope.brands) and (
        who.scope.countries is None or known.get("country") in who.scope.countries
    )
    if not inside and not of_house:
        assert not POLICIES.decide(who, action, known, at)


def _about_the_house(name: str) -> bool:
    section = READ.schema.split('action "about the house";')[1]
    return f'"{name}"' in section


def _who(who: Principal) -> cedar._Who:
    return cedar._Who(who.actor, who.roles, who.scope, who.machine)


# By values


def may(roles: list[str], action: Action, at: datetime = NOON, *, scope: Scope = Scope(), **known: str | int) -> bool:  # noqa: B008
    return POLICIES.decide(principal("operator:maria", roles, scope=scope), action, known, at)


def test_a_vip_manager_deals_with_vips_alone() -> None:
    assert may(["vip_manager"], Action.LIMIT_SET, vip=1)
    assert not may(["vip_manager"], Action.LIMIT_SET, vip=0)
    assert not may(["vip_manager"], Action.LIMIT_SET)


def test_a_notice_that_somebody_else_has_is_left_to_them() -> None:
    assert may(["risk"], Action.NOTICE_WORK)
    assert may(["risk"], Action.NOTICE_WORK, assignee="operator:maria")
    assert not may(["risk"], Action.NOTICE_WORK, assignee="operator:olga")


def test_small_amounts_go_by_hand_and_large_ones_do_not() -> None:
    assert may(["payments"], Action.MONEY_ADJUST, amount=50_000, currency="EUR")
    assert not may(["payments"], Action.MONEY_ADJUST, amount=50_001, currency="EUR")
    assert not may(["payments"], Action.MONEY_ADJUST, amount=1, currency="JPY")
    assert not may(["payments"], Action.MONEY_ADJUST)


def test_marketing_looks_at_segments_in_working_hours() -> None:
    assert may(["marketing"], Action.SEGMENT_READ)
    assert not may(["marketing"], Action.SEGMENT_READ, SUNDAY)
    assert not may(["marketing"], Action.SEGMENT_READ, NOON.replace(hour=20))


def test_a_secret_case_is_for_few() -> None:
    assert may(["operator"], Action.PLAYER_BLOCK, brand="main")
    assert not may(["operator"], Action.PLAYER_BLOCK, brand="main", secrecy="money_laundering")
    assert may(["risk"], Action.PLAYER_BLOCK, brand="main", secrecy="money_laundering")


def test_an_administrator_is_no_second_person_for_money() -> None:
    assert may(["administrator"], Action.APPROVAL_DECIDE)
    assert not may(["administrator"], Action.APPROVAL_DECIDE, brand="main")


def test_a_regulator_reads_and_changes_nothing() -> None:
    assert all(action.endswith(".read") for action in ROLES["regulator"])


def test_a_refusal_names_the_policy_and_nothing_of_the_matter() -> None:
    who = principal("operator:maria", ["support"], scope=Scope(frozenset({"main"})))
    with pytest.raises(Forbidden) as refused:
        POLICIES.require(who, [Action.TICKET_WORK], {"brand": "hidden", "country": "SE"}, NOON)
    assert refused.value.facts == {"action": "ticket.work", "policy": "scope.brand", "reason": "outside_brands"}
    assert not {"hidden", "SE"} & set(" ".join(map(str, chain([refused.value], refused.value.facts.values()))).split())


def test_who_is_a_service_is_settled_by_that() -> None:
    assert POLICIES.settled(service("provider:studio", "game_provider"), [Action.GAME_BET]) is True
    assert POLICIES.settled(service("provider:studio", "game_provider"), [Action.MONEY_ADJUST]) is False


def test_the_reference_shows_what_the_policies_say() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "access.md"
    assert table() in page.read_text(), "countroom access roles prints the tables"
