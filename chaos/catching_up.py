"""
Whether both regions have caught up after what has befallen them: each log whole in each region, and every read model at its end.

Looked at from outside, by SQL and over HTTP. `Behind` says what is missing, so that a run that waits says for what.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import psycopg

from chaos.site import Site

Heads = Mapping[str, int]

QUIET_S = 2.0  # nothing more is appended
_POLL_S = 0.25
_SAY_EVERY_S = 5.0

_HEADS = "SELECT l.name, coalesce((SELECT max(e.position) FROM ledger.entry AS e WHERE e.log = l.id), 0) FROM ledger.log AS l"
_READ = """
    SELECT g.projection, p.log, p.position FROM read.generation AS g
      LEFT JOIN read.position AS p USING (projection, generation) WHERE g.live"""
_STOPPED = "SELECT projection || ': ' || log || ' after ' || stopped_at || ': ' || reason FROM read.status"
_HALTED = """
    SELECT l.name || ' at ' || e.position || ': ' || e.reason FROM replication.evidence AS e
      JOIN ledger.log AS l ON l.id = e.log WHERE e.cleared_at IS NULL"""


class NotCaughtUp(Exception):
    """The regions did not come together again."""


class View(NamedTuple):
    """What one region holds and shows. `read`: by read model and log, up to which entry; `wrong`: what needs a person."""

    heads: Heads
    read: Mapping[tuple[str, str], int]
    wrong: list[str]


def await_caught_up(site: Site, timeout_s: float, *, quiet: bool = False) -> float:
    """
    Wait until every region holds and shows what any log held when this began; with `quiet`, until nothing more comes.

    Returns the seconds that it took. Raises NotCaughtUp, with what is missing.
    """
    began, said, still_since = time.monotonic(), time.monotonic(), time.monotonic()
    wanted: Heads | None = None
    while True:
        seen = {region: view for region in site.regions if (view := _view(site, region)) is not None}
        if len(seen) == len(site.regions):
            own = {region: seen[region].heads[region] for region in site.regions}
            if wanted is None or (quiet and own != wanted):
                wanted, still_since = own, time.monotonic()
        now = time.monotonic()
        missing = list(_missing(site, seen, wanted))
        if not missing and (not quiet or now - still_since >= QUIET_S):
            return now - began
        if now - began > timeout_s:
            raise NotCaughtUp(f"after {timeout_s:g} s: {'; '.join(missing) or 'more and more is appended'}")
        if now - said > _SAY_EVERY_S:
            said = now
            site.log(f"  waiting: {'; '.join(missing[:4]) or 'for silence'}")
        time.sleep(_POLL_S)


def _missing(site: Site, seen: Mapping[str, View], wanted: Heads | None) -> Iterator[str]:
    for region in site.regions:
        if region not in seen:
            yield f"{region} cannot be asked"
            continue
        yield from (f"{region}: {each}" for each in seen[region].wrong)
        for log, position in (wanted or {}).items():
            held = seen[region].heads.get(log, 0)
            if held < position:
                yield f"{region} holds {held} of {position} entries of {log}"
            for (model, of), read in seen[region].read.items():
                if of == log and read < position:
                    yield f"{region} shows {read} of {position} entries of {log} in {model}"


def _view(site: Site, region: str) -> View | None:
    try:
        with site.postgres(region) as connection:
            heads: dict[str, int] = dict(connection.execute(_HEADS).fetchall())
            found = connection.execute(_READ).fetchall()
            wrong = [line for asked in (_STOPPED, _HALTED) for (line,) in connection.execute(asked)]
        shown = _dashboard(site, region)
    except (psycopg.OperationalError, OSError, urllib.error.URLError, ValueError):
        return None
    models = {model for model, _, _ in found}
    read = {(model, log): 0 for model in models for log in heads}
    read |= {(model, log): position for model, log, position in found if log is not None}
    return View(heads, read | {("dashboard", log): shown.get(log, 0) for log in heads}, wrong)


def _dashboard(site: Site, region: str) -> Heads:
    """The positions of the read model in Redis."""
    url = f"{site.local.url(region)}/v1/dashboard"
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {site.local.tokens['viewer']}"})
    with urllib.request.urlopen(asked, timeout=5) as answer:
        positions: Heads = json.load(answer)["positions"]
    return positions
