"""Base64 and decimals have one spelling each."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.encoding import NUMBER_MAX, read_base64, read_decimal, write_base64


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"foob", "Zm9vYg=="), (b"fooba", "Zm9vYmE=")],
)
def test_base64_is_that_of_the_rfc(data: bytes, text: str) -> None:
    """RFC 4648, section 10."""
    assert (read_base64(text), write_base64(data)) == (data, text)


@given(st.binary())
def test_base64_is_read_as_it_was_written(data: bytes) -> None:
    assert write_base64(data) == base64.b64encode(data).decode()
    assert read_base64(write_base64(data)) == data


@given(st.text(alphabet="AQgwZm9v+/=-_ \né"))
def test_what_is_read_as_base64_is_written_the_same(text: str) -> None:
    try:
        data = read_base64(text)
    except ValueError:
        return
    assert write_base64(data) == text


@pytest.mark.parametrize(
    "text",
    ["Zg", "Zg=", "Zg===", "Zh==", "Zm9=", "Zm8", "=", "====", " Zg==", "Zg==\n", "Zm\n8=", "Zg==Zg==", "Z-8=", "é"],
)
def test_any_other_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="base64"):
        read_base64(text)


@given(st.integers(min_value=0, max_value=NUMBER_MAX))
def test_a_decimal_is_read_as_it_was_written(number: int) -> None:
    assert read_decimal(str(number)) == number


def test_the_largest_number_is_that_of_63_bits() -> None:
    assert read_decimal("9223372036854775807") == NUMBER_MAX == 2**63 - 1


@pytest.mark.parametrize(
    "text",
    ["", "00", "01", "-0", "-1", "+1", " 1", "1 ", "1\n", "1_0", "1.0", "1e3", "0x1", "\u0661", str(2**63), "9" * 5000],
)
def test_any_other_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it is not a decimal"):
        read_decimal(text)
