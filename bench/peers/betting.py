"""
What a bet is compared with, each as a process that serves HTTP as our API does (uvicorn, uvloop, httptools):

    python -m bench.peers.betting noop PORT SECRET           our middleware and lanes, and a door that answers at once
    python -m bench.peers.betting stock PORT SECRET DSN      the same bet as an application of the library `eventsourcing`

The stock application is what a careful user of that library would write: FastAPI, one aggregate for a player's wallet with its
limits and one for each bet, named by the provider's reference, so that PostgreSQL refuses a second one. Its best safe
configuration is that of bench.peers.stock: a cache that is neither copied nor brought up to date, which a single writer may have,
and a connection for each of 16 threads.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import uvicorn
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError
from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from app.lane import Answered
from bench.peers.stock import THREADS, application
from providers import signing

_NAMES = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")
_encode = msgspec.json.Encoder().encode


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bet, as our own door takes it."""

    verb: str
    reference: str
    player: str
    session: str
    game: str
    round: str
    amount: int
    currency: str


class Wallet(Aggregate):
    """A player's money, and what is left of a day's losses and of a week's stakes."""

    @event("Opened")
    def __init__(self, player: str, currency: str, cash: int, lose: int, stake: int) -> None:
        self.player = player
        self.currency = currency
        self.cash = cash
        self.lose = lose
        self.stake = stake
        self.lost = 0
        self.staked = 0
        self.day = date.min
        self.week = (0, 0)

    @staticmethod
    def create_id(player: str) -> uuid.UUID:
        return uuid.uuid5(_NAMES, f"wallet {player}")

    def bet(self, call: Call, day: date) -> None:
        """Raises ValueError for what may not be."""
        lost = self.lost if day == self.day else 0
        staked = self.staked if day.isocalendar()[:2] == self.week else 0
        if call.currency != self.currency or call.amount > self.cash:
            raise ValueError("insufficient_funds")
        if lost + call.amount > self.lose or staked + call.amount > self.stake:
            raise ValueError("limit_exceeded")
        self.take(call.amount, call.reference, call.game, call.round, call.session, day.isoformat())

    @event("Staked")
    def take(self, amount: int, reference: str, game: str, round: str, session: str, day: str) -> None:  # noqa: A002, ARG002
        today = date.fromisoformat(day)
        week = today.isocalendar()[:2]
        self.cash -= amount
        self.lost = amount + (self.lost if today == self.day else 0)
        self.staked = amount + (self.staked if week == self.week else 0)
        self.day, self.week = today, week


class Bet(Aggregate):
    """That there was a bet of this reference."""

    @event("Placed")
    def __init__(self, reference: str, wallet: str, cash: int) -> None:
        self.reference = reference
        self.wallet = wallet
        self.cash = cash

    @staticmethod
    def create_id(reference: str) -> uuid.UUID:
        return uuid.uuid5(_NAMES, f"bet {reference}")


def stock(secret: bytes, dsn: str) -> FastAPI:
    made = application(dsn, tuned=True)
    threads = ThreadPoolExecutor(THREADS)
    app = FastAPI()

    def open_wallets(players: list[str]) -> None:
        for player in players:
            made.save(Wallet(player=player, currency="EUR", cash=10**9, lose=10**9, stake=10**9))

    def place(raw: bytes) -> dict[str, Any]:
        call = msgspec.json.decode(raw, type=Call)
        wallet: Wallet = made.repository.get(Wallet.create_id(call.player))
        wallet.bet(call, datetime.now(UTC).date())
        bet = Bet(reference=call.reference, wallet=call.player, cash=wallet.cash)
        made.save(wallet, bet)
        return {"balance": {"cash": wallet.cash, "bonus": 0, "currency": wallet.currency}, "repeated": False}

    @app.post("/players")
    async def players(request: Request) -> Response:
        named = msgspec.json.decode(await request.body(), type=list[str])
        await asyncio.get_running_loop().run_in_executor(threads, open_wallets, named)
        return Response(b"{}")

    @app.post("/v1/games/reel/bet")
    async def bet(request: Request) -> Response:
        raw = await request.body()
        try:
            signing.verify(secret, request.headers.get(signing.HEADER, ""), raw, int(time.time()))
            answer = await asyncio.get_running_loop().run_in_executor(threads, place, raw)
        except signing.BadSignature:
            return Response(b"{}", 401)
        except (ValueError, IntegrityError) as error:
            return Response(_encode({"code": str(error)}), 409)
        return Response(_encode(answer), media_type="application/json")

    return app


class _Nothing:
    """A door that takes what is there to take, and does nothing."""

    async def take(self, *_said: object) -> Answered:
        body = b'{"balance":{"cash":1,"bonus":0,"currency":"EUR"},"position":null,"repeated":false}'
        return Answered(200, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))], body)


def noop() -> ASGIApp:
    from app import gaming
    from app.api import explain_errors
    from app.lane import Lane
    from app.metrics import Metrics, Timed
    from app.openapi import Schemas

    app, door = FastAPI(), _Nothing()
    games = gaming.router(door, Schemas())  # type: ignore[arg-type]
    app.include_router(games)
    explain_errors(app)
    return Timed(Lane(app, games.routes), metrics=Metrics())


def main(kind: str, port: str, secret: str, dsn: str = "") -> None:
    from app.workers import spare_the_collector

    app = noop() if kind == "noop" else stock(bytes.fromhex(secret), dsn)
    spare_the_collector()
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(port),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
