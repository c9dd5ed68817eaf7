"""From which account a player's spending is paid first: the house's own rule, by brand and jurisdiction."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Order(StrEnum):
    CASH_FIRST = "cash_first"
    BONUS_FIRST = "bonus_first"


DEFAULT = Order.CASH_FIRST
"""Cash is the player's own to withdraw, and a bonus is not: to spend cash first keeps what the house has promised for later."""

EXCEPTIONS: Mapping[tuple[str, str], Order] = {}
"""By (brand, jurisdiction); "" stands for any. The most particular one counts, a brand's before a jurisdiction's."""


def order(brand: str, jurisdiction: str, exceptions: Mapping[tuple[str, str], Order] = EXCEPTIONS) -> Order:
    for key in ((brand, jurisdiction), (brand, ""), ("", jurisdiction)):
        if (found := exceptions.get(key)) is not None:
            return found
    return DEFAULT


def rules() -> object:
    """All of it as plain data, for its hash."""
    return {
        "default": DEFAULT,
        "exceptions": {f"{brand}/{place}": order for (brand, place), order in EXCEPTIONS.items()},
    }
