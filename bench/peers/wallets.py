"""
A wallet with a long history: so many bets of one player, as commands would have left them, and how long a process that has just
started takes to know what is in it.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Iterator
from datetime import UTC
from typing import Any

import msgspec

from app.bootstrap import write_side
from bench import servers
from bench.peers import Load, history, ours
from bench.peers.history import STEP_US, Made
from commands import games
from commands.decider import SNAPSHOT_EVERY
from commands.games import GameCall
from domain.kernel import Money, instant, uuid7
from domain.wallets import WALLETS, Accounts, Movement, Played, Staked, Wallet
from eventstore.log import Snapshot, state_schema
from eventstore.postgres import PostgresStreams, pool

_TIMES = 30
_RICH = 10**15
_STAKE = 10


class _Bets:
    """The bets of one wallet, and the state that a decider would have kept on the way."""

    def __init__(self, player: str, count: int) -> None:
        self._player = player
        self._count = count
        self.state = Wallet(balances={"EUR": Accounts(cash=_RICH)})
        self.kept: tuple[int, int, bytes] | None = None

    def facts(self, recorded: int) -> Iterator[Made]:
        recorded += STEP_US
        yield history.registration(self._player, recorded)
        for version in range(1, self._count + 1):
            recorded += STEP_US
            at = instant(recorded)
            cash = self.state.balance("EUR").cash - _STAKE
            bet = Staked(
                played=Played("reel", "book-of-sand", f"round-{version}", "session_bench"),
                reference=f"bet-{version}",
                money=Money(_STAKE, "EUR"),
                movements=(Movement("bet", "cash", "house:ggr", Money(_STAKE, "EUR"), f"bet-{version}"),),
                accounts=Accounts(cash=cash),
                day=at.astimezone(UTC).date(),
            )
            self.state = WALLETS.evolve(self.state, bet, at)
            if version % SNAPSHOT_EVERY == 0:
                self.kept = version, recorded, msgspec.json.encode(self.state, order="sorted")
            yield history.made(f"wallet-{self._player}", version, bet, uuid7(at, os.urandom(10)), recorded)


async def loaded(count: int) -> dict[str, Any]:
    """{"bets", "load_ms", "load_ms_max"}: the median and the most of 30 processes' first look, each half a snapshot's way after one."""
    count += SNAPSHOT_EVERY // 2
    with servers.running() as here:
        settings = ours.region(here, "wallet")
        opened = await ours.open_log(settings, Load(1, 0))
        (player,) = opened.suffixes
        bets = _Bets(player, count)
        history.copy_in(
            opened.dsn, f"ledger.entry_{opened.end.log}", history.chained(opened.end, bets.facts), count + 1
        )
        async with pool(opened.dsn, "countroom_writer", size=1) as connections:
            streams = PostgresStreams(connections)
            if bets.kept is not None:
                version, recorded, state = bets.kept
                wallet = f"wallet-{player}"
                entry = (await streams.load({wallet: version - 1}))[wallet][0]
                await streams.keep([Snapshot(wallet, version, entry.leaf, recorded, state_schema(WALLETS), state)])
        taken = []
        for _ in range(_TIMES):
            async with write_side(settings) as write:
                await write.decider.rehearse([_asked(f"player_{history.players(Load(1, 0), [0], 0)[0]}")])  # connect
                began = time.perf_counter()
                (found,) = await write.decider.rehearse([_asked(f"player_{player}")])
                taken.append(1e3 * (time.perf_counter() - began))
                if isinstance(found, Exception):
                    raise found
        return {
            "bets": count,
            "load_ms": round(statistics.median(taken), 2),
            "load_ms_max": round(max(taken), 2),
        }


def _asked(player: str) -> Any:
    said = GameCall(verb="balance", player=player, reference=f"{random.getrandbits(60):x}")
    context = games.context("reel", "balance", said, now=instant(time.time_ns() // 1_000), secret=b"a benchmark")
    return games.plan("reel", "balance", said, context)
