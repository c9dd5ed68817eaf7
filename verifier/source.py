"""
Where logs are: running regions and other logs over HTTP, and directories.

Invariants:
    - entries are given up to the position that the region announced, all of them or `CouldNotCheck`: a stream that ends
      early is never taken for a log that ends there;
    - redirects are refused, so the token goes only to the address that the user named;
    - memory does not grow with the log, whatever the region sends.
"""

import binascii
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

from verifier.body import region_of
from verifier.encoding import NUMBER_MAX
from verifier.faults import CouldNotCheck as CouldNotCheck  # noqa: PLC0414 - public here since the first release
from verifier.faults import quoted
from verifier.log import genesis
from verifier.merkle import HASH_BYTES, leaf_hash
from verifier.sheet import Entries as Part
from verifier.sheet import Pages
from verifier.tiled import Folder, Tiled, leaf_at, name_of, read_checkpoint
from verifier.tiles import NOTHING_THERE

TRIES_MAX = 5  # without a single new entry in between
PAUSE_S = 0.05  # before another try; doubled each time
PATIENCE_S = 30.0  # with a region that says when to ask again (Retry-After), without a single new entry in between
ANSWER_BYTES_MAX = 1 << 20  # of a list, and of a line of entries: the longest legal line is about 82,000 bytes
PAGES_MAX = 1000
ANSWER_SHOWN_BYTES = 60
CHUNK_BYTES = 1 << 16
BUNDLE = 256  # entries
BUNDLE_BYTES_MAX = BUNDLE * (2 + 0xFFFF)
HEADS_A_PAGE = 200

Entry = tuple[int, bytes, bytes]
"""Position, entry and leaf."""

Entries = Generator[Entry, None, None]
"""Whoever stops early closes it."""

_LEAF = re.compile(rf"[0-9a-f]{{{2 * HASH_BYTES}}}")
_WORTH_RETRYING = {429, 500, 502, 503, 504}
_NOT_FOUND = 404
_REFUSALS = {
    401: "the token is missing or not valid (give one with --token or COUNTROOM_TOKEN)",
    403: "the token does not give the right to read the log",
    404: "there is nothing at this address",
}


class _NotThere(CouldNotCheck, LookupError):
    """The address is known not to exist."""


