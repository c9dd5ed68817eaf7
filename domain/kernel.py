"""
What all aggregates share: events, money, personal fields, identifiers, streams.

Invariants:
    - an event's tag is unique and its shape never changes (a changed shape is a new tag);
    - an identifier carries its partition: the last byte of its UUID, which a player's children inherit;
    - a personal field is text only in memory; what is stored is always `Sealed`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    NewType,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from domain.errors import InvalidId

AMOUNT_MAX = 2**53 - 1
"""The largest integer that I-JSON (RFC 7493) carries exactly; an amount in minor units."""

S = TypeVar("S")


# Events


class _EventMeta(msgspec.StructMeta):
    """Keeps `tag` as a class attribute, so that the type stands in the envelope only and never again in the data."""

    def __new__(
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, *, tag: str = "", **config: Any
    ) -> Any:
        config.setdefault("omit_defaults", True)
        config.setdefault("forbid_unknown_fields", True)
        cls = super().__new__(mcls, name, bases, namespace, **config)
        cls.tag = tag  # type: ignore[attr-defined]
        return cls


class Event(msgspec.Struct, metaclass=_EventMeta, frozen=True):
    """A fact, in the past tense. Who, when and why-caused stand in its envelope."""

    tag: ClassVar[str]


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A personal field as it is stored: AES-256-GCM under the player's data key `key` (docs/reference/record-format.md)."""

    sealed: str
    key: str


Personal: TypeAlias = Annotated[str | Sealed, msgspec.Meta(extra={"personal": True})]
"""A field that must be sealed before it is stored. Events decoded from the log hold it `Sealed`."""

Remark: TypeAlias = Annotated[str | Sealed, msgspec.Meta(extra={"personal": True, "dispensable": True})]
"""The same, of what somebody says about a fact that is recorded in any case: left out where there is no key to seal it under."""


NO_KEY = ("00000000-0000-0000-0000-000000000000", "")
"""Names a data key that no vault holds, as Plan.key names one: nothing is sealed or opened any more."""


def personal_fields(kind: type[msgspec.Struct], mark: str = "personal") -> tuple[str, ...]:
    """The dotted paths of the personal fields of an event, those of the structs in it included: name, intervention.reason.

    `mark`: "dispensable" for those that may be left out. Raises TypeError for a personal field where none can be sealed: in a
    list or a mapping.
    """
    hints = get_type_hints(kind, include_extras=True)
    return tuple(path for name in kind.__struct_fields__ for path in _marked(hints[name], name, mark))


def _marked(hint: Any, path: str, mark: str) -> list[str]:
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *notes = get_args(hint)
        if any(isinstance(note, msgspec.Meta) and (note.extra or {}).get(mark) for note in notes):
            return [path]
        return _marked(inner, path, mark)
    if isinstance(hint, type) and origin is None and issubclass(hint, msgspec.Struct):
        return [f"{path}.{inner}" for inner in personal_fields(hint, mark)]
    found = [inner for option in get_args(hint) for inner in _marked(option, path, mark)]
    if found and origin not in (Union, UnionType):
        raise TypeError(f"what is personal in {path} could not be sealed there")
    return found


# Money


class Money(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An amount in minor units (cents) of an ISO 4217 currency."""

    amount: int
    currency: str


class Intervention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a person has acted on money or games by hand. `kind`: a word of policies.interventions; `reason`: their own words."""

    kind: str
    reason: Personal


# Identifiers: TypeIDs, i.e. a prefix and a UUIDv7 in Crockford's base32 (github.com/jetify-com/typeid, spec/README.md)

PlayerId = NewType("PlayerId", str)
TransactionId = NewType("TransactionId", str)
ApprovalId = NewType("ApprovalId", str)
TicketId = NewType("TicketId", str)
NoticeId = NewType("NoticeId", str)
ContactId = NewType("ContactId", str)
OperatorId = NewType("OperatorId", str)
TokenId = NewType("TokenId", str)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUE = {character: value for value, character in enumerate(_ALPHABET)}
_PAIRS = tuple(
    high + low for high in _ALPHABET for low in _ALPHABET
)  # ten bits at a time: ten times as fast as base64.b32…
_SUFFIX = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")


def suffix(uuid: bytes) -> str:
    """The 26 base32 characters of a UUID (16 bytes)."""
    number = int.from_bytes(uuid, "big")
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -10, -10)])


def uuid_of(text: str) -> bytes:
    """The UUID (16 bytes) of a suffix."""
    number = 0
    for character in text:
        number = number << 5 | _VALUE[character]
    return number.to_bytes(16, "big")


def partition_of(text: str) -> int:
    """The partition (0 to 255) of a suffix or of anything that ends with one: the UUID's last byte."""
    return (_VALUE[text[-2]] << 5 | _VALUE[text[-1]]) & 255


