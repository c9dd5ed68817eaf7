"""
What each region shows when a run is over: its logs by SQL, its read models and cards by HTTP, and what `countroom verify` says.

Invariant: nothing of the product is imported. What is looked at is what anybody may look at: the public interface, the tables that
the record format describes, and the exit of a program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import httpx2
import msgspec
import psycopg

from chaos.fold import Entry, entry
from chaos.place import Place

MODELS = ("players", "transactions", "wallets", "funds", "dashboard", "segments")
"""The read models that are folded again; the last two lie in Redis."""
_LOGS = "SELECT name FROM ledger.log ORDER BY id"
_HEADS = """
    SELECT l.name, coalesce(max(e.position), 0) FROM ledger.log AS l LEFT JOIN ledger.entry AS e ON e.log = l.id GROUP BY l.name"""
_ENTRIES = """
    SELECT e.position, e.recorded, e.leaf, e.body FROM ledger.entry AS e JOIN ledger.log AS l ON l.id = e.log
     WHERE l.name = %s AND e.position <= %s ORDER BY e.position"""
_VERIFY_S = 300.0  # at least
_VERIFY_S_PER_LINE = 0.005  # of the load's record: a quarter of what the judge has in all, and it verifies twice
_EARLY = "recorded_implausible"
_ASK_S = 30.0


class NotShown(Exception):
    """A region does not show what is to be judged, in the time that it has."""


class Model(NamedTuple):
    """A read model as it is: from which positions, and by table its columns and rows."""

    positions: dict[str, int]
    tables: dict[str, tuple[list[str], list[list[Any]]]]

    def rows(self, table: str, key: int, *columns: str) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """By the first `key` of its columns: these columns."""
        names, rows = self.tables.get(table, ([], []))
        places = [names.index(column) for column in columns] if rows else []
        return {tuple(row[:key]): tuple(row[place] for place in places) for row in rows}


class View(NamedTuple):
    """`logs`: all that the region holds, up to where any of its read models stands, and further up to the heads at which the judge
    began. `stops`: read models that say that they cannot go on.
    """

    region: str
    logs: dict[str, list[Entry]]
    models: dict[str, Model]
    trial: dict[str, Any]
    dashboard: dict[str, Any]
    stops: tuple[str, ...] = ()


def heads(dsn: str) -> dict[str, int]:
    """By log held in this database: its last position."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return dict(connection.execute(_HEADS).fetchall())


def origins_heads(place: Place) -> dict[str, int]:
    """By log: how far its own region has written it."""
    return {region.log: heads(region.postgres).get(region.log, 0) for region in place.regions.values()}


def wait(place: Place, target: Mapping[str, int], *, patience_s: float) -> None:
    """Until each region holds every log up to there, and has all of it in its read models. Raises NotShown."""
    end = time.monotonic() + patience_s
    for name, region in place.regions.items():
        while missing := _missing(place, name, region.postgres, target):
            if time.monotonic() > end:
                raise NotShown(f"{name} has not reached {dict(target)} in {patience_s:g} s: {'; '.join(missing)}")
            time.sleep(0.25)


def _missing(place: Place, name: str, dsn: str, target: Mapping[str, int]) -> list[str]:
    try:
        held = heads(dsn)
        behind = [f"log {log} is at {held.get(log, 0)}" for log, head in target.items() if held.get(log, 0) < head]
        if behind:
            return behind
        shown = get(place, name, "/v1/projections", "auditor")["items"]
    except (psycopg.Error, httpx2.HTTPError, NotShown) as error:
        return [f"{type(error).__name__}: {error}"]
    return [
        f"read model {each['name']} is at {each['positions']}"
        for each in shown
        if each["name"] in MODELS
        and not each["stops"]
        and any(each["positions"].get(log, 0) < head for log, head in target.items())
    ]


def get(place: Place, region: str, path: str, role: str) -> dict[str, Any]:
    """Raises NotShown for any answer but 200, after some patience with one that says «later»."""
    for _ in range(20):
        response = httpx2.get(
            place.regions[region].url + path, headers=place.headers(role), timeout=_ASK_S, trust_env=False
        )
        if response.status_code == 200:
            found = response.json()
            return found if isinstance(found, dict) else {"items": found}
        if response.status_code not in {429, 503}:
            break
        time.sleep(float(response.headers.get("retry-after", "0.5")))
    raise NotShown(f"{path} in {region} is {response.status_code}: {response.text[:300]}")


