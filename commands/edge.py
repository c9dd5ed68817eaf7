"""
What enters: wire types that several contexts share, their checks, and the table row that binds a command to its path.

Invariants:
    - what passes the edge is a domain value; everything else is refused with the JSON pointer of what is wrong;
    - time, randomness and new identifiers enter here, as values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from access.policy import Principal
from commands.identity import partition_for
from commands.plan import Context, Fact, Plan
from domain import approvals, contacts, kyc, limits, notices, operators, players, tickets, tokens, transactions, wallets
from domain.errors import Invalid, InvalidAmount, Rejected, UnknownCurrency
from domain.ijson import NotText, require_text
from domain.kernel import AMOUNT_MAX, Intervention, Money, OperatorId, Stream, parse_day_or_instant, suffix, uuid7
from domain.protection import Answer
from eventstore.vault import DataKey, Vault
from policies.currencies import EXPONENTS
from policies.interventions import Kind
from policies.protection import Silence
from policies.residency import EVERYWHERE, Residency


def whole(pattern: str, description: str | None = None) -> msgspec.Meta:
    r"""Text that is of the pattern from its beginning to its end.

    Python's `$` stands also before a last line feed, so it ends in `\Z`, which app/openapi.py writes as ECMA 262 has it.
    """
    return msgspec.Meta(pattern=rf"^{pattern}\Z", description=description)


Word = Annotated[str, whole("[a-z0-9][a-z0-9_-]{0,39}", "A short name, e.g. of a provider.")]
PERSONAL: Final = {"personal": True}
"""Marks what is personal in a body, as in an event: commands.identity keeps it out of fingerprints."""

PersonalText = Annotated[
    str, msgspec.Meta(min_length=1, max_length=500, description="Sealed under the player's own key.", extra=PERSONAL)
]
Label = Annotated[
    str, msgspec.Meta(min_length=1, max_length=100, description="A name, in the clear: nothing personal.")
]
Jurisdiction = Annotated[str, whole("[A-Z]{2}(-[A-Z0-9]{1,3})?", "ISO 3166-1 alpha-2 or ISO 3166-2.")]
Country = Annotated[str, whole("[A-Z]{2}", "ISO 3166-1 alpha-2.")]

Occurred = Annotated[
    str,
    whole(
        r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d))?",
        "History only: a day (UTC) or an RFC 3339 instant of the past. Needs the import permission.",
    ),
]


class Amount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Money: minor units (cents) and an ISO 4217 currency."""

    amount: Annotated[int, msgspec.Meta(description=f"Minor units; 1 to {AMOUNT_MAX}.")]
    currency: Annotated[str, msgspec.Meta(description="ISO 4217 code, e.g. EUR.", max_length=10)]


