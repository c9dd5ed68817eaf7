"""
Four eyes: commands that ask for a second person's approval first, and the commands by which that person answers.

`guarded` wraps any endpoint that policies.approvals names: its command is tried, and if it needs approval only the request for
it is recorded. Approving it runs the very command, in one append with the approval.

Invariants:
    - what is refused now is refused now, before anybody is asked for approval;
    - what runs is decided anew, with the rights that the requester and the approver have then;
    - two accounts of one person are one person; the log says who was behind each;
    - who may not give a role, a scope or a person to an operator does not approve it either;
    - what was asked stands in the log sealed under the key of the player or operator whom it concerns: once that is gone nobody
      approves it any more;
    - what players are found by is never wrapped: it would be kept before anybody has agreed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import wraps
from typing import Annotated, Any, NamedTuple

import msgspec

from access import policy
from access.policy import Action
from commands import authorising
from commands.edge import Edge, Endpoint, Nothing, PersonalText, read_body, whole
from commands.plan import Fact, NotPassedOn, Plan, RefusedFact
from commands.players import Known
from commands.sealing import KeyNotHeld
from domain import approvals, operators, players
from domain.adjustments import Adjustments, Made
from domain.approvals import Approval, ApprovalClosed, ApprovalNotDue, HashDiffers, Requested, SamePerson, Status
from domain.errors import Forbidden, NotFound, Rejected
from domain.kernel import AnyStream, ApprovalId, Event, PlayerId, Stream
from domain.operators import Operator
from domain.players import Player
from domain.rounds import Voided
from domain.transactions import DepositSettledFor
from domain.transactions import Status as PaymentStatus
from policies.approvals import ADJUST, PAY_OUT, RETURN, RULES, SETTLE, VOID, Rule, reasons

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
    reason: PersonalText


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
    if known := [path for path, endpoint in own.items() if issubclass(endpoint.body, Known)]:
        raise ValueError(f"what players are found by cannot wait for approval: {known}")
    wrapped = [_wrapped(endpoint, rule) if (rule := rules.get(endpoint.path)) else endpoint for endpoint in endpoints]
    return (*wrapped, *_endpoints(tuple(own.values())))


def _sealing_key(concerned: Player | Operator | None = None, **_states: Any) -> tuple[str, str]:
    """That of the player or operator whom an approval concerns. Raises NotFound."""
    return (concerned or Player()).sealing_key()


# Asking


def _wrapped(endpoint: Endpoint, rule: Rule) -> Endpoint:
    measure = MEASURES.get(endpoint.path, _nothing)

    @wraps(endpoint.handler)
    def handler(*asked: Any) -> Plan:
        edge: Edge = asked[-1]
        plan = endpoint.handler(*asked)
        return plan if rule.of_people and not edge.context.principal.by_hand else _asking(plan, edge, rule, measure)

    return endpoint._replace(handler=handler, accepted=AwaitingApproval)


def _asking(plan: Plan, edge: Edge, rule: Rule, measure: Measure) -> Plan:
    """The plan, or only the request for its approval where the rule says so."""
    partition = next(iter(plan.writes.values())).partition
    if partition is None or plan.owed:
        raise TypeError(
            "a command that waits for approval is a player's or operator's, and keeps nothing to find them by"
        )
    id_, salt = ApprovalId("approval_" + edge.new_child(partition)), edge.new_salt()

    def follow(
        approval: Approval,  # noqa: ARG001 — not for the plan
        concerned: Player | Operator | None = None,  # noqa: ARG001 — nor this
        **states: Any,
    ) -> Mapping[str, AnyStream[Any]]:
        followed = plan.follow(**states) if plan.follow else {}
        return {**followed, "concerned": _concerning(plan, states)}

    def decision(
        at: datetime,
        approval: Approval,
        concerned: Player | Operator,  # noqa: ARG001 — for the key
        **states: Any,
    ) -> Sequence[Event] | RefusedFact:
        decided = plan.decision(at, **states)
        if isinstance(decided, RefusedFact) or not decided:
            return decided
        needed = reasons(rule, *measure(decided, states, at))
        if not needed:
            return decided
        requested = Requested(
            action=plan.require[0],
            path=edge.path,
            body=edge.body,
            salt=salt,
            hash=approvals.digest(edge.path, salt, edge.body),
            **_whom(_concerning(plan, states)),
            requester=edge.context.principal.actor,
            person=edge.context.principal.person,
            expires_at=at + timedelta(hours=rule.expires_hours),
            reasons=needed,
            roles=_beside(edge),
        )
        return approvals.request(approval, requested=requested)

    def answer(facts: Sequence[Fact]) -> msgspec.Struct:
        match facts:
            case [Fact(stream, Requested() as asked)]:
                approval = "approval_" + stream.partition("-")[2]
                return AwaitingApproval(approval, Status.AWAITING, asked.expires_at, asked.hash)
        return plan.answer(facts)

    return msgspec.structs.replace(
        plan,
        writes={**plan.writes, "approval": approvals.stream(id_)},
        fresh=plan.fresh | {"approval"},
        follow=follow,
        decision=decision,
        answer=answer,
        key=_sealing_key,
    )


def _beside(edge: Edge) -> tuple[str, ...]:
    """By which roles they ask that were not granted to them: those of a provider's groups, which only their session knows."""
    known = edge.known(edge.context.principal.actor)
    return tuple(sorted(edge.context.principal.roles - known.roles)) if known else ()


