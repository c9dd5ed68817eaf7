"""
Commands in batches, sent to a region until they are answered: how imports reach a ledger.

Invariants:
    - a batch without an answer, or of which an item could not be taken just now, is sent again as it was: the items' keys make
      that harmless, whatever became of the attempts before;
    - what is refused as a whole is not sent again.

    ImportStopped          anything that the caller of an import can understand and act on
    ├── RequestRefused     the service refuses the import as a whole
    └── Unreachable        the service has not answered for as long as we are patient
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol

import httpx2
import msgspec

PATIENCE_S = 60.0
_BACK_OFF_FIRST_S, _BACK_OFF_MAX_S = 0.1, 2.0
_ANSWER_S = 60.0
_OK, _ACCEPTED, _TOO_MANY, _REFUSED, _FAILED = 200, 202, 429, 400, 500


class ImportStopped(Exception):
    """Anything that the caller of an import can understand and act on."""


class RequestRefused(ImportStopped):
    pass


class Unreachable(ImportStopped):
    pass


class Progress(Protocol):
    """Who wants to know how far an import is; counts are of players and deposits."""

    def start(self, total: int) -> None: ...

    def advance(self, count: int) -> None: ...

    def waiting(self, reason: str) -> None:
        """The service does not answer and is asked again."""

    def stop(self) -> None:
        """Always called, also after an error."""


class Silent:
    """Progress that nobody follows."""

    def start(self, total: int) -> None:
        pass

    def advance(self, count: int) -> None:
        pass

    def waiting(self, reason: str) -> None:
        pass

    def stop(self) -> None:
        pass


class Problem(msgspec.Struct):
    """As much of RFC 9457 as a message needs."""

    title: str = "no reason was given"
    detail: str = ""
    code: str = "unknown"
    pointer: str | None = None


class Result(msgspec.Struct):
    """What became of an item. `body`: JSON, the answer or the problem."""

    status: int
    body: msgspec.Raw
    repeated: bool = False

    @property
    def refused(self) -> bool:
        return self.status >= _REFUSED

    @property
    def unknown(self) -> bool:
        """Whether nobody knows yet if it was recorded."""
        return self.status == _ACCEPTED and _decode_state(self.body).state == "unknown"

    def problem(self) -> Problem:
        return _problem(self.body)


class _State(msgspec.Struct):
    state: str = ""


class _Answer(msgspec.Struct):
    items: list[Result]


class _Unanswered(NamedTuple):
    """An attempt after which nothing is known of the batch, or not of all of it."""

    reason: str
    retry_after_s: float = 0.0


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_state = msgspec.json.Decoder(_State).decode
_decode_problem = msgspec.json.Decoder(Problem).decode


@asynccontextmanager
async def to(url: str, token: str, progress: Progress, patience_s: float) -> AsyncIterator[Sender]:
    """To the region whose API is at `url`."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept-Encoding": "identity"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=_ANSWER_S, trust_env=False) as client:
        yield Sender(client, url, progress, patience_s)


class Sender:
    """Sends one batch after another, or several at once. `client` belongs to the caller."""

    def __init__(self, client: httpx2.AsyncClient, url: str, progress: Progress, patience_s: float) -> None:
        self._client = client
        self._url = url
        self._progress = progress
        self._patience_s = patience_s

    async def send(self, body: bytes, count: int) -> list[Result]:
        """The results of a batch's items, of which there are `count`. Raises RequestRefused, Unreachable."""
        deadline = None
        back_off_s = _BACK_OFF_FIRST_S
        while True:
            outcome = await self._attempt(body, count)
            if isinstance(outcome, list):
                return outcome
            now = time.monotonic()
            deadline = deadline or now + self._patience_s
            pause_s = max(outcome.retry_after_s, back_off_s * random.uniform(0.5, 1.0))  # noqa: S311 — spreads the load
            if now + pause_s > deadline:
                raise Unreachable(
                    f"{self._url} has not taken a batch for {self._patience_s:g} s ({outcome.reason}). "
                    "What is recorded stays: run the same import again, and it goes on from there"
                )
            self._progress.waiting(outcome.reason)
            await asyncio.sleep(pause_s)
            back_off_s = min(2 * back_off_s, _BACK_OFF_MAX_S)

    async def _attempt(self, body: bytes, count: int) -> list[Result] | _Unanswered:
        try:
            response = await self._client.post("/v1/batch", content=body)
        except httpx2.UnsupportedProtocol:
            raise RequestRefused(f"{self._url} is not an http URL") from None
        except httpx2.TransportError as error:
            return _Unanswered(str(error) or type(error).__name__)
        if _passes(response.status_code):
            return _Unanswered(f"status {response.status_code}", _retry_after_s(response))
        if response.status_code != _OK:
            problem = _problem(response.content)
            raise RequestRefused(
                f"{self._url} refused the import with status {response.status_code}: {problem.title} [{problem.code}]"
            )
        try:
            results = _decode_answer(response.content).items
        except msgspec.MsgspecError:
            results = []
        if len(results) != count:
            raise RequestRefused(f"{self._url} does not answer as the API of a region does")
        passing = next((each for each in results if _passes(each.status) or each.unknown), None)
        if passing is None:
            return results
        if passing.unknown:
            return _Unanswered("of an item it is not known yet whether it was recorded")
        return _Unanswered(f"an item: {passing.problem().title}")


def _passes(status: int) -> bool:
    return status >= _FAILED or status == _TOO_MANY


def _retry_after_s(response: httpx2.Response) -> float:
    """Seconds of Retry-After, at most ten; a date there counts as none (RFC 9110, 10.2.3)."""
    given = response.headers.get("Retry-After", "")
    return min(float(given), 10.0) if given.isascii() and given.isdigit() else 0.0


def _problem(content: bytes | msgspec.Raw) -> Problem:
    try:
        return _decode_problem(content)
    except msgspec.MsgspecError:
        return Problem()
