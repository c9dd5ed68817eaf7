"""
Signs: what an event says of its player, as far as a rule may look at it.

An event is known by its tag, which is for ever; so what is of another aggregate is read here without its decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from domain.kernel import AMOUNT_MAX
from domain.wallets import CASH, DEPOSIT
from policies.findings import Signal
from policies.limits import Kind as LimitKind
from policies.limits import Period, Source

_WITHDRAWAL, _RETURN = "withdrawal", "withdrawal_return"


class Sign(NamedTuple):
    """`amount`: minor units of `currency`, or a number of players; 0 and "" where it is about neither."""

    signal: Signal
    amount: int = 0
    currency: str = ""


def _credited(event: Any) -> Sequence[Sign]:
    transfer = event.transfer
    if transfer.code == DEPOSIT:
        return (Sign(Signal.DEPOSIT, *_money(transfer)),)
    if transfer.code == _RETURN:
        amount, currency = _money(transfer)
        return (Sign(Signal.PAYOUT, -amount, currency),)
    return ()


def _debited(event: Any) -> Sequence[Sign]:
    return (Sign(Signal.PAYOUT, *_money(event.transfer)),) if event.transfer.code == _WITHDRAWAL else ()


def _moved(event: Any) -> Sequence[Sign]:
    """A payout that had been given up, and was paid all the same."""
    return tuple(Sign(Signal.PAYOUT, *_money(each)) for each in event.movements if each.code == _WITHDRAWAL)


def _reserved(event: Any) -> Sequence[Sign]:
    return (Sign(Signal.WITHDRAWAL, *_money(event.transfer)),) if event.transfer.code == _WITHDRAWAL else ()


def _staked(event: Any) -> Sequence[Sign]:
    amount, cash, currency = _together(event.movements, "source")
    return (Sign(Signal.STAKE, amount, currency), Sign(Signal.LOSS, cash, currency)) if amount else ()


def _won(event: Any) -> Sequence[Sign]:
    amount, cash, currency = _together(event.movements, "target")
    return (Sign(Signal.WIN, amount, currency), Sign(Signal.LOSS, -cash, currency)) if amount else ()


def _rolled_back(event: Any) -> Sequence[Sign]:
    amount, cash, currency = _together(event.movements, "target")
    return (Sign(Signal.STAKE, -amount, currency), Sign(Signal.LOSS, -cash, currency)) if amount else ()


def _money(transfer: Any) -> tuple[int, str]:
    return transfer.money.amount, transfer.money.currency


def _together(movements: Sequence[Any], side: str) -> tuple[int, int, str]:
    """All of it, what of it is on cash on that side, and the currency."""
    amount = sum(each.money.amount for each in movements)
    cash = sum(each.money.amount for each in movements if getattr(each, side) == CASH)
    return amount, cash, movements[0].money.currency if movements else ""


def _shared(event: Any) -> Sequence[Sign]:
    return (Sign(Signal.INSTRUMENT_SHARED, 1 + len(event.players)),)


def _limit_set(event: Any) -> Sequence[Sign]:
    """Those that the player has set; what the house has set needs no contact."""
    return _month_limit(event) if event.source is Source.PLAYER else ()


def _raise_requested(event: Any) -> Sequence[Sign]:
    of_month = _month_limit(event)
    if event.kind is not LimitKind.DEPOSIT:
        return (Sign(Signal.LIMIT_RAISED),)
    most = of_month[0] if of_month else Sign(Signal.DEPOSIT_LIMIT_RAISED)
    return Sign(Signal.LIMIT_RAISED), *of_month, most._replace(signal=Signal.DEPOSIT_LIMIT_RAISED)


def _month_limit(event: Any) -> Sequence[Sign]:
    """Of deposits. Who asks for no limit at all asks for more than any figure."""
    if event.kind is not LimitKind.DEPOSIT or event.period not in (Period.MONTH, Period.DAYS_30):
        return ()
    if event.money is None:
        return (Sign(Signal.MONTH_LIMIT, AMOUNT_MAX),)
    return (Sign(Signal.MONTH_LIMIT, event.money.amount, event.money.currency),)


def _only(signal: Signal) -> Callable[[Any], Sequence[Sign]]:
    return lambda _event: (Sign(signal),)


SIGNS: Mapping[str, Callable[[Any], Sequence[Sign]]] = {
    "wallet.credited": _credited,
    "wallet.debited": _debited,
    "wallet.moved": _moved,
    "wallet.reserved": _reserved,
    "wallet.staked": _staked,
    "wallet.won": _won,
    "wallet.rolled_back": _rolled_back,
    "transaction.deposit_failed": _only(Signal.DEPOSIT_FAILED),
    "transaction.withdrawal_cancelled": _only(Signal.WITHDRAWAL_CANCELLED),
    "transaction.instrument_shared": _shared,
    "limits.limit_set": _limit_set,
    "limits.raise_requested": _raise_requested,
    "login.failed": _only(Signal.LOGIN_FAILED),
    "player.erasure_due": _only(Signal.ERASURE_DUE),
}
"""By the tag of an event, what it says."""

PLACES: Final = frozenset({"player.registered", "player.profile_recorded"})
"""Tags of the events that say whose rules hold."""
