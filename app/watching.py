"""
Verifies every log held here all the time, in the background, with the verifier's own eyes.

A pass reads a log from its opening, follows it as it grows, and begins anew after a while, so that a byte changed behind
the head is noticed too. It takes a tenth of a core for each log, and next to nothing while the log grows.

Invariants:
    - «intact» is said of a position only after the verifier has accepted the entry there;
    - a fault, once found, stays until a later pass finds the log intact.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
import structlog

from eventstore.postgres import acting_as
from eventstore.record import entry_bytes
from verifier.log import verify

PASS_SECONDS = 120.0
_PAGE = 500
_REST_BUSY, _REST_IDLE = 199.0, 9.0  # times the CPU that a page took, while the log grows and while it does not
_POLL_SECONDS = 0.5

_log = structlog.get_logger(__name__)


class Verification(msgspec.Struct, frozen=True):
    """What the running check knows of a log: it was intact up to `position`; null before the first page."""

    log: str
    intact: bool | None
    position: int
    checked_at: datetime | None = None
    reason: str | None = None


class Watch:
    """The running checks, one thread for all logs."""

    def __init__(self, dsn: str) -> None:
        self._dsn = acting_as(dsn, "countroom_reader")
        self._found: dict[str, Verification] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def found(self) -> list[Verification]:
        return [self._found[log] for log in sorted(self._found)]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True) as connection:
                    threads = [
                        threading.Thread(target=self._follow, args=(*row,), name=f"watch/{row[1]}", daemon=True)
                        for row in connection.execute("SELECT id, name, origin, genesis FROM ledger.log ORDER BY id")
                    ]
            except psycopg.Error as error:
                _log.warning("the logs cannot be read for their check", error=str(error).strip())
                self._stop.wait(1)
                continue
            for thread in threads:
                thread.start()
            return

    def _follow(self, log: int, name: str, origin: str, genesis: bytes) -> None:
        self._found[name] = Verification(name, None, 0)
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True) as connection:
                    report = verify(self._entries(connection, log, name, bytes(genesis)), origin=origin)
            except psycopg.Error as error:
                _log.warning("a log cannot be read for its check", log=name, error=str(error).strip())
                self._stop.wait(1)
                continue
            if report.fault is not None and not self._stop.is_set():
                self._say(
                    name,
                    intact=False,
                    position=report.fault.position,
                    reason=f"{report.fault.reason}: {report.fault.detail}",
                )
                _log.error(
                    "a log is not intact", log=name, position=report.fault.position, reason=str(report.fault.reason)
                )
                self._stop.wait(PASS_SECONDS / 10)

    def _entries(
        self, connection: psycopg.Connection[Any], log: int, name: str, genesis: bytes
    ) -> Iterator[tuple[int, bytes, bytes]]:
        """A log from its opening, waiting at its head until the pass is over."""
        cursor = connection.cursor(binary=True)
        leaf, after = genesis, 0
        end = time.monotonic() + PASS_SECONDS
        head = 0
        while not self._stop.is_set():
            began = time.thread_time()
            rows = cursor.execute(
                "SELECT position, recorded, leaf, body FROM ledger.entry WHERE log = %s::smallint AND position > %s"
                " ORDER BY position LIMIT %s",
                (log, after, _PAGE),
                prepare=True,
            ).fetchall()
            for position, recorded, this, body in rows:
                yield position, entry_bytes(leaf, position, recorded, body), this
                leaf, after = this, position
            if after >= self._found[name].position or len(rows) < _PAGE:
                self._say(name, intact=True, position=after)  # all up to here was accepted, or we would not be here
            if len(rows) == _PAGE:
                before, head = head, self._head(connection, log)
                self._stop.wait((time.thread_time() - began) * (_REST_IDLE if head == before else _REST_BUSY))
            elif after and time.monotonic() > end:
                return
            else:
                self._stop.wait(_POLL_SECONDS)

    @staticmethod
    def _head(connection: psycopg.Connection[Any], log: int) -> int:
        row = connection.execute("SELECT max(position) FROM ledger.entry WHERE log = %s::smallint", (log,)).fetchone()
        return int(row[0] or 0) if row else 0

    def _say(self, name: str, *, intact: bool, position: int, reason: str | None = None) -> None:
        self._found[name] = Verification(name, intact, position, datetime.now(UTC), reason)
