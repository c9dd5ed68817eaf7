"""
`countroom verify`: regions by URL, databases by DSN and directories of tiles, each log in each of them, and their copies
against one another.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from app.verifying import DatabaseSource, without_password
from verifier import cli as regions
from verifier import proving
from verifier.faults import CouldNotCheck
from verifier.log import Report
from verifier.parallel import cores
from verifier.source import Keeper, keeper_of

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
    words: str = ""  # what is known of the signatures
    entries: str = ""  # how many, and of what


class Verification(NamedTuple):
    """What was found, and why the rest could not be checked."""

    findings: list[Finding]
    errors: list[str]
    differences: list[str]
    altered: Sequence[str] = ()

    @property
    def status(self) -> int:
        if self.differences or self.altered or not all(finding.shown["intact"] for finding in self.findings):
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
            "altered": list(self.altered),
        }

    def to_text(self) -> str:
        lines = []
        for finding in self.findings:
            fault = finding.shown["fault"]
            said = f"NOT INTACT at position {fault['position']}: {fault['detail']}" if fault else "intact"
            said += finding.words
            lines.append(f"{finding.target}  {finding.log}  {finding.entries}  {said}")
        return "\n".join(
            [
                *lines,
                *(f"NOT INTACT: {a}" for a in self.altered),
                *(f"DIFFERENT: {d}" for d in self.differences),
                *(f"could not check {e}" for e in self.errors),
            ]
        )


def verify(
    targets: Sequence[str], token: str, log: str | None, progress: Progress, how: regions.How = regions.UNTRUSTING
) -> Verification:
    """Check URLs, DSNs and directories alike. `progress` goes before the one in `how`."""
    return told(examine(targets, token, log, progress, how))


def told(seen: regions.Findings) -> Verification:
    """What was found, in words and for machines."""
    return Verification(
        [_finding(copy.source, copy.report) for copy in seen.copies if copy.report is not None],
        [
            f"{without_password(at) if is_dsn(at) else at}{f' {name}' if name else ''}: {what}"
            for at, name, what in seen.errors
        ],
        [
            f"{one.head.log} at position {fault.position}: {one.source.url} and {other.source.url} differ"
            for one, other, fault in seen.differences
        ],
        [f"the export {path} was altered: {why}" for path, why in seen.altered],
    )


def examine(
    targets: Sequence[str], token: str, log: str | None, progress: Progress, how: regions.How = regions.UNTRUSTING
) -> regions.Findings:
    """The same, with the keepers that were read, so that they can be read again; only databases are left."""
    databases: list[DatabaseSource] = []
    with ExitStack() as stack:

        def keeper(target: str, token: str | None) -> Keeper:
            if is_dsn(target):
                databases.append(stack.enter_context(closing(DatabaseSource(target))))
                return databases[-1]
            return keeper_of(target, token)

        seen = regions.check(
            list(dict.fromkeys(target.rstrip("/") if _is_url(target) else target for target in targets)),
            token=token,
            log=log,
            how=replace(how, progress=lambda head, at: progress(head.log, at, head.position)),
            keeper=keeper,
        )
        for database in databases:
            reports = [copy.report for copy in seen.copies if copy.source == database]
            if not how.merkle_only and reports and all(report and report.intact for report in reports):
                try:
                    database.compare_snapshots()
                except CouldNotCheck as error:
                    seen.errors.append((database.url, None, str(error)))
    return seen


def how(trust: Path | None, known: Sequence[Path] = (), *, merkle_only: bool, workers: int) -> regions.How:
    """Raises CouldNotCheck when the policy, or a head that is known, cannot be read."""
    policy = None if trust is None else regions.read_policy(str(trust))
    heads = regions.read_heads([str(file) for file in known]) if known else {}
    return regions.How(trust=policy, known=heads, merkle_only=merkle_only, workers=workers or cores())


def prove(files: Sequence[str], trust: Path | None, entry: Path | None, leaf: str | None) -> proving.Outcome:
    """Check a proof in a file. Raises CouldNotCheck."""
    if len(files) != 1 or trust is None:
        raise CouldNotCheck("name one file with a proof, and --trust")
    return proving.check_files(files[0], str(trust), None if entry is None else str(entry), leaf)


def _finding(source: Keeper, report: Report) -> Finding:
    shown = report.to_json()
    beside = source.beside.get(report.log) if isinstance(source, DatabaseSource) else None
    if report.intact and beside:
        fault = {"position": beside.position, "reason": "index_differs", "detail": beside.detail}
        shown |= {"intact": False, "fault": fault}
    return Finding(
        source.url,
        report.log,
        report.position,
        report.leaf,
        shown,
        regions.closing_in_words(report) + regions.signatures_in_words(report),
        regions.taken_in_words(report).rjust(17),
    )


def is_dsn(target: str) -> bool:
    """Whether it names a database: by a URL of PostgreSQL's, or by key=value."""
    return not _is_url(target) and ("=" in target or target.startswith(("postgres://", "postgresql://")))


def _is_url(target: str) -> bool:
    return target.startswith(("http://", "https://"))


def say_progress(log: str, position: int, head: int) -> None:
    """One line that rewrites itself, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(regions.bar(log, position, head) if position < head else "\r\x1b[K")
        sys.stderr.flush()
