"""Regions that can be exported, and exports of them, for the tests of those who make and who check them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.exporting.plan import Asked
from app.exporting.run import export
from eventstore.record import Entry
from tests.projections.books import NOON, Book
from tests.replay.logs import head, policy, raw, sound
from tests.verifier import trees
from tests.verifier.region import TOKEN, Region, serving

AT_S = int(NOON.timestamp()) + 1


def busy_book(players: int = 20, rounds: int = 4) -> Book:
    """A log of players with two currencies, who pay in, fail to, and set money aside."""
    book = Book("eu")
    for number in range(players):
        book.register(("EUR", "SEK")[number % 2], name="Ada", email="a@example.com")
    for amount in range(1, rounds + 1):
        for number, player in enumerate(book.players):
            book.settle(book.request(player, 1_000 * amount + number, reference=f"R{amount}"))
    for number, player in enumerate(book.players):
        if number % 3 == 0:
            book.reserve(player, 500)
        book.fail(book.request(player, 77))
    return book


def small_book() -> Book:
    return busy_book(players=3, rounds=1)


def shown(log: Sequence[Entry], size: int | None = None, sizes: Sequence[int] = ()) -> Region:
    """A region that signed its log eu at these sizes, and last at `size`; witnessed by us."""
    newest = len(log) if size is None else size
    entries = raw("eu", log)
    signed = [head("eu", log, each, {"us": AT_S}) for each in (*sizes, newest)]
    files = {
        f"/v1/logs/eu/{path}": data for path, data in trees.files([entry for _, entry, _ in entries[:newest]]).items()
    }
    return Region({"eu": entries}, files={**files, "/v1/logs/eu/checkpoint": signed[-1][1]}, signed={"eu": signed})  # type: ignore[dict-item]


def make(url: str, out: Path, *, enclose: bool = True, workers: int = 1, **asked: Any) -> dict[str, Any]:
    """Export what stands at a target."""
    wanted = Asked(target=url, **{"trust": policy() if enclose else None, **asked})
    return export(wanted, out, TOKEN, lambda *_: None, workers)


@contextmanager
def region_of(book: Book, **more: Any) -> Iterator[Region]:
    with serving(shown(sound(book), **more)) as region:
        yield region


def trust_file(folder: Path) -> Path:
    file = folder / "regulator.policy"
    file.write_text(policy())
    return file
