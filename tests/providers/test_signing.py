"""Signatures between us and a provider."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.signing import WINDOW_S, BadSignature, sign, verify

SECRET = b"0123456789abcdef"
NOW = 1_795_348_800

bodies = st.binary(max_size=200)


def is_refused(secret: bytes, header: str, body: bytes, now: int = NOW) -> bool:
    try:
        verify(secret, header, body, now)
    except BadSignature:
        return True
    return False


@given(body=bodies, late=st.integers(-WINDOW_S, WINDOW_S))
def test_what_was_signed_is_believed_for_five_minutes(body: bytes, late: int) -> None:
    verify(SECRET, sign(SECRET, body, NOW), body, NOW + late)


@given(body=bodies, late=st.integers(WINDOW_S + 1, 10**9), sooner=st.booleans())
def test_a_message_that_is_sent_again_later_is_refused(body: bytes, late: int, sooner: bool) -> None:
    assert is_refused(SECRET, sign(SECRET, body, NOW), body, NOW - late if sooner else NOW + late)


@given(body=bodies, place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_one_changed_bit_is_noticed(body: bytes, place: int, bit: int) -> None:
    changed = bytearray(body or b"\0")
    changed[place % len(changed)] ^= 1 << bit
    assert is_refused(SECRET, sign(SECRET, body, NOW), bytes(changed))


def test_another_time_or_another_secret_does_not_fit() -> None:
    header = sign(SECRET, b"{}", NOW)
    assert is_refused(SECRET, header.replace(f"t={NOW}", f"t={NOW + 1}"), b"{}")
    assert is_refused(b"another secret!!", header, b"{}")


def test_the_time_is_bound_to_the_body() -> None:
    """Without the dot, t=1 with body "23" would be t=12 with body "3"."""
    assert sign(SECRET, b"3", 12).partition(",")[2] != sign(SECRET, b"23", 1).partition(",")[2]


def test_while_a_secret_is_changed_both_may_sign() -> None:
    old, new = sign(b"the older secret", b"{}", NOW), sign(SECRET, b"{}", NOW)
    both = old + "," + new.partition(",")[2]
    verify(SECRET, both, b"{}", NOW)
    verify(b"the older secret", both, b"{}", NOW)


@pytest.mark.parametrize(
    "header",
    ["", "t=1", "v1=00", f"t={NOW}", f"t={NOW},v1=", f"t={NOW},v0={'0' * 64}", f"t=-1,v1={'0' * 64}", f"t=01,v1={'0' * 64}",
     f"t={NOW},v1={'0' * 64}" * 2, f"t={NOW},v1={'é' * 64}", f" t={NOW},v1={'0' * 64}"],
)  # fmt: skip
def test_a_header_of_another_form_is_refused(header: str) -> None:
    assert is_refused(SECRET, header, b"{}")
