"""Every aggregate whose events may stand in a log: what a reader must know before a writer may use it."""

from __future__ import annotations

from typing import Any

from domain.kernel import Aggregate
from domain.limits import LIMITS
from domain.logs import LOGS
from domain.players import PLAYERS
from domain.transactions import TRANSACTIONS
from domain.wallets import WALLETS

AGGREGATES: tuple[Aggregate[Any], ...] = (LOGS, PLAYERS, LIMITS, WALLETS, TRANSACTIONS)