class Why(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a person acts on money or games by hand."""

    kind: Kind
    reason: PersonalText


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to say: the path says it all."""


class InterventionMissing(Invalid):
    code = "intervention_missing"
    title = "A person who acts on money or games says why: {kind, reason}"


class Edge(msgspec.Struct, frozen=True):
    """What a handler may use: its context, and where new things come from. `log`: the one that is written here.

    `path` and `body` are what was asked, as it was sent. `known(actor)`: what somebody may do now, if they are known.
    `administrators()`: operators who are active and administer without an end, as far as is known; missing some is safe.
    `kyc_providers`: who may be asked how well a player is known.
    `asked`: what registers of the excluded have said for this command; `unasked`: why one that is not among them has not.
    `own`: the partitions that are owned here, as far as is known; all, if none is: then the command names another region.
    `residency`: which regions may hold whose keys, and which partitions new players are given.
    `secret`: the house's own, the same in all regions.
    """

    context: Context
    vault: Vault
    own: Sequence[int]
    log: str
    path: str = ""
    body: str = "{}"
    known: Callable[[str], Principal | None] = lambda _actor: None
    kyc_providers: Collection[str] = ()
    asked: Sequence[Answer] = ()
    unasked: Silence = Silence.NOT_CONFIGURED
    residency: Residency = EVERYWHERE
    secret: bytes = b""
    administrators: Callable[[], Mapping[OperatorId, operators.Operator]] = dict

    def new_player(self, jurisdiction: str) -> str:
        """The suffix of a new player. Its partition follows from the command and the jurisdiction, in all regions alike."""
        return self.new_child(partition_for(self.context.command_id, self.residency.group(jurisdiction)))

    def new_own(self) -> str:
        """The suffix of what is no player's, but this region's own: an operator, a token, something sealed."""
        return self.new_child(partition_for(self.context.command_id, self.own))

    def new_child(self, partition: int) -> str:
        """The suffix of something that belongs to a player of `partition`."""
        return suffix(uuid7(self.context.now, os.urandom(10), partition))

    def new_salt(self) -> str:
        """128 random bits in hex, which nobody guesses."""
        return os.urandom(16).hex()

    def new_key(self) -> DataKey:
        return self.vault.new_key(uuid7(self.context.now, os.urandom(10)))


class Endpoint(NamedTuple):
    """A command of the public interface. `path` has `{name}` for each of the handler's identifiers.

    `accepted`: a further answer, where something else has to happen first; HTTP says 202 then.
    """

    path: str
    handler: Callable[..., Plan]
    body: type[msgspec.Struct]
    answer: type[msgspec.Struct]
    status: int
    errors: tuple[type[Rejected], ...]
    accepted: type[msgspec.Struct] | None = None


READ_TOGETHER: Mapping[str, tuple[Callable[[Any], Stream[Any]], ...]] = {
    "player_id": (players.stream, wallets.stream, limits.stream, kyc.stream),
    "transaction_id": (transactions.stream,),
    "ticket_id": (tickets.stream,),
    "notice_id": (notices.stream,),
    "contact_id": (contacts.stream,),
    "approval_id": (approvals.stream,),
    "operator_id": (operators.stream,),
    "token_id": (tokens.stream,),
    "compartment": (),
    "policies_hash": (),
}
"""By the identifier in a path, the streams whose versions are the ETag of what is read there (queries/players.py)."""


def intervention(why: Why | None, context: Context) -> Intervention | None:
    """What whoever acts by hand has to say about it, and our own processes and providers need not. Raises InterventionMissing."""
    if why is None:
        if context.principal.by_hand:
            raise InterventionMissing(pointer="/intervention")
        return None
    return Intervention(why.kind, why.reason)


def money(value: Amount, pointer: str) -> Money:
    """Raises InvalidAmount, UnknownCurrency."""
    if not 0 < value.amount <= AMOUNT_MAX:
        raise InvalidAmount(f"an amount is between 1 and {AMOUNT_MAX} minor units", pointer=f"{pointer}/amount")
    if value.currency not in EXPONENTS:
        raise UnknownCurrency(f"{value.currency[:10]!r} is not an ISO 4217 currency", pointer=f"{pointer}/currency")
    return Money(value.amount, value.currency)


def currency(code: str, pointer: str) -> str:
    """Raises UnknownCurrency."""
    if code not in EXPONENTS:
        raise UnknownCurrency(f"{code[:10]!r} is not an ISO 4217 currency", pointer=pointer)
    return code


def occurred(value: str | None, now: datetime) -> datetime | None:
    """The UTC time of a day or instant of the past. Raises Invalid."""
    if value is None:
        return None
    try:
        at = parse_day_or_instant(value).astimezone(UTC)
    except (ValueError, OverflowError):  # of no calendar, or before the year 1
        raise Invalid("not a day or an instant of the calendar", pointer="/occurred") from None
    if at > now:
        raise Invalid("what occurred lies in the past", pointer="/occurred")
    return at


def suffix_in(facts: Sequence[Fact], aggregate: str) -> str:
    """The suffix of the stream on which a command's events of `aggregate` stand. Raises LookupError if it has none."""
    for fact in facts:
        if fact.stream.startswith(aggregate + "-"):
            return fact.stream.partition("-")[2]
    raise LookupError(f"the command has no event of {aggregate}")


_POINTER = re.compile(r" - at `\$(.*)`$")


def read_body(decoder: msgspec.json.Decoder[Any], raw: bytes) -> Any:
    """Decode a request's body. Raises Invalid with the JSON pointer (RFC 6901) of the first thing that is wrong."""
    try:
        require_text(raw)
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _POINTER.search(text)
        pointer = re.sub(r"\[(\d+|\.\.\.)\]", r"/\1", place[1].replace(".", "/")) if place else ""
        raise Invalid(_POINTER.sub("", text), pointer=pointer) from None
    except msgspec.DecodeError as error:
        raise Invalid(f"the body is not JSON: {error}", pointer="") from None
    except RecursionError:
        raise Invalid("the body is nested deeper than anything of ours", pointer="") from None
    except NotText as error:
        raise Invalid(f"the body holds {error}", pointer="") from None
