from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication import chain
from replication.chain import Cursor, Head, joined, overlap, start_sequence, verify
from replication.errors import Broken, Mismatch
from replication.frame import Frame, Row, command_part, encode, fill, parse
from tests.replication.regions import body, chained, commands, frame_of
from verifier.log import genesis, leaf

GENESIS = genesis("countroom.test/eu")
NOTHING = Head(0, 0, GENESIS)
LOG = chained([each for _, bodies in commands("eu", [1, 2, 1, 3, 1, 1, 4, 1, 2, 1] * 2) for each in bodies])
ENDS = [0, *(p for p, (_, _, b) in enumerate(LOG, 1) if (part := command_part(b)).i == part.n)]


def piece(start: int, end: int) -> Frame:
    """The frame of the entries after `start` up to `end`."""
    return frame_of(start + 1, LOG[start - 1][1] if start else GENESIS, LOG[start:end])


class Copy:
    """The applier without PostgreSQL and NATS: it takes what is right, skips what it has, and halts at what is wrong."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.halted = False

    @property
    def head(self) -> Head:
        return Head(len(self.rows), self.rows[-1][0], self.rows[-1][1]) if self.rows else NOTHING

    def receive(self, data: bytes) -> None:
        if self.halted:
            return
        try:
            frame = parse(data)
            verify(frame)
            if frame.first > self.head.position + 1:
                return  # a gap: the applier would fetch what is missing
            held = [GENESIS, *(row[1] for row in self.rows)]
            positions = overlap(self.head, frame)
            news = joined(self.head, frame, [held[position] for position in positions])
        except Broken:
            self.halted = True
            return
        if news is not None:
            self.rows += zip(news.recorded, news.leaves, news.bodies, strict=True)


pieces = st.tuples(st.sampled_from(ENDS), st.sampled_from(ENDS)).filter(lambda p: p[0] < p[1]).map(lambda p: piece(*p))


@st.composite
def deliveries(draw: st.DrawFn) -> list[bytes]:
    """Frames cut anywhere, in any order, repeated, missing, and some of them corrupted."""
    made = []
    for frame in draw(st.lists(pieces, max_size=15)):
        data = encode(frame)
        if draw(st.integers(0, 9)) == 0:
            place = draw(st.integers(0, len(data) - 1))
            data = data[:place] + bytes([data[place] ^ draw(st.integers(1, 255))]) + data[place + 1 :]
        made.append(data)
    return made


@given(deliveries())
def test_whatever_is_delivered_a_copy_is_a_beginning_of_the_log_at_a_whole_command(delivered: list[bytes]) -> None:
    copy = Copy()
    for data in delivered:
        copy.receive(data)
    assert copy.rows == LOG[: len(copy.rows)]
    assert len(copy.rows) in ENDS


@given(st.lists(pieces, max_size=15))
def test_honest_frames_never_halt_a_copy(delivered: list[Frame]) -> None:
    copy = Copy()
    for frame in delivered:
        copy.receive(encode(frame))
    assert not copy.halted
    assert copy.rows == LOG[: len(copy.rows)]


@given(st.lists(st.sampled_from(ENDS), max_size=6))
def test_after_any_repetitions_the_next_frame_is_taken(cuts: list[int]) -> None:
    copy = Copy()
    for end in [*cuts, ENDS[-1]]:
        if end:
            copy.receive(encode(piece(0, end)))
    assert copy.rows == LOG


def test_the_property_above_finds_a_planted_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that believes the leaf it is told lets a changed body in: the tests here would notice."""
    forged = bytearray(encode(piece(0, ENDS[3])))
    forged[forged.index(b"test.happened") + 5] ^= 1
    copy = Copy()
    copy.receive(bytes(forged))
    assert copy.halted
    claims = iter([row[1] for row in LOG])
    monkeypatch.setattr(chain, "leaf_of", lambda *_: next(claims))
    copy = Copy()
    copy.receive(bytes(forged))
    assert copy.rows
    assert copy.rows != LOG[: len(copy.rows)]


