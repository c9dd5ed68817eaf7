"""
One command or read, tried until something definite is known of it, and recorded on the way.

What is definite: an answer that says what was recorded, and a refusal. What is not: silence, a lost connection, 429, everything from
500 on, and 202 `unknown`. Then the same request is sent again, with the same key, here or in the other region.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx2
import msgspec

from chaos.place import Place, caller
from chaos.record import Line, Recorder, now_ns

ANSWER_S = 15.0
"""Longer than the 11 seconds after which a region says that another has not answered it."""
_IN_VAIN = 3
_PAUSE_S = (0.1, 1.5)
_AGAIN = frozenset({408, 421, 425, 429})
_KEPT = frozenset(
    {
        "player", "transaction", "status", "amount", "balance", "limit", "period", "until", "state", "position", "command", "code",
        "rule", "used", "source", "frees_at", "region", "id", "events", "geo", "copies", "reached",
    }
)  # fmt: skip


class Ask(NamedTuple):
    """A command. `player`: the suffix of whom it is about, "" for a registration."""

    kind: str
    player: str
    role: str
    key: str
    path: str
    body: Any


class Told(NamedTuple):
    """`definite`: recorded, or refused. `status` 0: nothing came back."""

    status: int
    answer: dict[str, Any]
    position: str
    definite: bool
    replayed: bool = False
    wait_s: float = 0.0

    @property
    def done(self) -> bool:
        """It is done: recorded, or true already."""
        return self.definite and self.status < 300

    @property
    def inner(self) -> dict[str, Any]:
        """The answer itself, also of one that is not confirmed yet."""
        return dict(self.answer.get("answer", {})) if self.answer.get("state") == "unconfirmed" else self.answer


class Caller:
    """All that the load sends goes through here. `stopping`: nothing new is to be begun."""

    def __init__(self, place: Place, recorder: Recorder, http: httpx2.AsyncClient, *, give_up_s: float) -> None:
        self.regions = list(place.regions)
        self.stopping = asyncio.Event()
        self._place = place
        self._recorder = recorder
        self._http = http
        self._give_up_s = give_up_s

    async def command(
        self, client: str, op: str, ask: Ask, region: str, chance: random.Random, first: int = 1
    ) -> Told | None:
        """Send it until its fate is known. None: given up. `first`: the number of the first try.

        What was never brought to its owner is given up soon, so that there is load while a link is cut: nothing was recorded.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._give_up_s
        attempt = first
        in_vain = 0 if first == 1 else None
        while True:
            told = await self._try(client, op, ask, region, attempt)
            if told.definite:
                return told
            if in_vain is not None:
                in_vain = in_vain + 1 if told.answer.get("code") == "owner_unreachable" else None
            if loop.time() > deadline or in_vain == _IN_VAIN:
                return None
            await asyncio.sleep(max(told.wait_s, chance.uniform(*_PAUSE_S)))
            region = chance.choice(self.regions)
            attempt += 1

    async def again(self, client: str, op: str, ask: Ask, region: str, attempt: int) -> Told:
        """Say once what is being said elsewhere, or was answered, to hear the same."""
        return await self._try(client, op, ask, region, attempt)

    async def batch(self, client: str, asks: Sequence[tuple[str, Ask]], region: str, name: str) -> list[Told]:
        """Several commands of one role in one request, tried once."""
        role = asks[0][1].role
        asked = now_ns()
        self._recorder.write(*(_asked(client, op, ask, region, 1, asked, name) for op, ask in asks))
        items = [{"key": ask.key, "path": ask.path, "body": ask.body} for _, ask in asks]
        answer = await self._post(region, "/v1/batch", role, {"items": items}, {})
        found = answer[1].get("items") if isinstance(answer, tuple) and answer[0] == 200 else None
        if not isinstance(found, list) or len(found) != len(asks):
            reason = answer if isinstance(answer, str) else f"status {answer[0]}"
            told = [Told(0, {"reason": reason}, "", definite=False) for _ in asks]
        else:
            told = [
                _told(
                    int(item["status"]),
                    item.get("body") or {},
                    item.get("position") or "",
                    bool(item.get("repeated")),
                    0.0,
                )
                for item in found
            ]
        at = now_ns()
        self._recorder.write(
            *(_heard(client, op, region, 1, at, each) for (op, _), each in zip(asks, told, strict=True))
        )
        return told

    async def read(
        self, client: str, op: str, kind: str, player: str, role: str, path: str, at_least: str, region: str
    ) -> Told:
        """A read, tried once."""
        asked = Line(
            op=op, client=client, at_ns=now_ns(), phase="asked", region=region, kind=kind, player=player, path=path, at_least=at_least
        )  # fmt: skip
        self._recorder.write(asked)
        url = self._place.regions[region].url + path + (f"?at_least={at_least}" if at_least else "")
        try:
            response = await self._http.get(url, headers=self._place.headers(role))
            told = _told(
                response.status_code, _json(response.content), response.headers.get("ledger-position", ""), False, 0.0
            )
        except (httpx2.HTTPError, OSError, msgspec.MsgspecError) as error:
            told = Told(0, {"reason": type(error).__name__}, "", definite=False)
        kept = _card(told.answer) if kind == "card" and told.status == 200 else _kept(told.answer)
        self._recorder.write(_heard(client, op, region, 1, now_ns(), told._replace(answer=kept)))
        return told

    async def aside(self, region: str, path: str, role: str, body: Any, key: str) -> tuple[int, dict[str, Any]]:
        """What is not judged, such as a hand-over. (0, {}) without an answer."""
        answer = await self._post(region, path, role, body, {"Idempotency-Key": key})
        return (0, {}) if isinstance(answer, str) else (answer[0], answer[1])

    async def _try(self, client: str, op: str, ask: Ask, region: str, attempt: int) -> Told:
        self._recorder.write(_asked(client, op, ask, region, attempt, now_ns(), ""))
        answer = await self._post(region, ask.path, ask.role, ask.body, {"Idempotency-Key": ask.key})
        if isinstance(answer, str):
            told = Told(0, {"reason": answer}, "", definite=False)
        else:
            status, body, headers = answer
            wait_s = float(headers.get("retry-after", "0") or 0)
            told = _told(status, body, headers.get("ledger-position", ""), "idempotency-replayed" in headers, wait_s)
        self._recorder.write(_heard(client, op, region, attempt, now_ns(), told))
        return told

    async def _post(
        self, region: str, path: str, role: str, body: Any, more: dict[str, str]
    ) -> tuple[int, dict[str, Any], httpx2.Headers] | str:
        """Status, body, headers; or why there is no answer. An answer that was cut off is none."""
        url = self._place.regions[region].url + path
        headers = {**self._place.headers(role), "Content-Type": "application/json", **more}
        try:
            response = await self._http.post(url, content=msgspec.json.encode(body), headers=headers)
            return response.status_code, _json(response.content), response.headers
        except (httpx2.HTTPError, OSError, msgspec.MsgspecError) as error:
            return type(error).__name__


