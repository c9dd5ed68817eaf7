"""
What a log says of which partitions it owns: it is opened with some, releases them to other logs, and adopts what these release.

Of one log alone, an adoption is taken as stated. Where the other log is checked, too, as far as the cut, it must say the same.

A log that was closed releases nothing. The next log of its region (eu.2 after eu) names at its opening the last entry of the closed one
that counts, and adopts from there what that one owned.

Invariant: a log that only reports what it was given is never accused: the fault lies at an adoption that nobody has released.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from verifier.body import PARTITIONS
from verifier.faults import Broken, Fault, Reason, quoted

if TYPE_CHECKING:
    from verifier.log import Report

OPENED, RELEASED, ADOPTED = "log.opened", "log.released", "log.adopted"
TAGS = frozenset({OPENED, RELEASED, ADOPTED})
_LEAF_HEX_DIGITS = 64
_LOG = re.compile(r"([a-z][a-z0-9]*)(?:\.([1-9][0-9]{0,8}))?")


class Said(NamedTuple):
    """An event of a log about its ownership, where it stands, and its leaf in hex."""

    position: int
    leaf: str
    tag: str
    data: dict[str, Any]

    def to_json(self) -> dict[str, object]:
        return {"position": self.position, **{name: self.data[name] for name in ("of", "cut", "partitions")}}


class Closed(NamedTuple):
    """Where a log was closed, and the log that goes on with it. `behind`: how many of its entries come later, which are stranded."""

    by: str
    position: int
    leaf: str
    behind: int

    def to_json(self) -> dict[str, object]:
        return self._asdict()


class Terms:
    """The partitions that a log owns now, and their epochs."""

    def __init__(self) -> None:
        self.owned: dict[int, int] = {}
        self._ended: dict[int, int] = {}  # the last epoch of what was released

    def take(self, tag: str, data: dict[str, Any]) -> set[int]:
        """Take in a release or an adoption; returns the partitions that were adopted. Raises Broken."""
        spans = check_form(tag, data)
        if tag == RELEASED:
            for partition, epoch in spans.items():
                if self.owned.get(partition) != epoch:
                    raise Broken(
                        Reason.OWNERSHIP_INVALID,
                        f"partition {partition} is released at epoch {epoch}, and the log owns it "
                        + (f"at epoch {self.owned[partition]}" if partition in self.owned else "not"),
                    )
                del self.owned[partition]
            self._ended |= spans
            return set()
        for partition, epoch in spans.items():
            if partition in self.owned or epoch <= max(1, self._ended.get(partition, 0)):
                raise Broken(Reason.OWNERSHIP_INVALID, f"partition {partition} is adopted at epoch {epoch} out of turn")
        self.owned |= spans
        return set(spans)


def check_opening(data: dict[str, Any], region: str) -> None:
    """Check what an opening says of the log that it goes on with. Raises Broken."""
    closed, stranded = data.get("continues"), data.get("stranded")
    if "continues" in data and not (
        isinstance(closed, dict)
        and is_next(region, closed.get("log"))
        and _is_entry(closed.get("position"), closed.get("leaf"))
        and data["partitions"] == []
    ):
        raise Broken(
            Reason.MEMBER_MALFORMED,
            f"the opening's member /data/continues is {quoted(closed)}, not an entry of the log before of this region",
        )
    if "stranded" in data and not (
        isinstance(stranded, dict)
        and _is_entry(stranded.get("last"), stranded.get("leaf"))
        and type(first := stranded.get("first")) is int
        and 0 < first <= stranded["last"]
        and "continues" in data
    ):
        raise Broken(Reason.MEMBER_MALFORMED, f"the opening's member /data/stranded is {quoted(stranded)}")


def is_next(name: str, before: object) -> bool:
    """Whether a log is the next one of the region of the log `before`: eu.2 after eu, eu.3 after eu.2."""
    found, old = _LOG.fullmatch(name), _LOG.fullmatch(before) if isinstance(before, str) else None
    if found is None or old is None:
        return False
    return found.group(1) == old.group(1) and int(found.group(2) or 1) == int(old.group(2) or 1) + 1


def continued(report: "Report") -> dict[str, Any] | None:
    """What a log's opening says of the log that it goes on with: log, position, leaf; None if it goes on with none."""
    return next((said.data.get("continues") for said in report.said if said.tag == OPENED), None)


def check_form(tag: str, data: dict[str, Any]) -> dict[int, int]:
    """Check a release or an adoption by itself; returns its partitions and their epochs. Raises Broken."""
    if tag == ADOPTED:
        _check_cut(data)
    elif not isinstance(data.get("to"), str):
        raise Broken(Reason.MEMBER_MALFORMED, f"the release's member /data/to is {quoted(data.get('to'))}")
    return _spans(tag, data)


