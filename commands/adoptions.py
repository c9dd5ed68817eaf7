"""Commands on policies: propose a hash, and adopt what another person has proposed."""

from __future__ import annotations

from typing import Annotated

import msgspec

from access.policy import Action
from commands.approvals import PersonNeeded
from commands.edge import Edge, Endpoint, Nothing, whole
from commands.plan import Plan
from domain import adoptions
from domain.adoptions import OwnProposal
from domain.errors import Invalid, NotFound

_HASH = "[0-9a-f]{64}"


class ProposePolicies(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`hash`: of the policies' files, as `countroom access check` prints it."""

    hash: Annotated[str, whole(_HASH)]


class PoliciesProposed(msgspec.Struct, frozen=True):
    """Nothing has changed yet: another person adopts the hash."""

    hash: str


class PoliciesAdopted(msgspec.Struct, frozen=True):
    hash: str


def propose(command: ProposePolicies, edge: Edge) -> Plan:
    """Propose policies of access by their hash; another person has to adopt them."""
    person = edge.context.principal.behind
    return Plan(
        edge.context,
        require=(Action.POLICY_ADOPT,),
        writes={"state": adoptions.stream(edge.log)},
        decision=lambda _at, state: adoptions.propose(state, hash=command.hash, person=person),
        answer=lambda _facts: PoliciesProposed(command.hash),
    )


def adopt(policies_hash: str, _command: Nothing, edge: Edge) -> Plan:
    """Adopt the policies that another person has proposed. Raises NotFound, OwnProposal, PersonNeeded."""
    if not edge.context.principal.human:
        raise PersonNeeded
    person = edge.context.principal.behind
    return Plan(
        edge.context,
        require=(Action.POLICY_ADOPT,),
        writes={"state": adoptions.stream(edge.log)},
        decision=lambda _at, state: adoptions.adopt(state, hash=policies_hash, person=person),
        answer=lambda _facts: PoliciesAdopted(policies_hash),
    )


ENDPOINTS = (
    Endpoint("/v1/policies", propose, ProposePolicies, PoliciesProposed, 200, (Invalid,)),
    Endpoint(
        "/v1/policies/{policies_hash}/adopt",
        adopt,
        Nothing,
        PoliciesAdopted,
        200,
        (NotFound, OwnProposal, PersonNeeded),
    ),
)
