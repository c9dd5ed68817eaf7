"""The worked example of docs/reference/record-format.md, byte by byte: in Python and in SQL."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from commands.identity import command_id
from domain.kernel import partition_of, suffix, uuid_of
from eventstore import record
from eventstore.record import Body, CommandPart, decode_body, encode_body
from tests.ledger import Ledger

ORIGIN = "countroom.example/eu"
OPENED = (
    b'{"stream":"region-eu-log","version":1,"type":"log.opened","id":"019a8f00-0000-7000-8000-000000000001",'
    b'"actor":"system","command":{"id":"c0b62287d466295ac2f345abe71b1f6b","i":1,"n":1},'
    b'"data":{"origin":"countroom.example/eu","epoch":1,"partitions":[[0,127]]}}'
)
CREDITED = (
    b'{"stream":"wallet-01ka7g0000e00800000000001a","version":1,"type":"wallet.credited",'
    b'"id":"019a8f00-0001-7000-8000-000000000002","partition":42,"epoch":1,"actor":"service:import",'
    b'"command":{"id":"019a8f000001bb29412f962d03424bcd","fingerprint":"00000000000000000000000000000000","i":1,"n":1},'
    b'"data":{"money":{"amount":1250,"currency":"EUR"}}}'
)
RECORDED = 1_763_164_800_000_000
PREV_LEAF_1 = bytes.fromhex("ced73b3cfa6be46da40b13ead763620abece9649f4cb53c0cae6764235cbabf7")
LEAF_1 = bytes.fromhex("9cbb98743ab9c714025b5c242756206497eed300a90a279ab65f410e2cc75c1f")
LEAF_2 = bytes.fromhex("e7e005b7001bdea342c4a6ba9f6858399cb724cc64721a646c2065cd51a73f4a")
ROOT = bytes.fromhex("b4044b6623fb14ea98680f3c7de7a541a0aeca28d56026dac1eddd5f1a9a12ec")


def test_the_bodies_have_the_lengths_that_are_printed() -> None:
    assert (len(OPENED), len(CREDITED)) == (257, 340)


def test_the_leaves_in_python() -> None:
    assert record.genesis(ORIGIN) == PREV_LEAF_1
    assert record.leaf_hash(PREV_LEAF_1, 1, RECORDED, OPENED) == LEAF_1
    assert record.leaf_hash(LEAF_1, 2, RECORDED + 1, CREDITED) == LEAF_2


def test_an_entry_is_32_bytes_of_the_leaf_before_two_numbers_and_the_body() -> None:
    entry = record.entry_bytes(LEAF_1, 2, RECORDED + 1, CREDITED)
    assert entry == LEAF_1 + (2).to_bytes(8, "big") + (RECORDED + 1).to_bytes(8, "big") + CREDITED
    assert hashlib.sha256(b"\x00" + entry).digest() == LEAF_2


def test_the_root_of_both_is_that_of_rfc_6962() -> None:
    assert hashlib.sha256(b"\x01" + LEAF_1 + LEAF_2).digest() == ROOT


def test_the_leaves_in_sql(ledger: Ledger) -> None:
    """Through ledger.chain, since append sets the clock itself; only the owner may call it."""
    [(leaf, leaves)] = ledger.sql(
        "SELECT * FROM ledger.chain(%s, 1, %s, %s::bytea[])", PREV_LEAF_1, RECORDED, [OPENED, CREDITED]
    )
    assert [bytes(each) for each in leaves] == [LEAF_1, LEAF_2]
    assert bytes(leaf) == LEAF_2


def test_the_genesis_in_sql(migrated: str) -> None:
    with Ledger(migrated).admin as connection:
        connection.execute("SELECT ledger.register_log('eu', %s, true)", (ORIGIN,))
        row: Any = connection.execute("SELECT genesis FROM ledger.log").fetchone()
    assert bytes(row[0]) == PREV_LEAF_1


def test_the_identities_of_the_example() -> None:
    assert command_id("system", "log.opened").hex() == "c0b62287d466295ac2f345abe71b1f6b"
    key = "019a8f00-0001-7000-8000-000000000000"
    assert command_id("service:import", key).hex() == "019a8f000001bb29412f962d03424bcd"
    uuid = bytes.fromhex("019a8f00000070008000" + "00000000002a")
    assert suffix(uuid) == "01ka7g0000e00800000000001a"
    assert uuid_of(suffix(uuid)) == uuid
    assert partition_of("wallet-01ka7g0000e00800000000001a") == 42


def test_we_write_the_members_that_we_read() -> None:
    read = decode_body(CREDITED)
    assert read == Body(
        stream="wallet-01ka7g0000e00800000000001a",
        version=1,
        type="wallet.credited",
        id="019a8f00-0001-7000-8000-000000000002",
        actor="service:import",
        command=CommandPart(id="019a8f000001bb29412f962d03424bcd", fingerprint="0" * 32, i=1, n=1),
        data=read.data,
        partition=42,
        epoch=1,
    )
    for example in (OPENED, CREDITED):
        assert json.loads(encode_body(decode_body(example))) == json.loads(example)


def test_what_append_indexes_stands_first_in_what_we_write() -> None:
    """The order of members is free (docs/reference/record-format.md); this one append recognises without reading on."""
    assert encode_body(decode_body(CREDITED)).startswith(
        b'{"stream":"wallet-01ka7g0000e00800000000001a","version":1,"type":"wallet.credited","partition":42,"epoch":1,'
        b'"command":{"i":1,"n":1,"id":"019a8f000001bb29412f962d03424bcd"'
    )