def _concerning(plan: Plan, states: Mapping[str, Any]) -> AnyStream[Any]:
    """Of whom a command concerns: whose stream it names, or who a state says. Raises NotFound."""
    for stream in (*plan.writes.values(), *plan.reads.values()):
        if stream.aggregate in (players.PLAYERS, operators.OPERATORS):
            return stream
    for state in states.values():
        if owner := getattr(state, "player", ""):
            return players.stream(PlayerId(owner))
    raise NotFound("there is nobody whom this concerns")


def _whom(concerned: AnyStream[Any]) -> dict[str, Any]:
    """As the request names them."""
    kind, _, suffix = concerned.name.partition("-")
    return {kind: f"{kind}_{suffix}"}


def _adjusted(events: Sequence[Event], states: Mapping[str, Any], at: datetime) -> Amounts:
    [made] = [event for event in events if isinstance(event, Made)]
    return _by_hand(made, states["adjusted"], at)


def _voided(events: Sequence[Event], states: Mapping[str, Any], at: datetime) -> Amounts:
    [made] = [event for event in events if isinstance(event, Voided)]
    return _by_hand(made, states["voids"], at)


def _by_hand(made: Made | Voided, before: Adjustments, at: datetime) -> Amounts:
    amount, day = made.money.amount, at.date()
    return made.money.currency, {
        "operator_day": before.by(made.behind, day) + amount,
        "player_day": before.on(day) + amount,
    }


def _paid_out(_events: Sequence[Event], states: Mapping[str, Any], _at: datetime) -> Amounts:
    money = states["transaction"].money
    return money.currency, {"amount": money.amount}


def _settled(events: Sequence[Event], states: Mapping[str, Any], _at: datetime) -> Amounts:
    money = next((event.money for event in events if isinstance(event, DepositSettledFor)), states["transaction"].money)
    return money.currency, {"amount": money.amount}


def _returned(_events: Sequence[Event], states: Mapping[str, Any], _at: datetime) -> Amounts:
    """What the player would have twice if it has not come back: it was paid, or whoever was told to pay it may do so yet."""
    transaction = states["transaction"]
    is_out = transaction.status in {PaymentStatus.SENT, PaymentStatus.SETTLED}
    return transaction.money.currency, {"amount": transaction.money.amount if is_out else 0}


def _nothing(_events: Sequence[Event], _states: Mapping[str, Any], _at: datetime) -> Amounts:
    return "", {}


