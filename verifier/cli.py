"""
The program `countroom-verifier`: checks the logs of regions, or any log in tiles, and says, in one line for each, what it
found.

`countroom-verifier witness` and `witness-key` are `verifier.witnessing`: they check nothing here, but sign tree heads.

Exit status: 0 everything is intact, 1 something is not intact, 2 something could not be checked (and nothing was found
to be not intact). A failure of the program itself is a 2 as well: it is no finding.

What it cannot know of entries behind the newest head that witnesses signed: whether the keeper of a single log rewrote them,
and whether entries are missing after the last one shown. It says how many they are. With the addresses of several regions
it compares their copies, so that all of them would have to be rewritten alike.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from verifier import terms
from verifier.body import region_of
from verifier.export import ExportAltered, ExportSource
from verifier.faults import CouldNotCheck, Fault, Found, Reason, quoted
from verifier.log import Report, verify
from verifier.parallel import cores
from verifier.source import Head, Keeper, keeper_of

if TYPE_CHECKING:  # it needs cryptography, which checking a chain does not
    from verifier.policy import Policy

INTACT, NOT_INTACT, NOT_CHECKED = 0, 1, 2
BAR_WIDTH = 30

_EPILOG = """\
exit status: 0 intact, 1 not intact, 2 could not check.
Behind the newest head that witnesses signed, and everywhere without --trust, a single source can hide a rewritten suffix or
a missing tail: give the URLs of several regions to compare their copies.
'countroom-verifier proof --help': check a proof that an entry stands in a log, without any connection.
'countroom-verifier witness --help' and 'witness-key --help': run a witness, which signs the heads of logs that only grow.
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


@dataclass(frozen=True, slots=True)
class How:
    """How logs are to be checked. `known`: heads that they must still have, by origin and size (verifier.known)."""

    trust: "Policy | None" = None
    known: Mapping[str, Mapping[int, bytes]] = field(default_factory=dict)
    merkle_only: bool = False
    workers: int = 1
    progress: Callable[[Head, int], None] | None = None


@dataclass(slots=True)
class Findings:
    """What is known when all is read. An error tells the address, the log if one is concerned, and what happened."""

    copies: list[Copy] = field(default_factory=list)
    errors: list[tuple[str, str | None, str]] = field(default_factory=list)
    differences: list[tuple[Copy, Copy, Fault]] = field(default_factory=list)
    altered: list[tuple[str, str]] = field(default_factory=list)  # exports that are not as they were written, and why

    @property
    def status(self) -> int:
        if (
            self.differences
            or self.altered
            or any(copy.report is not None and not copy.report.intact for copy in self.copies)
        ):
            return NOT_INTACT
        return NOT_CHECKED if self.errors else INTACT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the answer is its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] in (["witness"], ["witness-key"]):
        from verifier import witnessing  # noqa: PLC0415 - needs cryptography, which checking a chain does not

        return witnessing.main(given)
    if given[:1] == ["proof"]:
        from verifier import proving  # noqa: PLC0415 - needs cryptography, which checking a chain does not

        return proving.main(given[1:])
    if given[:1] == ["verify"]:  # what the program does anyway; said for who is used to `countroom verify`
        given = given[1:]
    options = _parser().parse_args(given)
    urls = list(dict.fromkeys(url.rstrip("/") or url for url in options.urls))
    token = options.token or os.environ.get("COUNTROOM_TOKEN")
    try:
        show_progress = sys.stderr.isatty() and not options.json
        how = How(
            trust=read_policy(options.trust) if options.trust else None,
            known=read_heads(options.known) if options.known else {},
            merkle_only=options.merkle_only,
            workers=options.workers or cores(),
            progress=_print_progress if show_progress else None,
        )
        findings = check(urls, token=token, log=options.log, how=how)
        if options.json:
            _print(json.dumps(to_json(urls, findings), indent=2))
        else:
            _print(to_text(findings))
    except CouldNotCheck as error:
        sys.stderr.write(f"could not check: {error}\n")
        return NOT_CHECKED
    except KeyboardInterrupt:
        sys.stderr.write("could not check: interrupted\n")
        return NOT_CHECKED
    except Exception as error:  # noqa: BLE001 - Python's own exit status would be 1, and accuse an innocent log
        sys.stderr.write(f"could not check: the verifier itself failed: {error!r}\n")
        return NOT_CHECKED
    return findings.status


def read_policy(path: str) -> "Policy":
    """The policy in a file (tlog-policy). Raises CouldNotCheck."""
    from verifier.policy import PolicyError, parse_policy  # noqa: PLC0415 - needs cryptography

    try:
        return parse_policy(Path(path).read_bytes())
    except OSError as error:
        raise CouldNotCheck(f"the policy {quoted(path)} cannot be read: {error.strerror}") from None
    except PolicyError as error:
        raise CouldNotCheck(f"the policy {quoted(path)}: {error}") from None


