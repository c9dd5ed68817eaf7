"""
Sign-ins of operators: who came in, by what, and which one-time codes are spent. Facts of the region where they happen, on a
stream of its own for each operator: `region-<region>-signin_<suffix of the operator>`.

Invariants:
    - a time step of a one-time password, and a recovery code, is good once, whatever else was forgotten: once in a region, and in no
      region that holds a copy of where it was shown (`together`);
    - a passkey whose counter does not go on is refused: it may be a copy;
    - refusals are recorded at most once in REFUSED_EVERY_SECONDS, however often somebody tries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import msgspec

from domain.errors import Forbidden
from domain.kernel import EPOCH, Aggregate, Event, OperatorId, RegionStream, parse_id

REFUSED_EVERY_SECONDS = 10

# Events: the tags and fields are the storage format.


class Succeeded(Event, frozen=True, kw_only=True, tag="signin.succeeded"):
    """The operator has signed in, or shown a factor again. `method`: a word, e.g. password or oidc; `factors`: ids or words of
    what was shown beside it. `step`: the time step of the one-time password (RFC 6238). `credential` and `sign_count`: of the
    passkey (Web Authentication, 6.1.1). `roles`: what the groups of a provider of identities come to, for this session.
    """

    method: str
    factors: tuple[str, ...] = ()
    step: int = 0
    credential: str = ""
    sign_count: int = 0
    roles: tuple[str, ...] = ()


class Refused(Event, frozen=True, tag="signin.refused"):
    """Somebody who was not let in has tried. `why`: a word, in the clear."""

    method: str
    why: str


class Ended(Event, frozen=True, tag="signin.ended"):
    """A session, or all, have ended. `how`: a word, e.g. signed_out, revoked, provider."""

    how: str


class RecoveryUsed(Event, frozen=True, tag="signin.recovery_used"):
    """The recovery code number `n` of the set `factor` is spent."""

    n: int
    factor: str = ""


SigninEvent = Succeeded | Refused | Ended | RecoveryUsed


# State


class Signins(msgspec.Struct, frozen=True):
    """`step`: the last time step that was used. `counts`: the last counter of each passkey. `used`: by set, the spent recovery
    codes. `refusals` that were recorded since somebody last got in.
    """

    last: datetime = EPOCH
    step: int = 0
    counts: Mapping[str, int] = {}
    used: Mapping[str, tuple[int, ...]] = {}
    refusals: int = 0
    refused_at: datetime = EPOCH


def evolve(signins: Signins, event: SigninEvent, at: datetime) -> Signins:
    match event:
        case Succeeded():
            counts = {**signins.counts, event.credential: event.sign_count} if event.credential else signins.counts
            return Signins(at, max(signins.step, event.step), counts, signins.used, 0, signins.refused_at)
        case Refused():
            return msgspec.structs.replace(signins, refusals=signins.refusals + 1, refused_at=at)
        case RecoveryUsed(n, factor):
            used = {**signins.used, factor: (*signins.used.get(factor, ()), n)}
            return msgspec.structs.replace(signins, used=used)
        case Ended():
            return signins


def together(signins: Signins, elsewhere: Iterable[Signins]) -> Signins:
    """The same, with what is spent by sign-ins of other regions. Refusals are counted where they happen."""
    step, counts, used = signins.step, dict(signins.counts), dict(signins.used)
    for there in elsewhere:
        step = max(step, there.step)
        counts |= {each: max(count, counts.get(each, 0)) for each, count in there.counts.items()}
        used |= {factor: (*used.get(factor, ()), *codes) for factor, codes in there.used.items()}
    return msgspec.structs.replace(signins, step=step, counts=counts, used=used)


SIGNINS = Aggregate(
    "signin", kind="signin", initial=Signins(), evolve=evolve, events=[Succeeded, Refused, Ended, RecoveryUsed]
)


def stream(region: str, operator_id: OperatorId) -> RegionStream[Signins]:
    return RegionStream(SIGNINS, region, parse_id("operator", operator_id))


# Decisions


class CodeUsed(Forbidden):
    code = "code_used"
    title = "This code was used before"


def succeed(signins: Signins, *, succeeded: Succeeded) -> list[SigninEvent]:
    """Somebody got in. Raises CodeUsed for a time step or a counter of a passkey that does not go on."""
    if succeeded.step and succeeded.step <= signins.step:
        raise CodeUsed
    known = signins.counts.get(succeeded.credential, 0)
    if succeeded.credential and (known or succeeded.sign_count) and succeeded.sign_count <= known:
        raise CodeUsed
    return [succeeded]


def use_recovery(signins: Signins, *, n: int, factor: str, succeeded: Succeeded) -> list[SigninEvent]:
    """Get in by a recovery code, which is spent by that. Raises CodeUsed."""
    if n in signins.used.get(factor, ()):
        raise CodeUsed
    return [RecoveryUsed(n, factor), *succeed(signins, succeeded=succeeded)]


def refuse(signins: Signins, *, refused: Refused, at: datetime) -> list[SigninEvent]:
    """Somebody was not let in; of many tries one in a while is recorded."""
    if at < signins.refused_at + timedelta(seconds=REFUSED_EVERY_SECONDS):
        return []
    return [refused]


def end(_signins: Signins, *, how: str) -> list[SigninEvent]:
    """Each end is one more."""
    return [Ended(how)]
