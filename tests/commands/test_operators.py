"""Operators and tokens by command: two people for every right that is given, one to take it away, and no secret in the log."""

from __future__ import annotations

from datetime import timedelta

import pytest

from access.directory import Directory
from access.policy import Action, principal
from access.steps import TokenRefused, require_fresh, require_stepped_up
from access.tokens import Tokens
from app.authentication import Authentication
from commands.approvals import AwaitingApproval, PersonNeeded, RequesterUnknown
from commands.edge import InterventionMissing
from commands.operators import OperatorInvited, RoleUnknown, digest_of
from commands.signin import Session, join, link, set_password
from commands.tokens import TokenIssued
from domain import approvals
from domain.approvals import SamePerson
from domain.errors import Forbidden, Invalid, NotFound
from domain.kernel import OperatorId
from domain.operators import (
    InThePast,
    InvitationRefused,
    Invited,
    LastMeans,
    MeansChanged,
    OperatorNotActive,
    RegulatorApart,
    Suspended,
)
from domain.tokens import HolderIsAnother, RolesNotTheirs
from domain.wallets import Moved
from policies import steps
from tests.commands.house import CODEC, House
from tests.commands.staff import (
    ADMIN,
    ANNA,
    BERT,
    MARIA,
    agreed,
    approve,
    asked,
    confirmed,
    directory,
    invite,
    joined,
    let_in,
)

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
    await confirmed(house, again.answer)
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


async def test_nobody_joins_before_a_second_person_has_confirmed_who_they_are(house: House) -> None:
    """Whoever invites says who it is and whose players are theirs: alone they would be two people for four eyes."""
    invited = await invite(house, person="ghost")
    plan = join(OperatorId(invited.operator), digest_of(invited.invitation or ""), lambda _operator: [], house.now)
    with pytest.raises(InvitationRefused):
        await house.process.decider.decide(plan)
    for who, refused in ((ANNA, SamePerson), ("service:scripts", PersonNeeded)):
        with pytest.raises(refused):
            await confirmed(house, invited, who)
    with pytest.raises(SamePerson):
        await confirmed(house, invited, BERT, person=ANNA)
    await confirmed(house, invited)
    await house.process.decider.decide(plan)
    again = await house.process.post("/v1/operators", {**MARIA, "person": "ghost"}, actor=ANNA, roles=ADMIN)
    await house.process.post(f"/v1/operators/{again.answer.operator}/confirm", actor=BERT, roles=ADMIN)  # type: ignore[attr-defined]
    await house.process.post(f"/v1/operators/{again.answer.operator}/invite-again", actor=BERT, roles=ADMIN)  # type: ignore[attr-defined]
    with pytest.raises(SamePerson):
        await house.process.post(f"/v1/operators/{again.answer.operator}/confirm", actor=BERT, roles=ADMIN)  # type: ignore[attr-defined]


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


async def issue(house: House, who: str = ANNA, **more: object) -> TokenIssued:
    """`who` issues it: an operator's account is staff-17's."""
    body = {"holder": "service:reports", "roles": ["viewer"], "expires": "2027-01-01T00:00:00Z", **more}
    person = "" if who == ANNA else "staff-17"
    receipt = await house.process.post("/v1/tokens", body, actor=who, roles=ADMIN, person=person)
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
    wanted = {"holder": actor, "roles": ["risk", "support"], "countries": ["AT", "CH"]}
    with pytest.raises(HolderIsAnother):
        await issue(house, **wanted)
    issued = await issue(house, who=actor, **wanted)
    await confirm(house, issued)
    found = await let_in(house, issued.secret)
    assert (found.roles, found.person, found.scope.countries) == ({"risk", "support"}, "staff-17", {"AT"})
    await house.process.post(f"/v1/operators/{operator}/revoke-role", {"role": "risk"}, actor=ANNA, roles=ADMIN)
    assert (await let_in(house, issued.secret)).roles == {"support"}
    await house.process.post(f"/v1/operators/{operator}/suspend", {"reason": "left"}, actor=ANNA, roles=ADMIN)
    assert await let_in(house, issued.secret) is None
    with pytest.raises(OperatorNotActive):
        await issue(house, who=actor, holder=actor, roles=["support"])


