"""`countroom verify`: regions by URL and databases by DSN, each log in each of them, and their copies against one another."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import psycopg

from app.verifying import Checked, verify_database
from verifier import cli as regions

INTACT, NOT_INTACT, NOT_CHECKED = 0, 1, 2

Progress = Callable[[str, str, int, int], None]
"""(target, log, position, head)"""


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
    urls = [target.rstrip("/") for target in targets if target.startswith(("http://", "https://"))]
    findings: list[Finding] = []
    errors: list[str] = []
    differences: list[str] = []
    if urls:
        seen = regions.check(
            urls, token=token, log=log, progress=lambda head, at: progress("", head.log, at, head.position)
        )
        errors += [f"{url}{f' {name}' if name else ''}: {what}" for url, name, what in seen.errors]
        differences += [
            f"{one.head.log} at position {fault.position}: {one.source.url} and {other.source.url} differ"
            for one, other, fault in seen.differences
        ]
        for copy in seen.copies:
            if copy.report is not None:
                report = copy.report
                findings.append(Finding(copy.source.url, report.log, report.position, report.leaf, report.to_json()))
    for dsn in (target for target in targets if not target.startswith(("http://", "https://"))):
        name = without_password(dsn)
        try:
            checked = verify_database(dsn, only=log, progress=partial(progress, name))
        except psycopg.Error as error:
            errors.append(f"{name}: {str(error).strip()}")
        except KeyError:
            errors.append(f"{name}: it holds no log {log}")
        else:
            findings += [_finding(name, check) for check in checked.values()]
    return Verification(findings, errors, differences)


def _finding(target: str, checked: Checked) -> Finding:
    report = checked.report
    return Finding(target, report.log, report.position, report.leaf, checked.to_json())


def without_password(dsn: str) -> str:
    """How to name a database without telling its password."""
    try:
        known = psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.Error:
        return "the given DSN"
    return f"postgresql://{known.get('host', '')}:{known.get('port', 5432)}/{known.get('dbname', '')}"


def say_progress(target: str, log: str, position: int, head: int) -> None:
    """One line that rewrites itself, on a terminal only."""
    if sys.stderr.isatty():
        end = "\r" if position < head else "\r\x1b[K"
        sys.stderr.write(f"{target} {log}: {position:,} of {head:,}{end}")
        sys.stderr.flush()