def _spans(tag: str, data: dict[str, Any]) -> dict[int, int]:
    """Each partition of the ranges, and its epoch. Raises Broken."""
    found: dict[int, int] = {}
    spans = data.get("partitions")
    whole = isinstance(spans, list) and bool(spans)
    for span in spans if isinstance(spans, list) else ():
        if not (isinstance(span, list) and len(span) == 3 and all(type(number) is int for number in span)):  # noqa: PLR2004 — first, last, epoch
            whole = False
            break
        first, last, epoch = (int(number) for number in span)
        if not (0 <= first <= last < PARTITIONS and epoch > 0) or not found.keys().isdisjoint(range(first, last + 1)):
            whole = False
            break
        found |= dict.fromkeys(range(first, last + 1), epoch)
    if not whole:
        raise Broken(
            Reason.MEMBER_MALFORMED,
            f"the member /data/partitions of {quoted(tag)} is {quoted(spans)}, not a list of [first, last, epoch]",
        )
    return found


def _check_cut(data: dict[str, Any]) -> None:
    cut, of = data.get("cut"), data.get("of")
    position, leaf = (cut.get("position"), cut.get("leaf")) if isinstance(cut, dict) else (None, None)
    if not (isinstance(of, str) and _is_entry(position, leaf)):
        raise Broken(Reason.MEMBER_MALFORMED, f"the adoption's members /data/of and /data/cut are {quoted([of, cut])}")


def _is_entry(position: object, leaf: object) -> bool:
    return type(position) is int and position > 0 and isinstance(leaf, str) and len(leaf) == _LEAF_HEX_DIGITS


LeafAt = Callable[[str, int], bytes | None]
"""The leaf of a log at a position up to which it was found in order; None if it is not at hand."""


def compared(report: "Report", others: Mapping[str, "Report"], leaf_at: LeafAt | None = None) -> "Report":
    """The report, with what the log has adopted compared with what the others, by name, have released, and what it goes on with with
    that log; and where another log goes on with this one.
    """
    leaf_at = leaf_at or (lambda log, position: others[log].leaves.get(position))
    report = replace(report, closed=_closed(report, others))
    if taken := _opened(report.said) & set().union(
        *(_opened(each.said) for each in others.values() if each.log != report.log)
    ):
        wrong = f"partition {min(taken)} is one with which another log was opened, too"
        fault = Fault(1, Reason.OWNERSHIP_INVALID, wrong)
        first = min((fault, *([report.fault] if report.fault else [])), key=lambda each: each.order)
        report = replace(report, intact=False, fault=first)
    stated: list[Said] = []
    closed = continued(report)
    for said in report.said:
        if said.tag != ADOPTED:
            continue
        other = others.get(said.data["of"])
        cut = said.data["cut"]
        if other is None or other.position < cut["position"] or (other.taken and other.taken.kind != "whole"):
            stated.append(said)
            continue
        if closed == {"log": other.log, **cut}:
            leaf = leaf_at(other.log, cut["position"])
            if leaf is None:
                stated.append(said)
                continue
            fits = leaf.hex() == cut["leaf"] and _is_left(other.said, said)
            wrong = f"partitions are adopted that log {other.log} did not own at position {cut['position']}, or that is another entry"
        else:
            fits = _is_released(other.said, said, report.log, closed)
            wrong = f"partitions are adopted that log {other.log} has not released to {report.log} at position {cut['position']}"
        if not fits:
            fault = Fault(said.position, Reason.ADOPTION_FALSE, wrong)
            first = min((fault, *([report.fault] if report.fault else [])), key=lambda each: each.order)
            return replace(report, intact=False, fault=first, stated=tuple(stated))
    return replace(report, stated=tuple(stated))


def _opened(said: Iterable[Said]) -> set[int]:
    """The partitions that a log was opened with."""
    spans = (span for each in said if each.tag == OPENED for span in each.data["partitions"])
    return {partition for first, last in spans for partition in range(first, last + 1)}


def _closed(report: "Report", others: Mapping[str, "Report"]) -> Closed | None:
    """By the log of the same region that goes on with this one, if it is there."""
    for other in others.values():
        same = other.origin.rpartition("/")[0] == report.origin.rpartition("/")[0]
        if same and (found := continued(other)) and found["log"] == report.log:
            behind = max(report.position - found["position"], 0)
            return Closed(other.log, found["position"], found["leaf"], behind)
    return None


def _is_released(given: Iterable[Said], adoption: Said, to: str, closed: dict[str, Any] | None) -> bool:
    """What was released to a log that was closed, the next one of its region may adopt."""
    cut, adopted = adoption.data["cut"], _spans(ADOPTED, adoption.data)
    for said in given:
        if said.tag == RELEASED and (said.position, said.leaf) == (cut["position"], cut["leaf"]):
            released = {partition: epoch + 1 for partition, epoch in _spans(RELEASED, said.data).items()}
            meant = said.data["to"] == to or (closed is not None and said.data["to"] == closed["log"])
            return meant and released.items() >= adopted.items()
    return False


def _is_left(given: Iterable[Said], adoption: Said) -> bool:
    """Whether the closed log owned, at the cut, what is adopted."""
    terms, cut = Terms(), adoption.data["cut"]["position"]
    for said in given:
        if said.position > cut:
            break
        if said.tag == OPENED:
            terms.owned = {
                p: said.data["epoch"] for first, last in said.data["partitions"] for p in range(first, last + 1)
            }
        else:
            terms.take(said.tag, said.data)
    left = {partition: epoch + 1 for partition, epoch in terms.owned.items()}
    return left.items() >= _spans(ADOPTED, adoption.data).items()
