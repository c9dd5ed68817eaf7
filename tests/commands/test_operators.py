"""Operators and tokens by command: two people for every right that is given, one to take it away, and no secret in the log."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from access.directory import Directory
from access.policy import Action
from access.tokens import Tokens
from app import founding
from app.authentication import Authentication
from commands.approvals import AwaitingApproval, PersonNeeded, RequesterUnknown
from commands.operators import InviteOperator, OperatorInvited, RoleUnknown, digest_of
from commands.plan import Receipt
from commands.signin import join
from commands.tokens import TokenIssued
from domain import approvals
from domain.approvals import SamePerson
from domain.bootstraps import AlreadyBootstrapped
from domain.errors import Forbidden, Invalid, NotFound
from domain.kernel import OperatorId
from domain.operators import InThePast, Invited, OperatorNotActive, RegulatorApart, RoleGranted, Suspended
from domain.tokens import RolesNotTheirs
from tests.commands.house import CODEC, House

ANNA, BERT = "operator:anna", "operator:bert"
ADMIN = ("administrator",)
MARIA = {"name": "Maria Muster", "email": "maria@house.example", "person": "staff-17"}


async def invite(house: House, **more: object) -> OperatorInvited:
    receipt = await house.process.post("/v1/operators", {**MARIA, **more}, actor=ANNA, roles=ADMIN)
    assert isinstance(receipt.answer, OperatorInvited)
    return receipt.answer


async def joined(house: House, *roles: str, **more: object) -> str:
    """An active operator with these roles."""
    invited = await invite(house, **more)
    for role in roles:
        await agreed(house, f"/v1/operators/{invited.operator}/roles", {"role": role})
    await house.process.decider.decide(
        join(OperatorId(invited.operator), digest_of(invited.invitation or ""), lambda _operator: [], house.now)
    )
    return invited.operator


async def asked(house: House, path: str, body: object) -> AwaitingApproval:
    receipt = await house.process.post(path, body, actor=ANNA, roles=ADMIN)
    assert isinstance(receipt.answer, AwaitingApproval)
    return receipt.answer


async def approve(house: House, waits: AwaitingApproval, **who: Any) -> Receipt:
    path = f"/v1/approvals/{waits.approval}/approve"
    return await house.process.post(path, {"hash": waits.hash}, **{"actor": BERT, "roles": ADMIN, **who})


async def agreed(house: House, path: str, body: object) -> None:
    await approve(house, await asked(house, path, body))


def directory(house: House) -> Directory:
    """Of another process, that has read nothing yet."""
    return Directory(house.log, CODEC, now=lambda: house.now)


async def let_in(house: House, secret: str | None) -> Any:
    return await directory(house).by_token(digest_of(secret or ""))


# Inviting


async def test_the_secret_of_an_invitation_is_shown_once_and_stands_in_no_entry(house: House) -> None:
    first = await house.process.post("/v1/operators", MARIA, key="one", actor=ANNA, roles=ADMIN)
    again = await house.process.post("/v1/operators", MARIA, key="one", actor=ANNA, roles=ADMIN)
    assert isinstance(first.answer, OperatorInvited)
    assert isinstance(again.answer, OperatorInvited)
    assert again.repeated
    assert (again.answer.operator, again.answer.invitation) == (first.answer.operator, None)
    secret = first.answer.invitation
    assert secret
    [invited] = house.log.events("operator")
    assert isinstance(invited, Invited)
    assert invited.invitation == digest_of(secret)
    assert all(secret.encode() not in entry.body for entry in house.log.entries)


async def test_a_name_and_an_address_are_sealed_and_the_address_is_found(house: House) -> None:
    operator = (await invite(house)).operator
    assert all(word not in entry.body for entry in house.log.entries for word in (b"Muster", b"maria@"))
    [invited] = house.opened("operator")
    assert isinstance(invited, Invited)
    assert (invited.name, invited.email) == (MARIA["name"], MARIA["email"])
    assert await house.vault.find("operator_email", "Maria@House.example") == [operator.partition("_")[2]]


async def test_another_invitation_voids_the_first(house: House) -> None:
    first = await invite(house)
    again = await house.process.post(f"/v1/operators/{first.operator}/invite-again", actor=ANNA, roles=ADMIN)
    assert isinstance(again.answer, OperatorInvited)
    for secret, good in ((first.invitation, False), (again.answer.invitation, True)):
        plan = join(OperatorId(first.operator), digest_of(secret or ""), lambda _operator: [], house.now)
        if good:
            await house.process.decider.decide(plan)
        else:
            with pytest.raises(Forbidden):
                await house.process.decider.decide(plan)


async def test_nobody_is_invited_by_whoever_may_not(house: House) -> None:
    with pytest.raises(Forbidden):
        await house.process.post("/v1/operators", MARIA, roles=("supervisor", "compliance"))
    with pytest.raises(Invalid):
        await invite(house, person="operator:anna")


# Two people


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("roles", {"role": "support"}),
        ("roles", {"role": "support", "until": "2027-01-01T00:00:00Z"}),
        ("scope", {"countries": ["AT"]}),
        ("person", {"person": "staff-18"}),
        ("resume", {}),
    ],
)
async def test_every_right_that_is_given_takes_a_second_person(house: House, path: str, body: object) -> None:
    operator = await joined(house, "viewer")
    await house.process.post(f"/v1/operators/{operator}/suspend", {"reason": "left"}, actor=ANNA, roles=ADMIN)
    before = len(house.log.events("operator"))
    waits = await asked(house, f"/v1/operators/{operator}/{path}", body)
    assert len(house.log.events("operator")) == before
    with pytest.raises(SamePerson):
        await approve(house, waits, actor=ANNA)
    await approve(house, waits)
    assert len(house.log.events("operator")) == before + 1


async def test_one_person_takes_rights_away(house: House) -> None:
    operator = await joined(house, "support")
    await house.process.post(f"/v1/operators/{operator}/revoke-role", {"role": "support"}, actor=ANNA, roles=ADMIN)
    await house.process.post(f"/v1/operators/{operator}/suspend", {"reason": "left"}, actor=ANNA, roles=ADMIN)
    assert isinstance(house.log.events("operator")[-1], Suspended)


async def test_two_accounts_of_one_person_are_one_person(house: House) -> None:
    """Maria asks by one account and would approve by the other; the log says who was behind both."""
    operator = (await invite(house)).operator
    path, body = f"/v1/operators/{operator}/roles", {"role": "support"}
    waits = (await house.process.post(path, body, actor=ANNA, roles=ADMIN, person="staff-17")).answer
    assert isinstance(waits, AwaitingApproval)
    with pytest.raises(SamePerson):
        await approve(house, waits, person="staff-17")
    await approve(house, waits, person="staff-18")
    asked_, approved = house.log.events("approval")
    assert isinstance(asked_, approvals.Requested)
    assert isinstance(approved, approvals.Approved)
    assert (asked_.person, approved.person) == ("staff-17", "staff-18")


async def test_who_was_named_the_same_person_meanwhile_does_not_approve(house: House) -> None:
    operator = (await invite(house)).operator
    waits = await asked(house, f"/v1/operators/{operator}/roles", {"role": "support"})
    house.known[ANNA] = house.known[ANNA]._replace(person=BERT)  # as if both accounts were found to be one person's
    with pytest.raises(SamePerson):
        await approve(house, waits)


async def test_who_may_not_grant_a_role_does_not_approve_it_either(house: House) -> None:
    operator = (await invite(house)).operator
    waits = await asked(house, f"/v1/operators/{operator}/roles", {"role": "support"})
    for roles in (("supervisor",), ("compliance",)):
        with pytest.raises(Forbidden):
            await approve(house, waits, roles=roles)
    with pytest.raises(PersonNeeded):
        await approve(house, waits, actor="service:scripts")


async def test_the_requester_must_still_be_able_to_ask(house: House) -> None:
    operator = (await invite(house)).operator
    waits = await asked(house, f"/v1/operators/{operator}/roles", {"role": "support"})
    del house.known[ANNA]
    with pytest.raises(RequesterUnknown):
        await approve(house, waits)


async def test_an_adjustment_counts_for_the_person_by_whichever_account(house: House) -> None:
    player = await house.player()
    body = {
        "amount": {"amount": 60_00, "currency": "EUR"}, "direction": "credit", "account": "cash",
        "reason_code": "goodwill", "intervention": {"kind": "goodwill", "reason": "late"},
    }  # fmt: skip
    path = f"/v1/players/{player}/adjustments"
    answers = [
        (await house.process.post(path, body, actor=account, person="staff-17")).answer
        for account in ("operator:m1", "operator:m2")
    ]
    assert [isinstance(each, AwaitingApproval) for each in answers] == [False, True], (
        "together it is too much to go alone"
    )


async def test_only_roles_that_there_are_and_times_to_come_are_granted(house: House) -> None:
    path = f"/v1/operators/{(await invite(house)).operator}/roles"
    for body, refused in (
        ({"role": "emperor"}, RoleUnknown),
        ({"role": "reaction"}, RoleUnknown),
        ({"role": "support", "until": "2020-01-01T00:00:00Z"}, InThePast),
        ({"role": "support", "until": "tomorrow"}, Invalid),
        ({"role": "regulator"}, RegulatorApart),
    ):
        with pytest.raises(refused):
            await house.process.post(path, body, actor=ANNA, roles=ADMIN)
    path = "/v1/operators/operator_01m81j18g0e1pa2yb5e8r30c1a/roles"
    with pytest.raises(NotFound):
        await house.process.post(path, {"role": "support"}, actor=ANNA, roles=ADMIN)


# Who is let in


async def issue(house: House, **more: object) -> TokenIssued:
    body = {"holder": "service:reports", "roles": ["viewer"], "expires": "2027-01-01T00:00:00Z", **more}
    receipt = await house.process.post("/v1/tokens", body, actor=ANNA, roles=ADMIN)
    assert isinstance(receipt.answer, TokenIssued)
    return receipt.answer


async def confirm(house: House, issued: TokenIssued, actor: str = BERT) -> None:
    await house.process.post(f"/v1/tokens/{issued.token}/confirm", actor=actor, roles=ADMIN)


async def test_a_token_lets_nobody_in_before_a_second_person_has_confirmed_it(house: House) -> None:
    issued = await issue(house, brands=["north"])
    assert await let_in(house, issued.secret) is None
    with pytest.raises(SamePerson):
        await confirm(house, issued, ANNA)
    with pytest.raises(PersonNeeded):
        await confirm(house, issued, "service:scripts")
    await confirm(house, issued)
    found = await let_in(house, issued.secret)
    assert (found.actor, found.roles, found.scope.brands) == ("service:reports", {"viewer"}, {"north"})
    assert found.behind == ANNA, "who issued it has seen the secret"
    assert await let_in(house, "crt_guessed") is None
    assert all((issued.secret or "").encode() not in entry.body for entry in house.log.entries)


async def test_a_revoked_token_lets_nobody_in_from_the_next_reading_on(house: House) -> None:
    issued = await issue(house)
    await confirm(house, issued)
    seconds = [100.0]
    here = Directory(house.log, CODEC, now=lambda: house.now, monotonic=lambda: seconds[0])
    digest = digest_of(issued.secret or "")
    assert await here.by_token(digest)
    await house.process.post(f"/v1/tokens/{issued.token}/revoke", actor=ANNA, roles=ADMIN)
    seconds[0] += 0.5
    assert await here.by_token(digest) is None
    assert here.known("service:reports") is None


async def test_a_token_ends_by_itself(house: House) -> None:
    issued = await issue(house)
    await confirm(house, issued)
    house.now += timedelta(days=365)
    assert await let_in(house, issued.secret) is None


async def test_an_operators_own_token_gives_what_the_operator_still_has(house: House) -> None:
    operator = await joined(house, "support", "risk", countries=["AT", "DE"])
    actor = operator.replace("_", ":")
    issued = await issue(house, holder=actor, roles=["risk", "support"], countries=["AT", "CH"])
    await confirm(house, issued)
    found = await let_in(house, issued.secret)
    assert (found.roles, found.person, found.scope.countries) == ({"risk", "support"}, "staff-17", {"AT"})
    await house.process.post(f"/v1/operators/{operator}/revoke-role", {"role": "risk"}, actor=ANNA, roles=ADMIN)
    assert (await let_in(house, issued.secret)).roles == {"support"}
    await house.process.post(f"/v1/operators/{operator}/suspend", {"reason": "left"}, actor=ANNA, roles=ADMIN)
    assert await let_in(house, issued.secret) is None
    with pytest.raises(OperatorNotActive):
        await issue(house, holder=actor, roles=["support"])


@pytest.mark.parametrize(
    "holder", ["reaction:timers", "system", "support:mallory", "operator:anna", "administrator:x", "service:"]
)
async def test_no_token_is_a_person_who_is_nobody_or_one_of_our_own_processes(house: House, holder: str) -> None:
    with pytest.raises(Invalid):
        await issue(house, holder=holder)


async def test_a_regulator_reads_for_a_jurisdiction_and_changes_nothing(house: House) -> None:
    with pytest.raises(RolesNotTheirs):
        await issue(house, holder="regulator:bmf", roles=["regulator"])
    issued = await issue(house, holder="regulator:bmf", roles=["regulator"], countries=["AT"])
    await confirm(house, issued)
    found = await let_in(house, issued.secret)
    assert found.scope.countries == {"AT"}
    assert {action.partition(".")[2] for action in found.granted} <= {"read", "read_personal"}
    assert Action.PERSONAL_READ not in found.granted


async def test_an_operator_stands_with_the_roles_of_now(house: House) -> None:
    operator = await joined(house, "viewer")
    await agreed(house, f"/v1/operators/{operator}/roles", {"role": "support", "until": "2026-11-23T00:00:00Z"})
    id_ = OperatorId(operator)
    standing = await directory(house).operator(id_)
    assert standing
    assert standing.principal
    assert (standing.principal.roles, standing.principal.behind) == ({"viewer", "support"}, "staff-17")
    assert not standing.principal.machine
    house.now += timedelta(days=1)
    later = await directory(house).operator(id_)
    assert later
    assert later.principal
    assert later.principal.roles == {"viewer"}
    assert await directory(house).operator(OperatorId("operator_01m81j18g0e1pa2yb5e8r30c1a")) is None


async def test_a_directory_that_has_not_read_lately_knows_nobody(house: House) -> None:
    operator = await joined(house, "viewer")
    actor = operator.replace("_", ":")
    seconds = [0.0]
    here = Directory(house.log, CODEC, now=lambda: house.now, monotonic=lambda: seconds[0])
    assert here.known(actor) is None
    await here.renew()
    assert here.known(actor)
    seconds[0] += 10
    assert here.known(actor) is None


async def test_a_bearer_token_that_was_issued_authenticates_a_request(house: House) -> None:
    issued = await issue(house)
    await confirm(house, issued)
    authentication = Authentication(Tokens([]), directory(house), now=lambda: house.now)
    scope = {"type": "http", "method": "GET", "headers": [(b"authorization", f"Bearer {issued.secret}".encode())]}
    assert (await authentication(scope)).actor == "service:reports"
    scope["headers"] = [(b"authorization", b"Bearer crt_guessed")]
    with pytest.raises(Exception, match="bearer token"):
        await authentication(scope)


# The first ones


def commands(*people: str) -> list[InviteOperator]:
    given = [{"name": each, "email": f"{each}@house.example", "person": each} for each in people]
    return [InviteOperator(**each) for each in given]


def founders(house: House) -> founding.House:
    return founding.House("eu", house.process.decider, house.vault, house.log)  # type: ignore[arg-type]


async def test_the_first_administrators_are_invited_once_ever_and_the_log_says_so(house: House) -> None:
    first = await founding.bootstrap(founders(house), commands("staff-1", "staff-2"))
    granted = [event.role for event in house.log.events("operator") if isinstance(event, RoleGranted)]
    assert granted == ["administrator", "administrator"]
    assert {CODEC.decode(entry).body.actor for entry in house.log.entries} == {"system"}
    assert all(each.invitation for each in first)
    for people in (("staff-1", "staff-2"), ("staff-3",)):
        with pytest.raises(AlreadyBootstrapped):
            await founding.bootstrap(founders(house), commands(*people))


async def test_a_bootstrap_that_was_interrupted_goes_on(house: House) -> None:
    two = commands("staff-1", "staff-2")
    decide, calls = house.process.decider.decide, []

    async def dies_at_the_third(plan: Any) -> Receipt:
        calls.append(plan)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return await decide(plan)

    dying = founders(house)._replace(decider=_Deciding(dies_at_the_third))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        await founding.bootstrap(dying, two)
    assert len(house.log.events("operator")) == 2  # the first one, with the role
    with pytest.raises(AlreadyBootstrapped):
        await founding.bootstrap(founders(house), two)
    [last] = await founding.bootstrap(founders(house), two[1:])
    assert last.invitation
    with pytest.raises(AlreadyBootstrapped):
        await founding.bootstrap(founders(house), two[1:])


async def test_nobody_founds_where_there_were_administrators(house: House) -> None:
    operator = await joined(house, "administrator")
    await house.process.post(
        f"/v1/operators/{operator}/revoke-role", {"role": "administrator"}, actor=ANNA, roles=ADMIN
    )
    with pytest.raises(AlreadyBootstrapped):
        await founding.bootstrap(founders(house), commands("staff-9"))


class _Deciding:
    def __init__(self, decide: Any) -> None:
        self.decide = decide
