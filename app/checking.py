"""`countroom verify`: regions by URL and databases by DSN, each log in each of them, and their copies against one another."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

from app.verifying import DatabaseSource, without_password
from verifier import cli as regions
from verifier.log import Report
from verifier.source import CouldNotCheck, Keeper, UrlSource

INTACT, NOT_INTACT, NOT_CHECKED = 0, 1, 2

Progress = Callable[[str, int, int], None]
"""(log, position, head)"""


class Finding(NamedTuple):
    """A log at a target."""

    target: str
    log: str
    position: int
    leaf: str
    shown: dict[str, Any]


class Verification(NamedTuple):
    """What was found, and why the rest could not be checked."""

    findings: list[Finding]
    errors: list[str]
    differences: list[str]

    @property
    def status(self) -> int:
        if self.differences or not all(finding.shown["intact"] for finding in self.findings):
            return NOT_INTACT
        return NOT_CHECKED if self.errors or not self.findings else INTACT

    def to_json(self) -> dict[str, Any]:
        targets: dict[str, dict[str, Any]] = defaultdict(dict)
        for finding in self.findings:
            targets[finding.target][finding.log] = finding.shown
        return {
            "intact": self.status == INTACT,
            "targets": [{"target": target, "logs": logs} for target, logs in targets.items()],
            "errors": self.errors,
            "differences": self.differences,
        }

    def to_text(self) -> str:
        lines = []
        for finding in self.findings:
            fault = finding.shown["fault"]
            said = f"NOT INTACT at position {fault['position']}: {fault['detail']}" if fault else "intact"
            lines.append(f"{finding.target}  {finding.log}  {finding.shown['entries']:>9,} entries  {said}")
        return "\n".join(
            [*lines, *(f"DIFFERENT: {d}" for d in self.differences), *(f"could not check {e}" for e in self.errors)]
        )


def verify(targets: Sequence[str], token: str, log: str | None, progress: Progress) -> Verification:
    """Check URLs and DSNs alike."""
    databases: list[DatabaseSource] = []
    with ExitStack() as stack:

        def keeper(target: str, token: str | None) -> Keeper:
            if _is_url(target):
                return UrlSource(target, token)
            databases.append(stack.enter_context(closing(DatabaseSource(target))))
            return databases[-1]

        seen = regions.check(
            list(dict.fromkeys(target.rstrip("/") if _is_url(target) else target for target in targets)),
            token=token,
            log=log,
            progress=lambda head, at: progress(head.log, at, head.position),
            keeper=keeper,
        )
        for database in databases:
            reports = [copy.report for copy in seen.copies if copy.source is database]
            if reports and all(report and report.intact for report in reports) and not database.beside:
                try:
                    database.compare_snapshots()
                except CouldNotCheck as error:
                    seen.errors.append((database.url, None, str(error)))
    return Verification(
        [_finding(copy.source, copy.report) for copy in seen.copies if copy.report is not None],
        [
            f"{at if _is_url(at) else without_password(at)}{f' {name}' if name else ''}: {what}"
            for at, name, what in seen.errors
        ],
        [
            f"{one.head.log} at position {fault.position}: {one.source.url} and {other.source.url} differ"
            for one, other, fault in seen.differences
        ],
    )


def _finding(source: Keeper, report: Report) -> Finding:
    shown = report.to_json()
    beside = source.beside.get(report.log) if isinstance(source, DatabaseSource) else None
    if report.intact and beside:
        fault = {"position": beside.position, "reason": "index_differs", "detail": beside.detail}
        shown |= {"intact": False, "fault": fault}
    return Finding(source.url, report.log, report.position, report.leaf, shown)


def _is_url(target: str) -> bool:
    return target.startswith(("http://", "https://"))


def say_progress(log: str, position: int, head: int) -> None:
    """One line that rewrites itself, on a terminal only."""
    if sys.stderr.isatty():
        end = "\r" if position < head else "\r\x1b[K"
        sys.stderr.write(f"{log}: {position:,} of {head:,}{end}")
        sys.stderr.flush()