def uuid7(at: datetime, random: bytes, partition: int | None = None) -> bytes:
    """A UUIDv7 (RFC 9562, 5.7) from a time, 10 random bytes and, for an aggregate's id, the partition as its last byte."""
    made = bytearray(_milliseconds(at).to_bytes(6, "big") + random)
    made[6] = made[6] & 0x0F | 0x70
    made[8] = made[8] & 0x3F | 0x80
    if partition is not None:
        made[15] = partition
    return bytes(made)


def uuid7_texts(at: datetime, random: bytes) -> list[str]:
    """UUIDv7s (RFC 9562, 5.7) in their canonical text, one for each 10 random bytes."""
    head = _time_text(_milliseconds(at))
    made = []
    for place in range(0, len(random), 10):
        tail = random[place : place + 10].hex()
        made.append(f"{head}{tail[1:4]}-{_VARIANT[tail[4]]}{tail[5:8]}-{tail[8:]}")
    return made


@lru_cache(8)
def _time_text(milliseconds: int) -> str:
    """How UUIDv7s of this time begin; commands come by the dozen in a millisecond."""
    time = f"{milliseconds:012x}"
    return f"{time[:8]}-{time[8:]}-7"


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def parse_id(prefix: str, text: str) -> str:
    """The suffix of the TypeID `text`, whose prefix must be `prefix`. Raises InvalidId."""
    found, _, rest = text.rpartition("_")
    if found != prefix or not _SUFFIX.fullmatch(rest):
        raise InvalidId(f"not an identifier of a {prefix}", expected=f"{prefix}_…", got=text[:80])
    return rest


# Time

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(microseconds: int) -> datetime:
    """The time of an entry's `recorded` (µs since 1970 UTC)."""
    return EPOCH + timedelta(0, *divmod(microseconds, 1_000_000))


_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def parse_instant(text: str) -> datetime:
    """A time with its zone, as RFC 3339 (5.6) writes it. Finer than a microsecond is cut off. Raises ValueError."""
    with suppress(ValueError):  # of no calendar
        if _INSTANT.fullmatch(text):
            return datetime.fromisoformat(text.upper())
    raise ValueError("not a time with a zone (RFC 3339), such as 2026-01-31T12:00:00Z")


def parse_day_or_instant(text: str) -> datetime:
    """The same, or a day: its beginning in UTC. Raises ValueError."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC) if _DAY.fullmatch(text) else parse_instant(text)


def _milliseconds(at: datetime) -> int:
    """Since 1970, rounded down. (Dividing a timedelta takes three times as long, and each event has an id.)"""
    since = at - EPOCH
    return since.days * 86_400_000 + since.seconds * 1_000 + since.microseconds // 1_000


# Aggregates and their streams

STREAMS_CACHED = 20_000
"""How many streams of an aggregate are kept ready: whoever acts once is likely to act again soon."""


class Aggregate(Generic[S]):
    """A kind of stream: its name, with which the tags of its events begin, and how its state follows from them.

    `kind`: what follows the region in the name of a region's own stream; None for streams that belong to partitions.
    """

    def __init__(
        self,
        name: str,
        *,
        initial: S,
        evolve: Callable[[S, Any, datetime], S],
        events: Sequence[type[Event]],
        kind: str | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.initial = initial
        self.evolve = evolve
        self.events: Mapping[str, type[Event]] = {event.tag: event for event in events}
        self.state: type[S] = type(initial)

    def __repr__(self) -> str:
        return f"Aggregate({self.name})"


class AnyStream(Generic[S]):
    """A stream of either sort. `partition`: None for a region's own."""

    __slots__ = ("aggregate", "name", "partition")
    aggregate: Aggregate[S]
    name: str
    partition: int | None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


class Stream(AnyStream[S]):
    """One aggregate's stream, `<aggregate>-<suffix>`."""

    __slots__ = ()
    partition: int

    def __init__(self, aggregate: Aggregate[S], suffix: str) -> None:
        self.aggregate = aggregate
        self.name = f"{aggregate.name}-{suffix}"
        self.partition = partition_of(suffix)


class RegionStream(AnyStream[S]):
    """A region's own stream, `region-<region>-<kind>[_<suffix>]`: bound to the region's log, in no partition."""

    __slots__ = ()

    def __init__(self, aggregate: Aggregate[S], region: str, suffix: str = "") -> None:
        self.aggregate = aggregate
        self.name = f"region-{region}-{aggregate.kind}{suffix and '_' + suffix}"
        self.partition = None


def at_versions(*versions: int) -> str:
    """Names the state of something whose streams stand at these versions: what its ETag says."""
    return ".".join(map(str, versions))
