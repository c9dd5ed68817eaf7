"""
The load of a run: `python -m chaos.load --site SITE.json --history FILE --seed S`.

Some callers over both regions register players, pay in and out, cut limits, exclude and block, alone and in batches, read what they
have written, and say the same again when they hear nothing. Each has players of its own; on a few, all of them race. Now and then
the players' partitions are handed over to the other region. Ends on SIGTERM, after what is under way.

What it does follows from the seed, as far as it does not depend on what it is answered.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2

from chaos import fold, place
from chaos.client import ANSWER_S, Ask, Caller, Told
from chaos.record import Recorder, now_ns

CLIENTS = 14
RATE = 70.0
"""Requests a second, all together."""
GIVE_UP_S = 60.0
_LAST_S = 25.0
"""So long what is under way may take after SIGTERM."""
_OWN_PLAYERS = 5
_SHARED_PLAYERS = 4
_AGAIN = 0.06
"""How often what was answered is said once more: what is recorded has its first answer, a refusal its own or another."""
_TWICE = 0.5
"""How often a registration is said in two regions at once: whichever comes first, there is one player."""
_BESIDE, _LATER = 500, 1_000
"""Numbers of tries beside and after those that follow one another."""
_READERS = ("auditor", "analyst", "support", "risk", "compliance")
_WRITERS = ("operator", "supervisor")


def money(amount: int) -> dict[str, Any]:
    return {"amount": amount, "currency": "EUR"}


class Pace:
    """Turns, so many a second for all together."""

    def __init__(self, rate: float) -> None:
        self._gap_s = 1 / rate
        self._next_s = 0.0

    async def turn(self) -> None:
        now = asyncio.get_running_loop().time()
        self._next_s = max(self._next_s + self._gap_s, now)
        await asyncio.sleep(self._next_s - now)


class Shared:
    """The players on whom all callers race, and where each player was seen last: the log that has answered about them."""

    def __init__(self) -> None:
        self.players: list[str] = []
        self.owners: dict[str, str] = {}


class Client:
    """One caller. `seen`: the newest position of each log that it was told of."""

    def __init__(self, name: str, caller: Caller, pace: Pace, shared: Shared, chance: random.Random) -> None:
        self.name = name
        self._caller = caller
        self._pace = pace
        self._shared = shared
        self._chance = chance
        self._home = caller.regions[int(name[1:]) % len(caller.regions)]
        self._wanders = chance.random() < 0.5
        self._role = _WRITERS[int(name[1:]) // len(caller.regions) % len(_WRITERS)]
        self._ops = 0
        self._players: list[str] = []
        self._blocked: set[str] = set()
        self._reserved: list[tuple[str, str]] = []
        self._recent: list[tuple[str, str, str]] = []
        self.seen: dict[str, tuple[int, str]] = {}

    async def run(self) -> None:
        acts: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (30, self._deposit), (18, self._withdraw), (8, self._cancel), (8, self._batch), (6, self._limit), (4, self._block),
            (1.5, self._exclude), (3, self._register), (18, self._card), (3.5, self._fate),
        ]  # fmt: skip
        while not self._caller.stopping.is_set():
            await self._pace.turn()
            if len(self._players) < 2:
                await self._register()
                continue
            [act] = self._chance.choices([act for _, act in acts], [weight for weight, _ in acts])
            await act()

    # What it does

    async def _register(self) -> None:
        if len(self._players) >= _OWN_PLAYERS:
            self._players.pop(0)
        told = await self._command(
            "register", "", "/v1/players", {"country": "AT", "currency": "EUR"}, twice=self._chance.random() < _TWICE
        )
        if told and told.done:
            self._players.append(str(told.inner["player"]))

    async def _deposit(self) -> None:
        player = self._player()
        body = {"amount": money(self._chance.randint(100, 2_000)), "provider": "card"}
        told = await self._command("deposit", player, f"/v1/players/{player}/deposits", body)
        if told and told.done:
            await self._settle(player, str(told.inner["transaction"]))

    async def _settle(self, player: str, transaction: str) -> None:
        await self._command("settle", player, f"/v1/transactions/{transaction}/settle", {}, role="payments")

    async def _withdraw(self) -> None:
        player = self._player()
        body = {"amount": money(self._chance.randint(50, 3_000)), "provider": "card"}
        told = await self._command("withdraw", player, f"/v1/players/{player}/withdrawals", body)
        if told and told.done:
            self._reserved.append((player, str(told.inner["transaction"])))

    async def _cancel(self) -> None:
        if not self._reserved:
            return
        player, transaction = self._reserved.pop(self._chance.randrange(len(self._reserved)))
        await self._command("cancel", player, f"/v1/transactions/{transaction}/cancel", {})

    async def _limit(self) -> None:
        player = self._player()
        limit = self._chance.choice([3_000, 5_000, 10_000, 20_000, 50_000, 100_000])
        await self._command("limit", player, f"/v1/players/{player}/limits/deposit", {"limit": money(limit)})

    async def _block(self) -> None:
        if self._blocked:
            player = self._blocked.pop()
            told = await self._command("unblock", player, f"/v1/players/{player}/unblock", {"reason": "settled"})
            if told is None:
                self._blocked.add(player)
            return
        player = self._player()
        await self._command("block", player, f"/v1/players/{player}/block", {"reason": "fraud"})
        self._blocked.add(player)

    async def _exclude(self) -> None:
        """Where the player is not owned, more often than not; then somebody else takes their place."""
        if len(self._players) < 3:
            return
        player = self._players.pop(0)
        owner = self._shared.owners.get(player, self._home)
        region = self._chance.choice([other for other in self._caller.regions if other != owner] or [owner])
        await self._command("exclude", player, f"/v1/players/{player}/exclude", {"term": "6_months"}, region=region)
        body = {"amount": money(100), "provider": "card"}
        await self._command("deposit", player, f"/v1/players/{player}/deposits", body, region=region)

    async def _batch(self) -> None:
        asks = []
        for _ in range(self._chance.randint(2, 6)):
            player, amount = self._player(), self._chance.randint(50, 1_500)
            kind, verb = self._chance.choice([("deposit", "deposits"), ("withdraw", "withdrawals")])
            body = {"amount": money(amount), "provider": "card"}
            op, key = self._named()
            asks.append((op, Ask(kind, _suffix(player), self._role, key, f"/v1/players/{player}/{verb}", body)))
        region = self._region()
        told = await self._caller.batch(self.name, asks, region, f"{self.name}-batch-{self._ops}")
        for (op, ask), each in zip(asks, told, strict=True):
            final: Told | None = each
            if not each.definite:
                final = await self._caller.command(self.name, op, ask, self._region(), self._chance, first=2)
            self._learn(ask, final)
            if final and final.done and ask.kind == "deposit":
                await self._settle(f"player_{ask.player}", str(final.inner["transaction"]))

    async def _card(self) -> None:
        player = self._player()
        at_least = self._vector() if self._chance.random() < 0.7 else ""
        await self._read("card", player, self._chance.choice(_READERS), f"/v1/players/{player}", at_least)

    async def _fate(self) -> None:
        if self._recent:
            role, content, position = self._recent[self._chance.randrange(len(self._recent))]
            await self._read("fate", "", role, content, position)

    # How it does it

    async def _command(
        self, kind: str, player: str, path: str, body: Any, *, role: str = "", region: str = "", twice: bool = False
    ) -> Told | None:
        """`twice`: it is said in another region at the same moment."""
        op, key = self._named()
        ask = Ask(kind, _suffix(player), role or self._role, key, path, body)
        region = region or self._region()
        told: Told | None
        others = [each for each in self._caller.regions if each != region]
        if twice and others:
            await self._pace.turn()
            beside = self._caller.again(self.name, op, ask, self._chance.choice(others), _BESIDE)
            command = self._caller.command(self.name, op, ask, region, self._chance)
            told = (await asyncio.gather(command, beside))[0]
        else:
            told = await self._caller.command(self.name, op, ask, region, self._chance)
        self._learn(ask, told)
        if told and (told.position or not told.done) and self._chance.random() < _AGAIN:
            await self._pace.turn()
            await self._caller.again(self.name, op, ask, self._chance.choice(self._caller.regions), _LATER)
        return told

    def _learn(self, ask: Ask, told: Told | None) -> None:
        if not told or not told.done or not told.position:
            return
        log, position, leaf = told.position.split("/")
        if ask.player and ask.kind not in {"exclude", "block", "limit"}:
            self._shared.owners[f"player_{ask.player}"] = log
        if ask.kind == "register":
            self._shared.owners[str(told.inner["player"])] = log
        if self.seen.get(log, (0, ""))[0] < int(position):
            self.seen[log] = int(position), leaf
        if ask.role == self._role:
            id_ = fold.command_id(place.caller(ask.role), ask.key)
            self._recent = [*self._recent[-20:], (ask.role, f"/v1/commands/{id_}", told.position)]

    async def _read(self, kind: str, player: str, role: str, path: str, at_least: str) -> None:
        op, _ = self._named()
        region = self._chance.choice(self._caller.regions)
        await self._caller.read(self.name, op, kind, _suffix(player), role, path, at_least, region)

    def _vector(self) -> str:
        return ",".join(f"{log}/{position}/{leaf}" for log, (position, leaf) in sorted(self.seen.items()))

    def _named(self) -> tuple[str, str]:
        self._ops += 1
        return f"{self.name}-{self._ops}", f"chaos {self.name} {self._ops} {now_ns()}"

    def _player(self) -> str:
        among = self._shared.players if self._shared.players and self._chance.random() < 0.25 else self._players
        return self._chance.choice(among)

    def _region(self) -> str:
        return self._chance.choice(self._caller.regions) if self._wanders else self._home


def _suffix(player: str) -> str:
    return player.partition("_")[2]


async def _hand_over(caller: Caller, shared: Shared, chance: random.Random, run: str) -> None:
    """Every few seconds some players' partitions go to another region, and later perhaps back."""
    number = 0
    while not caller.stopping.is_set():
        await asyncio.sleep(chance.uniform(3, 7))
        if len(caller.regions) < 2 or not shared.owners:
            continue
        owner = chance.choice(caller.regions)
        owned = [player for player, log in shared.owners.items() if log == owner]
        if not owned:
            continue
        number += 1
        to = chance.choice([region for region in caller.regions if region != owner])
        body = {"to": to, "players": sorted(chance.sample(owned, min(4, len(owned))))}
        status, _ = await caller.aside(owner, "/v1/handovers", "administrator", body, f"chaos hand-over {run} {number}")
        if status == 200:
            shared.owners.update(dict.fromkeys(body["players"], to))


