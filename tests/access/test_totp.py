"""One-time passwords are those of RFC 6238, and each is good for one use."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta

import pyotp
import pytest

from access import recovery, totp

SEED = b"12345678901234567890"
SEEDS = {"SHA1": SEED, "SHA256": (SEED * 2)[:32], "SHA512": (SEED * 4)[:64]}
HASHES = {"SHA1": hashlib.sha1, "SHA256": hashlib.sha256, "SHA512": hashlib.sha512}
APPENDIX_B = [
    (59, "94287082", "SHA1"),
    (59, "46119246", "SHA256"),
    (59, "90693936", "SHA512"),
    (1111111109, "07081804", "SHA1"),
    (1111111109, "68084774", "SHA256"),
    (1111111109, "25091201", "SHA512"),
    (1111111111, "14050471", "SHA1"),
    (1111111111, "67062674", "SHA256"),
    (1111111111, "99943326", "SHA512"),
    (1234567890, "89005924", "SHA1"),
    (2000000000, "69279037", "SHA1"),
    (20000000000, "65353130", "SHA1"),
]
"""Of the table of RFC 6238, appendix B: time, code of eight digits, mode. (Of the last three times the first mode.)"""
SECRET = base64.b32encode(SEED).decode()


@pytest.mark.parametrize(("seconds", "code", "mode"), APPENDIX_B)
def test_the_library_computes_what_the_rfc_has(seconds: int, code: str, mode: str) -> None:
    secret = base64.b32encode(SEEDS[mode]).decode()
    assert pyotp.TOTP(secret, digits=8, digest=HASHES[mode]).at(seconds) == code


@pytest.mark.parametrize(("seconds", "code"), [(at, code) for at, code, mode in APPENDIX_B if mode == "SHA1"])
def test_the_last_six_digits_are_accepted_at_their_time(seconds: int, code: str) -> None:
    at = datetime.fromtimestamp(seconds, UTC)
    assert totp.step_of(SECRET, code[-6:], at, 0) == seconds // 30


@pytest.mark.parametrize(("off", "good"), [(-61, False), (-30, True), (0, True), (30, True), (61, False)])
def test_a_clock_may_be_one_step_off(off: int, good: bool) -> None:
    at = datetime(2026, 11, 22, 12, 0, 15, tzinfo=UTC)
    code = pyotp.TOTP(SECRET).at(at + timedelta(seconds=off))
    assert (totp.step_of(SECRET, code, at, 0) is not None) is good


def test_a_step_is_used_once_and_none_before_it_either() -> None:
    at = datetime(2026, 11, 22, 12, 0, 15, tzinfo=UTC)
    code, earlier = pyotp.TOTP(SECRET).at(at), pyotp.TOTP(SECRET).at(at - timedelta(seconds=30))
    step = totp.step_of(SECRET, code, at, 0)
    assert step is not None
    assert totp.step_of(SECRET, code, at, step) is None
    assert totp.step_of(SECRET, earlier, at, step) is None


@pytest.mark.parametrize("code", ["", "12345", "1234567", "12345a", "١٢٣٤٥٦", "287082\n", " 287082"])
def test_what_is_no_code_is_none(code: str) -> None:
    assert totp.step_of(SECRET, code, datetime.fromtimestamp(59, UTC), 0) is None


def test_a_new_secret_has_160_bits_and_its_address_names_it() -> None:
    secret = totp.new_secret()
    assert len(base64.b32decode(secret)) == 20
    assert totp.address(secret, "anna", "Countroom").startswith(f"otpauth://totp/Countroom:anna?secret={secret}")


def test_recovery_codes_are_told_apart_and_used_once() -> None:
    codes = recovery.new_codes()
    digests = [recovery.digest(code) for code in codes]
    assert recovery.number_of(digests, codes[3].replace("-", "").upper(), ()) == 3
    assert recovery.number_of(digests, codes[3], (3,)) is None
    assert recovery.number_of(digests, "aaaa-aaaa-aaaa-aaaa", ()) is None
