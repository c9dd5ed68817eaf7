"""
What can be wrong with a log: every reason has a code for machines, which never changes, and a sentence for people.

Invariant: a fault is a statement about the log. That the log could not be read is never a fault, it is
`CouldNotCheck`.
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
    OWNERSHIP_INVALID = "ownership_invalid"  # it releases what the log does not own, or adopts what it does
    VERSION_GAP = "version_gap"

    # The end of the log.
    COMMAND_UNFINISHED = "command_unfinished"
    HEAD_MISMATCH = "head_mismatch"  # the log does not end as its keeper announced

    # What the log's keeper signed: the heads, in the order of their sizes, once the entries are in order.
    HEAD_MALFORMED = "head_malformed"  # it is no signed checkpoint, or not of the size under which it is kept
    HEAD_FOREIGN = "head_foreign"  # a head of another log
    HEAD_BEYOND_LOG = "head_beyond_log"  # entries that were signed are missing at the end
    ROOT_MISMATCH = "root_mismatch"  # what was signed is not how the log begins
    SIGNATURE_FALSE = "signature_false"  # it claims to be of a trusted key, and is not
    HEAD_UNSIGNED = "head_unsigned"  # by no trusted key of this log
    KEY_RETIRED = "key_retired"  # signed only by a key that was no longer to be used
    ROTATION_INVALID = "rotation_invalid"  # a change of keys that the two keys did not both sign
    RECORDED_IMPLAUSIBLE = "recorded_implausible"  # witnesses saw the log reach this entry at another time

    # Files of a log (C2SP tlog-tiles).
    TILE_MALFORMED = "tile_malformed"  # a tile, or a bundle of entries, has another form than its path says

    # Entries that were chosen out of a log.
    PROOF_FALSE = "proof_false"  # an entry does not lead to the root that was signed

    # What is kept beside a log. The log may be in order then, but what readers are shown is not it.
    TILE_DIFFERS = "tile_differs"  # a tile of hashes is not that of the log's tree
    SUBTREE_DIFFERS = "subtree_differs"  # the same in a database
    INDEX_DIFFERS = "index_differs"  # a column or a snapshot of a database is not what the entry says

    # Several logs.
    ADOPTION_FALSE = "adoption_false"  # it adopts what the other log has not released to it there

    # Several copies of one log.
    COPIES_DIFFER = "copies_differ"  # a fork, or a rewritten suffix: at least one keeper is wrong


class CouldNotCheck(Exception):
    """Nothing is known about the log, neither good nor bad, and why."""


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

    @property
    def order(self) -> tuple[int, int]:
        """By which the first of several is found."""
        return self.position, list(Reason).index(self.reason)

    def to_json(self) -> dict[str, object]:
        return {"position": self.position, "reason": self.reason.value, "detail": self.detail}


class Found(Exception):
    """What is shown as a log is wrong here. Behind it nothing can be said."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


def quoted(value: object) -> str:
    """Text from a log, safe to print: what an unknown hand wrote must not steer the regulator's terminal."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line of a terminal
