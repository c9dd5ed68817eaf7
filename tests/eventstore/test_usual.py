"""
The quick way through ledger.append, which does not read a body that begins as the log expects: what it takes, and that
it never indexes what a body does not say. (The suites of test_log.py run on the quick way and on the long one.)
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from eventstore.log import Command
from tests.ledger import EU, Ledger, body, command, new_id, opening, stream

REFUSALS = {"CR", "22"}
"""The classes of SQLSTATE that say what is wrong with a call: ours, and "data exception"."""


@pytest.fixture
def quick_only(migrated: str) -> Ledger:
    """A log without the long way: what does not go the quick one fails."""
    made = Ledger(migrated)
    made.sql("SELECT ledger.register_log('eu', %s, true)", EU)
    made.append(opening(EU, (0, 127)))
    made.replace("append_each", "RAISE EXCEPTION 'the long way'")
    return made


def test_the_quick_way_takes_what_the_decider_sends(quick_only: Ledger) -> None:
    confirm = Command(new_id(), (), ((stream("player 6"), 0),))
    assert quick_only.append(command(("wallet 1", 1)), command(("wallet 2", 1), reads=[("player 2", 0)])) == [0, 0]
    several = command(("wallet 1", 2), ("limits 1", 1), ("wallet 1", 3), reads=[("player 1", 0)])
    assert quick_only.append(several, confirm, command(("limits 3", 1)), command(("wallet 2", 2))) == [0, 0, 0, 0]
    assert [entry.position for entry in quick_only.entries()] == list(range(1, 9))
    assert_index_says_what_bodies_say(quick_only)


@pytest.mark.parametrize(
    "made",
    [
        lambda id_: b" " + body("wallet 1", 1, id_),
        lambda id_: body("wallet 1", 1, id_, data={"text": 'a "quotation"'}),
        lambda id_: body("wallet 1", 1, id_, data={"claims": 1}),
        lambda id_: body("wallet 1", 1, id_, claims=new_id().hex()),
        lambda id_: body("wallet 1", 2, id_),
        lambda id_: body("wallet 1", 1, id_, epoch=2),
        lambda id_: body("wallet 1", 1, id_, type="log.opened"),
        lambda id_: body("wallet 200", 1, id_),
        lambda id_: body("region-eu-settings", 1, id_),
        lambda id_: json.dumps(json.loads(body("wallet 1", 1, id_))).encode(),
    ],
    ids=[
        "white space", "a backslash", "the word claims", "a claim", "a stale version", "another epoch", "an opening",
        "not owned", "a region's own stream", "another layout",
    ],
)  # fmt: skip
def test_whatever_is_unusual_goes_the_long_way(quick_only: Ledger, made: Callable[[bytes], bytes]) -> None:
    id_ = new_id()
    with pytest.raises(psycopg.errors.RaiseException, match="the long way"):
        quick_only.append(command(("wallet 9", 1)), Command(id_, [made(id_)]))
    assert len(quick_only.entries()) == 1


def test_what_stands_twice_in_a_batch_goes_the_long_way(quick_only: Ledger) -> None:
    one = command(("wallet 1", 1))
    quick_only.append(one)
    twice = new_id()
    for batch in (
        [command(("wallet 2", 1)), command(("wallet 2", 1))],
        [command(("wallet 2", 1), id_=twice), command(("wallet 3", 1), id_=twice)],
        [Command(twice, ()), command(("wallet 3", 1), id_=twice)],
        [command(("wallet 2", 1)), command(("limits 2", 1), reads=[("wallet 2", 0)])],
        [command(("wallet 2", 1), id_=one.id)],
        [Command(one.id, ()), command(("wallet 2", 1))],
        [command(("wallet 2", 1), ("wallet 3", 1))],
        [command(("wallet 2", 2), ("wallet 2", 1))],
    ):
        with pytest.raises(psycopg.errors.RaiseException, match="the long way"):
            quick_only.append(*batch)
    assert len(quick_only.entries()) == 2


def assert_index_says_what_bodies_say(ledger: Ledger) -> None:
    columns = ledger.sql("SELECT stream, version, type, partition, command_id, body FROM ledger.entry WHERE log = 1")
    for name, version, type_, partition, id_, raw in columns:
        said = json.loads(bytes(raw), object_pairs_hook=unique)
        part = said["command"]
        known = said.get("claims") or (part["id"] if part["i"] == 1 else None)
        assert (name, version, type_) == (said["stream"], said["version"], said["type"])
        assert partition == said.get("partition")
        assert id_ == (uuid.UUID(known) if known else None)


def unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(members)) == len(members), "a name stands twice"
    return dict(members)


PIECES = [
    b'"', b"\\", b'\\"', b"{", b"}", b",", b":", b"1", b"0", b" ", b"\n", b"\\u0063laims", b"\\u0073tream",
    b'"stream":"wallet-x",', b'"version":7,', b'"claims":"%s",' % (b"0" * 32), b'"cl\\u0061ims":"%s",' % (b"0" * 32),
    b'"type":"other.thing",', b'"command":{"i":1,"n":1,"id":"00"},', b'"data":{},', b'"a":{"stream":1},', b'"partition":3,',
]  # fmt: skip


@settings(max_examples=150, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(data=st.data())
def test_what_is_appended_is_indexed_as_its_body_says(ledger: Ledger, data: st.DataObject) -> None:
    """Bodies with anything put in or cut out anywhere: most are refused, and none is taken for what it is not."""
    ledger.empty()
    batch = []
    for person in (1, 2, 3):
        id_ = new_id()
        raw = bytearray(body(f"wallet {person}", 1, id_, data={"text": "free"}))
        for _ in range(data.draw(st.integers(0, 2))):
            at = data.draw(st.integers(0, len(raw)))
            cut = data.draw(st.sampled_from([0, 0, 0, 1, 5]))
            raw[at : at + cut] = data.draw(st.sampled_from(PIECES))
        batch.append(Command(id_, [bytes(raw)]))
    for each in batch:
        try:
            ledger.append(each)
        except psycopg.DatabaseError as error:
            if (error.sqlstate or "")[:2] not in REFUSALS:
                raise
    assert_index_says_what_bodies_say(ledger)


@pytest.mark.parametrize(
    "rest",
    [
        b',"stream":"wallet-y","data":{}}',
        b',"data":{},"version":2}',
        b',"data":{"a":1,"a":2}}',
        b',"d\\u0061ta":{},"data":{}}',
        b',"data":{}}{}',
        b',"data":{}',
        b',"data":{},"strea\\u006d":"wallet-y"}',
    ],
)
def test_a_body_that_goes_on_otherwise_than_it_begins_is_refused(ledger: Ledger, rest: bytes) -> None:
    id_ = new_id()
    begins = body("wallet 1", 1, id_).partition(b'},"id":')[0] + b"}"
    with pytest.raises(psycopg.DatabaseError) as refused:
        ledger.append(Command(id_, [begins + rest]))
    assert (refused.value.sqlstate or "")[:2] in REFUSALS
    assert len(ledger.entries()) == 1


@pytest.mark.parametrize("shifted", ["ids", "counts", "bodies"])
def test_an_array_that_does_not_begin_at_1_shifts_nothing(ledger: Ledger, shifted: str) -> None:
    one, other = command(("wallet 1", 1)), command(("wallet 2", 1))
    arrays = {
        "ids": f"{{{one.id.hex()},{other.id.hex()}}}",
        "counts": "{1,1}",
        "bodies": "{" + ",".join(f'"\\\\x{each.bodies[0].hex()}"' for each in (one, other)) + "}",
    }
    arrays[shifted] = "[0:1]=" + arrays[shifted]
    try:
        ledger.sql(
            "SELECT ledger.append(1::smallint, %s::uuid[], %s::int[], %s::bytea[], '{}', '{}', '{}')", *arrays.values()
        )
    except psycopg.DatabaseError as error:
        if (error.sqlstate or "")[:2] not in REFUSALS:
            raise
    assert_index_says_what_bodies_say(ledger)
