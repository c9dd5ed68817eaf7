"""What the keeper of a log signed must be true of the log, signed by trusted keys, and seen by witnesses at the time."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verifier.logs import (
    ORIGIN,
    STARTED,
    Entry,
    chain,
    compact,
    event,
    hash_genesis,
    hash_leaf,
    opening,
    region_event,
    small_log,
)
from tests.verifier.shown import (
    AT_S,
    LOG,
    OTHER_LOG,
    STRANGER,
    US,
    Shown,
    note,
    policy,
    root_at,
    vkey,
)
from verifier.faults import CouldNotCheck, Reason
from verifier.log import Report, verify
from verifier.policy import Policy

LOG_OF_40 = small_log(40)


def head(size: int, log: list[Entry] = LOG_OF_40, **more: Any) -> tuple[int, bytes]:
    return size, note(size, root_at(log, size), **more)


def check(pages: Shown, trust: Policy | None = None, **options: Any) -> Report:
    return verify(pages, trust, origin=ORIGIN, **options)


def fault_of(report: Report) -> tuple[Reason, int]:
    assert report.fault is not None
    assert not report.intact
    assert report.fault.detail.isascii()
    return report.fault.reason, report.fault.position


def test_a_log_whose_heads_are_all_signed_is_intact_and_witnessed_up_to_the_newest_quorum() -> None:
    heads = [head(3), head(30, witnessed={"us": AT_S, "ap": AT_S + 2}), head(40, by=(LOG, STRANGER))]
    report = check(Shown(LOG_OF_40, heads), policy())
    assert report.intact, report.fault
    assert report.trusted
    shown = report.to_json()
    assert shown["signed"] == {
        "size": 40,
        "root": root_at(LOG_OF_40, 40).hex(),
        "heads": 3,
        "signatures": 3,
        "cosignatures": 2,
        "unknown_signatures": 1,
    }
    assert shown["witnessed"] == {"size": 30, "by": {"us": "2025-11-15T00:00:00Z", "ap": "2025-11-15T00:00:02Z"}}
    assert shown["unwitnessed_entries"] == 10


def test_without_trust_no_signature_is_looked_at_and_the_report_says_so() -> None:
    report = check(Shown(LOG_OF_40, [head(30, by=(STRANGER,))]))
    assert report.intact
    assert not report.trusted
    assert report.signed is not None
    assert (report.signed.heads, report.signed.signatures, report.unwitnessed_entries) == (1, 0, 40)


def test_a_log_without_heads_has_no_witnessed_entry() -> None:
    report = check(Shown(LOG_OF_40), policy())
    assert report.intact
    assert report.to_json()["witnessed"] is None
    assert report.unwitnessed_entries == 40


def test_too_few_witnesses_are_no_quorum() -> None:
    heads = [head(30, witnessed={"us": AT_S})]
    assert check(Shown(LOG_OF_40, heads), policy(quorum="all us ap")).unwitnessed_entries == 40
    assert check(Shown(LOG_OF_40, heads), policy(quorum="none")).unwitnessed_entries == 10


def test_an_empty_tree_may_be_signed() -> None:
    empty = (0, note(0, root_at([], 0)))
    assert check(Shown(LOG_OF_40, [empty, head(40)]), policy()).intact


def test_a_policy_without_a_key_of_the_log_proves_nothing() -> None:
    with pytest.raises(CouldNotCheck, match="no key of the log"):
        check(Shown(LOG_OF_40, [head(30)]), policy(origin="countroom.test/us"))


def changed(size: int, change: Callable[[bytes], bytes], **more: Any) -> tuple[int, bytes]:
    return size, change(head(size, **more)[1])


WRONG: list[tuple[Reason, int, tuple[int, bytes]]] = [
    (Reason.ROOT_MISMATCH, 30, (30, note(30, bytes(32)))),
    (Reason.ROOT_MISMATCH, 30, (30, note(30, root_at(LOG_OF_40, 29)))),
    (Reason.HEAD_BEYOND_LOG, 40, (41, note(41, bytes(32)))),
    (Reason.HEAD_UNSIGNED, 30, head(30, by=(STRANGER,))),
    (Reason.HEAD_UNSIGNED, 30, head(30, by=(OTHER_LOG,), witnessed={"us": AT_S})),
    (Reason.HEAD_FOREIGN, 30, (30, note(30, root_at(LOG_OF_40, 30), origin="countroom.test/us"))),
    (Reason.HEAD_MALFORMED, 30, (30, head(29)[1])),
    (Reason.HEAD_MALFORMED, 30, (30, b"")),
    (Reason.HEAD_MALFORMED, 30, (30, b"\xff\n\n")),
    (Reason.HEAD_MALFORMED, 30, changed(30, lambda signed: signed[:-1])),
    (Reason.SIGNATURE_FALSE, 30, (30, head(29)[1].replace(b"\n29\n", b"\n30\n"))),
    (
        Reason.SIGNATURE_FALSE,
        30,
        changed(30, lambda signed: head(30)[1] + head(29, witnessed={"us": AT_S})[1].splitlines(keepends=True)[-1]),
    ),
]


@pytest.mark.parametrize(("reason", "position", "wrong"), WRONG, ids=[f"{w[0]}-{n}" for n, w in enumerate(WRONG)])
def test_a_wrong_head_is_found_at_its_size(reason: Reason, position: int, wrong: tuple[int, bytes]) -> None:
    heads = sorted([head(3), wrong, head(40)])
    report = check(Shown(LOG_OF_40, heads), policy())
    assert fault_of(report) == (reason, position)
    assert report.position == 40, "the entries themselves are in order"


def test_the_first_of_two_wrong_heads_is_named() -> None:
    heads = [(20, note(20, bytes(32))), (30, b"")]
    assert fault_of(check(Shown(LOG_OF_40, heads), policy())) == (Reason.ROOT_MISMATCH, 20)


@pytest.mark.parametrize("trust", [None, policy()])
def test_a_rewritten_suffix_of_a_single_source_is_found_at_the_first_head_over_it(trust: Policy | None) -> None:
    bodies = [entry[48:] for _, entry, _ in LOG_OF_40]
    bodies[24] = bodies[24].replace(b"wallet.credited", b"wallet.debited")
    rewritten = chain(bodies)
    heads = [head(20), head(30), head(40)]
    assert check(Shown(rewritten, []), trust).intact, "in itself it is in order"
    assert fault_of(check(Shown(rewritten, heads), trust)) == (Reason.ROOT_MISMATCH, 30)
    assert fault_of(check(Shown(LOG_OF_40[:35], heads), trust)) == (Reason.HEAD_BEYOND_LOG, 35)


def test_a_fault_in_an_entry_is_named_before_the_heads_over_it() -> None:
    broken = [*LOG_OF_40]
    broken[24] = (25, broken[24][1].replace(b"wallet", b"wallot"), broken[24][2])
    report = check(Shown(broken, [head(20), head(30)]), policy())
    assert fault_of(report) == (Reason.LEAF_MISMATCH, 25)
    assert report.position == 24


# When entries were recorded.


def spaced(seconds: list[int]) -> list[Entry]:
    """A log whose entries were recorded at these seconds after the start."""
    leaf, entries = hash_genesis(ORIGIN), []
    for position, second in enumerate(seconds, start=1):
        body = opening() if position == 1 else event(position, position - 1)
        recorded = STARTED + second * 1_000_000 + position
        entry = leaf + position.to_bytes(8, "big") + recorded.to_bytes(8, "big") + compact(body)
        leaf = hash_leaf(entry)
        entries.append((position, entry, leaf))
    return entries


@pytest.mark.parametrize(
    ("seconds", "seen", "position", "count"),
    [
        ([0, 10, 20, 500, 510], {3: 30, 5: 515}, None, 0),
        ([0, 10, 89, 500, 510], {3: 30, 5: 515}, None, 0),  # a minute is allowed
        ([0, 10, 91, 500, 510], {3: 30, 5: 515}, 3, 1),  # seen before it was recorded
        ([0, 91, 92, 500, 510], {3: 30, 5: 515}, 2, 2),
        ([0, 10, 20, 500, 510], {3: 100, 5: 515}, None, 0),
        ([0, 10, 20, 41, 510], {3: 100, 5: 515}, None, 0),
        ([0, 10, 20, 39, 510], {3: 100, 5: 515}, 4, 1),  # recorded while witnesses saw a log that ended before
        ([0, 10, 20, 38, 39], {3: 100}, 4, 2),
        ([0, 10, 20, 500, 510], {2: 5, 3: 6, 4: 7, 5: 8}, 4, 2),
        ([0, 10, 20, 30, 400], {4: 40}, None, 0),  # behind the last head only what is too early is known
    ],
)
def test_an_entry_recorded_at_another_time_than_witnesses_saw_is_implausible(
    seconds: list[int], seen: dict[int, int], position: int | None, count: int
) -> None:
    log = spaced(seconds)
    heads = [head(size, log, witnessed={"us": AT_S + at}) for size, at in seen.items()]
    report = check(Shown(log, heads), policy())
    if position is None:
        assert report.intact, report.fault
    else:
        assert fault_of(report) == (Reason.RECORDED_IMPLAUSIBLE, position)
        assert report.fault is not None
        assert f"{count} entries in all" in report.fault.detail
    assert check(Shown(log, heads)).intact, "times of witnesses that nobody trusts mean nothing"


def test_a_witness_that_comes_late_accuses_nobody() -> None:
    log = spaced([0, 10, 20, 30])
    heads = [head(2, log, witnessed={"us": AT_S + 11, "ap": AT_S + 900}), head(4, log, witnessed={"us": AT_S + 31})]
    assert check(Shown(log, heads), policy()).intact


# Keys that change.


def rotation(number: int, version: int, **changes: Any) -> dict[str, Any]:
    until = changes.pop("until", "2025-11-15T00:00:00.000020Z")
    old, new = changes.pop("old", LOG), changes.pop("new", OTHER_LOG)
    data = {"old": vkey(old), "new": vkey(new), "until": until}
    said = f"countroom/key-rotation/v1\n{ORIGIN}\n{data['old']}\n{data['new']}\n{until}\n".encode()
    data |= {name: base64.b64encode(key.sign(said)).decode() for name, key in (("by_old", old), ("by_new", new))}
    return region_event(number, version, kind="log", type="log.key_rotated", data={**data, **changes})


def rotated(**changes: Any) -> list[Entry]:
    """Forty entries; the tenth changes the key; the old one is to be used for twenty µs more or less."""
    return chain(
        [
            opening(),
            *(event(n, n - 1) for n in range(2, 10)),
            rotation(10, 2, **changes),
            *(event(n, n - 2) for n in range(11, 41)),
        ]
    )


ROTATED = rotated()


@pytest.mark.parametrize("known", [(LOG,), (OTHER_LOG,), (LOG, OTHER_LOG)])
def test_trust_in_a_key_extends_to_the_one_before_and_the_one_after(known: tuple[Any, ...]) -> None:
    heads = [
        head(5, ROTATED, witnessed={"us": AT_S}),
        head(12, ROTATED, by=(LOG, OTHER_LOG)),
        head(15, ROTATED),
        head(20, ROTATED, by=(OTHER_LOG,)),
        head(40, ROTATED, by=(LOG, OTHER_LOG), witnessed={"us": AT_S}),
    ]
    report = check(Shown(ROTATED, heads), policy(*known))
    assert report.intact, report.fault
    assert report.unwitnessed_entries == 0


def test_a_new_key_signs_nothing_before_the_log_says_so() -> None:
    assert fault_of(check(Shown(ROTATED, [head(9, ROTATED, by=(OTHER_LOG,))]), policy())) == (Reason.HEAD_UNSIGNED, 9)
    assert check(Shown(ROTATED, [head(10, ROTATED, by=(OTHER_LOG,))]), policy()).intact


def test_an_old_key_signs_alone_only_until_its_end() -> None:
    assert check(Shown(ROTATED, [head(20, ROTATED)]), policy()).intact
    assert fault_of(check(Shown(ROTATED, [head(21, ROTATED)]), policy())) == (Reason.KEY_RETIRED, 21)


@pytest.mark.parametrize(
    "changes",
    [
        {"by_old": base64.b64encode(bytes(64)).decode()},
        {"by_new": base64.b64encode(bytes(64)).decode()},
        {"by_new": 7},
        {"until": "tomorrow"},
        {"until": "2025-11-15T00:00:00"},
        {"new": LOG},
    ],
)
def test_a_change_of_keys_that_both_did_not_sign_is_found_and_gives_no_trust(changes: dict[str, Any]) -> None:
    log = rotated(**changes)
    assert fault_of(check(Shown(log, [head(20, log, by=(OTHER_LOG,))]), policy())) == (Reason.ROTATION_INVALID, 10)


def test_a_strangers_change_of_keys_gives_no_trust() -> None:
    log = rotated(old=STRANGER)
    assert fault_of(check(Shown(log, [head(20, log, by=(OTHER_LOG,))]), policy())) == (Reason.HEAD_UNSIGNED, 20)


# No false alarm.


@given(st.data())
def test_a_log_that_was_kept_as_it_should_be_is_intact(data: st.DataObject) -> None:
    seconds = data.draw(st.lists(st.integers(0, 400), min_size=2, max_size=30).map(sorted))
    log = spaced(seconds)
    sizes = data.draw(st.sets(st.integers(1, len(log)), max_size=8))
    names = st.sampled_from([(), ("us",), ("ap",), ("us", "ap")])
    heads, witnessed = [], 0
    for size in sorted(sizes):
        # Witnesses are asked at once about the newest head; their clocks are up to half a minute wrong.
        at = {name: AT_S + seconds[size - 1] + data.draw(st.integers(-30, 30)) for name in data.draw(names)}
        if size < len(log) and seconds[size] < seconds[size - 1] + 1:
            at = {}
        heads.append(head(size, log, by=data.draw(st.sampled_from([(LOG,), (LOG, US)])), witnessed=at))
        witnessed = size if at else witnessed
    report = check(Shown(log, heads, part=data.draw(st.integers(1, 40))), policy())
    assert report.intact, report.fault
    assert report.unwitnessed_entries == len(log) - witnessed
