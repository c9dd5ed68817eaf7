"""
Reads the body of an entry: the JSON that records one event, with who, when and why around it.

What must be there, and how it must look, is said in docs/reference/record-format.md. Nothing here
depends on the entries before: that is `verifier.book`.

This is the law, and not fast; `verifier.quick` learns from it what may be waved through.

Invariant: a member that the format does not name is no fault, so that a later version of the product may add one.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from verifier import ijson
from verifier.faults import Broken, Reason, quoted

BODY_BYTES_MAX = 60 * 1024
PARTITIONS = 256

_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"  # TypeID's alphabet (Crockford's, lower case)
_SUFFIX = f"[0-7][{_BASE32}]{{25}}"  # 128 bits in 26 digits of 5 bits: the first digit has two bits to spare
_REGION = r"[a-z][a-z0-9]*(?:\.[1-9][0-9]*)?"
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
HEX128 = re.compile(r"[0-9a-f]{32}")
TAG = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)+")
STREAM = re.compile(rf"(?!region-)[a-z][a-z_]*-{_SUFFIX}")
_REGION_STREAM = re.compile(rf"region-({_REGION})-[a-z][a-z0-9-]*(?:_{_SUFFIX})?")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_RFC3339 = re.compile(
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)

# The partition of a stream by the last two characters of its name: the last byte of the UUID.
PARTITION_OF_ENDING = {
    high + low: (32 * i + j) % PARTITIONS for i, high in enumerate(_BASE32) for j, low in enumerate(_BASE32)
}

MANDATORY = ("stream", "version", "type", "id", "actor", "command", "data")
OPTIONAL = {  # members that are omitted rather than null: form, and what to call it
    "claims": (HEX128, "the id of a command in lower-case hex"),
    "occurred": (_RFC3339, "an RFC 3339 time"),
    "cause": (UUID7, "the id of an event"),
    "trace": (_TRACEPARENT, "a W3C traceparent"),
}

Facts = tuple[str, int, str, int | None, int | None, str, int, int]
"""
What a body says about itself: stream, version, type, partition, epoch (both None on a region's own stream), the
command's id, i and n. A plain tuple, for one is made for every entry.
"""

Columns = tuple[
    Sequence[str],
    Sequence[int],
    Sequence[str],
    Sequence[int | None],
    Sequence[int | None],
    Sequence[str],
    Sequence[int],
    Sequence[int],
]
"""The facts of many bodies, each fact by itself."""


def read(body: bytes) -> Facts:
    """The facts of a body. Raises Broken. Whether its stream may bear that name is left to `check_stream`."""
    if len(body) > BODY_BYTES_MAX:
        raise Broken(Reason.BODY_TOO_LONG, f"the body has {len(body)} bytes, of at most {BODY_BYTES_MAX}")
    members = ijson.read(body)
    stream, version, tag, event_id, actor, command, data = _required(members, MANDATORY, "the body")
    _demand(isinstance(stream, str), "/stream", stream, "a text")
    _demand(_is_count(version), "/version", version, "an integer from 1")
    _demand(_fits(TAG, tag), "/type", tag, "an event's tag, such as 'wallet.debited'")
    _demand(_fits(UUID7, event_id), "/id", event_id, "a UUIDv7 in lower case")
    _demand(isinstance(actor, str) and actor != "", "/actor", actor, "a text that is not empty")
    _demand(isinstance(command, dict), "/command", command, "an object")
    command_id, i, n = _read_command(command)
    _demand(isinstance(data, dict), "/data", data, "an object")
    for name, (form, called) in OPTIONAL.items():
        _demand(name not in members or _fits(form, members[name]), f"/{name}", members.get(name), called)
    partition, epoch = members.get("partition"), members.get("epoch")
    _demand("partition" not in members or _is_partition(partition), "/partition", partition, "an integer from 0 to 255")
    _demand("epoch" not in members or _is_count(epoch), "/epoch", epoch, "an integer from 1")
    return stream, version, tag, partition, epoch, command_id, i, n


def _read_command(command: dict[str, Any]) -> tuple[str, int, int]:
    command_id, i, n = _required(command, ("id", "i", "n"), "the body's 'command'")
    _demand(_fits(HEX128, command_id), "/command/id", command_id, "32 digits of lower-case hex")
    _demand(_is_count(n), "/command/n", n, "an integer from 1")
    _demand(_is_count(i) and i <= n, "/command/i", i, f"an integer from 1 to {n}")
    if "fingerprint" in command:
        fingerprint = command["fingerprint"]
        _demand(_fits(HEX128, fingerprint), "/command/fingerprint", fingerprint, "32 digits of lower-case hex")
    return command_id, i, n


def check_stream(stream: str, partition: int | None, epoch: int | None, region: str) -> None:
    """Check a stream's name, and that partition and epoch suit it, in the log of `region`. Raises Broken."""
    if stream.startswith("region-"):
        match = _REGION_STREAM.fullmatch(stream)
        if match is None:
            raise Broken(Reason.STREAM_MALFORMED, f"{quoted(stream)} is not the name of a region's own stream")
        if match.group(1) != region:
            raise Broken(Reason.REGION_STREAM_FOREIGN, f"{quoted(stream)} stands in the log of region {region!r}")
    check_form(stream, partition, epoch)
    if partition is not None and partition != PARTITION_OF_ENDING[stream[-2:]]:
        raise Broken(
            Reason.PARTITION_MISMATCH,
            f"{quoted(stream)} is of partition {PARTITION_OF_ENDING[stream[-2:]]}, but the body says {partition}",
        )


def check_form(stream: str, partition: int | None, epoch: int | None) -> None:
    """Check what can be said of a stream with a look at its name only, for any region. Raises Broken."""
    if stream.startswith("region-"):
        if partition is not None or epoch is not None:
            raise Broken(
                Reason.REGION_STREAM_PARTITION, f"{quoted(stream)} is a region's own, yet has a partition or an epoch"
            )
        return
    if not STREAM.fullmatch(stream):
        raise Broken(Reason.STREAM_MALFORMED, f"{quoted(stream)} is not the name of a stream")
    if partition is None or epoch is None:
        raise Broken(Reason.PARTITION_MISSING, f"the event on {quoted(stream)} has no partition or no epoch")


def region_of(origin: str) -> str | None:
    """The region of an origin, countroom.<deployment>/<region>; None when the text is no origin."""
    match = re.fullmatch(rf"countroom\.[!-.0-~]+/({_REGION})", origin)
    return match.group(1) if match else None


def _fits(form: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def _is_count(value: Any) -> bool:
    # By its exact type: Python counts true and false among the integers; JSON does not.
    return type(value) is int and value >= 1


def _is_partition(value: Any) -> bool:
    return type(value) is int and 0 <= value < PARTITIONS


def _required(members: dict[str, Any], names: Iterable[str], where: str) -> list[Any]:
    for name in names:
        if name not in members:
            raise Broken(Reason.MEMBER_MISSING, f"{where} has no member {name!r}")
    return [members[name] for name in names]


def _demand(holds: bool, pointer: str, value: object, wanted: str) -> None:
    if not holds:
        raise Broken(Reason.MEMBER_MALFORMED, f"the body's member {pointer} is {quoted(value)}, not {wanted}")