def entries(dsn: str, upto: Mapping[str, int]) -> dict[str, list[Entry]]:
    """By log: all entries that are held, up to these positions."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        names = [name for (name,) in connection.execute(_LOGS).fetchall()]
        return {
            name: [
                entry(name, position, recorded, bytes(leaf), bytes(body))
                for position, recorded, leaf, body in connection.execute(_ENTRIES, (name, upto[name])).fetchall()
            ]
            for name in names
            if name in upto
        }


def model(place: Place, region: str, name: str) -> Model:
    """A read model, whole. Raises NotShown if the answer broke off."""
    url = f"{place.regions[region].url}/v1/projections/{name}/state"
    response = httpx2.get(url, headers=place.headers("auditor"), timeout=_ASK_S, trust_env=False)
    lines = [json.loads(line) for line in response.text.splitlines()] if response.status_code == 200 else []
    if not lines or not isinstance(lines[-1], dict) or "digest" not in lines[-1]:
        raise NotShown(f"the state of {name} in {region} is {response.status_code}: {response.text[:300]}")
    tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
    rows: list[list[Any]] = []
    for line in lines[1:-1]:
        if isinstance(line, dict):
            rows = []
            tables[line["table"]] = line["columns"], rows
        else:
            rows.append(line)
    return Model(lines[0]["positions"], tables)


def view_all(place: Place, upto: Mapping[str, int]) -> list[View]:
    """What all regions show. Read models first, and then the logs up to the furthest of them, so that no model is ahead of what is
    read, and no copy is read further than its origin.
    """
    shown = []
    for region in place.regions:
        found = {name: model(place, region, name) for name in MODELS}
        trial = get(place, region, "/v1/trial-balance", "auditor")
        dashboard = get(place, region, "/v1/dashboard", "auditor")
        standing = get(place, region, "/v1/projections", "auditor")["items"]
        stops = tuple(f"{each['name']} has stopped: {each['stops']}" for each in standing if each["stops"])
        shown.append(View(region, {}, found, trial, dashboard, stops))
    stands = [
        positions
        for each in shown
        for positions in (
            *(m.positions for m in each.models.values()),
            each.trial["positions"],
            each.dashboard["positions"],
        )
    ]
    reached = {log: max([head, *(positions.get(log, 0) for positions in stands)]) for log, head in upto.items()}
    return [each._replace(logs=entries(place.regions[each.region].postgres, reached)) for each in shown]


def verify_s(lines: int) -> float:
    """How long `countroom verify` may take over what a load has left that wrote so many lines into its record."""
    return max(_VERIFY_S, _VERIFY_S_PER_LINE * lines)


def found_wrong(place: Place, *, timeout_s: float = _VERIFY_S) -> tuple[int, str]:
    """
    What `countroom verify` finds, but for what it must find: entries that a region recorded while its clock was moved, and entries of
    other logs that do not fit the time at which this region signed meanwhile, as their witness.

    These hide what follows them, since verify names the first fault of a log. So it is asked once more, by a policy without the
    witnesses by whose time it knows: entries, trees, and each log's own signatures.
    """
    code, said = verify(place, timeout_s=timeout_s)
    if code != 1:
        return code, said
    faults = faults_of(said)
    if place.policy is None or not faults or any(not _by_clock(place, *fault) for fault in faults):
        return code, "; ".join(sorted({f"{log}: {reason}: {detail}" for log, reason, detail in faults})) or said[-2000:]
    with NamedTemporaryFile(suffix=".policy") as file:
        file.write(_without_witnesses(Path(place.policy).read_bytes()))
        file.flush()
        code, said = verify(msgspec.structs.replace(place, policy=file.name), timeout_s=timeout_s)
    return code, said[-2000:]


def _without_witnesses(policy: bytes) -> bytes:
    """The logs of a policy (C2SP tlog-policy), believed by their own signatures alone."""
    logs = [line for line in policy.splitlines() if line.split()[:1] == [b"log"]]
    return b"\n".join([*logs, b"quorum none", b""])


def _by_clock(place: Place, log: str, reason: str, detail: str) -> bool:
    """Whether it follows from a clock that was moved: that of the log's own region, or of another one as its witness."""
    ahead = any(other != log for other in place.clocks) and "too early by" in detail
    behind = any(other != log for other in place.behind) and "too late by" in detail
    return reason == _EARLY and (log in {*place.clocks, *place.behind} or ahead or behind)


def faults_of(report: str) -> list[tuple[str, str, str]]:
    """Log, reason and detail of each fault that a report of `countroom verify --json` names."""
    try:
        targets = json.loads(report)["targets"]
    except (ValueError, KeyError):
        return []
    logs = [(name, log.get("fault")) for target in targets for name, log in target.get("logs", {}).items()]
    return [(name, fault["reason"], f"{fault['position']}: {fault['detail']}") for name, fault in logs if fault]


def verify(
    place: Place, *, timeout_s: float = _VERIFY_S, program: Sequence[str] = (sys.executable, "-m", "app")
) -> tuple[int, str]:
    """`countroom verify` over all APIs and databases: its exit (0 intact, 1 not, 2 could not check), and what it says."""
    targets = [target for region in place.regions.values() for target in (region.url, region.postgres)]
    trust = ["--trust", place.policy] if place.policy else []
    done = subprocess.run(
        [*program, "verify", *targets, *trust, "--json"],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={"COUNTROOM_TOKEN": place.tokens["auditor"], "PATH": os.defpath},
    )
    return done.returncode, done.stdout or done.stderr
