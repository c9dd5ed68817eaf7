r"""
What an entry of the log is made of, byte by byte (docs/reference/record-format.md).

    entry = prev_leaf (32 bytes) ‖ position (8) ‖ recorded (8, µs since 1970 UTC) ‖ body       integers big endian
    leaf  = SHA-256(0x00 ‖ entry)                                                              RFC 6962, 2.1
    prev_leaf of position 1 = SHA-256("countroom/log/v1\n" ‖ origin)

Invariants:
    - a body is encoded once and hashed as stored; nobody encodes it again to verify it;
    - whoever reads decodes the envelope once and the data by its tag.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from domain.ijson import require_exact
from domain.kernel import Aggregate, Event, instant

BODY_BYTES_MAX = 60 * 1024
COMMAND_BYTES_MAX = 256 * 1024

_TIMES = struct.Struct(">QQ")


class Entry(NamedTuple):
    """An entry as it lies in a log: `log` is the log's short name, `recorded` µs since 1970 UTC."""

    log: str
    position: int
    recorded: int
    leaf: bytes
    body: bytes


class CommandPart(msgspec.Struct, frozen=True, omit_defaults=True):
    """This is event `i` of the `n` of command `id` (32 hex digits)."""

    i: int
    n: int
    id: str
    fingerprint: str | None = None


class Body(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The body's members, in the order in which they are written: whoever reads knows the envelope before the data, and
    ledger.append finds first what it indexes, so that it need not read the rest (docs/adr/0011).

    `partition` and `epoch` are absent on a region's own streams only.
    """

    stream: str
    version: int
    type: str
    partition: int | None = None
    epoch: int | None = None
    command: CommandPart
    id: str
    actor: str
    claims: str | None = None
    occurred: str | None = None
    cause: str | None = None
    trace: str | None = None
    data: msgspec.Raw


_body = msgspec.json.Decoder(Body)
_encoder = msgspec.json.Encoder()


def encode_body(body: Body) -> bytes:
    """What stands in the log. Raises NotExact for an integer that nobody could read back: no verifier would take it."""
    require_exact(body.data)  # the envelope's own integers are small
    return _encoder.encode(body)


def genesis(origin: str) -> bytes:
    """prev_leaf of a log's first entry."""
    return hashlib.sha256(b"countroom/log/v1\n" + origin.encode()).digest()


def entry_bytes(prev_leaf: bytes, position: int, recorded: int, body: bytes) -> bytes:
    return prev_leaf + _TIMES.pack(position, recorded) + body


def leaf_hash(prev_leaf: bytes, position: int, recorded: int, body: bytes) -> bytes:
    return hashlib.sha256(b"\0" + prev_leaf + _TIMES.pack(position, recorded) + body).digest()


class UnknownEvent(Exception):
    """A tag that this release does not know: readers are deployed first, so this reader is too old and must stop."""


class Recorded(NamedTuple):
    """An event read from a log, with its envelope."""

    log: str
    position: int
    recorded: int
    leaf: bytes
    body: Body
    event: Event

    @property
    def at(self) -> datetime:
        """When it was recorded: what limits and windows count by."""
        return instant(self.recorded)

    @property
    def occurred(self) -> datetime:
        """When it happened: what dashboards count by. Only imported history differs from `at`."""
        return datetime.fromisoformat(self.body.occurred) if self.body.occurred else self.at


class Codec:
    """Decodes entries into events, by the tags of the given aggregates."""

    def __init__(self, aggregates: Iterable[Aggregate]) -> None:  # type: ignore[type-arg]
        events: dict[str, type[Event]] = {}
        for aggregate in aggregates:
            events.update(aggregate.events)
        self._decoders: Mapping[str, msgspec.json.Decoder[Event]] = {
            tag: msgspec.json.Decoder(event) for tag, event in events.items()
        }

    def knows(self, tag: str) -> bool:
        return tag in self._decoders

    def decode(self, entry: Entry) -> Recorded:
        """Raises UnknownEvent at a tag of a later release."""
        body = _body.decode(entry.body)
        decoder = self._decoders.get(body.type)
        if decoder is None:
            raise UnknownEvent(f"{entry.log}/{entry.position}: no event of this release is called {body.type}")
        return Recorded(*entry[:4], body, decoder.decode(body.data))


def decode_body(body: bytes) -> Body:
    """The envelope alone."""
    return _body.decode(body)