MEASURES: Mapping[str, Measure] = {
    ADJUST: _adjusted,
    VOID: _voided,
    PAY_OUT: _paid_out,
    SETTLE: _settled,
    RETURN: _returned,
}
"""By path. A command of which nothing is measured can only need approval always."""


# Answering


def _endpoints(own: Sequence[Endpoint]) -> Sequence[Endpoint]:
    """The commands on approvals; what may run when one is approved are `own`."""
    routes = [(re.compile(re.sub(r"\{\w+\}", "([^/]+)", each.path)), each) for each in own]

    def asked(requested: Requested, edge: Edge) -> Plan:
        """The command that waits, as its requester would ask for it now. Raises RequesterUnknown, NotFound."""
        requester, body = edge.known(requested.requester), str(requested.body)
        if requester is None:
            raise RequesterUnknown(requester=requested.requester)
        requester = policy.with_roles(requester, requested.roles)
        for pattern, endpoint in routes:
            if found := pattern.fullmatch(requested.path):
                context = msgspec.structs.replace(edge.context, principal=requester)
                theirs = msgspec.structs.replace(edge, context=context, path=requested.path, body=body)
                command = read_body(msgspec.json.Decoder(endpoint.body), body.encode())
                return endpoint.handler(*found.groups(), command, theirs)
        raise NotFound("no command that may be approved has this path any more", path=requested.path)

    def approve(approval_id: str, command: Approve, edge: Edge) -> Plan:
        """Approve what another person has asked for, and run it.

        Raises NotFound, NotPassedOn, SamePerson, HashDiffers, ApprovalClosed, RequesterUnknown, KeyNotHeld, Forbidden, and what the command raises.
        """
        return _approving(ApprovalId(approval_id), command.hash, edge, asked)

    own_errors = [error for endpoint in own for error in endpoint.errors]
    refusals = (
        NotFound,
        NotPassedOn,
        SamePerson,
        HashDiffers,
        ApprovalClosed,
        RequesterUnknown,
        PersonNeeded,
        KeyNotHeld,
    )
    errors: tuple[type[Rejected], ...] = tuple(dict.fromkeys([*refusals, *own_errors]))
    return (
        Endpoint("/v1/approvals/{approval_id}/approve", approve, Approve, ApprovalDecided, 200, errors),
        *_ENDS,
    )


class _Asked(NamedTuple):
    """The command that waits, described once, so that what it mints stays the same however often it is decided."""

    plans: dict[str, Plan]
    describe: Callable[[Requested, Edge], Plan]
    edge: Edge

    def plan(self, requested: Requested) -> Plan:
        if requested.hash not in self.plans:
            self.plans[requested.hash] = self.describe(requested, self.edge)
        return self.plans[requested.hash]

    def claims(self, events: Sequence[Event]) -> Mapping[int, bytes]:
        """What it claims by its events, which stand behind the approval."""
        claims = next((plan.claims for plan in self.plans.values() if plan.claims), None)
        return {place + 1: id_ for place, id_ in claims(events[1:]).items()} if claims else {}


class _Later(Mapping[str, Any]):
    """That member of the command that waits: nothing until it was opened and described, and looked at only after that."""

    def __init__(self, asked: _Asked, member: str) -> None:
        self._asked = asked
        self._member = member

    def _known(self) -> Mapping[str, Any]:
        return {role: each for plan in self._asked.plans.values() for role, each in getattr(plan, self._member).items()}

    def __getitem__(self, role: str) -> Any:
        return self._known()[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())


class _Wherever(Collection[str]):
    """What the command that waits reads wherever it is: nothing until it was described."""

    def __init__(self, asked: _Asked) -> None:
        self._asked = asked

    def __contains__(self, role: object) -> bool:
        return any(role in plan.wherever for plan in self._asked.plans.values())

    def __iter__(self) -> Iterator[str]:
        return (role for plan in self._asked.plans.values() for role in plan.wherever)

    def __len__(self) -> int:
        return sum(len(plan.wherever) for plan in self._asked.plans.values())