def read_heads(files: Sequence[str]) -> Mapping[str, Mapping[int, bytes]]:
    """Heads that are known from elsewhere, for `How`. Raises CouldNotCheck."""
    from verifier import known  # noqa: PLC0415 - needs cryptography

    return known.read_heads(files)


UNTRUSTING = How()


def check(
    urls: Sequence[str],
    *,
    token: str | None = None,
    log: str | None = None,
    how: How = UNTRUSTING,
    keeper: Callable[[str, str | None], Keeper] = keeper_of,
) -> Findings:
    """
    Check every log (or the one named `log`) of the regions at `urls`, and compare the copies of each.

    Each address stands there once, without a slash at its end; it may also be a directory. `keeper` makes a source of
    an address and the token.
    """
    findings = Findings()
    for url in urls:
        with _told(findings, url, None):
            source = keeper(url, token)
            heads = [head for head in source.heads() if log in (None, head.log)]
            if not heads:
                raise CouldNotCheck(f"it holds no log {log!r}" if log else "it holds no log")
            findings.errors += ((url, head.log, "the log has no entry yet") for head in heads if not head.position)
            findings.copies += (Copy(source, head) for head in heads if head.position)

    copies_of_log: dict[str, list[Copy]] = defaultdict(list)
    for copy in findings.copies:
        copies_of_log[copy.head.log].append(copy)
    for copies in copies_of_log.values():
        ends = {copy.head.position for copy in copies}
        for copy in copies:
            with _told(findings, copy.source.url, copy.head.log):
                _check_copy(copy, ends, how)
        longest = max(copies, key=lambda copy: max(copy.leaves, default=0))  # what agrees with it agrees with all
        findings.differences += (
            (longest, other, fault)
            for other in copies
            if other is not longest and (fault := _difference(longest, other)) is not None
        )
    _compare_ownership(copies_of_log)
    return findings


def _compare_ownership(copies_of_log: Mapping[str, Sequence[Copy]]) -> None:
    """Compare what each log has adopted with what the others have released, by the longest copy of each."""
    reported = {
        log: max(there, key=lambda copy: copy.head.position)
        for log, copies in copies_of_log.items()
        if (there := [copy for copy in copies if copy.report is not None])
    }
    longest = {log: copy.report for log, copy in reported.items() if copy.report is not None}

    def leaf_at(log: str, position: int) -> bytes | None:
        with suppress(CouldNotCheck):
            return reported[log].source.leaf_at(reported[log].head, position)
        return None

    for copies in copies_of_log.values():
        for copy in copies:
            if copy.report is not None:
                copy.report = terms.compared(copy.report, longest, leaf_at)


@contextmanager
def _told(findings: Findings, url: str, log: str | None) -> Iterator[None]:
    """What cannot be checked, and that an export was altered, becomes a finding."""
    try:
        yield
    except CouldNotCheck as error:
        findings.errors.append((url, log, str(error)))
    except ExportAltered as error:
        findings.altered.append((url, str(error)))


def _check_copy(copy: Copy, ends: set[int], how: How) -> None:
    """Fill in the report, and the leaves where copies end. Raises CouldNotCheck."""
    head = copy.head
    if isinstance(copy.source, ExportSource):
        if how.merkle_only:
            raise CouldNotCheck("--merkle-only is for other people's logs, not for an export of ours")
        copy.report = copy.source.report(
            head,
            how.trust,
            ends=ends,
            workers=how.workers,
            progress=partial(how.progress, head) if how.progress else lambda _: None,
            known=how.known.get(head.origin, {}),
        )
        copy.leaves = copy.report.leaves
        return
    if not how.merkle_only and region_of(head.origin) is None:
        raise CouldNotCheck(f"{quoted(head.origin)} is not one of our logs: check it with --merkle-only")
    pages = copy.source.pages(head)
    if known := how.known.get(head.origin):
        from verifier.known import WithKnown  # noqa: PLC0415 - needs cryptography

        pages = WithKnown(pages, known)
    copy.report = verify(
        pages,
        how.trust,
        origin=head.origin,
        head=None if head.leaf is None else (head.position, head.leaf),
        merkle_only=how.merkle_only,
        ends=ends,
        workers=how.workers,
        progress=partial(how.progress, head) if how.progress else lambda _: None,
    )
    copy.leaves = copy.report.leaves


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
    except (CouldNotCheck, Found):
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
                **({"altered": why} if (why := dict(findings.altered).get(url)) else {}),
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
        line = f"{copy.source.url}  {report.log}  {taken_in_words(report)}  "
        if report.fault is None:
            line += "intact"
        else:
            line += _not_intact(report.fault)
        if report.not_counted:
            do = "does" if report.not_counted == 1 else "do"
            line += f" ({_entries(report.not_counted)} {do} not count: not of a partition and epoch that the log owned)"
        if report.stated:
            line += f"; {_counted(len(report.stated), 'adoption')} of partitions taken as stated: give the log that released them, too"
        lines.append(f"{line}{closing_in_words(report)}{signatures_in_words(report)}")
    lines += (f"{url}  NOT INTACT: the export was altered: {why}" for url, why in findings.altered)
    lines += (f"{one.head.log}  {_not_intact(fault)}" for one, _, fault in findings.differences)
    lines += (f"{url}  {log + '  ' if log else ''}could not check: {detail}" for url, log, detail in findings.errors)
    return "\n".join(lines)