def _json(raw: bytes) -> dict[str, Any]:
    return msgspec.json.decode(raw, type=dict[str, Any])


def _told(status: int, answer: dict[str, Any], position: str, replayed: bool, wait_s: float) -> Told:
    definite = status < 500 and status not in _AGAIN and answer.get("state") != "unknown"
    return Told(status, answer, position, definite, replayed, wait_s)


def _asked(client: str, op: str, ask: Ask, region: str, attempt: int, at_ns: int, batch: str) -> Line:
    return Line(
        op=op, client=client, at_ns=at_ns, phase="asked", attempt=attempt, region=region, kind=ask.kind, player=ask.player,
        caller=caller(ask.role), key=ask.key, path=ask.path, body=ask.body, batch=batch,
    )  # fmt: skip


def _heard(client: str, op: str, region: str, attempt: int, at_ns: int, told: Told) -> Line:
    """An answer in any words is an answer, a 503 too; no answer at all is a failure."""
    if not told.status:
        return Line(
            op=op,
            client=client,
            at_ns=at_ns,
            phase="failed",
            attempt=attempt,
            region=region,
            reason=str(told.answer.get("reason", "")),
        )
    return Line(
        op=op, client=client, at_ns=at_ns, phase="answered", attempt=attempt, region=region, status=told.status,
        answer=_kept(told.answer), position=told.position, replayed=told.replayed,
    )  # fmt: skip


def _kept(answer: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in answer.items() if name in _KEPT or name == "card"}
    if answer.get("state") == "unconfirmed":
        kept["answer"] = _kept(answer.get("answer", {}))
    return kept


def _card(answer: dict[str, Any]) -> dict[str, Any]:
    """Of a player's card what the judge looks at."""
    held = [
        {name: each[name] for name in ("cash", "reserved", "bonus", "receivable", "deposits", "deposited")}
        for each in answer.get("balances", [])
    ]
    return {"card": {"positions": answer.get("positions"), "balances": held, "status": answer.get("status")}}
