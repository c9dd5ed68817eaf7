"""An integer that JSON does not carry exactly never enters the log: no verifier would take it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.ijson import NotExact, exact, require_exact
from domain.kernel import AMOUNT_MAX

numbers = st.integers(-(2**70), 2**70) | st.sampled_from([AMOUNT_MAX, AMOUNT_MAX + 1, -AMOUNT_MAX, -AMOUNT_MAX - 1])
values = st.recursive(
    numbers | st.booleans() | st.text(max_size=20),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
)


def integers(value: object) -> list[int]:
    if isinstance(value, dict):
        return [number for each in value.values() for number in integers(each)]
    if isinstance(value, list):
        return [number for each in value for number in integers(each)]
    return [value] if type(value) is int else []


@given(values)
def test_a_text_is_refused_if_and_only_if_it_has_such_an_integer(value: object) -> None:
    raw = msgspec.json.encode(value) if all(-(2**63) <= n < 2**64 for n in integers(value)) else None
    if raw is None:  # which msgspec itself does not write
        return
    if all(abs(number) <= AMOUNT_MAX for number in integers(value)):
        require_exact(raw)
    else:
        with pytest.raises(NotExact):
            require_exact(raw)


@given(values)
def test_what_was_made_exact_is_never_refused_and_what_was_exact_stays(value: object) -> None:
    made = exact(value)
    require_exact(msgspec.json.encode(made))
    if all(abs(number) <= AMOUNT_MAX for number in integers(value)):
        assert made == value


@pytest.mark.parametrize("text", [b'"1234567890123456789"', b'{"id":"019aab5c4000700080000000000000"}', b"[0.5]"])
def test_what_only_looks_like_one_is_none(text: bytes) -> None:
    require_exact(text)
