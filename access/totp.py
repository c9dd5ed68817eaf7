"""
Codes of an authenticator app: TOTP (RFC 6238) with SHA-1, six digits, 30 seconds, which is what such apps know.

Invariant: a code is good for one use: only a step behind the last one used is accepted (RFC 6238, 5.2).
"""

from __future__ import annotations

import re
from datetime import datetime

import pyotp
from pyotp.exceptions import OTPVerificationError

WINDOW = 1
"""Steps before and after the present one that are accepted (RFC 6238, 5.2: at most one for the delay)."""

_CODE = re.compile(r"[0-9]{6}", re.ASCII)


def new_secret() -> str:
    """160 random bits (RFC 4226, 4, R6), in base32."""
    return pyotp.random_base32(32)


def address(secret: str, account: str, issuer: str) -> str:
    """The otpauth:// URI that an app reads from a QR code, or is told by hand."""
    return pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name=issuer)


def step_of(secret: str, code: str, at: datetime, last_step: int) -> int | None:
    """The step of which this is the code, if it may be used at `at`, after `last_step` was. None: it may not."""
    if not _CODE.fullmatch(code):
        return None
    try:
        step = pyotp.TOTP(secret).verify_and_get_timecode(code, for_time=at, valid_window=WINDOW)
    except OTPVerificationError:
        return None
    return step if step > last_step else None
