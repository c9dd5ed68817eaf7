"""
Live read models and answers against the same made again from verified logs.

Invariants:
    - what is compared was made at exactly the same positions of the same logs;
    - a live region's own word on what it holds (a digest) is not asked: its lines are read and hashed here.
"""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from app import calling
from app.replaying import figures
from app.replaying.verified import Verified
from domain.errors import Rejected
from domain.kernel import Money
from projections import state
from projections.catalog import NAMES
from projections.dashboard import AMOUNTS, COUNTS, TOTALS
from projections.memory import MemoryStore
from projections.segments import deposited
from projections.version import CODE
from queries import dashboard, segments, wallets
from queries.context import Made
from replay.difference import Change, changes
from verifier.faults import CouldNotCheck

TIMEOUT_S = 60


class Compared(msgspec.Struct, frozen=True):
    """A live read model and the same replayed to its positions: digests of their canonical lines. `difference`: the first."""

    projection: str
    positions: Mapping[str, int]
    equal: bool
    live: str
    replayed: str
    live_code: str | None
    code: str
    difference: state.Difference | None = None

    def __str__(self) -> str:
        said = f"{self.projection}  {'equal' if self.equal else 'DIFFERENT'}  {self.live}"
        if not self.equal:
            said += f"\n  replayed {self.replayed}\n  {self.difference}"
        if self.live_code != self.code:
            said += f"\n  made by other code: live {self.live_code}, here {self.code}"
        return said


class Figure(msgspec.Struct, frozen=True):
    """An answer of a live region and the same from the logs, at its own positions; `changes` is where they differ."""

    url: str
    positions: Mapping[str, int]
    equal: bool
    live_code: str | None
    code: str
    live: Any
    replayed: Any
    changes: list[Change]


class Live:
    """The read models of a region, as they are at one time each. Their lines are kept until they were compared."""

    def __init__(self, url: str, token: str) -> None:
        """Raises CouldNotCheck."""
        self.lines = {name: list(_lines(f"{url.rstrip('/')}/v1/projections/{name}/state", token)) for name in NAMES}

    def state(self, name: str) -> state.State:
        return state.read(self.lines[name])


def compare(live: Live, logs: Verified) -> list[Compared]:
    """Every read model. The logs are to be verified after the live states were read, so that they reach as far. Raises CouldNotCheck."""
    with _readable():
        stops = {name: live.state(name).positions for name in live.lines}
        stores = figures.at(logs, stops)
        return [_compared(live, stores[name]) for name in live.lines]


def figure(url: str, answer: Any, logs: Verified) -> Figure:
    """One answer of a region (`answer`, from `url`) again, from the logs. Raises CouldNotCheck."""
    name, make = _maker(url)
    try:
        positions = msgspec.convert(answer["positions"], dict[str, int])
        code = answer["code"]
    except (KeyError, TypeError, msgspec.ValidationError):
        raise CouldNotCheck(f"the answer of {url} does not say from which positions it was made") from None
    store = figures.at(logs, {name: positions})[name]
    made = Made(store.positions, code)
    again = msgspec.to_builtins(make(store, made))
    shown = {key: value for key, value in answer.items() if key != "as_of"}  # when it was made is no figure
    again.pop("as_of", None)
    return Figure(url, positions, shown == again, code, CODE, shown, again, changes(shown, again))


def get_figure(url: str, token: str) -> Any:
    """The answer that is to be made again. Raises CouldNotCheck."""
    _maker(url)  # before anybody is asked
    try:
        return calling.get(url, token, timeout_s=TIMEOUT_S)
    except calling.NoAnswer as error:
        raise CouldNotCheck(str(error)) from None


def region_of(url: str) -> str:
    """The address of the region whose answer stands at `url`."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path.partition('/v1/')[0]}"


def _compared(live: Live, own: MemoryStore) -> Compared:
    shown = live.state(own.name)
    digest, again = shown.digest(), own.state().digest()
    difference = None if digest == again else state.difference(live.state(own.name), own.state())
    return Compared(own.name, shown.positions, digest == again, digest, again, shown.code, CODE, difference)


def _maker(url: str) -> tuple[str, Callable[[MemoryStore, Made], Any]]:
    """From which read model an answer is made, and how. Raises CouldNotCheck."""
    parts = urllib.parse.urlsplit(url)
    given = dict(urllib.parse.parse_qsl(parts.query))
    match "/v1/" + parts.path.partition("/v1/")[2]:
        case "/v1/dashboard":
            return "dashboard", dashboard_of
        case "/v1/trial-balance":
            return "wallets", lambda store, made: wallets.answer(store.rows("account"), made)
        case "/v1/segments/deposited":
            return "segments", lambda store, made: _segment(store, made, given)
    raise CouldNotCheck(f"{url} is not the address of a dashboard, a trial balance or a segment")


def dashboard_of(store: MemoryStore, made: Made) -> dashboard.Dashboard:
    counts, amounts, totals = (_pairs(store, name) for name in (COUNTS, AMOUNTS, TOTALS))
    return dashboard.answer(counts, amounts, totals, made)


def _segment(store: MemoryStore, made: Made, given: Mapping[str, str]) -> segments.Segment:
    try:
        money = Money(int(given["minimum"]), given["currency"])
        page = segments.page_of(
            _pairs(store, deposited(money.currency)), money, given.get("cursor"), int(given.get("limit", "50"))
        )
    except (KeyError, ValueError, Rejected) as error:
        raise CouldNotCheck(f"the segment's parameters make no sense: {error}") from None
    return segments.answer(money, page, made)


def _pairs(store: MemoryStore, name: str) -> list[tuple[str, int]]:
    return [(str(field), int(value or 0)) for field, value in store.rows(name)]


def _lines(url: str, token: str) -> Iterator[bytes]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 — the user's own URL
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            yield from response
    except urllib.error.HTTPError as error:
        raise CouldNotCheck(f"{url} answered {error.code}: {error.read(500).decode(errors='replace')}") from error
    except OSError as error:
        raise CouldNotCheck(f"{url} does not answer: {error}") from error


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except state.Unreadable as error:
        raise CouldNotCheck(f"a live state cannot be read: {error}") from None