async def test_an_operators_own_token_is_no_person_and_does_nothing_that_is_grave(house: House) -> None:
    """Otherwise it would be a second person, or a way around the second factor."""
    operator = await joined(house, "supervisor", "administrator", "auditor")
    actor = operator.replace("_", ":")
    issued = await issue(house, who=actor, holder=actor, roles=["administrator", "supervisor", "auditor"])
    await confirm(house, issued)
    found = await let_in(house, issued.secret)
    assert (found.machine, found.human, found.by_hand) == (True, False, True)
    for action in steps.ACTIONS:
        with pytest.raises(TokenRefused):
            require_fresh(found, [action], house.now)
    for export in steps.EXPORTS:
        with pytest.raises(TokenRefused):
            require_stepped_up(found, export, house.now)
    require_fresh(found, [Action.PLAYER_READ], house.now)
    programs = await issue(house)
    await confirm(house, programs)
    program = await let_in(house, programs.secret)
    assert not program.human
    require_fresh(program, steps.ACTIONS, house.now)


async def test_a_token_that_somebody_else_has_issued_is_nobody(house: House) -> None:
    """A person is named later: who has the secret is then another one."""
    operator = await joined(house, "support")
    actor = operator.replace("_", ":")
    issued = await issue(house, who=actor, holder=actor, roles=["support"])
    await confirm(house, issued)
    assert await let_in(house, issued.secret)
    await agreed(house, f"/v1/operators/{operator}/person", {"person": "staff-99"})
    assert await let_in(house, issued.secret) is None


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


async def test_whoever_has_just_come_is_known_however_lately_was_read(house: House) -> None:
    here = Directory(house.log, CODEC, now=lambda: house.now, monotonic=lambda: 0.0)
    await here.renew()
    operator = await joined(house, "viewer")
    assert await here.operator(operator) is None
    await here.look_again()
    found = await here.operator(operator)
    assert found is not None
    assert found.principal is not None


async def test_a_bearer_token_that_was_issued_authenticates_a_request(house: House) -> None:
    issued = await issue(house)
    await confirm(house, issued)
    authentication = Authentication(Tokens([]), directory(house), now=lambda: house.now)
    scope = {"type": "http", "method": "GET", "headers": [(b"authorization", f"Bearer {issued.secret}".encode())]}
    assert (await authentication(scope)).actor == "service:reports"
    another = {**scope, "headers": [(b"authorization", b"Bearer crt_guessed")]}
    del another["principal"]
    with pytest.raises(Exception, match="bearer token"):
        await authentication(another)


async def test_an_identity_is_taken_away_by_one_person(house: House) -> None:
    issuer = "https://login.example"
    operator = await joined(house)
    by = Session(OperatorId(operator), 0)
    await house.process.decider.decide(link(by, issuer, "00" * 32, house.now))
    path = f"/v1/operators/{operator}/unlink-identity"
    with pytest.raises(LastMeans):
        await house.process.post(path, {"issuer": issuer}, actor=ANNA, roles=ADMIN)
    await house.process.decider.decide(set_password(by, "argon2id", house.now))
    await house.process.post(path, {"issuer": issuer}, actor=ANNA, roles=ADMIN)
    assert await directory(house).by_identity(issuer, "00" * 32) is None
    with pytest.raises(MeansChanged):
        await house.process.decider.decide(set_password(by, "argon2id", house.now))


async def test_a_programs_token_settles_no_money_by_itself(house: House) -> None:
    """Only our own processes, and providers whose signatures were checked, tell what they have seen."""
    why = {"kind": "goodwill", "reason": "told by phone"}
    path = f"/v1/transactions/{await house.deposit(await house.player(), 50_00)}/settle"
    by_token = {"actor": "payments:acme", "roles": ["payments"], "issued": True}
    with pytest.raises(InterventionMissing):
        await house.process.post(path, {}, **by_token)
    waits = (await house.process.post(path, {"intervention": why}, **by_token)).answer
    assert isinstance(waits, AwaitingApproval)
    told = await house.process.post(path, {}, actor="payments:acme", roles=["payments"])
    assert told.answer.status == "settled"  # type: ignore[attr-defined]


# Roles of a provider's groups


async def test_what_somebody_asked_for_by_the_roles_of_their_groups_is_approved(house: House) -> None:
    """Only their session knows these; whoever approves it later is told by the request."""
    player = await house.player()
    body = {
        "amount": {"amount": 200_00, "currency": "EUR"}, "direction": "credit", "account": "cash",
        "reason_code": "goodwill", "intervention": {"kind": "goodwill", "reason": "late"},
    }  # fmt: skip
    path = f"/v1/players/{player}/adjustments"
    plan = house.plan(path, body, actor="operator:m1", roles=["cashier"])
    house.known["operator:m1"] = principal("operator:m1", ["viewer"])  # as the log knows them
    waits = (await house.process.decider.decide(plan)).answer
    assert isinstance(waits, AwaitingApproval)
    [requested] = house.log.events("approval")
    assert isinstance(requested, approvals.Requested)
    assert requested.roles == ("cashier",)
    await approve(house, waits, roles=("supervisor",))
    assert [type(event) for event in house.log.events("wallet")] == [Moved]
