"""
The program `countroom-verifier`: checks the logs of running regions and says, in one line for each, what it found.

Exit status: 0 everything is intact, 1 something is not intact, 2 something could not be checked (and nothing was found
to be not intact). A failure of the program itself is a 2 as well: it is no finding.

What it cannot know, for lack of signed tree heads: whether the keeper of a single log rewrote it from some position to
its end, and whether entries are missing after the last one shown. With the addresses of several regions it compares
their copies, so that all of them would have to be rewritten alike.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from verifier.faults import Fault, Reason
from verifier.log import Report, verify
from verifier.source import CouldNotCheck, Entries, Head, Keeper, UrlSource

INTACT, NOT_INTACT, NOT_CHECKED = 0, 1, 2

_EPILOG = """\
exit status: 0 intact, 1 not intact, 2 could not check.
A single source can hide a rewritten suffix or a missing tail: give the URLs of several regions to compare their copies.
"""


@dataclass(slots=True)
class Copy:
    """One log as one region shows it."""

    source: Keeper
    head: Head
    report: Report | None = None  # None: could not be checked
    leaves: dict[int, bytes] = field(
        default_factory=dict
    )  # where a copy of the log ends, as far as this one is in order


@dataclass(slots=True)
class Findings:
    """What is known when all is read. An error tells the address, the log if one is concerned, and what happened."""

    copies: list[Copy] = field(default_factory=list)
    errors: list[tuple[str, str | None, str]] = field(default_factory=list)
    differences: list[tuple[Copy, Copy, Fault]] = field(default_factory=list)

    @property
    def status(self) -> int:
        if self.differences or any(copy.report is not None and not copy.report.intact for copy in self.copies):
            return NOT_INTACT
        return NOT_CHECKED if self.errors else INTACT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the answer is its exit status."""
    options = _parser().parse_args(arguments)
    urls = list(dict.fromkeys(url.rstrip("/") for url in options.urls))
    token = options.token or os.environ.get("COUNTROOM_TOKEN")
    show_progress = sys.stderr.isatty() and not options.json
    try:
        findings = check(urls, token=token, log=options.log, progress=_print_progress if show_progress else None)
        if options.json:
            _print(json.dumps(to_json(urls, findings), indent=2))
        else:
            _print(to_text(findings))
    except KeyboardInterrupt:
        sys.stderr.write("could not check: interrupted\n")
        return NOT_CHECKED
    except Exception as error:  # noqa: BLE001 - Python's own exit status would be 1, and accuse an innocent log
        sys.stderr.write(f"could not check: the verifier itself failed: {error!r}\n")
        return NOT_CHECKED
    return findings.status


def check(
    urls: Sequence[str],
    *,
    token: str | None = None,
    log: str | None = None,
    progress: Callable[[Head, int], None] | None = None,
    keeper: Callable[[str, str | None], Keeper] = UrlSource,
) -> Findings:
    """
    Check every log (or the one named `log`) of the regions at `urls`, and compare the copies of each.

    Each address stands there once, without a slash at its end. `keeper` makes a source of an address and the token.
    """
    findings = Findings()
    for url in urls:
        try:
            source = keeper(url, token)
            heads = [head for head in source.heads() if log in (None, head.log)]
            if not heads:
                raise CouldNotCheck(f"it holds no log {log!r}" if log else "it holds no log")  # noqa: TRY301
        except CouldNotCheck as error:
            findings.errors.append((url, None, str(error)))
            continue
        for head in heads:
            if head.position == 0:
                findings.errors.append((url, head.log, "the log has no entry yet"))
            else:
                findings.copies.append(Copy(source, head))

    copies_of_log: dict[str, list[Copy]] = defaultdict(list)
    for copy in findings.copies:
        copies_of_log[copy.head.log].append(copy)
    for copies in copies_of_log.values():
        ends = {copy.head.position for copy in copies}
        for copy in copies:
            try:
                _check_copy(copy, ends, progress)
            except CouldNotCheck as error:
                findings.errors.append((copy.source.url, copy.head.log, str(error)))
        longest = max(copies, key=lambda copy: max(copy.leaves, default=0))  # what agrees with it agrees with all
        findings.differences += (
            (longest, other, fault)
            for other in copies
            if other is not longest and (fault := _difference(longest, other)) is not None
        )
    return findings


