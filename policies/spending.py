"""
From which account a player's spending is paid first, and where wins come from and go to: the house's own rules.

Who pays first depends on brand and jurisdiction. Where a win goes never depends on what has come before it, so that bets and
wins may arrive in any order.
"""

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


class WinKind(StrEnum):
    """`win`: what a game pays. `bonus_win`: a prize beside the game, such as a tournament's. `free_win`: of a free round."""

    WIN = "win"
    BONUS_WIN = "bonus_win"
    FREE_WIN = "free_win"


WINS: Mapping[WinKind, tuple[str, str]] = {
    WinKind.WIN: ("house:ggr", "cash"),
    WinKind.BONUS_WIN: ("house:bonus", "bonus"),
    WinKind.FREE_WIN: ("house:bonus", "bonus"),
}
"""(source, target). What nobody has staked for is the house's gift, and bonus money until it was played with."""


def order(brand: str, jurisdiction: str, exceptions: Mapping[tuple[str, str], Order] = EXCEPTIONS) -> Order:
    if exceptions:
        for key in ((brand, jurisdiction), (brand, ""), ("", jurisdiction)):
            if (found := exceptions.get(key)) is not None:
                return found
    return DEFAULT


def rules() -> object:
    """All of it as plain data, for its hash."""
    return {
        "default": DEFAULT,
        "exceptions": {f"{brand}/{place}": order for (brand, place), order in EXCEPTIONS.items()},
        "wins": WINS,
    }
