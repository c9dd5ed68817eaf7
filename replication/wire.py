"""
What regions say to each other over NATS, besides frames.

In the realm of the origin EU, and nowhere else:

    log.EU          frames, kept in the stream LOG_EU of the JetStream domain EU
    rpc.EU.range    a request (first and last position, 8 bytes each, big endian), answered by one frame that begins at
                    `first`, or by the headers Nats-Service-Error-Code and Nats-Service-Error; Log-End says how far the
                    log goes
    rpc.EU.copy.US.…  what EU holds of US's log (`holders`), for whoever cannot reach US: range (as above), leaves (a range,
                    answered by 32 bytes for each entry), head (a position, answered by a witnessed head beyond it; if that is
                    far, Stretch-End says up to where leaves are to be asked for), proof (two sizes, answered by the hashes
                    that show the tree of the second to begin with that of the first)
    ack.EU.US       JSON {"position", "leaf"}: the copy in US is committed up to there. Cumulative, and repeated
    ask.EU.US.…     what EU asks of US alone (`asking`), answered on a subject below answer.EU.US, where only US may publish:
        head            answered like ack.EU.US, or like that of an earlier position (8 bytes, big endian) if one is named
        range           as rpc.EU.range, of the copy in US
        add-checkpoint  C2SP tlog-witness; the header Witness-Status carries its HTTP status code
        keys            data keys that US has made, encrypted to EU (`keys`); never in a stream
    hint.EU.head    the newest signed head of EU's log with its cosignatures; a later one replaces it
    cmd.EU.US.…     what US asks the processes of EU that take commands (`forwarding`), one of which answers on a subject
                    below reply.EU.US, where only US listens:
        run             a command; Begin-By names the latest moment at which it may begin
        time            how late it is by the clock of whoever answers
"""

import struct
from typing import Annotated, NamedTuple

import msgspec

from replication.errors import FrameError
from replication.frame import NUMBER_MAX

RANGE_EMPTY = "404"  # the log ends before `first`
RANGE_REFUSED = "400"
ERROR_CODE = "Nats-Service-Error-Code"
ERROR_TEXT = "Nats-Service-Error"
LOG_END = "Log-End"
STRETCH_END = "Stretch-End"
SERVER_STATUS, NO_RESPONDERS = "Status", "503"  # said by the NATS server itself, where nobody listens

_RANGE = struct.Struct(">QQ")
_POSITION_BYTES = 8
_DIGITS_MAX = len(str(NUMBER_MAX))


def token(region: str) -> str:
    """A region's name inside NATS, where dots separate: eu.2 → EU_2."""
    return region.upper().replace(".", "_")


def region_of(name: str) -> str:
    """The inverse of `token`: region names contain no underscore."""
    return name.lower().replace("_", ".")


class Realm(NamedTuple):
    """The names in the realm of one origin."""

    origin: str

    @property
    def stream(self) -> str:
        return f"LOG_{token(self.origin)}"

    @property
    def frames(self) -> str:
        return f"log.{token(self.origin)}"

    @property
    def range(self) -> str:
        return f"rpc.{token(self.origin)}.range"

    def copy(self, log: str, verb: str) -> str:
        return f"rpc.{token(self.origin)}.copy.{token(log)}.{verb}"

    @property
    def copies(self) -> str:
        return f"rpc.{token(self.origin)}.copy.*.*"

    @property
    def api(self) -> str:
        return f"$JS.{token(self.origin)}.API"

    def ack(self, peer: str) -> str:
        return f"ack.{token(self.origin)}.{token(peer)}"

    @property
    def acks(self) -> str:
        return f"ack.{token(self.origin)}.*"

    def ask(self, peer: str, verb: str) -> str:
        return f"ask.{token(self.origin)}.{token(peer)}.{verb}"

    def answers(self, peer: str, nonce: str) -> str:
        return f"answer.{token(self.origin)}.{token(peer)}.{nonce}"

    def commands(self, sender: str, verb: str) -> str:
        return f"cmd.{token(self.origin)}.{token(sender)}.{verb}"

    def replies(self, sender: str, nonce: str) -> str:
        return f"reply.{token(self.origin)}.{token(sender)}.{nonce}"

    @property
    def newest_head(self) -> str:
        return f"hint.{token(self.origin)}.head"


class Ack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    Up to `position`, whose leaf (lower-case hex) is `leaf`, the sender's copy is committed. 0: it is empty.

    One that says more confirms nothing here: what a later release adds to it (a promise in a takeover) is never overlooked.
    """

    position: Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
    leaf: Annotated[str, msgspec.Meta(max_length=64)]


encode_ack = msgspec.json.Encoder().encode
decode_ack = msgspec.json.Decoder(Ack).decode


def encode_position(position: int) -> bytes:
    return position.to_bytes(8, "big")


def decode_position(data: bytes) -> int | None:
    """None if none is named, or what is there is no position."""
    position = int.from_bytes(data, "big")
    return position if len(data) == _POSITION_BYTES and position <= NUMBER_MAX else None


def encode_range(first: int, last: int) -> bytes:
    return _RANGE.pack(first, last)


def decode_range(data: bytes) -> tuple[int, int]:
    """From one position to another, neither beyond what a log can have. Raises FrameError."""
    if len(data) != _RANGE.size:
        raise FrameError(f"a range is asked for in {_RANGE.size} bytes, not {len(data)}")
    first, last = _RANGE.unpack(data)
    if not 0 < first <= min(last, NUMBER_MAX):
        raise FrameError(f"there is no range {first} to {last}")
    return first, min(last, NUMBER_MAX)


def decode_number(text: str) -> int | None:
    """What stands in decimal digits, in a header, and PostgreSQL can hold; None if nothing does. (Python reads 4300 digits.)"""
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX):
        return None
    number = int(text)
    return number if number <= NUMBER_MAX else None
