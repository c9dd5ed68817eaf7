"""Who sent which command; the vectors are those of docs/reference/record-format.md, computed by hand (hashlib, openssl)."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.identity import command_id, fingerprint, partition_for

UUID7 = "019a8f00-0001-7000-8000-000000000000"


def test_a_commands_id_hashes_caller_and_key() -> None:
    assert command_id("system", "log.opened").hex() == "c0b62287d466295ac2f345abe71b1f6b"
    digest = hashlib.sha256(b"\x00\x00\x00\x06systemlog.opened").digest()
    assert command_id("system", "log.opened") == digest[:16]


def test_a_uuid7_as_key_keeps_its_time() -> None:
    assert command_id("service:import", UUID7).hex() == "019a8f000001bb29412f962d03424bcd"
    digest = hashlib.sha256(b"\x00\x00\x00\x0eservice:import" + UUID7.encode()).digest()
    assert command_id("service:import", UUID7) == bytes.fromhex("019a8f000001") + digest[:10]


@pytest.mark.parametrize(
    "key",
    [UUID7.upper(), UUID7.replace("-", ""), "{" + UUID7 + "}", UUID7.replace("-7", "-4"), UUID7 + "\n", " " + UUID7],
)
def test_another_spelling_is_another_key(key: str) -> None:
    assert command_id("service:import", key)[:6] != bytes.fromhex("019a8f000001")


@given(st.text(), st.text(), st.text(), st.text())
def test_caller_and_key_do_not_run_into_one_another(caller: str, key: str, caller_: str, key_: str) -> None:
    assert (command_id(caller, key) == command_id(caller_, key_)) == ((caller, key) == (caller_, key_))


def test_a_fingerprint_is_an_hmac_of_method_target_and_body() -> None:
    expected = hmac.new(b"secret", b"POST\n/v1/players?x=1\n{}", "sha256").hexdigest()[:32]
    assert fingerprint(b"secret", "POST", "/v1/players?x=1", b"{}") == expected
    others = {
        fingerprint(b"other", "POST", "/v1/players?x=1", b"{}"),
        fingerprint(b"secret", "PUT", "/v1/players?x=1", b"{}"),
        fingerprint(b"secret", "POST", "/v1/players", b"{}"),
        fingerprint(b"secret", "POST", "/v1/players?x=1", b"{ }"),
    }
    assert len(others | {expected}) == 5


def test_a_retried_registration_meets_the_same_owner() -> None:
    """group[u64 big-endian(SHA-256(command id)[0:8]) mod n]"""
    id_ = command_id("operator:maria", "1")
    place = int.from_bytes(hashlib.sha256(id_).digest()[:8], "big") % 3
    assert partition_for(id_, [7, 8, 9]) == [7, 8, 9][place]
    assert {partition_for(command_id("a", str(n)), range(4)) for n in range(100)} == set(range(4))