class _Interrupted(Exception):
    """The region cannot be reached at the moment; another try may help, after `retry_after_s` if it says so."""

    def __init__(self, cause: str, retry_after_s: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after_s = retry_after_s


class _Patience:
    """What is left of it: so many tries, and so long a wait for a region that says when to ask again (RFC 9110, 10.2.3)."""

    def __init__(self, tries: int) -> None:
        self._tries = tries
        self.renew()

    def renew(self) -> None:
        self._left, self._wait_s = self._tries, PATIENCE_S

    def wait(self, retry_after_s: float | None = None) -> bool:
        """Wait before another try. False, at once, if there is to be none."""
        if retry_after_s is None:
            self._left -= 1
            if not self._left:
                return False
            pause = PAUSE_S * 2 ** (self._tries - self._left)
        else:
            pause = max(retry_after_s, PAUSE_S)
            self._wait_s -= pause
            if self._wait_s < 0:
                return False
        time.sleep(pause)
        return True


@dataclass(frozen=True, slots=True)
class Head:
    """Where a keeper says that a log ends. A log in tiles is not told by its last leaf, but by its signed heads."""

    log: str
    origin: str
    position: int
    leaf: bytes | None


class Keeper(Protocol):
    """Whoever keeps logs and shows them, under a name in `url`. Every method raises CouldNotCheck."""

    url: str

    def heads(self) -> list[Head]: ...

    def pages(self, head: Head) -> Pages: ...

    def leaf_at(self, head: Head, position: int) -> bytes: ...


def keeper_of(target: str, token: str | None = None) -> "Keeper":
    """The keeper that a target names: an export, a directory of tiles, or an address. Raises CouldNotCheck."""
    if "://" not in target and os.path.isdir(target):  # noqa: PTH112
        from verifier.export import ExportSource, is_export  # noqa: PLC0415 - which rests on this module

        return ExportSource(target) if is_export(target) else FolderSource(target)
    return UrlSource(target, token)


class FolderSource:
    """A log in tiles in a directory, as its checkpoint was when `heads` was asked. Every method raises CouldNotCheck."""

    def __init__(self, path: str) -> None:
        self.url = path
        self._fetch = Folder(path)
        self._checkpoint = b""

    def heads(self) -> list[Head]:
        try:
            origin, size, self._checkpoint = read_checkpoint(self._fetch)
        except NOTHING_THERE:
            raise CouldNotCheck(f"there is no checkpoint in the directory {quoted(self.url)}") from None
        return [Head(name_of(origin), origin, size, None)]

    def pages(self, head: Head) -> Pages:
        return Tiled(self._fetch, head.position, self._checkpoint)

    def leaf_at(self, head: Head, position: int) -> bytes:
        return leaf_at(Tiled(self._fetch, head.position, self._checkpoint), position)


class UrlSource:
    """The region whose API stands at `url`, or any log in tiles. Every method raises CouldNotCheck."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = 60,
    ) -> None:
        try:
            parts = urllib.parse.urlsplit(url)
        except ValueError:
            parts = urllib.parse.urlsplit("")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise CouldNotCheck(f"{quoted(url)} is not the http or https address of a region")
        self.url = url.rstrip("/")
        self._token = token
        self._headers = {"User-Agent": "countroom-verifier"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout_s = timeout_s
        # Only what is needed: urllib's default opener would also follow redirects, and read files.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.url, self._token, self._timeout_s)

    def heads(self) -> list[Head]:
        """The logs that the region holds, its own and copies, as far as each goes now; or the one log in tiles."""
        try:
            return self._listed()
        except _NotThere as nothing:
            try:
                origin, size, _ = read_checkpoint(Fetch(self, ""))
            except NOTHING_THERE:
                raise nothing from None
            return [Head(name_of(origin), origin, size, None)]

    def pages(self, head: Head) -> Pages:
        if head.leaf is not None:
            return RegionPages(self, head)
        fetch = Fetch(self, "")
        _, size, note = read_checkpoint(fetch)
        return Tiled(fetch, size, note)

    def _listed(self) -> list[Head]:
        heads: list[Head] = []
        cursor: str | None = None
        for _ in range(PAGES_MAX):
            page = self.get_json("/v1/logs" + (f"?{urllib.parse.urlencode({'cursor': cursor})}" if cursor else ""))
            try:
                heads.extend(_head(item) for item in page["items"])
                cursor = page["next_cursor"]
            except (KeyError, TypeError, ValueError):
                raise CouldNotCheck(f"{self.url} answers something else than a list of logs") from None
            if cursor is None:
                return heads
        raise CouldNotCheck(f"the list of logs of {self.url} does not end")

    def entries(self, head: Head, *, after: int = 0, read: Callable[[bytes], Entry] | None = None) -> Entries:
        """
        The entries of a log behind position `after`, up to the announced head, read as they are asked for.

        A connection that breaks is made anew and goes on behind the last entry. `read` makes an entry of its line, if not
        this module's careful reader is to do it.
        """
        read = read or self._entry
        position = after
        patience = _Patience(TRIES_MAX)
        while position < head.position:
            cause, retry_after_s = "the stream ended there", None
            try:
                for lines in self._chunks_of_lines(head.log, after=position):
                    for line in lines:
                        entry = read(line)
                        yield entry
                        position = entry[0]
                        patience.renew()
                        if position >= head.position:
                            return
            except _Interrupted as interrupted:
                cause, retry_after_s = str(interrupted), interrupted.retry_after_s
            if not patience.wait(retry_after_s):
                raise CouldNotCheck(
                    f"{self.url} announced {head.position} entries of log {head.log}, but gave {position}: {cause}"
                )

    def leaf_at(self, head: Head, position: int) -> bytes:
        """The leaf at a position from 1 to the head's, recomputed from the entry."""
        if head.leaf is None:
            return leaf_at(Tiled(Fetch(self, ""), head.position, b""), position)
        with closing(self.entries(head, after=position - 1)) as entries:
            given, entry, _ = next(entries)
        if given != position:
            raise CouldNotCheck(f"{self.url} does not give the entry at position {position} of log {head.log}")
        return leaf_hash(entry)

    def _entry(self, line: bytes) -> Entry:
        try:
            item = json.loads(line)
            position, leaf, entry = item["position"], item["leaf"], item["entry"]
            if type(position) is int and _LEAF.fullmatch(leaf):
                return position, binascii.a2b_base64(entry, strict_mode=True), bytes.fromhex(leaf)
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        raise CouldNotCheck(f"{self.url} answers something else than entries: {quoted(line[:ANSWER_SHOWN_BYTES])}")

    def _chunks_of_lines(self, log: str, *, after: int) -> Iterator[list[bytes]]:
        """Lines as they arrive. One that the end of the stream cuts off is not among them. Raises _Interrupted."""
        with self._open(f"/v1/logs/{log}/entries?after={after}", accept="application/x-ndjson") as response:
            rest = b""
            while chunk := self._read(response, CHUNK_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > ANSWER_BYTES_MAX:
                    raise CouldNotCheck(f"{self.url} answers something else than entries: a line does not end")
                yield lines

    def get_json(self, path: str) -> Any:
        answer = self.get(path, accept="application/json", bytes_max=ANSWER_BYTES_MAX)
        try:
            return json.loads(answer)
        except (ValueError, RecursionError):
            raise CouldNotCheck(f"{self.url}{path} answers something else than JSON") from None

    def get(self, path: str, *, accept: str, bytes_max: int, tries: int = 1) -> bytes:
        """The whole answer. What is known not to be there is a LookupError, too."""
        patience = _Patience(tries)
        while True:
            answer = bytearray()
            try:
                with self._open(path, accept=accept) as response:
                    while chunk := self._read(response, CHUNK_BYTES):
                        answer += chunk
                        if len(answer) > bytes_max:
                            raise CouldNotCheck(f"the answer of {self.url}{path} does not end")
                return bytes(answer)
            except _Interrupted as interrupted:
                if not patience.wait(interrupted.retry_after_s):
                    raise CouldNotCheck(f"{self.url} cannot be reached: {interrupted}") from None

    def _open(self, path: str, *, accept: str) -> http.client.HTTPResponse:
        try:
            request = urllib.request.Request(self.url + path, headers={**self._headers, "Accept": accept})  # noqa: S310 - the constructor checks the scheme
            response = self._opener.open(request, timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _WORTH_RETRYING:
                seconds = error.headers.get("Retry-After", "")  # or a date, which no region of ours sends
                after = float(seconds) if re.fullmatch(r"[0-9]{1,6}", seconds) else None
                raise _Interrupted(f"it answers with status {error.code}", after) from None
            refusal = _REFUSALS.get(error.code, f"it answers with status {error.code}")
            raise (_NotThere if error.code == _NOT_FOUND else CouldNotCheck)(f"{self.url}{path}: {refusal}") from None
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(_cause(error)) from None
        except ValueError:
            # Without the message, which may quote the token.
            raise CouldNotCheck("the address or the token holds characters that HTTP does not allow") from None
        if not isinstance(response, http.client.HTTPResponse):
            raise CouldNotCheck(f"{self.url} is to be reached by a proxy of a kind that is not known here")
        return response

    @staticmethod
    def _read(response: http.client.HTTPResponse, size: int) -> bytes:
        """What has arrived, at most `size` bytes; nothing at the end of the answer. Raises _Interrupted."""
        try:
            return response.read1(size)
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(_cause(error)) from None


def _again(url: str, token: str | None, timeout_s: float) -> UrlSource:
    return UrlSource(url, token, timeout_s=timeout_s)


class Fetch:
    """Fetches the files of a log in tiles below a path of an address. It can be pickled."""

    def __init__(self, source: UrlSource, prefix: str) -> None:
        self._source = source
        self._prefix = prefix

    def __call__(self, path: str) -> bytes:
        return self._source.get(
            f"{self._prefix}/{path}", accept="*/*", bytes_max=BUNDLE_BYTES_MAX, tries=TRIES_MAX if "/" in path else 1
        )


class RegionPages(Tiled):
    """A log as a region shows it: in tiles up to its checkpoint, if it has one, and as single entries behind that."""

    def __init__(self, source: UrlSource, head: Head) -> None:
        self._source = source
        self._head = head
        self._prefix = f"/v1/logs/{head.log}"
        fetch = Fetch(source, self._prefix)
        try:
            _, size, note = read_checkpoint(fetch)
        except NOTHING_THERE:
            size, note = 0, b""
        super().__init__(fetch, size, note)

    def length(self) -> int:
        return next((head.position for head in self._source.heads() if head.log == self._head.log), 0)

    def entries(self, first: int, last: int) -> Iterator[Part]:
        if first <= self._size:
            yield from super().entries(first, min(last, self._size))
        after = max(first - 1, self._size)
        if after < last:
            until = replace(self._head, position=last)
            with closing(self._source.entries(until, after=after)) as single:
                while some := list(islice(single, BUNDLE)):
                    positions, entries, leaves = zip(*some, strict=True)
                    yield Part(positions, list(entries), b"".join(leaves))

    def heads(self) -> Iterator[tuple[int, bytes]]:
        """Every head that the region keeps, up to the checkpoint that it had at first, as far as it shows them."""
        after = 0
        while True:
            query = urllib.parse.urlencode({"after": after, "limit": HEADS_A_PAGE})
            try:
                page = self._source.get_json(f"{self._prefix}/heads?{query}")
            except NOTHING_THERE:
                return
            try:
                heads = [(item["size"], item["note"].encode()) for item in page["items"]]
                more = page["next_cursor"] is not None
            except (KeyError, TypeError, AttributeError, ValueError):
                heads, more = [(-1, b"")], False
            for size, note in heads:
                if type(size) is not int or not after < size <= NUMBER_MAX:
                    raise CouldNotCheck(f"{self._source.url} answers something else than a list of heads")
                yield size, note
                after = size
            if not more:
                return


def _head(item: Any) -> Head:
    """Raises KeyError, TypeError or ValueError when that is not a log's head."""
    log, origin, position, leaf = item["log"], item["origin"], item["position"], item["leaf"]
    if type(position) is not int or position < 0 or region_of(origin) != log:
        raise ValueError
    if position == 0:
        return Head(log, origin, 0, genesis(origin))
    if not _LEAF.fullmatch(leaf):
        raise ValueError
    return Head(log, origin, position, bytes.fromhex(leaf))


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", error)  # urllib wraps what the system says
    return quoted(str(reason) or type(reason).__name__)
