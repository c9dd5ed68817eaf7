"""
What a log says of which partitions it owns: it is opened with some, releases them to other logs, and adopts what these release.

Of one log alone, an adoption is taken as stated. Where the other log is checked, too, as far as the cut, it must say the same.

Invariant: a log that only reports what it was given is never accused: the fault lies at an adoption that nobody has released.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from verifier.body import PARTITIONS
from verifier.faults import Broken, Fault, Reason, quoted

if TYPE_CHECKING:
    from verifier.log import Report

OPENED, RELEASED, ADOPTED = "log.opened", "log.released", "log.adopted"
TAGS = frozenset({OPENED, RELEASED, ADOPTED})
_LEAF_HEX_DIGITS = 64


class Said(NamedTuple):
    """An event of a log about its ownership, where it stands, and its leaf in hex."""

    position: int
    leaf: str
    tag: str
    data: dict[str, Any]

    def to_json(self) -> dict[str, object]:
        return {"position": self.position, **{name: self.data[name] for name in ("of", "cut", "partitions")}}


class Terms:
    """The partitions that a log owns now, and their epochs."""

    def __init__(self) -> None:
        self.owned: dict[int, int] = {}

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
            return set()
        for partition, epoch in spans.items():
            if partition in self.owned or epoch == 1:
                raise Broken(Reason.OWNERSHIP_INVALID, f"partition {partition} is adopted at epoch {epoch} out of turn")
        self.owned |= spans
        return set(spans)


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
    if not (
        isinstance(of, str)
        and type(position) is int
        and position > 0
        and isinstance(leaf, str)
        and len(leaf) == _LEAF_HEX_DIGITS
    ):
        raise Broken(Reason.MEMBER_MALFORMED, f"the adoption's members /data/of and /data/cut are {quoted([of, cut])}")


def compared(report: "Report", others: Mapping[str, "Report"]) -> "Report":
    """The report, with what the log has adopted compared with what the others, by name, have released."""
    stated = []
    for said in report.said:
        if said.tag != ADOPTED:
            continue
        other = others.get(said.data["of"])
        cut = said.data["cut"]
        if other is None or other.position < cut["position"] or (other.taken and other.taken.kind != "whole"):
            stated.append(said)
        elif not _is_released(other.said, said, report.log):
            detail = f"partitions are adopted that log {other.log} has not released to {report.log} at position {cut['position']}"
            fault = Fault(said.position, Reason.ADOPTION_FALSE, detail)
            first = min((fault, *([report.fault] if report.fault else [])), key=lambda each: each.order)
            return replace(report, intact=False, fault=first, stated=tuple(stated))
    return replace(report, stated=tuple(stated))


def _is_released(given: Iterable[Said], adoption: Said, to: str) -> bool:
    cut, adopted = adoption.data["cut"], _spans(ADOPTED, adoption.data)
    for said in given:
        if said.tag == RELEASED and (said.position, said.leaf) == (cut["position"], cut["leaf"]):
            released = {partition: epoch + 1 for partition, epoch in _spans(RELEASED, said.data).items()}
            return said.data["to"] == to and released.items() >= adopted.items()
    return False
