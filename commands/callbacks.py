"""
What a payment or KYC provider says happened: one message, which becomes the command of its verb.

Invariants:
    - a provider's verb and reference are one command for ever (caller `provider:<name>`, key verb, LF, reference), however
      often and in whatever order the provider says so; with another content it is refused;
    - a provider speaks only of its own payments, and of what it was given to know of a player;
    - it speaks of what it was let speak of, payments or KYC;
    - it enters by the same bodies and checks as the same command over REST;
    - what it says of a payment and does not fit is recorded, unless it may only have come too early.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, NamedTuple

import msgspec

from access.policy import service
from commands import kyc, transactions
from commands.edge import PERSONAL, Amount, Edge, Endpoint, read_body
from commands.identity import command_id, prints
from commands.plan import Context, Fact, Plan, RefusedFact
from domain.errors import Conflict, Forbidden, Invalid, InvalidAmount, NotFound, Rejected
from domain.kernel import Event, Money
from domain.transactions import DisputeOpen, NotApproved, NotDisputed, NotSettled, ProviderRefused
from policies.gates import Level

_Short = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Callback(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`id`: this message; `reference`: what it is about, in the provider's words (the same each time it is told), by default `id`.

    `transaction`: ours, for the verbs of payments; `player`: ours, for those of KYC. A refund, and what became of a dispute,
    have a `reference` of their own.
    """

    id: _Short
    verb: Annotated[str, msgspec.Meta(description="What has happened; see the table of verbs.", max_length=40)]
    transaction: str = ""
    player: str = ""
    reference: Annotated[str, msgspec.Meta(max_length=200)] = ""
    amount: int | None = None
    currency: str | None = None
    reason: Annotated[str, msgspec.Meta(max_length=500, extra=PERSONAL)] = ""
    level: str = ""
    method: str = ""
    age_verified: bool | None = None
    document_expires: str = ""


class _Verb(NamedTuple):
    """`path` of the endpoint whose command it is; `fields`: what of the callback its body takes; `of`: what must be spoken."""

    path: str
    fields: frozenset[str]
    of: str = "payments"


def _payment(what: str, *fields: str) -> _Verb:
    return _Verb(f"/v1/transactions/{{transaction_id}}/{what}", frozenset(fields))


VERBS: Mapping[str, _Verb] = {
    "authorise": _payment("authorise", "reference"),
    "settle": _payment("settle", "amount"),
    "fail": _payment("fail", "reason"),
    "dispute": _payment("dispute", "reference", "reason"),
    "win": _payment("dispute/win", "reference"),
    "lose": _payment("dispute/lose", "reference", "amount"),
    "refund": _payment("refund", "reference", "amount"),
    "return": _payment("return", "reason"),
    "kyc_approve": _Verb(
        "/v1/players/{player_id}/kyc/approve", frozenset({"level", "method", "age_verified", "document_expires"}), "kyc"
    ),
    "kyc_reject": _Verb("/v1/players/{player_id}/kyc/reject", frozenset({"level", "method", "reason"}), "kyc"),
}
"""What a provider may say."""

_NAMED = frozenset({"dispute", "win", "lose", "refund"})
"""Verbs that need a reference: what they are about may be told by others too, or for the second time."""

_TOO_EARLY = (NotSettled, NotApproved, NotDisputed, DisputeOpen)
"""Refusals that may pass, once what was overtaken has arrived."""

_ENDPOINTS: Mapping[str, Endpoint] = {endpoint.path: endpoint for endpoint in (*transactions.ENDPOINTS, *kyc.ENDPOINTS)}


class UnknownVerb(Invalid):
    """Facts: verbs."""

    code = "unknown_verb"
    title = "No verb of providers is called so"


class NotTheirs(Forbidden):
    """Facts: speaks."""

    code = "not_theirs_to_say"
    title = "This provider speaks of other things"


def answer_type(verb: str) -> type[msgspec.Struct]:
    return _ENDPOINTS[VERBS[verb].path].answer


