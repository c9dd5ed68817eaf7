"""
How a refusal looks on HTTP: application/problem+json (RFC 9457) with a stable `code`.

Invariant: this table is the only place where a code of the domain meets a status of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from access.passwords import TooManySignIns
from access.rates import TooManyRequests
from commands.batch import DependencyFailed
from commands.plan import NotPassedOn, PreconditionFailed, WrongRegion
from commands.reads import TooManyReads
from domain.errors import Conflict, Forbidden, Invalid, NotFound, Rejected, RuleRefused
from eventstore.log import TooLarge
from eventstore.record import UnknownEvent
from eventstore.writer import Unavailable
from queries.causal import NotYet, PositionMalformed, UnknownLog

MEDIA_TYPE = "application/problem+json"


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457; `code` is stable, further members are the facts of the refusal."""

    type: str
    title: str
    status: int
    detail: str
    code: str


class KeyMissing(Invalid):
    code = "idempotency_key_missing"
    title = "A command needs an Idempotency-Key of 1 to 200 characters"


class IfMatchMalformed(Invalid):
    code = "if_match_malformed"
    title = "If-Match is * or a list of entity tags in quotes"


class PersonalInAddress(Invalid):
    code = "personal_in_address"
    title = "What is personal stands in no address, which is logged on its way: POST /v1/players/look-up takes it in its body"


class BodyTooLarge(Rejected):
    code = "body_too_large"
    title = "The body is too large"


class AddressTooLong(Rejected):
    code = "uri_too_long"
    title = "The path or the query is longer than any of ours, or names a parameter twice"


class HeadTooLarge(Rejected):
    code = "head_too_large"
    title = "The header has more fields, or is longer, than any request of ours needs"


class TooSlow(Rejected):
    code = "too_slow"
    title = "The request did not arrive whole in time; nothing was done"


class Malformed(Rejected):
    code = "malformed"
    title = "That is not a request of HTTP/1.1"


class Unauthenticated(Rejected):
    code = "unauthenticated"
    title = "A known bearer token, or a session, is needed"


class SignInFailed(Rejected):
    """Whatever was wrong, and whether or not there is such an account: the answer is the same."""

    code = "signin_failed"
    title = "That did not sign you in; after several tries in vain it takes a quarter of an hour until the next counts"


class CsrfRefused(Forbidden):
    code = "csrf_refused"
    title = "What changes something needs the session's own X-CSRF-Token, from a page of ours"


class ProviderUnavailable(Rejected):
    code = "provider_unavailable"
    title = "The provider of identities does not answer"


class MethodRefused(Rejected):
    code = "method_not_allowed"
    title = "This resource has no such method"


class Busy(Rejected):
    code = "unavailable"
    title = "The ledger cannot be reached; send the same request again"


class OwnerUnreachable(Rejected):
    """Facts: region."""

    code = "owner_unreachable"
    title = "The region that owns this cannot be reached; this request was not sent there, so send the same again"


class Unopenable(Rejected):
    code = "cannot_open"
    title = "A personal field does not open as its registration says"


class Fault(Rejected):
    code = "fault"
    title = "The service failed; nothing is known of this request, so send it again with the same Idempotency-Key"


_STATUS: tuple[tuple[type[Rejected], int], ...] = (
    (KeyMissing, 400),
    (PositionMalformed, 400),
    (UnknownLog, 400),
    (IfMatchMalformed, 400),
    (PersonalInAddress, 400),
    (MethodRefused, 405),
    (Unauthenticated, 401),
    (SignInFailed, 401),
    (ProviderUnavailable, 502),
    (Forbidden, 403),
    (NotFound, 404),
    (PreconditionFailed, 412),
    (Malformed, 400),
    (TooSlow, 408),
    (BodyTooLarge, 413),
    (AddressTooLong, 414),
    (TooManyRequests, 429),
    (HeadTooLarge, 431),
    (WrongRegion, 421),
    (NotPassedOn, 421),
    (DependencyFailed, 424),
    (TooManyReads, 429),
    (TooManySignIns, 429),
    (Busy, 503),
    (OwnerUnreachable, 503),
    (NotYet, 503),
    (Unopenable, 500),
    (Fault, 500),
    (Conflict, 409),
    (Invalid, 422),
    (RuleRefused, 422),
)


def status_of(error: type[Rejected]) -> int:
    return next((status for kind, status in _STATUS if issubclass(error, kind)), 400)


def rejected(error: Exception) -> Rejected:
    """What to tell the caller about any error of a command. Raises the error again if it is none of theirs."""
    match error:
        case Rejected():
            return error
        case TooLarge():
            return BodyTooLarge(str(error))
        case Unavailable() | UnknownEvent():  # what a later release wrote is for its services to answer
            return Busy(str(error))
        case _:
            raise error


def members(error: Rejected) -> dict[str, object]:
    """The members of the problem document."""
    problem = Problem(
        f"urn:countroom:problem:{error.code}", error.title, status_of(type(error)), error.detail, error.code
    )
    return {**msgspec.to_builtins(error.facts), **msgspec.to_builtins(problem)}


def document(error: Rejected) -> bytes:
    return msgspec.json.encode(members(error))


def headers(error: Rejected) -> Mapping[str, str]:
    if isinstance(error, (Busy, NotYet, TooManyReads, TooManySignIns)):
        return {"Retry-After": "1"}
    if isinstance(error, OwnerUnreachable):
        return {"Retry-After": "2"}
    if isinstance(error, TooManyRequests):
        return {"Retry-After": str(error.facts["wait_s"])}
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": "Bearer"}
    return {}
