"""The bytes of section 3: its worked example, and the functions that replication uses too."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier import log, merkle

EXAMPLE = json.loads((Path(__file__).parent / "vectors" / "worked-example.json").read_text())


def test_the_worked_example_is_reproduced() -> None:
    leaf = log.genesis(EXAMPLE["origin"])
    entries = []
    for position, given_entry in enumerate(EXAMPLE["entries"], start=1):
        body = given_entry["body"].encode()
        assert len(body) == given_entry["body_bytes"]
        assert leaf.hex() == given_entry["prev_leaf"]
        entry = log.entry_bytes(leaf, position, given_entry["recorded"], body)
        leaf = merkle.leaf_hash(entry)
        assert leaf.hex() == given_entry["leaf"]
        entries.append((position, entry, leaf))
    assert merkle.root([leaf for _, _, leaf in entries]).hex() == EXAMPLE["root"]

    report = log.verify(entries, origin=EXAMPLE["origin"], head=(2, leaf))
    assert report.to_json() == {
        "log": "eu",
        "origin": "countroom.example/eu",
        "position": 2,
        "leaf": EXAMPLE["entries"][1]["leaf"],
        "entries": 2,
        "intact": True,
        "fault": None,
        "not_counted": 0,
        "recorded_first_us": 1763164800000000,
        "recorded_last_us": 1763164800000001,
        "trusted": False,
        "signed": None,
        "witnessed": None,
        "unwitnessed_entries": 2,
    }


NUMBERS = st.integers(min_value=0, max_value=2**64 - 1)


@given(st.binary(min_size=32, max_size=32), NUMBERS, NUMBERS, st.binary())
def test_an_entry_is_put_together_and_taken_apart_alike(prev: bytes, position: int, recorded: int, body: bytes) -> None:
    entry = log.entry_bytes(prev, position, recorded, body)
    assert entry == prev + position.to_bytes(8, "big") + recorded.to_bytes(8, "big") + body
    assert log.split_entry(entry) == (prev, position, recorded, body)
    assert log.leaf(prev, position, recorded, body) == merkle.leaf_hash(entry)


@pytest.mark.parametrize("make", [log.entry_bytes, log.leaf])
def test_a_previous_leaf_of_another_length_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        make(bytes(31), 1, 1, b"{}")


def test_an_entry_too_short_for_its_header_is_not_taken_apart() -> None:
    assert log.split_entry(bytes(48)) == (bytes(32), 0, 0, b"")
    with pytest.raises(ValueError, match="at least 48 bytes"):
        log.split_entry(bytes(47))