def plan(
    provider: str,
    callback: Callback,
    *,
    speaks: Collection[str],
    now: datetime,
    secret: bytes,
    edge: Callable[[Context], Edge],
    trace: str | None,
) -> Plan:
    """Describe the command that a provider's message is. `speaks`: of what it may, payments or kyc. Raises Rejected."""
    verb = VERBS.get(callback.verb)
    if verb is None:
        raise UnknownVerb(pointer="/verb", verbs=sorted(VERBS))
    if verb.of not in speaks:
        raise NotTheirs(speaks=sorted(speaks))
    if verb.of == "kyc" and callback.transaction:
        raise Invalid("this verb is about a player, not about a transaction", pointer="/transaction")
    if callback.verb in _NAMED and not callback.reference:
        raise Invalid("this verb needs a reference", pointer="/reference")
    said = msgspec.structs.replace(callback, id="", reference=callback.reference or callback.id)
    actor = f"provider:{provider}"
    told = msgspec.json.encode(said, order="sorted")
    printed = prints(secret, "POST", f"/v1/providers/{provider}/callbacks", told, Callback)
    context = Context(
        service(actor, "provider"),
        now,
        command_id(actor, f"{said.verb}\n{said.reference}"),
        printed.fingerprint,
        trace,
        whole=printed.whole,
    )
    endpoint = _ENDPOINTS[verb.path]
    subject = said.transaction if verb.of == "payments" else said.player
    body = read_body(msgspec.json.Decoder(endpoint.body), msgspec.json.encode(_body(said, verb)))
    made = endpoint.handler(subject, body, edge(context))
    if verb.of == "kyc":
        return _given_to_it(made, provider, body.level)
    return _of_its_own(made, provider, said, _money(body), endpoint.errors)


def _body(said: Callback, verb: _Verb) -> dict[str, Any]:
    """What the endpoint's body takes, of what was said."""
    body = {name: value for name in verb.fields - {"amount"} if (value := getattr(said, name)) not in ("", None)}
    if "amount" in verb.fields and said.amount is not None:
        body["amount"] = {"amount": said.amount, "currency": said.currency or ""}
    return body


def _money(body: Any) -> Money | None:
    """Of what a command's body speaks; its handler has checked it. What else a callback says may be anything."""
    amount: Amount | None = getattr(body, "amount", None)
    return None if amount is None else Money(amount.amount, amount.currency)


def _given_to_it(made: Plan, provider: str, level: Level) -> Plan:
    """The plan, refused where the player's level was not given to this provider: of that player there is nothing to know here."""

    def decision(at: datetime, **states: Any) -> Sequence[Event] | RefusedFact:
        if states["state"].given.get(level) != provider:
            raise NotFound("no such player")
        return made.decision(at, **states)

    return msgspec.structs.replace(made, decision=decision)


def _of_its_own(
    made: Plan, provider: str, said: Callback, money: Money | None, errors: Sequence[type[Rejected]]
) -> Plan:
    """The plan, refused where the payment is another provider's: of that one there is nothing to know here. What does not fit
    is recorded, and refused alike whenever it is said again.
    """

    def decision(at: datetime, **states: Any) -> Sequence[Event] | RefusedFact:
        if states["transaction"].provider != provider:
            raise NotFound("no such transaction")
        try:
            return made.decision(at, **states)
        except _TOO_EARLY:
            raise
        except (Conflict, InvalidAmount) as error:
            refused = ProviderRefused(verb=said.verb, reference=said.reference, money=money, code=error.code)
            return RefusedFact(error, [refused])

    refusals = {error.code: error for error in errors}

    def answer(facts: Sequence[Fact]) -> msgspec.Struct:
        match facts:
            case [Fact(_, ProviderRefused(code=code))]:
                raise refusals.get(code, Conflict)
        return made.answer(facts)

    return msgspec.structs.replace(made, decision=decision, answer=answer)
