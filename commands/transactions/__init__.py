"""Commands on transactions: what players, providers, timers and people do to deposits and withdrawals."""

from __future__ import annotations

from commands.edge import Endpoint, Nothing
from commands.sealing import KeyNotHeld
from commands.transactions import deposits, withdrawals
from commands.transactions.either import MoreThanAsked, SettlePayment, expire, settle
from commands.transactions.telling import AMOUNTS, ByHand, Payment, endpoint
from commands.transactions.withdrawals import ReturnWithdrawal, SendWithdrawal, return_, send
from domain.errors import (
    GateClosed,
    LimitExceeded,
    LimitRequired,
    NotFound,
    PlayerBlocked,
    PlayerNotActive,
    UnderReview,
)
from domain.payouts import UnderWay
from domain.protection import REFUSALS, ActionIsBlocked
from domain.transactions import (
    AmountDiffers,
    AmountOutOfRange,
    DisputeOpen,
    NotApproved,
    NotDisputed,
    NotDue,
    NotSettled,
    RefundExceeds,
    SentAlready,
)
from domain.wallets import InsufficientFunds

_ASKING = (NotFound, PlayerBlocked, UnderReview, *AMOUNTS, AmountOutOfRange)

ENDPOINTS = (
    Endpoint(
        "/v1/players/{player_id}/deposits", deposits.request, deposits.RequestDeposit, Payment, 201,
        (*_ASKING, PlayerNotActive, GateClosed, LimitRequired, LimitExceeded, *REFUSALS.values()),
    ),
    Endpoint(
        "/v1/players/{player_id}/withdrawals", withdrawals.request, withdrawals.RequestWithdrawal, Payment, 201,
        (*_ASKING, InsufficientFunds, KeyNotHeld, ActionIsBlocked),
    ),
    endpoint("authorise", deposits.authorise, deposits.AuthoriseDeposit),
    endpoint("settle", settle, SettlePayment, *AMOUNTS, AmountDiffers, NotApproved, MoreThanAsked),
    endpoint("fail", deposits.fail, deposits.FailDeposit),
    endpoint("expire", expire, Nothing, NotDue),
    endpoint("dispute", deposits.dispute, deposits.DisputeDeposit, NotSettled, DisputeOpen),
    endpoint("dispute/win", deposits.win, deposits.WinDispute, NotDisputed),
    endpoint(
        "dispute/lose", deposits.lose, deposits.LoseDispute, *AMOUNTS, NotDisputed, AmountDiffers, RefundExceeds
    ),
    endpoint(
        "refund", deposits.refund, deposits.RefundDeposit,
        *AMOUNTS, AmountDiffers, NotSettled, DisputeOpen, RefundExceeds, InsufficientFunds,
    ),
    endpoint("approve", withdrawals.approve, ByHand, PlayerBlocked, UnderReview, GateClosed, ActionIsBlocked),
    endpoint("reject", withdrawals.reject, withdrawals.RejectWithdrawal),
    endpoint("cancel", withdrawals.cancel, Nothing),
    endpoint("send", send, SendWithdrawal, NotApproved, SentAlready, PlayerBlocked, UnderReview, ActionIsBlocked),
    endpoint("return", return_, ReturnWithdrawal, NotApproved, NotSettled, UnderWay),
)  # fmt: skip

__all__ = [
    "ENDPOINTS",
    "ByHand",
    "MoreThanAsked",
    "Payment",
    "ReturnWithdrawal",
    "SendWithdrawal",
    "SettlePayment",
    "expire",
    "return_",
    "send",
    "settle",
]