def closing_in_words(report: Report) -> str:
    """Where the log was closed, and what was left out when it went on with a closed one."""
    words = ""
    if report.closed:
        words += f"; closed behind position {report.closed.position}, goes on as {report.closed.by}"
        if report.closed.behind:
            words += f"; {_entries(report.closed.behind)} behind it stranded"
    if isinstance(before := report.opening.get("continues"), dict):
        words += f"; goes on with {before['log']} behind position {before['position']}"
    if isinstance(left := report.opening.get("stranded"), dict):
        count = left["last"] - left["first"] + 1
        words += f"; {_entries(count)} ({left['first']} to {left['last']}) of the closed database stranded: kept elsewhere, not counted"
    return words


def taken_in_words(report: Report) -> str:
    """How many entries were found in order, and of what."""
    entries, taken = _entries(report.entries), report.taken
    if taken is None or taken.kind == "whole":
        return entries
    if taken.kind == "range":
        return f"{entries} from position {taken.first:,} to {taken.last:,} of {taken.size:,}"
    return f"{entries} chosen from positions {taken.first:,} to {taken.last:,} of {taken.size:,}"


def signatures_in_words(report: Report) -> str:
    """What is known of a log's signed heads; nothing where there is none, and none was expected."""
    enclosed = report.taken is not None and report.taken.keys == "enclosed"
    warning = "; these keys CAME WITH THE EXPORT: give --trust with keys that you got elsewhere" if enclosed else ""
    return _signatures(report) + warning


def _signatures(report: Report) -> str:
    signed = report.signed
    if signed is None or (not signed.heads and not report.trusted):
        return ""
    if not report.trusted:
        fit = "fits" if signed.heads == 1 else "fit"
        return f"; {_counted(signed.heads, 'signed head')} {fit} the tree, but NO signature was checked (give --trust)"
    heads, signatures = _counted(signed.heads, "head"), _counted(signed.signatures, "signature")
    said = f"; {heads}, {signatures} and {_counted(signed.cosignatures, 'cosignature')} are true"
    if signed.unknown_signatures:
        said += f" ({signed.unknown_signatures:,} more are of unknown keys)"
    if signed.witnessed_size is None:
        return f"{said}; no entry is witnessed yet"
    names = ", ".join(quoted(name) for name in sorted(signed.witnessed_by)) or "nobody, which the policy allows"
    return (
        f"{said}; witnessed up to {signed.witnessed_size:,} by {names}; {_entries(report.unwitnessed_entries)} not yet"
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number:,} entries"


def _not_intact(fault: Fault) -> str:
    return f"NOT INTACT at position {fault.position}: {fault.detail} [{fault.reason}]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="countroom-verifier",
        description="Check the logs of Countroom regions, or any log in tiles, without trusting anyone who runs them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "urls",
        metavar="URL",
        nargs="+",
        help="the address of a region, such as https://eu.example.com, or of a log in tiles; or a directory: an export, or tiles",
    )
    parser.add_argument(
        "--trust", metavar="FILE", help="a policy (tlog-policy): verify signatures of these logs and witnesses"
    )
    parser.add_argument(
        "--known",
        metavar="FILE",
        action="append",
        help="a signed head that you know from elsewhere, such as your witness's record: its log must still begin with it",
    )
    parser.add_argument(
        "--merkle-only", action="store_true", help="entries are opaque: check tiles, tree and signatures only"
    )
    parser.add_argument("--workers", metavar="N", type=int, help="processes to read with; by default one for each core")
    parser.add_argument("--token", help="the access token; better in the environment, as COUNTROOM_TOKEN")
    parser.add_argument("--log", metavar="NAME", help="only this log, such as eu; otherwise every log of the region")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def bar(log: str, position: int, end: int) -> str:
    """One line of a terminal, which the next one replaces: how far a check has come."""
    done = min(BAR_WIDTH, BAR_WIDTH * position // max(end, 1))
    name = quoted(log)[1:-1]
    return f"\r\x1b[K{name}: [{'#' * done:<{BAR_WIDTH}}] {position:,} of {end:,} entries\r"


def _print_progress(head: Head, position: int) -> None:
    sys.stderr.write(bar(head.log, position, head.position))
    sys.stderr.flush()


def _print(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
