"""
What a person sees: one self-contained live page, a client of the public API like any other.

Invariant: the page fetches nothing but that API: no script, style, font or picture comes from anywhere else.
"""

from __future__ import annotations

from pathlib import Path

MEDIA_TYPE = "text/html; charset=utf-8"


def page() -> bytes:
    """The live page, whole."""
    return (Path(__file__).parent / "page.html").read_bytes()
