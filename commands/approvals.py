"""
Four eyes: commands that ask for a second person's approval first, and the commands by which that person answers.

`guarded` wraps any endpoint that policies.approvals names: its command is tried, and if it needs approval only the request for
it is recorded. Approving it runs the very command, in one append with the approval.

Invariants:
    - what is refused now is refused now, before anybody is asked for approval;
    - what runs is decided anew, with the rights that the requester and the approver have then;
    - a command with personal fields is never wrapped: its body would stand in the log in the clear.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import wraps
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from access.policy import Action
from commands.edge import Edge, Endpoint, PersonalText, Text, read_body, whole
from commands.plan import Fact, Plan, RefusedFact
from domain import approvals
from domain.adjustments import Adjustments, Made
from domain.approvals import Approval, ApprovalClosed, ApprovalNotDue, HashDiffers, SamePerson, Status
from domain.errors import Forbidden, NotFound, Rejected
from domain.kernel import AnyStream, ApprovalId, Event, PlayerId
from domain.transactions import Intervened
from domain.transactions import Status as PaymentStatus
from policies.approvals import ADJUST, PAY_OUT, RETURN, RULES, Rule, reasons

Amounts = tuple[str, Mapping[str, int]]
"""A currency, and by window of policies.approvals what the command comes to, in minor units."""

Measure = Callable[[Sequence[Event], Mapping[str, Any], datetime], Amounts]
"""(what the command would record, the states it was decided from, when) → what the rule is asked about."""


class AwaitingApproval(msgspec.Struct, frozen=True):
    """Nothing has happened yet: another person approves `hash` until then, or it lapses."""

    approval: str
    status: Status
    expires_at: datetime
    hash: str


class Approve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`hash`: of what is approved, as the approval shows it."""

    hash: Annotated[str, whole("[0-9a-f]{64}")]


class RejectApproval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Text


