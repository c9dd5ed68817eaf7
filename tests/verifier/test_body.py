"""What one body may say, read the careful way and the quick way."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verifier.logs import BASE32, command_id, compact, event, event_id, opening, region_event, stream
from verifier import body as law
from verifier import quick
from verifier.faults import Broken, Reason

SUFFIX = stream(1).partition("-")[2]

MALFORMED: list[tuple[str, object]] = [
    *(("stream", value) for value in (None, 1, ["a"], {})),
    *(("version", value) for value in (0, -1, True, "1", None)),
    *(
        ("type", value)
        for value in ("", "credited", "Wallet.Credited", "domain.wallets:Credited", "a..b", "a.b ", 1, None)
    ),
    *(("id", value) for value in ("", event_id(1).upper(), "{" + event_id(1) + "}", event_id(1).replace("-", ""), 1)),
    *(
        ("id", value)
        for value in (event_id(1).replace("-7", "-4"), event_id(1).replace("-8", "-c"), event_id(1) + "\n")
    ),
    *(("actor", value) for value in ("", None, 1, {"id": "a"})),
    *(("command", value) for value in (None, "a", [])),
    *(("data", value) for value in (None, "a", [], 1)),
    *(("partition", value) for value in (-1, 256, True, "42", None)),
    *(("epoch", value) for value in (0, True, "1", None)),
    *(("claims", value) for value in (None, "", command_id(1).upper(), 1)),
    *(("cause", value) for value in (None, "", event_id(1).upper())),
    *(("occurred", value) for value in (None, "2020-01-01", "2020-01-01T00:00:00", "2020-13-01T00:00:00Z", 1)),
    *(("trace", value) for value in (None, "", "00-0-0-00")),
    *(("command/id", value) for value in (None, "", command_id(1).upper(), command_id(1)[:31], 1)),
    *(("command/i", value) for value in (0, 2, True, "1", None)),
    *(("command/n", value) for value in (0, True, "1", None)),
    *(("command/fingerprint", value) for value in (None, "", command_id(1).upper())),
]


@pytest.mark.parametrize(("member", "value"), MALFORMED)
def test_a_malformed_member_is_named(member: str, value: object) -> None:
    body = event(1, 1)
    if member.startswith("command/"):
        body["command"][member.removeprefix("command/")] = value
    else:
        body[member] = value
    reader = trained()
    for read in (law.read, reader.read):
        with pytest.raises(Broken) as refusal:
            read(compact(body))
        assert refusal.value.reason is Reason.MEMBER_MALFORMED
        assert f"/{member} " in refusal.value.detail


@pytest.mark.parametrize(
    "member", ["stream", "version", "type", "id", "actor", "command", "data", "command/id", "command/i", "command/n"]
)
def test_a_missing_member_is_named(member: str) -> None:
    body = event(1, 1)
    del (body["command"] if "/" in member else body)[member.rpartition("/")[2]]
    with pytest.raises(Broken) as refusal:
        trained().read(compact(body))
    assert refusal.value.reason is Reason.MEMBER_MISSING
    assert repr(member.rpartition("/")[2]) in refusal.value.detail


def test_a_body_may_have_60_kib_and_not_a_byte_more() -> None:
    body = event(1, 1, data={"text": ""})
    room = law.BODY_BYTES_MAX - len(compact(body))
    for read in (law.read, trained(compact(body)).read):
        assert read(compact({**body, "data": {"text": "a" * room}}))
        with pytest.raises(Broken) as refusal:
            read(compact({**body, "data": {"text": "a" * (room + 1)}}))
        assert refusal.value.reason is Reason.BODY_TOO_LONG


def test_a_member_that_the_design_does_not_name_is_no_fault() -> None:
    body = compact(event(1, 1, novelty={"a": [1]}))
    assert law.read(body) == trained(body).read(body)


@pytest.mark.parametrize(
    ("name", "partition", "epoch", "reason"),
    [
        (f"wallet-{SUFFIX}", 42, 1, None),
        (f"a_long_name-{SUFFIX}", 42, 1, None),
        (f"wallet-{SUFFIX}", 43, 1, Reason.PARTITION_MISMATCH),
        (f"wallet-{SUFFIX}", None, 1, Reason.PARTITION_MISSING),
        (f"wallet-{SUFFIX}", 42, None, Reason.PARTITION_MISSING),
        (f"wallet-{SUFFIX.upper()}", 42, 1, Reason.STREAM_MALFORMED),
        (f"wallet-8{SUFFIX[1:]}", 42, 1, Reason.STREAM_MALFORMED),
        (f"wallet-{SUFFIX[:-2]}u{SUFFIX[-1]}", 42, 1, Reason.STREAM_MALFORMED),
        (f"wallet-{SUFFIX[1:]}", 42, 1, Reason.STREAM_MALFORMED),
        (f"wallet-{SUFFIX}\n", 42, 1, Reason.STREAM_MALFORMED),
        (f"Wallet-{SUFFIX}", 42, 1, Reason.STREAM_MALFORMED),
        (f"wallet2-{SUFFIX}", 42, 1, Reason.STREAM_MALFORMED),
        (f"region-{SUFFIX}", 42, 1, Reason.STREAM_MALFORMED),
        (SUFFIX, 42, 1, Reason.STREAM_MALFORMED),
        ("region-eu-log", None, None, None),
        (f"region-eu-protection_{SUFFIX}", None, None, None),
        ("region-eu-", None, None, Reason.STREAM_MALFORMED),
        ("region-EU-log", None, None, Reason.STREAM_MALFORMED),
        ("region-eu-protection_1", None, None, Reason.STREAM_MALFORMED),
        ("region-us-log", None, None, Reason.REGION_STREAM_FOREIGN),
        ("region-eu.2-log", None, None, Reason.REGION_STREAM_FOREIGN),
        ("region-eu-log", 42, 1, Reason.REGION_STREAM_PARTITION),
        ("region-eu-log", 42, None, Reason.REGION_STREAM_PARTITION),
        ("region-eu-log", None, 1, Reason.REGION_STREAM_PARTITION),
    ],
)
def test_a_stream_is_named_by_the_grammar(
    name: str, partition: int | None, epoch: int | None, reason: Reason | None
) -> None:
    if reason is None:
        law.check_stream(name, partition, epoch, "eu")
        return
    with pytest.raises(Broken) as refusal:
        law.check_stream(name, partition, epoch, "eu")
    assert refusal.value.reason is reason


@given(st.integers(0, 2**128 - 1))
def test_the_partition_is_the_last_byte_of_the_uuid(uuid: int) -> None:
    suffix = "".join(BASE32[uuid >> 5 * digit & 31] for digit in reversed(range(26)))
    law.check_stream(f"wallet-{suffix}", uuid % 256, 1, "eu")


@pytest.mark.parametrize(
    ("origin", "region"),
    [
        ("countroom.demo/eu", "eu"),
        ("countroom.a.b-c/eu.2", "eu.2"),
        ("countroom.demo/eu.02", None),
        ("countroom.demo/", None),
        ("countroom./eu", None),
        ("countroom.demo/EU", None),
        ("countroom.de mo/eu", None),
        ("countroom.demo/x/eu", None),
        ("countroom.demo/eu\n", None),
    ],
)
def test_an_origin_ends_in_its_region(origin: str, region: str | None) -> None:
    assert law.region_of(origin) == region


# The quick way.

KEYS = st.sampled_from(["amount", "note", "a:b", 'q"', "é", "", "\\", "k"])
DATA = st.dictionaries(
    KEYS,
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53) + 1, 2**53 - 1)
        | st.text(max_size=6)
        | st.sampled_from(["\\", "\ufdd0", '"']),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)
EVENTS = st.builds(
    event,
    st.integers(1, 9),
    st.integers(1, 2**53 - 1),
    data=DATA,
    actor=st.sampled_from(["system", "service:import", "é", 'a"b', "a b"]),
    partition=st.integers(0, 255),
    epoch=st.integers(1, 2**53 - 1),
    n=st.integers(1, 20),
)
TIMED = {"occurred": "2020-02-29T12:00:00.5+01:00", "trace": "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"}
REGION_EVENTS = st.builds(region_event, st.integers(1, 9), st.integers(1, 9))


@st.composite
def spelled_bodies(draw: st.DrawFn) -> bytes:
    body = draw(EVENTS | REGION_EVENTS)
    body |= draw(st.sampled_from([{}, {"cause": event_id(1)}, {"claims": command_id(1)}, TIMED, {"novelty": 1}]))
    if draw(st.booleans()):
        body["command"].pop("fingerprint")
    if draw(st.booleans()):
        shuffled = list(body.items())
        random.Random(draw(st.integers(0, 3))).shuffle(shuffled)
        body = dict(shuffled)
    separators, ensure_ascii = draw(st.sampled_from([((",", ":"), False), ((",", ":"), True), ((", ", ": "), False)]))
    return json.dumps(body, separators=separators, ensure_ascii=ensure_ascii).encode()


TOKENS = [
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"0",
    b"1",
    b"-",
    b".0",
    b"e1",
    b" ",
    b"\n",
    b"\x00",
    b"\xff",
]
TOKENS += [
    b'"data":{},',
    b'"k":1,',
    b'"\\u006b":1,',
    b"\\ud800",
    "\ufdd0".encode(),
    b"9007199254740992",
    b"true",
    b"null",
]

taught = quick.BodyReader()  # keeps what it learnt through all examples, as it does through a log


@given(spelled_bodies(), st.data())
def test_the_quick_way_says_what_the_careful_way_says(body: bytes, data: st.DataObject) -> None:
    assert_read_alike(taught, body)
    assert_read_alike(taught, body)  # now that it knows the spelling
    for _ in range(4):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.sampled_from([start, start + 1, start + 2]))
        changed = body[:start] + data.draw(st.sampled_from([b"", *TOKENS])) + body[end:]
        assert_read_alike(taught, changed)


def test_one_byte_changed_anywhere_is_read_alike() -> None:
    body = compact(event(1, 1, n=2, data={"money": {"amount": 1250, "currency": "EUR"}, "list": [1, 2], "yes": True}))
    reader = trained(body)
    for at in range(len(body)):
        for byte in b'"\\{}[],: 019-.ez\x00\xff':
            assert_read_alike(reader, body[:at] + bytes([byte]) + body[at + 1 :])


@pytest.mark.parametrize("members", [event(1, 1), event(1, 1, cause=event_id(1)), event(1, 1, novelty=[])])
def test_a_body_spelt_like_one_before_is_not_read_the_careful_way(
    monkeypatch: pytest.MonkeyPatch, members: dict[str, Any]
) -> None:
    reader = trained(compact(members))
    monkeypatch.setattr(law, "read", None)
    assert reader.read(compact({**members, "version": 7, "partition": 7}))[:4] == (stream(1), 7, "wallet.credited", 7)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("\ufdd0", "1"),
        ("\U0010ffff", "1"),
        ("\\ud800", "1"),
        ("\\uffff", "1"),
        ("\x1f", "1"),
        ("\\x", "1"),
        ("a", "9007199254740992"),
        ("a", "-9007199254740992"),
        ("a", "9" * 5000),
        ("a", "1.0"),
        ("a", "1e2"),
        ("a", "01"),
        ("a", "true1"),
    ],
)
def test_a_known_spelling_does_not_wave_a_malformed_value_through(text: str, number: str) -> None:
    good = compact(event(1, 1, data={"text": "TEXT", "number": 1}))
    reader = trained(good)
    body = good.replace(b"TEXT", text.encode()).replace(b'"number":1', b'"number":' + number.encode())
    assert_read_alike(reader, body)
    with pytest.raises(Broken):
        reader.read(body)


def test_optional_members_may_come_and_go_without_being_learnt_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with_all = event(1, 1)
    data = with_all.pop("data")
    reader = trained(compact({**with_all, **TIMED, "cause": event_id(1), "data": data}))
    monkeypatch.setattr(law, "read", None)
    without_fingerprint = {**with_all, "command": {"id": command_id(1), "i": 1, "n": 1}}
    for body in (with_all, without_fingerprint, with_all | TIMED, without_fingerprint | {"cause": event_id(2)}):
        assert reader.read(compact({**body, "data": data}))[0] == stream(1)


def test_a_hostile_log_does_not_fill_the_memory() -> None:
    reader = quick.BodyReader()
    for number in range(2 * quick.ENVELOPES_MAX):
        for kind in range(quick.SPELLINGS_MAX // quick.ENVELOPES_MAX // 2):
            for letter in "abc":
                body = event(1, 1, type=f"a.b{kind}", data={letter: 1})
                reader.read(compact({f"x{number}": 1, **body}))
        reader.read(compact(event(1, 1, data={str(number): 1})))
    assert reader._spellings == quick.SPELLINGS_MAX
    assert len(reader._envelopes) <= quick.ENVELOPES_MAX
    rests = [rests for envelope in reader._envelopes.values() for rests in envelope.rests.values()]
    assert sum(map(len, rests)) == quick.SPELLINGS_MAX
    assert max(map(len, rests)) <= quick.SPELLINGS_PER_TYPE_MAX


def trained(*bodies: bytes) -> quick.BodyReader:
    reader = quick.BodyReader()
    for body in (compact(opening()), compact(event(1, 1)), *bodies):
        reader.read(body)
    return reader


def assert_read_alike(reader: quick.BodyReader, body: bytes) -> None:
    assert outcome(reader.read, body) == outcome(law.read, body)


def outcome(read: Any, body: bytes) -> object:
    try:
        return read(body)
    except Broken as broken:
        return broken.reason, broken.detail