def test_a_frame_that_forks_off_is_refused_and_named() -> None:
    copy = Copy()
    copy.receive(encode(piece(0, ENDS[2])))
    other = chained([each for _, bodies in commands("eu", [1] * 9, kind=f"other_{1:026}") for each in bodies])
    with pytest.raises(Mismatch, match="fork: position 1 "):
        joined(copy.head, frame_of(1, GENESIS, other), [GENESIS, *(row[1] for row in copy.rows)])
    with pytest.raises(Mismatch, match=f"fork: position {ENDS[2]} "):
        joined(copy.head, frame_of(ENDS[2] + 1, other[ENDS[2] - 1][1], other[ENDS[2] :]))


def test_a_log_of_another_origin_is_refused_at_its_first_entry() -> None:
    rows = chained([row[2] for row in LOG], origin="countroom.test/us")
    frame = frame_of(1, genesis("countroom.test/us"), rows)
    verify(frame)
    with pytest.raises(Mismatch, match="fork: position 0 "):
        joined(NOTHING, frame)


def rechained(rows: list[Row], first: int, prev_leaf: bytes) -> list[Row]:
    made = []
    for position, (recorded, _, each) in enumerate(rows, first):
        prev_leaf = leaf(prev_leaf, position, recorded, each)
        made.append((recorded, prev_leaf, each))
    return made


def test_time_that_stands_still_is_refused_within_a_frame_and_between_frames() -> None:
    rows = [(LOG[0][0], b"", each) for _, _, each in LOG[: ENDS[3]]]
    with pytest.raises(Mismatch, match="recorded"):
        verify(frame_of(1, GENESIS, rechained(rows, 1, GENESIS)))
    head = Head(ENDS[1], LOG[ENDS[1] - 1][0], LOG[ENDS[1] - 1][1])
    second = frame_of(
        ENDS[1] + 1, head.leaf, rechained([(head.recorded, b"", LOG[ENDS[1]][2])], ENDS[1] + 1, head.leaf)
    )
    with pytest.raises(Mismatch, match="recorded"):
        joined(head, second)


ONE, TWO = bytes([1]) * 16, bytes([2]) * 16


@pytest.mark.parametrize(
    "parts",
    [
        [(ONE, 1, 2)],
        [(ONE, 2, 2)],
        [(ONE, 1, 3), (ONE, 2, 3)],
        [(ONE, 1, 2), (TWO, 2, 2)],
        [(ONE, 1, 2), (ONE, 2, 3), (ONE, 3, 3)],
        [(ONE, 1, 3), (ONE, 3, 3)],
        [(ONE, 1, 1), (ONE, 2, 2)],
        [(ONE, 0, 1)],
        [(ONE, 1, 0)],
        [(ONE, 1, -1)],
    ],
)
def test_a_split_command_is_refused(parts: list[tuple[bytes, int, int]]) -> None:
    rows = chained([body("eu", "a", version, *part) for version, part in enumerate(parts, 1)])
    with pytest.raises(Mismatch, match="whole"):
        verify(frame_of(1, GENESIS, rows))


@given(st.integers(2, len(ENDS) - 1))
def test_the_rest_of_a_frame_after_any_command_is_a_frame(place: int) -> None:
    rest = piece(0, ENDS[-1]).after(ENDS[place - 1])
    verify(rest)
    assert encode(rest) == encode(piece(ENDS[place - 1], ENDS[-1]))


def test_a_first_copy_reads_the_stream_from_its_beginning() -> None:
    assert start_sequence(None, "now", 40) == 1


def test_a_copy_goes_on_after_its_cursor() -> None:
    assert start_sequence(Cursor("now", 30), "now", 40) == 31


def test_of_a_stream_made_anew_the_newest_frame_is_enough() -> None:
    assert start_sequence(Cursor("before", 30), "now", 40) == 40
    assert start_sequence(Cursor("before", 30), "now", 0) == 1


def test_a_stream_that_lost_its_tail_is_read_from_its_end() -> None:
    assert start_sequence(Cursor("now", 30), "now", 25) == 26


def test_filling_and_parsing_agree_with_the_log() -> None:
    frame = fill(1, GENESIS, LOG)
    assert frame is not None
    assert frame.last == len(LOG)