class ExpireApproval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to say: its time is over."""


class ApprovalDecided(msgspec.Struct, frozen=True):
    approval: str
    status: Status


class RequesterUnknown(Forbidden):
    code = "requester_unknown"
    title = "Whoever asked for this has no access any more"


class PersonNeeded(Forbidden):
    code = "person_needed"
    title = "Approving is for people"


def guarded(endpoints: Sequence[Endpoint], rules: Mapping[str, Rule] = RULES) -> tuple[Endpoint, ...]:
    """The endpoints, those that a rule names wrapped, and with them the commands on approvals. Raises ValueError for a rule that cannot be."""
    own = {endpoint.path: endpoint for endpoint in endpoints if endpoint.path in rules}
    if unknown := rules.keys() - own.keys():
        raise ValueError(f"no command has the path of these rules: {sorted(unknown)}")
    if personal := [path for path, endpoint in own.items() if _is_personal(endpoint.body)]:
        raise ValueError(f"commands with personal fields cannot wait for approval: {personal}")
    wrapped = [_wrapped(endpoint, rule) if (rule := rules.get(endpoint.path)) else endpoint for endpoint in endpoints]
    return (*wrapped, *_endpoints(tuple(own.values())))


def _is_personal(hint: object) -> bool:
    """Whether a wire type holds a personal text."""
    if hint == PersonalText:
        return True
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return any(map(_is_personal, get_type_hints(hint, include_extras=True).values()))
    parts = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    return any(map(_is_personal, parts))


# Asking


def _wrapped(endpoint: Endpoint, rule: Rule) -> Endpoint:
    measure = MEASURES.get(endpoint.path, _nothing)

    @wraps(endpoint.handler)
    def handler(*asked: Any) -> Plan:
        return _asking(endpoint.handler(*asked), asked[-1], rule, measure)

    return endpoint._replace(handler=handler, accepted=AwaitingApproval)


def _asking(plan: Plan, edge: Edge, rule: Rule, measure: Measure) -> Plan:
    """The plan, or only the request for its approval where the rule says so."""
    partition = next(iter(plan.writes.values())).partition
    if partition is None or plan.owed or plan.key:
        raise TypeError("a command that waits for approval is a player's, and keeps nothing personal")
    id_ = ApprovalId("approval_" + edge.new_child(partition))

    def follow(**states: Any) -> Mapping[str, AnyStream[Any]]:
        del states["approval"]
        return plan.follow(**states) if plan.follow else {}

    def decision(at: datetime, approval: Approval, **states: Any) -> Sequence[Event] | RefusedFact:
        decided = plan.decision(at, **states)
        if isinstance(decided, RefusedFact) or not decided:
            return decided
        needed = reasons(rule, *measure(decided, states, at))
        if not needed:
            return decided
        requested = approvals.Requested(
            action=plan.require[0],
            path=edge.path,
            body=edge.body,
            hash=approvals.digest(edge.path, edge.body),
            player=_player(plan, states),
            requester=edge.context.principal.actor,
            expires_at=at + timedelta(hours=rule.expires_hours),
            reasons=needed,
        )
        return approvals.request(approval, requested=requested)

    def answer(facts: Sequence[Fact]) -> msgspec.Struct:
        match facts:
            case [Fact(stream, approvals.Requested() as asked)]:
                approval = "approval_" + stream.partition("-")[2]
                return AwaitingApproval(approval, Status.AWAITING, asked.expires_at, asked.hash)
        return plan.answer(facts)

    return msgspec.structs.replace(
        plan,
        writes={**plan.writes, "approval": approvals.stream(id_)},
        fresh=plan.fresh | {"approval"},
        follow=follow if plan.follow else None,
        decision=decision,
        answer=answer,
    )


def _player(plan: Plan, states: Mapping[str, Any]) -> PlayerId:
    """Whom a command concerns: whose stream it names, or who a state says."""
    for stream in (*plan.writes.values(), *plan.reads.values()):
        if stream.aggregate.name == "player":
            return PlayerId("player_" + stream.name.partition("-")[2])
    return PlayerId(next(owner for state in states.values() if (owner := getattr(state, "player", ""))))


def _adjusted(events: Sequence[Event], states: Mapping[str, Any], at: datetime) -> Amounts:
    [made] = [event for event in events if isinstance(event, Made)]
    adjusted: Adjustments = states["adjusted"]
    amount, day = made.money.amount, at.date()
    return made.money.currency, {
        "operator_day": adjusted.by(made.operator, day) + amount,
        "player_day": adjusted.on(day) + amount,
    }


def _paid_out(_events: Sequence[Event], states: Mapping[str, Any], _at: datetime) -> Amounts:
    money = states["transaction"].money
    return money.currency, {"amount": money.amount}


def _returned(events: Sequence[Event], states: Mapping[str, Any], _at: datetime) -> Amounts:
    """What a person would have paid out a second time if it has not come back."""
    transaction = states["transaction"]
    is_by_hand = any(isinstance(event, Intervened) for event in events)
    was_paid = transaction.status is PaymentStatus.SETTLED
    return transaction.money.currency, {"amount": transaction.money.amount if is_by_hand and was_paid else 0}


def _nothing(_events: Sequence[Event], _states: Mapping[str, Any], _at: datetime) -> Amounts:
    return "", {}


MEASURES: Mapping[str, Measure] = {ADJUST: _adjusted, PAY_OUT: _paid_out, RETURN: _returned}
"""By path. A command of which nothing is measured can only need approval always."""


# Answering


def _endpoints(own: Sequence[Endpoint]) -> Sequence[Endpoint]:
    """The commands on approvals; what may run when one is approved are `own`."""
    routes = [(re.compile(re.sub(r"\{\w+\}", "([^/]+)", each.path)), each) for each in own]

    def asked(approval: Approval, edge: Edge) -> Plan:
        """The command that waits, as its requester would ask for it now. Raises RequesterUnknown, NotFound."""
        requester = edge.known(approval.requester)
        if requester is None:
            raise RequesterUnknown(requester=approval.requester)
        for pattern, endpoint in routes:
            if found := pattern.fullmatch(approval.path):
                context = msgspec.structs.replace(edge.context, principal=requester)
                theirs = msgspec.structs.replace(edge, context=context, path=approval.path, body=approval.body)
                command = read_body(msgspec.json.Decoder(endpoint.body), approval.body.encode())
                return endpoint.handler(*found.groups(), command, theirs)
        raise NotFound("no command that may be approved has this path any more", path=approval.path)

    def approve(approval_id: str, command: Approve, edge: Edge) -> Plan:
        """Approve what another person has asked for, and run it. Raises NotFound, SamePerson, HashDiffers, ApprovalClosed, RequesterUnknown, Forbidden, and what the command raises."""
        return _approving(ApprovalId(approval_id), command.hash, edge, asked)

    own_errors = [error for endpoint in own for error in endpoint.errors]
    refusals: list[type[Rejected]] = [NotFound, SamePerson, HashDiffers, ApprovalClosed, RequesterUnknown, PersonNeeded]
    errors = tuple(dict.fromkeys([*refusals, *own_errors]))
    return (
        Endpoint("/v1/approvals/{approval_id}/approve", approve, Approve, ApprovalDecided, 200, errors),
        *_ENDS,
    )


class _Asked(NamedTuple):
    """The command that waits, described once, so that what it mints stays the same however often it is decided."""

    plans: dict[str, Plan]
    describe: Callable[[Approval, Edge], Plan]
    edge: Edge

    def plan(self, approval: Approval) -> Plan:
        if approval.hash not in self.plans:
            self.plans[approval.hash] = self.describe(approval, self.edge)
        return self.plans[approval.hash]


def _approving(id_: ApprovalId, hash_: str, edge: Edge, describe: Callable[[Approval, Edge], Plan]) -> Plan:
    principal, asked = edge.context.principal, _Asked({}, describe, edge)

    def follow(approval: Approval) -> Mapping[str, AnyStream[Any]]:
        if approval.status is Status.UNKNOWN:
            raise NotFound("no such approval")
        if approval.status is not Status.AWAITING:
            return {}
        plan = asked.plan(approval)
        return {**plan.reads, **plan.writes}

    def then(approval: Approval, **states: Any) -> Mapping[str, AnyStream[Any]]:
        plan = asked.plan(approval) if states else None
        return plan.follow(**states) if plan and plan.follow else {}

    def decision(at: datetime, approval: Approval, **states: Any) -> Sequence[Event] | RefusedFact:
        if not principal.human:
            raise PersonNeeded
        approved = approvals.approve(approval, hash=hash_, by=principal.actor, at=at)
        if not approved:
            return []
        plan = asked.plan(approval)
        _require_still(plan)
        decided = plan.decision(at, **states)
        return decided if isinstance(decided, RefusedFact) else [*approved, *decided]

    return Plan(
        edge.context,
        require=(Action.APPROVAL_DECIDE,),
        writes={"approval": approvals.stream(id_)},
        follow=follow,
        then=then,
        decision=decision,
        answer=lambda _facts: ApprovalDecided(id_, Status.APPROVED),
    )


def _require_still(plan: Plan) -> None:
    """Whoever asked may do so now, too. Raises Forbidden."""
    plan.context.principal.require(*plan.require)


def reject(approval_id: str, command: RejectApproval, edge: Edge) -> Plan:
    """Reject what was asked for; it will not run. Raises NotFound, ApprovalClosed, Forbidden."""
    return Plan(
        edge.context,
        require=(Action.APPROVAL_DECIDE,),
        writes={"approval": approvals.stream(ApprovalId(approval_id))},
        decision=lambda at, approval: approvals.reject(approval, reason=command.reason, at=at),
        answer=lambda _facts: ApprovalDecided(approval_id, Status.REJECTED),
    )


def expire(approval_id: str, _command: ExpireApproval, edge: Edge) -> Plan:
    """Let an approval lapse whose time is over. Raises NotFound, ApprovalNotDue, ApprovalClosed, Forbidden."""
    return Plan(
        edge.context,
        require=(Action.TIMER_FIRE,),
        writes={"approval": approvals.stream(ApprovalId(approval_id))},
        decision=lambda at, approval: approvals.expire(approval, at=at),
        answer=lambda _facts: ApprovalDecided(approval_id, Status.EXPIRED),
    )


_CLOSED: tuple[type[Rejected], ...] = (NotFound, ApprovalClosed)
_ENDS = (
    Endpoint("/v1/approvals/{approval_id}/reject", reject, RejectApproval, ApprovalDecided, 200, _CLOSED),
    Endpoint(
        "/v1/approvals/{approval_id}/expire", expire, ExpireApproval, ApprovalDecided, 200, (*_CLOSED, ApprovalNotDue)
    ),
)