def _check_copy(copy: Copy, ends: set[int], progress: Callable[[Head, int], None] | None) -> None:
    """Fill in the report, and the leaves where copies end. Raises CouldNotCheck."""
    head = copy.head
    leaves: dict[int, bytes] = {}

    def noting_leaves(entries: Entries) -> Entries:
        for entry in entries:
            if entry[0] in ends:
                leaves[entry[0]] = entry[2]
            yield entry

    def tell(position: int) -> None:
        if progress is not None:
            progress(head, position)

    with closing(copy.source.entries(head, progress=tell)) as entries:
        copy.report = verify(noting_leaves(entries), origin=head.origin, head=(head.position, head.leaf))
    copy.leaves = {end: leaf for end, leaf in leaves.items() if end <= copy.report.position}  # others were only claimed


def _difference(one: Copy, other: Copy) -> Fault | None:
    """
    The first position at which two copies differ, as far as both are in order.

    Each leaf seals all before it, so once copies differ they differ for ever, and the first position is found by halving.
    """
    common = max(one.leaves.keys() & other.leaves.keys(), default=0)
    if one.leaves.get(common) == other.leaves.get(common):
        return None
    if one.head.origin != other.head.origin:
        return Fault(1, Reason.COPIES_DIFFER, f"the origins are {one.head.origin!r} and {other.head.origin!r}")
    alike, differ = 0, common
    at = "at"
    try:
        while differ - alike > 1:
            middle = (alike + differ) // 2
            if one.source.leaf_at(one.head, middle) == other.source.leaf_at(other.head, middle):
                alike = middle
            else:
                differ = middle
    except CouldNotCheck:
        at = "at or before"
    return Fault(
        differ,
        Reason.COPIES_DIFFER,
        f"{at} this position {one.source.url} and {other.source.url} begin to show different entries",
    )


def to_json(urls: Sequence[str], findings: Findings) -> dict[str, object]:
    """The findings for machines: `intact` is null when something could not be checked, and nothing was found."""
    return {
        "intact": {INTACT: True, NOT_INTACT: False, NOT_CHECKED: None}[findings.status],
        "sources": [
            {
                "url": url,
                "logs": {
                    copy.head.log: copy.report.to_json()
                    for copy in findings.copies
                    if copy.source.url == url and copy.report is not None
                },
                "errors": [{"log": log, "detail": detail} for at, log, detail in findings.errors if at == url],
            }
            for url in urls
        ],
        "differences": [
            {"log": one.head.log, "urls": [one.source.url, other.source.url], **fault.to_json()}
            for one, other, fault in findings.differences
        ],
    }


def to_text(findings: Findings) -> str:
    """The findings for people, a line for each."""
    lines = []
    for copy in findings.copies:
        report = copy.report
        if report is None:
            continue
        line = f"{copy.source.url}  {report.log}  {report.entries:,} entries  "
        if report.fault is None:
            line += "intact"
        else:
            line += _not_intact(report.fault)
        if report.not_counted:
            line += f" ({report.not_counted:,} entries do not count: the log did not own their partition and epoch)"
        lines.append(line)
    lines += (f"{one.head.log}  {_not_intact(fault)}" for one, _, fault in findings.differences)
    lines += (f"{url}  {log + '  ' if log else ''}could not check: {detail}" for url, log, detail in findings.errors)
    return "\n".join(lines)


def _not_intact(fault: Fault) -> str:
    return f"NOT INTACT at position {fault.position}: {fault.detail} [{fault.reason}]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="countroom-verifier",
        description="Check the logs of running Countroom regions without trusting anyone who runs them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "urls", metavar="URL", nargs="+", help="the address of a region, such as https://eu.example.com"
    )
    parser.add_argument("--token", help="the access token; better in the environment, as COUNTROOM_TOKEN")
    parser.add_argument("--log", metavar="NAME", help="only this log, such as eu; otherwise every log of the region")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _print_progress(head: Head, position: int) -> None:
    sys.stderr.write(f"\r\x1b[K{head.log}: {position:,} of {head.position:,} entries\r")
    sys.stderr.flush()


def _print(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
