"""
The header fields that every answer has: what a browser may make of it. Made once, as bytes.

Invariant: a route may say its own Cache-Control and Content-Security-Policy; everything else is said here, and once.
"""

from __future__ import annotations

import re

_ALWAYS = (
    b"x-content-type-options: nosniff\r\n"
    b"referrer-policy: no-referrer\r\n"
    b"cross-origin-opener-policy: same-origin\r\n"
    b"cross-origin-embedder-policy: require-corp\r\n"
    b"cross-origin-resource-policy: same-origin\r\n"
    b"permissions-policy: camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()\r\n"
)
_HSTS = b"strict-transport-security: max-age=31536000; includeSubDomains\r\n"
_NO_STORE = b"cache-control: no-store\r\n"
_NOTHING_RUNS = (
    b"content-security-policy: default-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'; sandbox\r\n"
)
_own = re.compile(rb"\r\nc(?:ache-control|ontent-security-policy): ").search


class Fields:
    """`tls`: whether browsers reach us by TLS alone, and may be told so for a year."""

    def __init__(self, *, tls: bool = False) -> None:
        self._always = _ALWAYS + _HSTS if tls else _ALWAYS
        self._all = self._always + _NO_STORE + _NOTHING_RUNS + b"\r\n"

    def added(self, head: bytes) -> bytes:
        """The head of an answer, as uvicorn writes it (names in lower case, an empty line at the end), with what it lacks."""
        if not _own(head):
            return head[:-2] + self._all
        more = b"" if b"\r\ncache-control: " in head else _NO_STORE
        return (
            head[:-2]
            + self._always
            + more
            + (b"" if b"\r\ncontent-security-policy: " in head else _NOTHING_RUNS)
            + b"\r\n"
        )
