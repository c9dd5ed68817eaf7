"""
Every event that was ever shipped still folds: tests/vectors/events/ holds one for each tag, as it was stored.

The files are append-only. A new tag lands with its file: {"tag", "recorded" (µs, of the first body; the others follow 1 µs
apart), "before" (bodies that stand before it on its stream), "body", "state" (what all of them fold to; states may have learnt
to know more since)}. A file that no longer folds means that a stored log no longer reads: give the changed shape a new tag
instead.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain.catalog import AGGREGATES, aggregate_of
from domain.kernel import Aggregate, Event, instant
from eventstore.record import Codec, Entry, UnknownEvent, encode_body

FILES = {file.stem: file for file in (Path(__file__).parents[1] / "vectors" / "events").glob("*.json")}
TAGS = {tag: aggregate for aggregate in AGGREGATES for tag in aggregate.events}
CODEC = Codec(AGGREGATES)


def read(tag: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILES[tag].read_text())
    return found


def fold(aggregate: Aggregate[Any], bodies: list[bytes], recorded: int) -> Any:
    state = aggregate.initial
    for place, body in enumerate(bodies):
        event = CODEC.decode(Entry("eu", place + 1, recorded + place, b"", body))
        assert event.at == instant(recorded + place)
        state = aggregate.evolve(state, event.event, event.at)
    return state


def test_every_tag_has_a_file_and_every_file_a_tag() -> None:
    assert set(FILES) == set(TAGS)


def test_a_tag_belongs_to_one_aggregate_and_names_it() -> None:
    assert len(TAGS) == sum(len(aggregate.events) for aggregate in AGGREGATES)
    assert {tag.partition(".")[0] for tag in TAGS} == {a.name for a in AGGREGATES}


@pytest.mark.parametrize("tag", sorted(FILES))
def test_a_stream_tells_whose_it_is(tag: str) -> None:
    assert aggregate_of(json.loads(read(tag)["body"])["stream"]) is TAGS[tag]


def test_a_stream_of_a_later_release_is_nobodys() -> None:
    for stream in ("campaign-01ka7g0000e00800000000001a", "region-eu-operators", "region-eu-operators_01ka", "x"):
        assert aggregate_of(stream) is None


@pytest.mark.parametrize("tag", sorted(FILES))
def test_a_stored_event_folds_to_the_recorded_state(tag: str) -> None:
    vector, aggregate = read(tag), TAGS[tag]
    bodies = [body.encode() for body in (*vector["before"], vector["body"])]
    assert json.loads(vector["body"])["type"] == tag
    assert as_known(fold(aggregate, bodies, vector["recorded"]), vector["state"]) == msgspec.convert(
        vector["state"], aggregate.state, strict=False
    )


def as_known(state: Any, known: dict[str, Any]) -> Any:
    """The state without what the file has not heard of."""
    blank = {name: getattr(type(state)(), name) for name in state.__struct_fields__ if name not in known}
    return msgspec.structs.replace(state, **blank)


@pytest.mark.parametrize("tag", sorted(FILES))
def test_the_order_of_members_and_blanks_between_them_mean_nothing(tag: str) -> None:
    """Nobody needs to encode a body again to read it: another writer's bytes fold alike."""
    vector, aggregate = read(tag), TAGS[tag]
    rewritten = [shuffled(body) for body in (*vector["before"], vector["body"])]
    assert as_known(fold(aggregate, rewritten, vector["recorded"]), vector["state"]) == msgspec.convert(
        vector["state"], aggregate.state, strict=False
    )


def shuffled(body: str) -> bytes:
    def shuffle(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        members = list(value.items())
        random.Random(len(body)).shuffle(members)
        return {name: shuffle(member) for name, member in members}

    return json.dumps(shuffle(json.loads(body)), indent=1).encode()


@pytest.mark.parametrize("tag", sorted(FILES))
def test_what_we_write_today_is_what_was_stored(tag: str) -> None:
    """Readers never rely on it, but a difference means that the shape has changed. (The order of members is free.)"""
    body = CODEC.decode(Entry("eu", 1, 1, b"", read(tag)["body"].encode()))
    again = msgspec.structs.replace(body.body, data=msgspec.Raw(msgspec.json.encode(body.event)))
    assert json.loads(encode_body(again)) == json.loads(read(tag)["body"])


@pytest.mark.parametrize("tag", sorted(FILES))
def test_a_member_that_the_tag_does_not_have_is_not_ignored(tag: str) -> None:
    body = json.loads(read(tag)["body"])
    body["data"]["surprise"] = 1
    with pytest.raises(msgspec.ValidationError):
        CODEC.decode(Entry("eu", 1, 1, b"", json.dumps(body).encode()))


def test_a_reader_stops_at_a_tag_of_a_later_release() -> None:
    body = read("wallet.credited")["body"].replace("wallet.credited", "wallet.adjusted")
    with pytest.raises(UnknownEvent, match=r"eu/7.*wallet\.adjusted"):
        CODEC.decode(Entry("eu", 7, 1, b"", body.encode()))


def test_nothing_of_the_envelope_stands_again_in_the_data() -> None:
    envelope = {
        "stream",
        "version",
        "type",
        "id",
        "actor",
        "command",
        "partition",
        "epoch",
        "occurred",
        "cause",
        "trace",
    }
    for tag, aggregate in TAGS.items():
        event: type[Event] = aggregate.events[tag]
        if tag != "log.opened":  # whose epoch is that of the partitions which it opens
            assert not envelope & set(event.__struct_fields__), tag
