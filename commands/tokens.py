"""
Commands on tokens, by which programs come in.

Invariant: the secret is in no event, and is shown once: a repeat of the same request does not know it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec

from access.policy import Action
from commands.approvals import PersonNeeded
from commands.edge import Edge, Endpoint, Nothing, Word, whole
from commands.operators import Brands, Countries, Instant, RoleUnknown, Secret, given, instant_of, known_role
from commands.plan import Fact, Plan
from domain import operators, tokens
from domain.approvals import SamePerson
from domain.errors import NotFound
from domain.kernel import OperatorId, Stream, TokenId
from domain.operators import InThePast, OperatorNotActive
from domain.tokens import HolderIsAnother, RolesNotTheirs, Status, Token, TokenEvent, TokenRevoked

Holder = Annotated[
    str,
    whole(
        "((service|provider|payments|importer|regulator):[a-z0-9][a-z0-9_.-]{0,39}|operator:[0-7][0-9a-hjkmnp-tv-z]{25})",
        "As whom it acts: a program by its kind and name, or an operator, of whose roles it has some.",
    ),
]


class IssueToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`brands`, `countries`: whose players it may deal with; not given: all."""

    holder: Holder
    roles: Annotated[list[Word], msgspec.Meta(min_length=1, max_length=20)]
    expires: Instant
    brands: Brands | None = None
    countries: Countries | None = None


class TokenIssued(msgspec.Struct, frozen=True):
    """`secret`: what is sent as `Authorization: Bearer`; null when the same request is answered again."""

    token: str
    status: Status
    secret: str | None
    expires: datetime


class TokenChanged(msgspec.Struct, frozen=True):
    token: str
    status: Status


def issue(command: IssueToken, edge: Edge) -> Plan:
    """Make a token; it opens nothing until another person has confirmed it.

    Raises RoleUnknown, RolesNotTheirs, HolderIsAnother, InThePast, NotFound, OperatorNotActive, Forbidden.
    """
    secret, reads, suffix = Secret("crt_"), _reads(command.holder), edge.new_own()
    if reads:
        suffix = edge.new_child(reads["holder"].partition)
    issued = tokens.Issued(
        holder=command.holder,
        digest=secret.digest,
        roles=tuple(sorted({known_role(role, "/roles") for role in command.roles})),
        expires=instant_of(command.expires, "/expires"),
        person=edge.context.principal.behind,
        brands=given(command.brands),
        countries=given(command.countries),
    )

    def answer(facts: Sequence[Fact]) -> TokenIssued:
        event, id_ = facts[0].event, "token_" + facts[0].stream.partition("-")[2]
        assert isinstance(event, tokens.Issued)  # noqa: S101 — nothing else is recorded
        return TokenIssued(id_, Status.AWAITING, secret.shown(event.digest), event.expires)

    return Plan(
        edge.context,
        require=(Action.TOKEN_ISSUE,),
        writes={"token": tokens.stream(TokenId("token_" + suffix))},
        reads=reads,
        fresh=frozenset({"token"}),
        decision=lambda at, token, holder=None: tokens.issue(
            token, holder, issued=issued, by=edge.context.principal.actor, at=at
        ),
        answer=answer,
    )


def _reads(holder: str) -> Mapping[str, Stream[Any]]:
    """The operator whose own it is."""
    kind, _, name = holder.partition(":")
    return {"holder": operators.stream(OperatorId(f"operator_{name}"))} if kind == "operator" else {}


def confirm(token_id: str, _command: Nothing, edge: Edge) -> Plan:
    """Confirm a token that another person has issued. Raises NotFound, SamePerson, PersonNeeded, TokenRevoked."""
    principal = edge.context.principal

    def decision(_at: datetime, token: Token) -> Sequence[TokenEvent]:
        if not principal.human:
            raise PersonNeeded
        return tokens.confirm(token, person=principal.behind)

    return Plan(
        edge.context,
        require=(Action.TOKEN_ISSUE,),
        writes={"token": tokens.stream(TokenId(token_id))},
        decision=decision,
        answer=lambda _facts: TokenChanged(token_id, Status.CONFIRMED),
    )


def revoke(token_id: str, _command: Nothing, edge: Edge) -> Plan:
    """Revoke a token, at once and for good. Raises NotFound."""
    return Plan(
        edge.context,
        require=(Action.TOKEN_REVOKE,),
        writes={"token": tokens.stream(TokenId(token_id))},
        decision=lambda _at, token: tokens.revoke(token),
        answer=lambda _facts: TokenChanged(token_id, Status.REVOKED),
    )


_ONE = "/v1/tokens/{token_id}"
ENDPOINTS = (
    Endpoint(
        "/v1/tokens",
        issue,
        IssueToken,
        TokenIssued,
        201,
        (NotFound, RoleUnknown, RolesNotTheirs, HolderIsAnother, InThePast, OperatorNotActive),
    ),
    Endpoint(
        f"{_ONE}/confirm", confirm, Nothing, TokenChanged, 200, (NotFound, SamePerson, PersonNeeded, TokenRevoked)
    ),
    Endpoint(f"{_ONE}/revoke", revoke, Nothing, TokenChanged, 200, (NotFound,)),
)
