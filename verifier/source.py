"""
Reads the logs of a running region over HTTP.

Invariants:
    - entries are given up to the position that the region announced, all of them or `CouldNotCheck`: a stream that ends
      early is never taken for a log that ends there;
    - redirects are refused, so the token goes only to the address that the user named;
    - memory does not grow with the log, whatever the region sends.
"""

import binascii
import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from verifier.body import region_of
from verifier.faults import quoted
from verifier.log import genesis
from verifier.merkle import HASH_BYTES, leaf_hash

TRIES_MAX = 5  # without a single new entry in between
PAUSE_S = 0.05  # before another try; doubled each time
ANSWER_BYTES_MAX = 1 << 20  # of a list, and of a line of entries: the longest legal line is about 82,000 bytes
PAGES_MAX = 1000
ANSWER_SHOWN_BYTES = 60
CHUNK_BYTES = 1 << 16

Entries = Generator[tuple[int, bytes, bytes], None, None]
"""Position, entry and leaf, as `verifier.log.verify` takes them. Whoever stops early closes it."""

_LEAF = re.compile(rf"[0-9a-f]{{{2 * HASH_BYTES}}}")
_WORTH_RETRYING = {429, 500, 502, 503, 504}
_REFUSALS = {
    401: "the token is missing or not valid (give one with --token or COUNTROOM_TOKEN)",
    403: "the token does not give the right to read the log",
    404: "there is nothing at this address",
}


class CouldNotCheck(Exception):
    """Nothing is known about the log, neither good nor bad, and why."""


class _Interrupted(Exception):
    """The region cannot be reached at the moment; another try may help."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a region says that a log ends."""

    log: str
    origin: str
    position: int
    leaf: bytes


class Keeper(Protocol):
    """Whoever keeps logs and shows them, under a name in `url`. Every method raises CouldNotCheck."""

    url: str

    def heads(self) -> list[Head]: ...

    def entries(self, head: Head, *, progress: Callable[[int], None]) -> Entries: ...

    def leaf_at(self, head: Head, position: int) -> bytes: ...


class UrlSource:
    """The region whose API stands at `url`. Every method raises CouldNotCheck."""

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

    def heads(self) -> list[Head]:
        """The logs that the region holds, its own and copies, as far as each goes now."""
        heads: list[Head] = []
        cursor: str | None = None
        for _ in range(PAGES_MAX):
            page = self._get_json("/v1/logs" + (f"?{urllib.parse.urlencode({'cursor': cursor})}" if cursor else ""))
            try:
                heads.extend(_head(item) for item in page["items"])
                cursor = page["next_cursor"]
            except (KeyError, TypeError, ValueError):
                raise CouldNotCheck(f"{self.url} answers something else than a list of logs") from None
            if cursor is None:
                return heads
        raise CouldNotCheck(f"the list of logs of {self.url} does not end")

    def entries(self, head: Head, *, after: int = 0, progress: Callable[[int], None] | None = None) -> Entries:
        """
        The entries of a log behind position `after`, up to the announced head, read as they are asked for.

        A connection that breaks is made anew and goes on behind the last entry. `progress` is told now and then up to
        which position entries have come.
        """
        position = after
        tries_left = TRIES_MAX
        while position < head.position:
            cause = "the stream ended there"
            try:
                for lines in self._chunks_of_lines(head.log, after=position):
                    for line in lines:
                        entry = self._entry(line)
                        yield entry
                        position, tries_left = entry[0], TRIES_MAX
                        if position >= head.position:
                            return
                    if progress is not None:
                        progress(position)
            except _Interrupted as interrupted:
                cause = str(interrupted)
            tries_left -= 1
            if not tries_left:
                raise CouldNotCheck(
                    f"{self.url} announced {head.position} entries of log {head.log}, but gave {position}: {cause}"
                )
            time.sleep(PAUSE_S * 2 ** (TRIES_MAX - tries_left))

    def leaf_at(self, head: Head, position: int) -> bytes:
        """The leaf at a position from 1 to the head's, recomputed from the entry."""
        with closing(self.entries(head, after=position - 1)) as entries:
            given, entry, _ = next(entries)
        if given != position:
            raise CouldNotCheck(f"{self.url} does not give the entry at position {position} of log {head.log}")
        return leaf_hash(entry)

    def _entry(self, line: bytes) -> tuple[int, bytes, bytes]:
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

    def _get_json(self, path: str) -> Any:
        answer = b""
        try:
            with self._open(path, accept="application/json") as response:
                while chunk := self._read(response, CHUNK_BYTES):
                    answer += chunk
                    if len(answer) > ANSWER_BYTES_MAX:
                        raise CouldNotCheck(f"the answer of {self.url}{path} does not end")
        except _Interrupted as interrupted:
            raise CouldNotCheck(f"{self.url} cannot be reached: {interrupted}") from None
        try:
            return json.loads(answer)
        except (ValueError, RecursionError):
            raise CouldNotCheck(f"{self.url}{path} answers something else than JSON") from None

    def _open(self, path: str, *, accept: str) -> http.client.HTTPResponse:
        try:
            request = urllib.request.Request(self.url + path, headers={**self._headers, "Accept": accept})  # noqa: S310 - the constructor checks the scheme
            response = self._opener.open(request, timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _WORTH_RETRYING:
                raise _Interrupted(f"it answers with status {error.code}") from None
            refusal = _REFUSALS.get(error.code, f"it answers with status {error.code}")
            raise CouldNotCheck(f"{self.url}{path}: {refusal}") from None
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
