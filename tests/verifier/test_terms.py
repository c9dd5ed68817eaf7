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


# A closed log, and the next one of its region

EU_2 = "countroom.test/eu.2"
CLOSED = chain([opening(), event(2, 1), event(3, 2)])
BEHIND = chain([opening(), event(2, 1), event(3, 2), event(4, 3)])
LEFT = {"first": 4, "last": 9, "leaf": "ab" * 32}


def second(
    *bodies: Body,
    cut: Entry = CLOSED[2],
    spans: object = ((0, 127, 2),),
    origin: str = EU_2,
    of: str = "eu",
    **data: object,
) -> list[Entry]:
    region = origin.rpartition("/")[2]
    at = {"position": cut[0], "leaf": cut[2].hex()}
    opened = {"origin": origin, "epoch": 1, "partitions": [], "continues": {"log": of, **at}, **data}
    adopts = {"partitions": spans, "of": of, "cut": at}
    first = said(200, 1, "log.opened", opened, region)
    return chain([first, said(201, 2, "log.adopted", adopts, region), *bodies], origin)


def test_the_next_log_of_a_region_goes_on_with_a_closed_one_at_its_versions() -> None:
    eu, eu_2 = found(CLOSED), found(second(event(202, 3, epoch=2), stranded=LEFT), EU_2)
    assert eu_2.intact
    assert eu_2.not_counted == 0
    report = terms.compared(eu_2, {"eu": eu, "eu.2": eu_2}, lambda _log, position: CLOSED[position - 1][2])
    assert report.intact
    assert report.stated == ()
    assert report.to_json()["continues"] == {"log": "eu", "position": 3, "leaf": CLOSED[2][2].hex()}
    assert report.to_json()["stranded"] == LEFT
    told = terms.compared(eu, {"eu": eu, "eu.2": eu_2}).to_json()
    assert told["closed"] == {"by": "eu.2", "position": 3, "leaf": CLOSED[2][2].hex(), "behind": 0}


def test_what_stands_behind_the_cut_of_a_closed_log_is_told() -> None:
    eu, eu_2 = found(BEHIND), found(second(), EU_2)
    closed = terms.compared(eu, {"eu": eu, "eu.2": eu_2}).closed
    assert closed is not None
    assert (closed.by, closed.position, closed.behind) == ("eu.2", 3, 1)


def test_with_the_closed_log_elsewhere_the_adoption_is_taken_as_stated() -> None:
    eu_2 = found(second(), EU_2)
    for others in ({}, {"eu": found(CLOSED[:2])}):
        assert len(terms.compared(eu_2, others).stated) == 1


@pytest.mark.parametrize(
    ("eu_2", "eu"),
    [
        (second(cut=(3, b"", bytes(32))), CLOSED),
        (second(spans=((0, 128, 2),)), CLOSED),
        (second(spans=((0, 127, 3),)), CLOSED),
        (second(cut=EU[3]), EU),
    ],
    ids=["another entry", "more than it owned", "another epoch", "what it had released"],
)
def test_only_what_the_closed_log_owned_at_that_entry_goes_on(eu_2: list[Entry], eu: list[Entry]) -> None:
    report = terms.compared(found(eu_2, EU_2), {"eu": found(eu)}, lambda _log, position: eu[position - 1][2])
    assert report.fault is not None
    assert (report.fault.position, report.fault.reason) == (2, "adoption_false")


def test_what_was_released_to_a_region_its_next_log_adopts() -> None:
    to_us = chain(
        [opening(US, [[128, 255]]), said(300, 2, "log.released", {"partitions": [[200, 200, 1]], "to": "eu"}, "us")], US
    )
    cut = {"position": 2, "leaf": to_us[1][2].hex()}
    adopts = said(202, 3, "log.adopted", {"partitions": [[200, 200, 2]], "of": "us", "cut": cut}, "eu.2")
    others = {"us": found(to_us, US), "eu": found(CLOSED)}
    leaf_at = lambda _log, position: CLOSED[position - 1][2]  # noqa: E731
    assert terms.compared(found(second(adopts), EU_2), others, leaf_at).intact
    joined = chain([opening(EU_2, []), adopts | {"version": 2}], EU_2)
    assert not terms.compared(found(joined, EU_2), others, leaf_at).intact


@pytest.mark.parametrize(
    "changed",
    [
        {"continues": {"log": "us", "position": 3, "leaf": "ab" * 32}},
        {"continues": {"log": "eu.2", "position": 3, "leaf": "ab" * 32}},
        {"continues": {"log": "eu", "position": 0, "leaf": "ab" * 32}},
        {"continues": {"log": "eu", "position": 3, "leaf": "ab"}},
        {"continues": None},
        {"partitions": [[0, 127]]},
        {"stranded": {"first": 9, "last": 4, "leaf": "ab" * 32}},
        {"stranded": [4, 9]},
    ],
)
def test_an_opening_says_with_which_log_it_goes_on_in_its_form(changed: dict[str, Any]) -> None:
    fault = found(second(**changed), EU_2).fault
    assert fault is not None
    assert (fault.position, fault.reason) == (1, "member_malformed")


def test_a_release_is_adopted_once() -> None:
    given_back = said(104, 3, "log.released", {"partitions": [[42, 42, 2]], "to": "eu"}, "us")
    twice = found(us(later(103, 3, 2), given_back, adopted(105, 4, EU[3]), later(106, 4, 2)), US)
    assert twice.fault is not None
    assert (twice.fault.position, twice.fault.reason) == (5, "ownership_invalid")


def test_two_logs_are_not_opened_with_the_same_partition() -> None:
    both = {"eu": found(EU), "us": found(chain([opening(US, [[42, 255]]), event(102, 1)], US), US)}
    for report in both.values():
        assert report.intact
        fault = terms.compared(report, both).fault
        assert fault is not None
        assert (fault.position, fault.reason) == (1, "ownership_invalid")
