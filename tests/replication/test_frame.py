from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.record import COMMAND_BYTES_MAX
from replication.chain import Head, joined, verify
from replication.errors import Broken, FrameError
from replication.frame import FRAME_BYTES_MAX, Frame, Row, command_part, encode, fill, parse
from tests.replication.regions import body, chained, commands, frame_of
from verifier.log import genesis

GENESIS = genesis("countroom.test/eu")
sizes = st.lists(st.integers(1, 6), min_size=1, max_size=12)


def log_of(command_sizes: list[int], filler: int = 0) -> list[Row]:
    return chained([each for _, bodies in commands("eu", command_sizes, filler=filler) for each in bodies])


def whole(command_sizes: list[int]) -> Frame:
    return frame_of(1, GENESIS, log_of(command_sizes))


@given(sizes)
def test_a_frame_comes_back_as_it_was_encoded(command_sizes: list[int]) -> None:
    frame = whole(command_sizes)
    again = parse(encode(frame))
    assert (again.first, again.prev_leaf) == (frame.first, frame.prev_leaf)
    assert [list(again.recorded), list(again.leaves), list(again.bodies)] == [
        list(frame.recorded),
        list(frame.leaves),
        list(frame.bodies),
    ]
    assert encode(again) == encode(frame)
    verify(again)


@given(sizes, st.data())
def test_a_frame_with_a_flipped_bit_never_enters_the_log(command_sizes: list[int], data: st.DataObject) -> None:
    good = bytearray(encode(whole(command_sizes)))
    good[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((Broken, Gap)):
        offer(Head(0, 0, GENESIS), bytes(good))


class Gap(Exception):
    pass


def offer(head: Head, data: bytes) -> Frame | None:
    """What the applier does with a frame, without its fetching."""
    frame = parse(data)
    verify(frame)
    if frame.first > head.position + 1:
        raise Gap
    return joined(head, frame)


def test_every_single_flipped_byte_of_a_small_frame_is_refused() -> None:
    good = encode(whole([2, 1]))
    for place in range(len(good)):
        with pytest.raises((Broken, Gap)):
            offer(Head(0, 0, GENESIS), good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])


@given(sizes, st.data())
def test_a_frame_that_was_cut_off_or_prolonged_is_refused(command_sizes: list[int], data: st.DataObject) -> None:
    good = encode(whole(command_sizes))
    with pytest.raises(FrameError):
        parse(good[: data.draw(st.integers(0, len(good) - 1))])
    with pytest.raises(FrameError):
        parse(good + data.draw(st.binary(min_size=1, max_size=64)))


@given(st.binary(max_size=300), st.booleans())
def test_any_other_bytes_are_refused_with_a_frame_error(noise: bytes, with_magic: bool) -> None:
    with pytest.raises(FrameError):
        parse((b"CRF\x01" if with_magic else b"") + noise)


def test_a_frame_of_more_than_512_kib_is_neither_made_nor_read() -> None:
    rows = log_of([1] * 10, filler=55_000)
    with pytest.raises(FrameError):
        encode(frame_of(1, GENESIS, rows))
    with pytest.raises(FrameError):
        parse(bytes(FRAME_BYTES_MAX + 1))


def test_a_frame_without_entries_or_beyond_the_last_position_is_refused() -> None:
    good = encode(whole([1]))
    for first, count in ((1, 0), (0, 1), (2**63 - 1, 1), (2**64 - 1, 1)):
        with pytest.raises(FrameError):
            parse(good[:4] + first.to_bytes(8, "big") + good[12:44] + count.to_bytes(4, "big") + good[48:])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(3_000, 9_000))
def test_a_log_is_cut_into_frames_at_whole_commands_only(command_sizes: list[int], bytes_max: int) -> None:
    rows = log_of(command_sizes)
    frames = []
    prev_leaf = GENESIS
    done = 0
    while done < len(rows):
        frame = fill(done + 1, prev_leaf, rows[done:], bytes_max=bytes_max)
        assert frame is not None
        assert len(encode(frame)) <= bytes_max
        verify(frame)
        assert command_part(frame.bodies[0]).i == 1
        last = command_part(frame.bodies[-1])
        assert last.i == last.n
        frames.append(frame)
        done, prev_leaf = frame.last, frame.leaves[-1]
    assert [row for frame in frames for row in zip(frame.recorded, frame.leaves, frame.bodies, strict=True)] == rows


@given(sizes, st.data())
def test_what_follows_the_last_whole_command_waits_for_the_rest(command_sizes: list[int], data: st.DataObject) -> None:
    rows = log_of(command_sizes)
    read = data.draw(st.integers(0, len(rows)))
    frame = fill(1, GENESIS, rows[:read])
    ends = [sum(command_sizes[: i + 1]) for i in range(len(command_sizes))]
    assert (frame.last if frame else 0) == max((end for end in ends if end <= read), default=0)


def test_a_frame_cannot_begin_within_a_command() -> None:
    rows = log_of([3])
    with pytest.raises(FrameError):
        fill(2, rows[0][1], rows[1:])


def test_the_largest_command_fits_into_one_frame() -> None:
    smallest = len(body("eu", "a", 1, bytes(16), 1, 1))
    events = COMMAND_BYTES_MAX // smallest
    bodies = [body("eu", "a", i, bytes(16), i, events) for i in range(1, events + 1)]
    while sum(map(len, bodies)) > COMMAND_BYTES_MAX:
        bodies = [body("eu", "a", i, bytes(16), i, len(bodies) - 1) for i in range(1, len(bodies))]
    frame = fill(1, GENESIS, chained(bodies))
    assert frame is not None
    assert len(frame) == len(bodies)
    assert len(encode(frame)) < FRAME_BYTES_MAX


def test_a_command_larger_than_a_frame_is_refused_rather_than_waited_for() -> None:
    with pytest.raises(FrameError):
        fill(1, GENESIS, log_of([9]), bytes_max=1_000)


@pytest.mark.parametrize(
    "bad", [b"", b"{}", b"[]", b'{"command":{"id":"a","i":"1","n":1}}', b'{"command":{"id":"a","i":1}}', b"\xff" * 30,
            b'{"command":' + b"[" * 50_000]
)  # fmt: skip
def test_a_body_that_names_no_command_is_refused(bad: bytes) -> None:
    with pytest.raises(FrameError):
        command_part(bad)
