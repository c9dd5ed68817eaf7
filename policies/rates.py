"""
How often who may ask, before anything of the request is read.

Invariant: every figure is the house's. No law asks for one, and an installation may set others (COUNTROOM_RATES).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Rate(NamedTuple):
    """So many requests a second for ever, and `burst` at once by who was quiet before."""

    per_second: float
    burst: int


ADDRESS = "address"
"""What comes from one address, and nobody was found behind it: wrong tokens, unsigned messages, what is public."""
PERSON = "person"
"""Somebody at a browser."""
MACHINE = "machine"
"""A program with a token of its own."""
PROVIDER = "provider"
"""Whoever signs what they send: providers of payments, identity and games."""

HOUSE: Mapping[str, Rate | None] = {
    ADDRESS: Rate(50, 500),
    PERSON: Rate(20, 200),
    MACHINE: None,
    PROVIDER: None,
}
"""None: as often as they like. Machines and providers are few, known by contract, and a bet that is refused for its number is a
bet that the player has lost: the house lets them be, and an installation may say otherwise.
"""
