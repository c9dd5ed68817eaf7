"""A log with one thing wrong is not intact, and the verifier names the place and the reason."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verifier.logs import (
    ORIGIN,
    STARTED,
    Entry,
    chain,
    command_id,
    compact,
    event,
    event_id,
    hash_leaf,
    opening,
    region_event,
    small_log,
    stream,
)
from verifier.faults import Reason
from verifier.log import Report, verify


def check(entries: Iterable[Entry], **options: Any) -> Report:
    return verify(entries, origin=ORIGIN, **options)


def test_an_intact_log_is_intact() -> None:
    entries = small_log(40)
    report = check(entries, head=(40, entries[-1][2]))
    assert report == Report(
        log="eu",
        origin=ORIGIN,
        position=40,
        leaf=entries[-1][2].hex(),
        entries=40,
        intact=True,
        fault=None,
        not_counted=0,
        recorded_first_us=STARTED + 1,
        recorded_last_us=STARTED + 40,
    )
    assert check(entries, streams=False) == report


# Every reason, planted: what the source gives, and where the fault is to be found.

Plant = tuple[Reason, int, Callable[[], list[Entry]]]


def bodies(*more: dict[str, Any] | bytes) -> Callable[[], list[Entry]]:
    """A log of three good entries, then these."""
    return lambda: chain([opening(), event(2, 1), event(3, 1, of=2), *more])


def text(raw: bytes) -> Callable[[], list[Entry]]:
    return bodies(compact(event(4, 2, data={"money": 1250})).replace(b"1250", raw))


def tampered(position: int, change: Callable[[Entry], Entry]) -> Callable[[], list[Entry]]:
    """A log whose keeper changed one entry, and nothing else."""
    return lambda: [change(entry) if entry[0] == position else entry for entry in small_log()]


def rehashed(entry: bytes) -> Entry:
    return int.from_bytes(entry[32:40], "big"), entry, hash_leaf(entry)


def without(member: str, body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != member}


PLANTED: list[Plant] = [
    (Reason.POSITION_GAP, 5, lambda: [entry for entry in small_log() if entry[0] != 5]),
    (Reason.POSITION_GAP, 1, lambda: small_log()[1:]),
    (Reason.POSITION_GAP, 3, lambda: [*small_log()[:2], *small_log()]),
    (Reason.ENTRY_TOO_SHORT, 5, tampered(5, lambda e: (5, e[1][:47], e[2]))),
    (Reason.ENTRY_TOO_SHORT, 5, tampered(5, lambda e: (5, b"", e[2]))),
    (Reason.POSITION_MISMATCH, 5, tampered(5, lambda e: (5, *rehashed(e[1][:39] + b"\x06" + e[1][40:])[1:]))),
    (Reason.PREV_LEAF_MISMATCH, 5, tampered(5, lambda e: rehashed(bytes(32) + e[1][32:]))),
    (Reason.PREV_LEAF_MISMATCH, 6, tampered(5, lambda e: rehashed(e[1].replace(b"settings", b"sittings")))),
    (Reason.PREV_LEAF_MISMATCH, 1, lambda: chain([opening()], origin="countroom.other/eu")),
    (Reason.LEAF_MISMATCH, 5, tampered(5, lambda e: (5, e[1].replace(b"settings", b"sittings"), e[2]))),
    (Reason.LEAF_MISMATCH, 5, tampered(5, lambda e: (5, e[1], bytes(32)))),
    (
        Reason.RECORDED_NOT_INCREASING,
        5,
        tampered(5, lambda e: rehashed(e[1][:40] + small_log()[3][1][40:48] + e[1][48:])),
    ),
    (Reason.BODY_TOO_LONG, 4, bodies(event(4, 2, data={"text": "a" * 61_440}))),
    (Reason.BODY_NOT_UTF8, 4, text(b'"\xff"')),
    (Reason.BODY_TOO_DEEP, 4, text(b"[" * 100 + b"]" * 100)),
    (Reason.BODY_NOT_JSON, 4, text(b"x")),
    (Reason.BODY_NOT_JSON, 4, bodies(b"")),
    (Reason.BODY_FLOAT, 4, text(b"12.50")),
    (Reason.BODY_INTEGER_OUT_OF_RANGE, 4, text(b"9007199254740992")),
    (Reason.BODY_DUPLICATE_KEY, 4, text(b'1,"money":2')),
    (Reason.BODY_NOT_UNICODE, 4, text(b'"\\ud800"')),
    (Reason.BODY_NOT_OBJECT, 4, bodies(b"[]")),
    (Reason.MEMBER_MISSING, 4, bodies(without("actor", event(4, 2)))),
    (Reason.MEMBER_MALFORMED, 4, bodies(event(4, 2, id=event_id(4).upper()))),
    (Reason.STREAM_MALFORMED, 4, bodies(event(4, 1, stream="wallet-1"))),
    (Reason.PARTITION_MISSING, 4, bodies(without("partition", event(4, 2)))),
    (Reason.PARTITION_MISSING, 4, bodies(without("epoch", event(4, 2)))),
    (Reason.PARTITION_MISMATCH, 4, bodies(event(4, 2, partition=43))),
    (Reason.PARTITION_MISMATCH, 4, bodies(event(4, 1, of=3, partition=43))),
    (Reason.REGION_STREAM_FOREIGN, 4, bodies(region_event(4, 1, region="us"))),
    (Reason.REGION_STREAM_PARTITION, 4, bodies(region_event(4, 1, partition=42, epoch=1))),
    (Reason.REGION_STREAM_PARTITION, 5, bodies(region_event(4, 1), region_event(5, 2, partition=42, epoch=1))),
    (Reason.NOT_OPENED, 1, lambda: chain([event(1, 1)])),
    (Reason.NOT_OPENED, 1, lambda: chain([region_event(1, 1)])),
    (Reason.NOT_OPENED, 1, lambda: chain([opening(stream=stream(1), partition=42, epoch=1)])),
    (Reason.NOT_OPENED, 1, list),
    (Reason.OPENED_AGAIN, 4, bodies(opening(version=2))),
    (Reason.ORIGIN_MISMATCH, 1, lambda: chain([opening(data={**opening()["data"], "origin": "countroom.test/us"})])),
    (Reason.MEMBER_MISSING, 1, lambda: chain([opening(data=without("origin", opening()["data"]))])),
    (Reason.MEMBER_MALFORMED, 1, lambda: chain([opening(data={**opening()["data"], "epoch": 2})])),
    (Reason.MEMBER_MALFORMED, 1, lambda: chain([opening(data={**opening()["data"], "epoch": True})])),
    *(
        (Reason.MEMBER_MALFORMED, 1, lambda wrong=wrong: chain([opening(partitions=wrong)]))
        for wrong in ({}, [1], [[1]], [[0, 256]], [[-1, 0]], [[2, 1]], [[0, True]], [["0", "1"]], [[0, 1, 2]])
    ),
    (Reason.COMMAND_BROKEN, 4, bodies(event(4, 2, i=2, n=2))),
    (Reason.COMMAND_BROKEN, 5, bodies(event(4, 2, i=1, n=2), event(5, 3))),
    (Reason.COMMAND_BROKEN, 5, bodies(event(4, 2, i=1, n=2), event(5, 3, i=1, n=2))),
    (Reason.COMMAND_BROKEN, 5, bodies(event(4, 2, i=1, n=3), event(5, 3, i=3, n=3))),
    (Reason.COMMAND_BROKEN, 5, bodies(event(4, 2, i=1, n=3), event(5, 3, i=2, n=2))),
    (Reason.COMMAND_BROKEN, 5, bodies(event(4, 2, i=1, n=2), event(6, 3, i=2, n=2))),
    (Reason.COMMAND_BROKEN, 5, bodies(event(4, 2), event(4, 3, i=2, n=2))),
    (
        Reason.COMMAND_SPANS_PARTITIONS,
        6,
        bodies(
            event(4, 2, i=1, n=3),
            region_event(5, 1, command={"id": command_id(4), "i": 2, "n": 3}),
            event(6, 1, i=3, n=3, stream=stream(1, 43), partition=43),
        ),
    ),
    (
        Reason.COMMAND_SPANS_PARTITIONS,
        6,
        bodies(
            region_event(4, 1, command={"id": command_id(4), "i": 1, "n": 3}),
            event(5, 2, i=2, n=3),
            event(6, 1, i=3, n=3, stream=stream(1, 43), partition=43),
        ),
    ),
    (Reason.VERSION_GAP, 4, bodies(event(4, 3))),
    (Reason.VERSION_GAP, 4, bodies(event(4, 1))),
    (Reason.VERSION_GAP, 4, bodies(event(4, 2, of=3))),
    (Reason.VERSION_GAP, 4, bodies(region_event(4, 2))),
    (Reason.VERSION_GAP, 4, bodies(region_event(4, 1, kind="log"))),
    (Reason.COMMAND_UNFINISHED, 4, bodies(event(4, 2, i=1, n=2))),
    (Reason.COMMAND_UNFINISHED, 5, bodies(event(4, 2, i=1, n=3), event(5, 3, i=2, n=3))),
]


@pytest.mark.parametrize(("reason", "position", "plant"), PLANTED, ids=[f"{p[0]}-{k}" for k, p in enumerate(PLANTED)])
def test_a_planted_fault_is_found(reason: Reason, position: int, plant: Callable[[], list[Entry]]) -> None:
    report = check(plant())
    assert report.fault is not None
    assert (report.fault.reason, report.fault.position) == (reason, position), report.fault.detail
    assert not report.intact
    assert report.fault.detail.isascii()
    assert report.fault.detail.isprintable()
    at_the_end = reason is Reason.COMMAND_UNFINISHED
    assert report.position == report.entries == (position if at_the_end else position - 1)


def test_every_reason_has_been_planted() -> None:
    elsewhere = {  # below, in test_cli, test_tiled, test_signed, test_export, and tests/app/test_verify
        *(Reason.HEAD_MISMATCH, Reason.COPIES_DIFFER),
        *(Reason.TILE_MALFORMED, Reason.TILE_DIFFERS, Reason.SUBTREE_DIFFERS, Reason.INDEX_DIFFERS),
        *(Reason.HEAD_MALFORMED, Reason.HEAD_FOREIGN, Reason.HEAD_BEYOND_LOG, Reason.ROOT_MISMATCH),
        *(Reason.SIGNATURE_FALSE, Reason.HEAD_UNSIGNED, Reason.KEY_RETIRED, Reason.ROTATION_INVALID),
        *(Reason.RECORDED_IMPLAUSIBLE, Reason.PROOF_FALSE),
        *(Reason.OWNERSHIP_INVALID, Reason.ADOPTION_FALSE),  # in test_terms
    }
    assert {reason for reason, _, _ in PLANTED} == set(Reason) - elsewhere


@pytest.mark.parametrize("streams", [True, False])
def test_versions_are_compared_unless_that_is_switched_off(streams: bool) -> None:
    assert check(bodies(event(4, 7))(), streams=streams).intact is not streams


@pytest.mark.parametrize("head", [(11, 11), (12, 11), (13, 12), (11, 12)])
def test_a_log_that_does_not_end_as_announced_is_not_intact(head: tuple[int, int]) -> None:
    entries = small_log(12)
    position, leaf_of = head
    report = check(entries, head=(position, entries[leaf_of - 1][2]))
    assert report.fault is not None
    assert (report.fault.reason, report.fault.position) == (Reason.HEAD_MISMATCH, 12)


def test_a_byte_flipped_anywhere_is_found_where_it_is() -> None:
    entries = small_log(5)  # an opening, events alone and in a command, and a region's own
    for index, (position, entry, leaf) in enumerate(entries):
        for at in range(len(entry)):
            flipped = entry[:at] + bytes([entry[at] ^ 1 << at % 8]) + entry[at + 1 :]
            fault = check([*entries[:index], (position, flipped, leaf)]).fault
            assert fault is not None
            assert fault.position == position
        for at in range(32):
            flipped = leaf[:at] + bytes([leaf[at] ^ 0x01]) + leaf[at + 1 :]
            fault = check([*entries[:index], (position, entry, flipped)]).fault
            assert fault is not None
            assert (fault.position, fault.reason) == (position, Reason.LEAF_MISMATCH)


def test_a_byte_flipped_and_its_leaf_recomputed_is_found_at_the_next_entry_at_the_latest() -> None:
    entries = small_log(6)
    for index, (position, entry, _) in enumerate(entries[:-1]):
        for at in range(len(entry)):
            flipped = entry[:at] + bytes([entry[at] ^ 0x01]) + entry[at + 1 :]
            fault = check([*entries[:index], (position, flipped, hash_leaf(flipped)), entries[index + 1]]).fault
            assert fault is not None
            assert fault.position in {position, position + 1}


@given(st.permutations(range(12)), st.integers(0, 12))
def test_entries_removed_or_moved_are_found(order: list[int], kept: int) -> None:
    entries = small_log()
    shown = [entries[index] for index in order[:kept]]
    report = check(shown)
    in_place = next((k for k, index in enumerate(order[:kept]) if k != index), kept)
    if in_place == kept and kept not in {0, 3}:  # a prefix of whole commands; its missing tail cannot be known
        assert report.intact
    else:
        assert report.fault is not None
        assert report.position == in_place


# Ownership.


def test_entries_on_partitions_that_the_log_does_not_own_are_no_fault_and_do_not_count() -> None:
    foreign = {"stream": stream(1, 200), "partition": 200}
    report = check(
        chain(
            [
                opening(partitions=[[0, 42], [100, 127]]),
                event(2, 1),
                event(3, 1, **foreign),
                event(4, 9, **foreign),  # continues elsewhere
                event(5, 7, epoch=2),  # of an epoch that the log never had
                event(6, 2),
                event(7, 1, stream=stream(1, 43), partition=43),
            ]
        )
    )
    assert report.intact, report.fault
    assert report.not_counted == 4


def test_a_log_may_own_nothing_yet_keep_its_own_streams() -> None:
    report = check(chain([opening(partitions=[]), region_event(2, 1), region_event(3, 2)]))
    assert report.intact
    assert report.not_counted == 0


def test_a_successor_finds_streams_that_have_begun_but_not_its_own() -> None:
    origin = "countroom.test/eu.2"
    opened = opening(origin, data={**opening(origin)["data"], "predecessor": {"log": "eu", "leaf": "00"}})
    going_on = [event(2, 5), event(3, 6)]
    assert verify(chain([opened, *going_on], origin), origin=origin).intact
    for wrong in ([*going_on, event(4, 8)], [region_event(2, 5, region="eu.2")]):
        report = verify(chain([opened, *wrong], origin), origin=origin)
        assert report.fault is not None
        assert report.fault.reason is Reason.VERSION_GAP


def test_what_is_no_origin_is_refused() -> None:
    with pytest.raises(ValueError, match="is not an origin"):
        verify([], origin="eu")


def test_a_source_that_fails_is_not_a_log_that_is_wrong() -> None:
    def failing() -> Iterable[Entry]:
        yield from small_log()[:2]
        raise OSError

    with pytest.raises(OSError):
        check(failing())


def test_a_rewritten_suffix_of_a_single_source_cannot_be_known() -> None:
    """The limit that the documentation admits, behind the newest signed head."""
    assert check(chain([opening(), event(2, 1, data={"rewritten": True})])).intact
