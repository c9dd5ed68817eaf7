"""
`countroom demo`: the main job, from an empty folder to a proof.

Two fresh regions start; real purchases are imported in the first; the second catches up; both show the same figures; every log
is verified in both; one byte is changed behind the database's back, found, and put back.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from app import calling, cdnow, checking, local, report
from app.local import Local
from app.status import status

CATCH_UP_SECONDS_MAX = 120.0
SEGMENT_AT_LEAST = 100_00


class DemoFailed(Exception):
    """The demonstration did not show what it promises."""


class Tamper(NamedTuple):
    """Where a byte was changed."""

    region: str
    log: str
    position: int


def run(regions: Sequence[str], data: Path | None, port_base: int | None, *, keep: bool, quiet: bool) -> dict[str, Any]:
    """Run the demonstration and return its figures (docs/reference/cli.md). Raises DemoFailed and what its parts raise."""
    began = time.monotonic()
    show = report.Report(quiet=quiet)
    stages: dict[str, float] = {}
    path = cdnow.locate("sample")
    with _folder(data) as folder:
        show.heading(f"Starting regions {' and '.join(regions)}")
        with _starting(folder, regions, port_base) as here:
            return _run(here, regions, path, show, stages, began, keep=keep)


def _run(
    here: Local,
    regions: Sequence[str],
    path: Path,
    show: report.Report,
    stages: dict[str, float],
    began: float,
    *,
    keep: bool,
) -> dict[str, Any]:
    first, urls = regions[0], {region: here.url(region) for region in regions}
    stages["start"] = round(time.monotonic() - began, 2)
    show.started(urls, stages["start"])

    show.heading(f"Importing real purchases in {first}")
    with _timed(stages, "import"):
        imported = asyncio.run(cdnow.import_cdnow(path, urls[first], here.tokens["importer"], progress=show.progress()))
    show.imported(imported)

    show.heading("Waiting until every region has caught up")
    with _timed(stages, "catch_up"):
        dashboards = _caught_up(here, urls, show)
    show.dashboards(dashboards)
    _agree(dashboards, imported)
    show.segments({region: _segment(here, url) for region, url in urls.items()})

    show.heading("Verifying every log in every region, and every signature")
    with _timed(stages, "verify"):
        _witnessed(here)
        found = _verify(here, urls.values())
    show.verified(found)
    if found.status != checking.INTACT:
        raise DemoFailed(found.to_text())

    planted = Tamper(regions[-1], first, max(1, _head(found, urls[regions[-1]], first) // 2))
    with _timed(stages, "tamper"):
        seen, again = _tamper_and_find(here, urls, planted, show)
    shown = dashboards[first]
    result = {
        "players": shown["players"],
        "deposits": sum(total["count"] for total in shown["totals"]),
        "skipped": imported.skipped,
        "amount": {total["currency"]: total["amount"] for total in shown["totals"]},
        "seconds": round(time.monotonic() - began, 2),
        "stages": stages,
        "regions": {
            region: {
                "logs": {
                    f.log: {"position": f.position, "intact": f.shown["intact"]}
                    for f in again.findings
                    if f.target == url
                }
            }
            for region, url in urls.items()
        },
        "tamper": {"planted": planted._asdict(), "found": seen._asdict()},
    }
    show.done(result["seconds"])
    if keep:
        show.kept(f"{urls[first]}/#token={here.tokens['operator']}", here.tokens)
        here.stack.run_until_stopped()
    return result


def _tamper_and_find(
    here: Local, urls: dict[str, str], planted: Tamper, show: report.Report
) -> tuple[Tamper, checking.Verification]:
    """Change a byte, see exactly that found, put it back. What was found, and the last verification, of everything."""
    show.heading(f"Changing one byte of log {planted.log} in {planted.region}, as its database's superuser")
    with _tampered(here.settings[planted.region].postgres, planted):
        caught = _verify(here, [urls[planted.region]])
    show.verified(caught)
    seen = _culprit(caught, planted.region)
    show.tamper(planted._asdict(), seen._asdict() if seen else None)
    if seen != planted:
        raise DemoFailed(f"the changed byte stands in {planted}, found was {seen}")
    show.heading("The byte is put back")
    again = _verify(here, urls.values())
    show.verified(again)
    if again.status != checking.INTACT:
        raise DemoFailed(again.to_text())
    return seen, again


@contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    if data is not None:
        if data.exists() and any(data.iterdir()):
            raise DemoFailed(f"{data} is not empty; the demonstration begins with nothing")
        yield data
        return
    made = Path(tempfile.mkdtemp(prefix="countroom-demo-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _starting(folder: Path, regions: Sequence[str], port_base: int | None) -> Iterator[Local]:
    with local.running(folder, regions, port_base or local.free_port_base(len(regions))) as here:
        yield here


@contextmanager
def _timed(stages: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    stages[name] = round(time.monotonic() - began, 2)


def _caught_up(here: Local, urls: dict[str, str], show: report.Report) -> dict[str, Any]:
    """Each region's dashboard, as soon as every one shows every log up to its origin's head."""
    end = time.monotonic() + CATCH_UP_SECONDS_MAX
    token = here.tokens["viewer"]
    while True:
        heads: dict[str, int] = {}
        for region, url in urls.items():
            for log in calling.get(f"{url}/v1/logs", token)["items"]:
                if log["log"] == region:
                    heads[region] = log["position"]
        dashboards = {region: calling.get(f"{url}/v1/dashboard", token) for region, url in urls.items()}
        lag = {
            region: {log: head - dashboard["positions"].get(log, 0) for log, head in heads.items()}
            for region, dashboard in dashboards.items()
        }
        show.lag(lag)
        if not any(behind for logs in lag.values() for behind in logs.values()):
            return dashboards
        if time.monotonic() > end:
            raise DemoFailed(f"a region has not caught up in {CATCH_UP_SECONDS_MAX:.0f} s: {lag}")
        time.sleep(0.2)


def _witnessed(here: Local) -> None:
    """Wait until every region shows every log signed and witnessed to its end."""
    end = time.monotonic() + CATCH_UP_SECONDS_MAX
    while True:
        waiting = [
            f"{log} in {region['name']}"
            for region in status(here.stack.data)["regions"]
            for log, at in region["logs"].items()
            if (len(here.settings) > 1 and not (at["signed"] and at["signed"]["witnesses"]))
            or not at["signed"]
            or at["signed"]["size"] < at["position"]
        ]
        if not waiting:
            return
        if time.monotonic() > end:
            raise DemoFailed(f"not signed and witnessed in {CATCH_UP_SECONDS_MAX:.0f} s: {', '.join(waiting)}")
        time.sleep(0.2)


def _agree(dashboards: dict[str, Any], imported: Any) -> None:
    """All regions show the same, and what they show is what was imported."""
    figures = [{name: shown[name] for name in ("days", "totals", "players")} for shown in dashboards.values()]
    if any(other != figures[0] for other in figures[1:]):
        raise DemoFailed("the regions show different figures")
    amounts = {total["currency"]: total["amount"] for total in figures[0]["totals"]}
    if figures[0]["players"] != imported.players or amounts != imported.amount:
        raise DemoFailed(f"imported were {imported}, shown are {figures[0]['players']} players and {amounts}")


def _segment(here: Local, url: str) -> dict[str, Any]:
    segment: dict[str, Any] = calling.get(
        f"{url}/v1/segments/deposited?currency=USD&minimum={SEGMENT_AT_LEAST}&limit=1", here.tokens["operator"]
    )
    return segment


def _verify(here: Local, urls: Any) -> checking.Verification:
    how = checking.how(here.stack.data / "trust.policy", merkle_only=False, workers=0)
    return checking.verify(list(urls), here.tokens["auditor"], None, checking.say_progress, how)


def _head(found: checking.Verification, url: str, log: str) -> int:
    return next(finding.position for finding in found.findings if finding.target == url and finding.log == log)


def _culprit(found: checking.Verification, region: str) -> Tamper | None:
    """The one fault, if there is exactly one."""
    faults = [(f.log, f.shown["fault"]["position"]) for f in found.findings if f.shown["fault"]]
    return Tamper(region, *faults[0]) if len(faults) == 1 else None


@contextmanager
def _tampered(dsn: str, planted: Tamper) -> Iterator[None]:
    """Change the middle byte of a stored body, past triggers, as only a superuser can; put it back afterwards."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        where = "log = (SELECT id FROM ledger.log WHERE name = %s) AND position = %s"
        row = connection.execute(
            f"SELECT body FROM ledger.entry WHERE {where}", (planted.log, planted.position)
        ).fetchone()
        if row is None:
            raise DemoFailed(f"there is no entry {planted}")
        body = bytes(row[0])
        middle = len(body) // 2
        changed = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        change = f"UPDATE ledger.entry SET body = %s WHERE {where}"
        connection.execute(change, (changed, planted.log, planted.position))
        try:
            yield
        finally:
            connection.execute(change, (body, planted.log, planted.position))