def _approving(id_: ApprovalId, hash_: str, edge: Edge, describe: Callable[[Requested, Edge], Plan]) -> Plan:
    principal, asked = edge.context.principal, _Asked({}, describe, edge)

    def follow(
        approval: Approval, concerned: Player | Operator | None = None, opened: Requested | None = None, **states: Any
    ) -> Mapping[str, AnyStream[Any]]:
        whose = _concerned(approval)
        if approval.status is not Status.AWAITING or concerned is None:
            return whose
        if opened is None:
            raise KeyNotHeld
        plan = asked.plan(opened)
        named = {**whose, **plan.reads, **plan.writes}
        return {**named, **plan.follow(**states)} if plan.follow and states else named

    def decision(
        at: datetime,
        approval: Approval,
        concerned: Player | Operator,
        opened: Requested | None,
        **states: Any,
    ) -> Sequence[Event] | RefusedFact:
        _require_own_word(approval, edge)
        if not principal.human:
            raise PersonNeeded
        requester = edge.known(approval.requester)
        approved = approvals.approve(
            approval,
            asked=opened,
            hash=hash_,
            by=principal.actor,
            at=at,
            person=principal.person,
            requester=requester.behind if requester else "",
        )
        if not approved or opened is None:
            return []
        plan = asked.plan(opened)
        _require_still(plan, {**states, "concerned": concerned}, at)
        if approval.operator:
            principal.require(*plan.require)
        decided = plan.decision(at, **states)
        return decided if isinstance(decided, RefusedFact) else [*approved, *decided]

    return Plan(
        edge.context,
        require=(Action.APPROVAL_DECIDE,),
        writes={"approval": approvals.stream(id_)},
        follow=follow,
        decision=decision,
        answer=lambda _facts: ApprovalDecided(id_, Status.APPROVED),
        key=_sealing_key,
        opens="approval",
        wherever=_Wherever(asked),
        refers=_Later(asked, "refers"),
        series=_Later(asked, "series"),
        claims=asked.claims,
    )


def _concerned(approval: Approval, **_states: Any) -> Mapping[str, AnyStream[Any]]:
    """Raises NotFound."""
    if approval.status is Status.UNKNOWN:
        raise NotFound("no such approval")
    return {"concerned": _stream_of(approval)}


def _stream_of(approval: Approval) -> Stream[Any]:
    return operators.stream(approval.operator) if approval.operator else players.stream(approval.player)


def _require_own_word(approval: Approval, edge: Edge) -> None:
    """About an operator nothing counts that another region says of who asks. Raises NotPassedOn."""
    if approval.operator and edge.context.principal.relayed:
        raise NotPassedOn(owner=edge.log)


def _require_still(plan: Plan, states: Mapping[str, Any], at: datetime) -> None:
    """Whoever asked may do so now, too, to whom it is done. Raises Forbidden."""
    authorising.require(plan, states, at)


def reject(approval_id: str, command: RejectApproval, edge: Edge) -> Plan:
    """Reject what was asked for; it will not run. Raises NotFound, NotPassedOn, ApprovalClosed, Forbidden."""

    def decision(at: datetime, approval: Approval, **_: Any) -> Sequence[Event]:
        _require_own_word(approval, edge)
        return approvals.reject(approval, reason=command.reason, at=at)

    return Plan(
        edge.context,
        require=(Action.APPROVAL_DECIDE,),
        writes={"approval": approvals.stream(ApprovalId(approval_id))},
        follow=_concerned,
        decision=decision,
        answer=lambda _facts: ApprovalDecided(approval_id, Status.REJECTED),
        key=_sealing_key,
    )


def expire(approval_id: str, _command: Nothing, edge: Edge) -> Plan:
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
    Endpoint(
        "/v1/approvals/{approval_id}/reject", reject, RejectApproval, ApprovalDecided, 200, (*_CLOSED, NotPassedOn)
    ),
    Endpoint("/v1/approvals/{approval_id}/expire", expire, Nothing, ApprovalDecided, 200, (*_CLOSED, ApprovalNotDue)),
)
