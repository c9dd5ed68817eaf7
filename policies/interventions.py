"""Why people act on money or games by hand: the kinds among which they choose."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    CORRECTION = "correction"
    COMPLAINT = "complaint"
    GOODWILL = "goodwill"
    FRAUD = "fraud"
    PAYMENT_TROUBLE = "payment_trouble"
    GAME_TROUBLE = "game_trouble"
    LEGAL = "legal"
    OTHER = "other"
