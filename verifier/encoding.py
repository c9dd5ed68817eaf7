"""
Base64 and decimals as the C2SP documents write them: every value has one spelling, and any other spelling is refused.

Two readers that accept different spellings of one proof disagree about what was signed, or about what is the same file.
"""

import base64
import re

NUMBER_MAX = 2**63 - 1  # a log's positions are signed 64-bit integers, in PostgreSQL as in Go's tlog

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


def read_base64(text: str) -> bytes:
    """
    The bytes that `text` spells in the standard alphabet with padding (RFC 4648, section 4).

    Raises ValueError for anything else: blanks, missing or surplus padding, set bits behind the last byte (section 3.5).
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:  # of which binascii.Error is one; characters beyond ASCII raise another
        raise ValueError("it is not base64") from None
    if write_base64(data) != text:
        raise ValueError("it is not the one base64 of any bytes")
    return data


def write_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read_decimal(text: str) -> int:
    """The number that `text` spells in ASCII digits, without leading zeroes. Raises ValueError; so do 2^63 and beyond."""
    if not _DECIMAL.fullmatch(text) or (number := int(text)) > NUMBER_MAX:
        raise ValueError("it is not a decimal from 0 to 2^63 - 1 without leading zeroes")
    return number
