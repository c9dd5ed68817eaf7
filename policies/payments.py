"""
What may be paid in and out by each method and in each currency: the house's own figures, which no law prescribes.

A method is a provider's name. Amounts are in whole units of the currency, here as everywhere in policies, and become minor
units in `of`.

Invariants:
    - for each method and currency there is exactly one rule, the most particular one;
    - nothing goes out by itself for which policies.approvals wants two people (a test compares).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple

from policies.currencies import EXPONENTS

_EXACT_MAX = 2**53 - 1
"""The largest amount in minor units (I-JSON, RFC 7493)."""


class Method(NamedTuple):
    """Amounts in whole units of the currency; a maximum of None is no maximum. Times to live in hours.

    A deposit lives until it is given up; a withdrawal's reservation until it is voided. A withdrawal of more than `automatic`
    (`automatic_fast` for players tagged fast_payout) waits for a person (and policies.approvals says when for two).
    """

    deposit_min: int | None = None
    deposit_max: int | None = None
    withdrawal_min: int | None = None
    withdrawal_max: int | None = None
    automatic: int = 500
    automatic_fast: int = 2_000
    deposit_hours: int = 24
    withdrawal_hours: int = 7 * 24


class Terms(NamedTuple):
    """A method in one currency: amounts in minor units."""

    deposit_min: int
    deposit_max: int
    withdrawal_min: int
    withdrawal_max: int
    automatic: int
    automatic_fast: int
    deposit_lives: timedelta
    withdrawal_lives: timedelta


_TENFOLD = Method(automatic=5_000, automatic_fast=20_000)
_HUNDREDFOLD = Method(automatic=50_000, automatic_fast=200_000)

METHODS: Mapping[tuple[str, str], Method] = {
    ("", ""): Method(),
    ("", "SEK"): _TENFOLD,
    ("", "NOK"): _TENFOLD,
    ("", "DKK"): _TENFOLD,
    ("", "JPY"): _HUNDREDFOLD,
}
"""By (provider, currency); "" stands for any. A provider's rule counts before a currency's."""

FAST_PAYOUT = "fast_payout"
"""The tag of players whose withdrawals need nobody up to a higher amount."""

REVIEW_TAGS = frozenset({"risk", "bonus_abuse", "pep"})
"""Tags of players each of whose withdrawals a person looks at."""

WEIGHTY_TAGS = REVIEW_TAGS | {FAST_PAYOUT}
"""Tags on which it depends whether money goes out unseen: not everybody who may tag a player may set or remove these."""


@lru_cache(1024)
def of(provider: str, currency: str) -> Terms:
    """The rule that counts."""
    keys = ((provider, currency), (provider, ""), ("", currency), ("", ""))
    method = next(METHODS[key] for key in keys if key in METHODS)
    unit = 10 ** EXPONENTS.get(currency, 0)

    def minor(amount: int | None, otherwise: int) -> int:
        return otherwise if amount is None else amount * unit

    return Terms(
        minor(method.deposit_min, 1),
        minor(method.deposit_max, _EXACT_MAX),
        minor(method.withdrawal_min, 1),
        minor(method.withdrawal_max, _EXACT_MAX),
        method.automatic * unit,
        method.automatic_fast * unit,
        timedelta(hours=method.deposit_hours),
        timedelta(hours=method.withdrawal_hours),
    )


def rules() -> object:
    """All of it as plain data, for its hash."""
    return {
        "methods": {f"{provider}/{currency}": method._asdict() for (provider, currency), method in METHODS.items()},
        "fast_payout": FAST_PAYOUT,
        "review_tags": sorted(REVIEW_TAGS),
    }
