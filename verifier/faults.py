"""
What can be wrong with a log: every reason has a code for machines, which never changes, and a sentence for people.

Invariant: a fault is a statement about the log. That the log could not be read is never a fault, it is
`verifier.source.CouldNotCheck`.
"""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """
    Why a log is not intact, in the order in which an entry is checked: the first that applies is reported.

    What is wrong with the JSON of a body is reported in the order of its text.
    """

    # The chain.
    POSITION_GAP = "position_gap"  # the source skips, repeats or reorders positions
    ENTRY_TOO_SHORT = "entry_too_short"  # fewer bytes than previous leaf, position and time take
    POSITION_MISMATCH = "position_mismatch"  # the entry was hashed for another position
    PREV_LEAF_MISMATCH = "prev_leaf_mismatch"  # the entry was hashed behind another entry, or in another log
    LEAF_MISMATCH = "leaf_mismatch"  # the stored bytes are not the ones that were hashed
    RECORDED_NOT_INCREASING = "recorded_not_increasing"

    # The body by itself: I-JSON.
    BODY_TOO_LONG = "body_too_long"
    BODY_NOT_UTF8 = "body_not_utf8"
    BODY_TOO_DEEP = "body_too_deep"
    BODY_NOT_JSON = "body_not_json"
    BODY_FLOAT = "body_float"
    BODY_INTEGER_OUT_OF_RANGE = "body_integer_out_of_range"
    BODY_DUPLICATE_KEY = "body_duplicate_key"
    BODY_NOT_UNICODE = "body_not_unicode"  # a surrogate or noncharacter: no two readers agree on what it says
    BODY_NOT_OBJECT = "body_not_object"

    # The body by itself: its members.
    MEMBER_MISSING = "member_missing"
    MEMBER_MALFORMED = "member_malformed"
    STREAM_MALFORMED = "stream_malformed"
    PARTITION_MISSING = "partition_missing"
    PARTITION_MISMATCH = "partition_mismatch"  # not the partition that the stream's name says
    REGION_STREAM_FOREIGN = "region_stream_foreign"  # a region's own stream in the log of another region
    REGION_STREAM_PARTITION = "region_stream_partition"  # a region's own stream belongs to no partition

    # The body in its place.
    NOT_OPENED = "not_opened"
    OPENED_AGAIN = "opened_again"
    ORIGIN_MISMATCH = "origin_mismatch"
    COMMAND_BROKEN = "command_broken"  # the events of a command are not all there, in order and side by side
    COMMAND_SPANS_PARTITIONS = "command_spans_partitions"
    VERSION_GAP = "version_gap"

    # The end of the log.
    COMMAND_UNFINISHED = "command_unfinished"
    HEAD_MISMATCH = "head_mismatch"  # the log does not end as its keeper announced

    # Several copies of one log.
    COPIES_DIFFER = "copies_differ"  # a fork, or a rewritten suffix: at least one keeper is wrong


class Broken(Exception):
    """The entry under examination breaks a rule. Whoever counts positions turns it into a `Fault`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing that is wrong with a log, and where."""

    position: int
    reason: Reason
    detail: str

    def to_json(self) -> dict[str, object]:
        return {"position": self.position, "reason": self.reason.value, "detail": self.detail}


def quoted(value: object) -> str:
    """Text from a log, safe to print: what an unknown hand wrote must not steer the regulator's terminal."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line of a terminal
