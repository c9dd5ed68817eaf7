"""
`countroom region handover`: partitions go from one live region to another, while both work.

Invariant: nothing is released before the other region has acknowledged all that stood here when it was asked (the drain), so what is
left to copy between the release and the adoption is what was written meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import psycopg

from eventstore.postgres import acting_as

DRAIN_S = 15.0
ATTEMPTS = 5
_POLL_S = 0.2
_HEAD = "SELECT l.id, coalesce(max(e.position), 0) FROM ledger.log AS l LEFT JOIN ledger.entry AS e ON e.log = l.id WHERE l.own AND l.name = %s GROUP BY l.id"
_COPIED = "SELECT position, alarm FROM replication.watermark WHERE log = %s AND peer = %s"
_WAITING = """
    SELECT count(*) FROM ledger.ownership AS w
     WHERE w.released_to = %s AND NOT EXISTS (SELECT FROM ledger.ownership AS n WHERE n.partition = w.partition AND n.epoch > w.epoch)"""


class NotReady(Exception):
    """Nothing was released, and why."""


class NotTaken(Exception):
    """It was released, and the other region has not been seen to adopt it."""


class NotKnown(Exception):
    """Whether it was released is not known. The same command with the same key finds out."""


def ranges(text: str) -> list[tuple[int, int]]:
    """`0-63,70` as [(0, 63), (70, 70)]. Raises NotReady."""
    found = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            raise NotReady(f"{part!r} is no partition and no range of them, as 0-63")
        found.append((int(first), int(last or first)))
    return found


def drain(dsn: str, log: str, to: str, *, within_s: float = DRAIN_S) -> int:
    """Wait until the other region has acknowledged what stands in the log now; returns that position. Raises NotReady."""
    with psycopg.connect(acting_as(dsn, "countroom_reader"), autocommit=True) as connection:
        row = connection.execute(_HEAD, (log,)).fetchone()
        if row is None:
            raise NotReady(f"no log {log} is written here")
        number, head = row
        until = time.monotonic() + within_s
        while True:
            position, alarm = connection.execute(_COPIED, (number, to)).fetchone() or (0, None)
            if alarm:
                raise NotReady(f"the copy in {to} differs from our log: {alarm}")
            if position >= head:
                return int(head)
            if time.monotonic() > until:
                raise NotReady(f"{to} has copied {log} up to {position} of {head}; nothing was released")
            time.sleep(_POLL_S)


def hand_over(
    url: str,
    token: str,
    to: str,
    *,
    partitions: Sequence[tuple[int, int]] = (),
    players: Collection[str] = (),
    key: str,
) -> dict[str, Any]:
    """Ask the owner's API for the release; all that it owns, if neither partitions nor players are named. Raises NotReady, NotKnown.

    What is not known to have come off is asked for again, which is the same command.
    """
    import httpx2

    body = {"to": to, "partitions": list(partitions), "players": list(players), "all": not (partitions or players)}
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
    why = ""
    for again in range(ATTEMPTS):
        time.sleep(_POLL_S * again)
        try:
            answer = httpx2.post(f"{url}/v1/handovers", json=body, headers=headers, timeout=30, trust_env=False)
            found: dict[str, Any] = answer.json()
        except httpx2.ConnectError as error:
            if not why:
                raise NotReady(f"{url} cannot be reached: {error}") from error
        except (httpx2.HTTPError, ValueError) as error:
            why = str(error) or repr(error)
        else:
            if answer.status_code == httpx2.codes.OK:
                return found
            if found.get("state") == "unconfirmed":  # recorded, and not known to be copied yet: the adoption will tell
                return dict(found["answer"])
            why = f"{found.get('code', answer.status_code)}: {found.get('detail', found.get('state', ''))}"
            if httpx2.codes.BAD_REQUEST <= answer.status_code < httpx2.codes.INTERNAL_SERVER_ERROR:
                raise NotReady(why)
    raise NotKnown(f"whether it was released is not known ({why}); run the same command again with --key '{key}'")


def await_adoption(dsn: str, to: str, *, within_s: float = DRAIN_S) -> None:
    """Wait until our copy of the other log shows that it has adopted all that was released to it. Raises NotTaken."""
    until = time.monotonic() + within_s
    with psycopg.connect(acting_as(dsn, "countroom_reader"), autocommit=True) as connection:
        while (left := (connection.execute(_WAITING, (to,)).fetchone() or (0,))[0]) > 0:
            if time.monotonic() > until:
                raise NotTaken(f"{left} partitions are released to {to}, which has not been seen to adopt them yet")
            time.sleep(_POLL_S)
