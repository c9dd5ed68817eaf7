"""
The judge of a run: `python -m chaos.checker --site SITE.json --history FILE`.

It stands outside the product (ADR 45). What was promised it knows from the load's record, and what there is from the regions' own
tables, public interface and `countroom verify`; it folds and compares by itself.

Prints one JSON object. Exit: 0 all laws hold, 1 some law is broken, 2 it could not judge.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import msgspec
import psycopg

from chaos import history, linear, models, place, record, views
from chaos.fold import Ledger, unchained
from chaos.place import Place
from chaos.record import Op
from chaos.views import NotShown, View

PATIENCE_S = 120.0
"""So long regions may take to catch up before they are judged."""
_SHOWN = 20
LAWS: Mapping[str, str] = {
    "acknowledged_once": "each acknowledged command is in each region's view, once, and nobody's that nobody asked for",
    "positions": "each position that was told is the end of that command, with that leaf",
    "linearizable": "one order of what happened to a player explains all answers, refusals and times",
    "in_time": "in a log nobody stands before somebody who was answered before they asked",
    "first_answers": "what is said again is answered as the first time",
    "nothing_after_refusal": "what was refused stands in no log",
    "protection_binds": "a region that has excluded a player takes no deposit of theirs",
    "read_your_writes": "a read includes what it was told to include",
    "reads_exact": "a card shows what the log holds up to the positions that it names",
    "books_zero": "all postings of a currency come to zero, and balances are what postings come to",
    "copies_equal": "each log is the same in each region, byte by byte, and follows by hash",
    "intact": "countroom verify finds nothing",
    "read_models": "read models and caches are what the log comes to at their positions",
}


class Judged(NamedTuple):
    """`broken`: by law, what does not hold."""

    broken: dict[str, list[str]]
    acknowledged: int
    lost: int
    duplicated: int

    @property
    def holds(self) -> bool:
        return not any(self.broken.values())

    def to_json(self) -> dict[str, Any]:
        laws = {
            law: {"holds": not found, "broken": found[:_SHOWN], "count": len(found)}
            for law, found in self.broken.items()
        }
        return {
            "laws": laws,
            "acknowledged": self.acknowledged,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "books_zero": not self.broken["books_zero"],
            "copies_equal": not self.broken["copies_equal"],
            "intact": not self.broken["intact"],
        }


def judge(ops: Sequence[Op], shown: Sequence[View], verified: tuple[int, str], site: Place) -> Judged:
    """All laws over what was recorded and what the regions show. Pure."""
    broken: dict[str, list[str]] = {law: [] for law in LAWS}
    lost: set[str] = set()
    duplicated: set[str] = set()
    for view in shown:
        ledger = Ledger(view.logs)
        found = history.once(ops, ledger)
        lost.update(found.lost)
        duplicated.update(found.duplicated)
        unread, unlike = history.reads(ops, ledger)
        laws = {
            "acknowledged_once": [*found.lost, *found.duplicated, *found.strangers, *ledger.torn],
            "positions": history.positions(ops, ledger),
            "linearizable": linear.judge(ops, ledger),
            "in_time": history.in_time(ops, ledger),
            "first_answers": history.first_refusals(ops, ledger),
            "nothing_after_refusal": history.nothing_after_refusal(ops, ledger),
            "read_your_writes": unread,
            "reads_exact": unlike,
            "books_zero": [*ledger.faults, *models.unbalanced(ledger, view.trial)],
        }
        for law, each in laws.items():
            broken[law] += [f"{view.region}: {one}" for one in each]
        broken["read_models"] += models.unlike(view)
    broken["first_answers"] += history.first_answers(ops)
    broken["protection_binds"] = history.protection_binds(ops)
    broken["copies_equal"] = unequal(shown, site)
    if verified[0]:
        broken["intact"] = [f"countroom verify exits {verified[0]}: {verified[1][-2000:]}"]
    return Judged(broken, sum(1 for _ in history.acknowledged(ops)), len(lost), len(duplicated))


def unequal(shown: Sequence[View], site: Place) -> list[str]:
    """Logs that do not follow by hash from their opening, and copies that are not the origin's log byte by byte."""
    broken = []
    for name, region in site.regions.items():
        [origin] = [view.logs.get(region.log, []) for view in shown if view.region == name]
        broken += unchained(site.origin(region.log), origin)
        for view in shown:
            copy = view.logs.get(region.log, [])
            if len(copy) > len(origin):
                broken.append(
                    f"{view.region} holds {len(copy)} entries of {region.log}, {name} has written {len(origin)}"
                )
            for ours, theirs in zip(origin, copy, strict=False):
                if (ours.recorded, ours.leaf, ours.raw) != (theirs.recorded, theirs.leaf, theirs.raw):
                    broken.append(f"{region.log}/{ours.position} is another entry in {view.region} than in {name}")
                    break
    return broken


def look(site: Place, *, patience_s: float, verify_s: float) -> tuple[list[View], tuple[int, str]]:
    """Wait until the regions have caught up with each other, and look at all of them. Raises NotShown."""
    target = views.origins_heads(site)
    views.wait(site, target, patience_s=patience_s)
    verified = views.found_wrong(site, timeout_s=verify_s)
    return views.view_all(site, target), verified


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m chaos.checker", description="Judge a run by its record and what the regions show."
    )
    parser.add_argument("--site", type=Path, required=True, help="where the regions are (SITE.json)")
    parser.add_argument("--history", type=Path, required=True, help="what the load has recorded")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE_S, help="seconds that the regions may take to catch up"
    )
    asked = parser.parse_args()
    try:
        site = place.read(asked.site)
        lines = list(record.lines(asked.history))
        ops = record.ops(lines)
        shown, verified = look(site, patience_s=asked.patience, verify_s=views.verify_s(len(lines)))
    except (
        OSError,
        subprocess.TimeoutExpired,
        msgspec.MsgspecError,
        record.Torn,
        NotShown,
        psycopg.Error,
        httpx2.HTTPError,
    ) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 2
    judged = judge(ops, shown, verified, site)
    print(json.dumps(judged.to_json()))
    return 0 if judged.holds else 1


if __name__ == "__main__":
    sys.exit(main())
