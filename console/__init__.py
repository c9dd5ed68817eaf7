"""
What a person sees: the live page, and the one by which people sign in. Each is self-contained, and a client of the public API like
any other.

Invariants:
    - a page fetches nothing but that API: no script, style, font or picture comes from anywhere else;
    - a browser runs what stands in a page, to the byte, and nothing that was added to it (`policy`).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

MEDIA_TYPE = "text/html; charset=utf-8"


def page() -> bytes:
    """The live page, whole."""
    return (Path(__file__).parent / "page.html").read_bytes()


def signin_page() -> bytes:
    """The page by which people sign in, whole."""
    return (Path(__file__).parent / "signin.html").read_bytes()


def policy(page: bytes, connect: Iterable[str] = ()) -> str:
    """The Content-Security-Policy of a self-contained page: its own scripts and styles by their SHA-256 (CSP Level 3), and requests
    to its own origin and those of `connect`.
    """
    allowed = {
        tag: " ".join(_source(inline) for inline in re.findall(rb"<%b\b[^>]*>(.*?)</%b>" % (tag, tag), page, re.DOTALL))
        for tag in (b"script", b"style")
    }
    directives = {
        "default-src": "'none'",
        "script-src": allowed[b"script"] or "'none'",
        "style-src": allowed[b"style"] or "'none'",
        "img-src": "data:",
        "connect-src": " ".join(["'self'", *connect]),
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {said}" for name, said in directives.items())


def _source(inline: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline).digest()).decode()}'"
