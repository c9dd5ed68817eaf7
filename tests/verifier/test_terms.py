"""What a log says of its ownership: followed in one log alone, and compared where the other log is there, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.verifier.logs import Entry, chain, command_id, event, event_id, opening, stream
from verifier import terms
from verifier.log import Report, verify

US = "countroom.test/us"
Body = dict[str, Any]


def said(number: int, version: int, tag: str, data: object, region: str = "eu", **changes: object) -> Body:
    return {
        "stream": f"region-{region}-log",
        "version": version,
        "type": tag,
        "id": event_id(number),
        "actor": "system",
        "command": {"id": command_id(number), "i": 1, "n": 1},
        "data": data,
        **changes,
    }


def released(
    number: int, version: int = 2, spans: object = ((42, 42, 1),), to: object = "us", **changes: object
) -> Body:
    return said(number, version, "log.released", {"partitions": spans, "to": to}, **changes)


def adopted(number: int, version: int, cut: Entry, epoch: int = 2, of: str = "eu", region: str = "us") -> Body:
    data = {"partitions": [[42, 42, epoch]], "of": of, "cut": {"position": cut[0], "leaf": cut[2].hex()}}
    return said(number, version, "log.adopted", data, region)


def found(entries: Sequence[Entry], origin: str = "countroom.test/eu") -> Report:
    return verify(entries, origin=origin)


EU = chain([opening(), event(2, 1), event(3, 2), released(4), event(5, 3)])
"""The last event stands behind the cut."""


def us(*bodies: Body, cut: Entry = EU[3]) -> list[Entry]:
    return chain([opening(US, [[128, 255]]), adopted(102, 2, cut), *bodies], US)


def later(number: int, version: int, epoch: int) -> Body:
    return event(number, version, epoch=epoch)


def test_what_follows_a_release_does_not_count() -> None:
    report = found(EU)
    assert report.intact
    assert report.not_counted == 1


def test_an_adopted_stream_goes_on_at_its_version_and_without_gaps() -> None:
    assert found(us(later(103, 3, 2), later(104, 4, 2)), US).not_counted == 0
    gap = found(us(later(103, 3, 2), later(104, 5, 2)), US)
    assert gap.fault is not None
    assert gap.fault.reason == "version_gap"
    assert found(us(later(103, 3, 1), later(104, 4, 3)), US).not_counted == 2


def test_a_partition_may_come_back_at_a_higher_version() -> None:
    theirs = us(later(103, 3, 2), said(104, 3, "log.released", {"partitions": [[42, 42, 2]], "to": "eu"}, "us"))
    back = adopted(6, 3, theirs[3], 3, "us", "eu")
    bodies = [opening(), event(2, 1), event(3, 2), released(4), event(5, 3), back, later(7, 4, 3), later(8, 5, 3)]
    report = found(chain(bodies))
    assert report.intact
    assert report.not_counted == 1


@pytest.mark.parametrize(
    "wrong",
    [
        released(4, spans=[[200, 200, 1]]),
        released(4, spans=[[42, 42, 2]]),
        released(4, stream=stream(1), partition=42, epoch=1, version=3),
        adopted(4, 2, EU[2], of="us", region="eu"),
    ],
    ids=["of another log", "at another epoch", "on another stream", "of what it owns"],
)
def test_a_log_says_only_what_it_may(wrong: Body) -> None:
    fault = found(chain([opening(), event(2, 1), event(3, 2), wrong])).fault
    assert fault is not None
    assert (fault.position, fault.reason) == (4, "ownership_invalid")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"partitions": [], "to": "us"},
        {"partitions": [[42, 42]], "to": "us"},
        {"partitions": [[42, 41, 1]], "to": "us"},
        {"partitions": [[42, 256, 1]], "to": "us"},
        {"partitions": [[42, 42, 1], [42, 43, 1]], "to": "us"},
        {"partitions": [[42, 42, True]], "to": "us"},
        {"partitions": [[42, 42, 1]], "to": 1},
    ],
)
def test_a_release_has_its_form(data: object) -> None:
    fault = found(chain([opening(), said(2, 2, "log.released", data)])).fault
    assert fault is not None
    assert fault.reason == "member_malformed"


def test_with_one_log_alone_an_adoption_is_taken_as_stated() -> None:
    report = terms.compared(found(us(), US), {})
    assert report.intact
    assert [each.position for each in report.stated] == [2]
    behind = found(EU[:3])
    assert len(terms.compared(found(us(), US), {"eu": behind}).stated) == 1


def test_with_both_logs_it_is_compared_with_the_release() -> None:
    report = terms.compared(found(us(), US), {"eu": found(EU)})
    assert report.intact
    assert report.stated == ()


@pytest.mark.parametrize(
    ("cut", "eu"),
    [
        (EU[2], EU),
        ((4, b"", bytes(32)), EU),
        (EU[3], chain([opening(), event(2, 1), event(3, 2), event(4, 3)])),
        (None, chain([opening(), event(2, 1), event(3, 2), released(4, to="ap")])),
        (None, chain([opening(), event(2, 1), event(3, 2), released(4, spans=[[41, 41, 1]])])),
    ],
    ids=["another entry", "another leaf", "no release", "to another log", "other partitions"],
)
def test_an_adoption_that_nobody_released_is_found(cut: Entry | None, eu: list[Entry]) -> None:
    report = terms.compared(found(us(cut=cut or eu[3]), US), {"eu": found(eu)})
    assert not report.intact
    assert report.fault is not None
    assert (report.fault.position, report.fault.reason) == (2, "adoption_false")
