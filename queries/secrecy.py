"""
What is not told of a block or a limit: that it is about money laundering, to whoever may not touch such a case.

Invariant: in its place stands the word that its player hears (domain.errors.UnderReview), in every answer for which `player.read` is
enough. Whoever may read the audit reads the log, which says what it says.
"""

from __future__ import annotations

import msgspec

from access.resources import SECRECY, SECRET
from domain.errors import UnderReview
from policies.limits import MONEY_LAUNDERING
from queries.context import Context

_reasons = msgspec.json.Decoder(dict[str, msgspec.Raw])
_word = msgspec.json.Decoder(str)


def is_told(context: Context, brand: str, country: str) -> bool:
    """Whether this reader is told it, of a player of a brand and country."""
    return context.may_know({"brand": brand, "country": country, SECRECY: SECRET})


def told(context: Context, reason: str | None, brand: str, country: str) -> str | None:
    """A reason as this reader is told it."""
    return UnderReview.code if reason in MONEY_LAUNDERING and not is_told(context, brand, country) else reason


def is_secret(data: msgspec.Raw) -> bool:
    """Whether an event's data has such a reason."""
    return _reason(_reasons.decode(data)) in MONEY_LAUNDERING


def without(data: msgspec.Raw) -> msgspec.Raw:
    """The same data with the neutral word."""
    return msgspec.Raw(msgspec.json.encode({**_reasons.decode(data), "reason": UnderReview.code}))


def _reason(fields: dict[str, msgspec.Raw]) -> str:
    raw = bytes(fields.get("reason", b""))
    return _word.decode(raw) if raw.startswith(b'"') else ""