async def _share(caller: Caller, shared: Shared, chance: random.Random) -> None:
    """Make the players on whom all race."""
    for number in range(_SHARED_PLAYERS):
        ask = Ask(
            "register",
            "",
            "operator",
            f"chaos shared {now_ns()} {number}",
            "/v1/players",
            {"country": "AT", "currency": "EUR"},
        )
        told = await caller.command(
            "shared", f"shared-{number}", ask, caller.regions[number % len(caller.regions)], chance
        )
        if told and told.done:
            shared.players.append(str(told.inner["player"]))


async def run(site: place.Place, history: Path, seed: str, *, clients: int = CLIENTS, rate: float = RATE) -> None:
    """Load the regions until SIGTERM or SIGINT."""
    limits = httpx2.Limits(max_connections=200, max_keepalive_connections=100)
    timeout = httpx2.Timeout(ANSWER_S, connect=3.0)
    with Recorder(history) as recorder:
        async with httpx2.AsyncClient(timeout=timeout, limits=limits, trust_env=False) as http:
            caller = Caller(site, recorder, http, give_up_s=GIVE_UP_S)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, caller.stopping.set)
            shared, pace = Shared(), Pace(rate)
            everybody = [
                Client(f"c{number}", caller, pace, shared, random.Random(f"{seed} c{number}"))
                for number in range(clients)
            ]
            tasks = [asyncio.create_task(client.run()) for client in everybody]
            aside = [
                asyncio.create_task(_share(caller, shared, random.Random(f"{seed} shared"))),
                asyncio.create_task(_hand_over(caller, shared, random.Random(f"{seed} hand-over"), seed)),
            ]
            await _until_stopped(caller, [*tasks, *aside])


async def _until_stopped(caller: Caller, tasks: list[asyncio.Task[None]]) -> None:
    """A caller that fails is a fault of the load, and ends it."""
    stopped = asyncio.create_task(caller.stopping.wait())
    waiting: set[asyncio.Task[Any]] = {stopped, *tasks}
    while not stopped.done():
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task is not stopped:
                task.result()
    _, late = await asyncio.wait(tasks, timeout=_LAST_S)
    for task in late:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m chaos.load", description="Load two regions, and record all that is answered."
    )
    parser.add_argument("--site", type=Path, required=True, help="where the regions are (SITE.json)")
    parser.add_argument("--history", type=Path, required=True, help="the record, appended to")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second, all together")
    asked = parser.parse_args()
    asyncio.run(run(place.read(asked.site), asked.history, asked.seed, clients=asked.clients, rate=asked.rate))
    return 0


if __name__ == "__main__":
    sys.exit(main())
