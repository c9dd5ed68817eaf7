"""Ownership that moves, in the log in memory and in PostgreSQL's alike; and what only a database has: copies of any length."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import psycopg
import pytest

from domain.logs import LOGS, Adopted, Cut, LogEvent, Released
from domain.ownership import Contradiction, Owner
from eventstore.log import Appended, Command, Malformed, Outcome, Reason, Refused
from eventstore.record import Codec, Entry, decode_body, leaf_hash
from replay.ownership import Ownership
from tests.ledger import US, Ledger, Subject, body, chained, command, new_id, opening, stream, whole

TO_US = Released(((1, 1, 1),), "us")
TO_EU = Released(((200, 201, 1),), "eu")


def said(region: str, version: int, event: LogEvent, **more: object) -> Command:
    id_, name = new_id(), f"region-{region}-log"
    return Command(id_, [body(name, version, id_, data=event, type=event.tag, **more)], (), frozenset([name]))


def us_log(*more: bytes, release: LogEvent = TO_EU) -> list[Entry]:
    """us: open with 128 to 255, a wallet that is written once, and the release of partitions 200 and 201 at position 3."""
    id_ = new_id()
    wallet = body("wallet 200", 1, id_)
    return chained(US, [*opening(US, (128, 255)).bodies, wallet, *said("us", 2, release).bodies, *more])


def adopting(entries: Sequence[Entry], epoch: int = 2) -> Adopted:
    return Adopted(((200, 201, epoch),), "us", Cut(3, entries[2].leaf.hex()))


def taken(outcome: Outcome) -> int:
    assert isinstance(outcome, Appended), outcome
    return outcome.position


async def test_what_was_released_is_refused_from_then_on(subject: Subject) -> None:
    taken(await subject.one(command(("wallet 1", 1))))
    assert taken(await subject.one(said("eu", 2, TO_US))) == 3
    for late in (
        command(("wallet 1", 2)),
        command(("wallet 2", 1), reads=[("player 1", 0)]),
        command(reads=[("wallet 1", 1)]),
    ):
        assert await subject.append(late) == [Refused(Reason.NOT_OWNED)]
    taken(await subject.one(command(("wallet 2", 1), ("limits 2", 1))))
    assert 1 not in await subject.streams.epochs("eu")
    owners = await subject.streams.owners()
    assert owners[1] == Owner("us", 2, adopted=False)
    assert owners[2] == Owner("eu", 1)
    assert len(list(whole(subject.entries()))) == 5


async def test_a_repeat_is_a_repeat_also_of_what_was_released(subject: Subject) -> None:
    each = command(("wallet 1", 1))
    await subject.append(each)
    await subject.append(said("eu", 2, TO_US))
    (again,) = await subject.append(each)
    assert isinstance(again, Refused)
    assert again.reason is Reason.DUPLICATE


async def test_what_changes_ownership_is_appended_by_itself(subject: Subject) -> None:
    with pytest.raises(Malformed):
        await subject.append(said("eu", 2, TO_US), command(("wallet 1", 1)))
    assert len(subject.entries()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        said("eu", 2, Released(((200, 200, 1),), "us")),
        said("eu", 2, Released(((1, 1, 2),), "us")),
        said("eu", 2, Released(((1, 1, 1),), "eu")),
        said("eu", 2, Adopted(((200, 200, 2),), "us", Cut(1, "00" * 32))),
        said("eu", 2, Adopted(((1, 1, 2),), "eu", Cut(1, "00" * 32))),
        Command(id_ := new_id(), [body("wallet 1", 1, id_, data=TO_US, type=TO_US.tag)]),
    ],
    ids=["another's", "another epoch", "to itself", "not released", "its own", "on another stream"],
)
async def test_a_log_says_only_what_it_may(subject: Subject, wrong: Command) -> None:
    with pytest.raises(Malformed):
        await subject.append(wrong)
    assert len(subject.entries()) == 1


async def test_what_another_log_has_released_is_adopted_and_goes_on(subject: Subject) -> None:
    entries = us_log()
    subject.copy(entries[:2])
    assert (await subject.streams.owners())[200] == Owner("us", 1)
    assert await subject.streams.released("eu") == []
    subject.copy(entries[2:])
    assert (await subject.streams.owners())[200] == Owner("eu", 2, adopted=False)
    assert await subject.streams.released("eu") == [("us", Cut(3, entries[2].leaf.hex()), TO_EU.partitions)]
    id_ = new_id()
    go_on = Command(id_, [body("wallet 200", 2, id_, epoch=2)])
    assert await subject.append(go_on) == [Refused(Reason.NOT_OWNED)]
    taken(await subject.one(said("eu", 2, adopting(entries))))
    assert await subject.streams.released("eu") == []
    taken(await subject.one(go_on))
    assert (await subject.streams.epochs("eu"))[201] == 2
    assert (await subject.streams.owners())[201] == Owner("eu", 2)
    loaded = await subject.streams.load({stream("wallet 200"): 0})
    assert [(entry.log, entry.position) for entry in loaded[stream("wallet 200")]] == [("us", 2), ("eu", 3)]


@pytest.mark.parametrize("wrong", ["another epoch", "another leaf", "another cut", "more", "twice"])
async def test_an_adoption_is_of_what_was_released_exactly(subject: Subject, wrong: str) -> None:
    entries = us_log()
    subject.copy(entries)
    right = adopting(entries)
    if wrong == "twice":
        taken(await subject.one(said("eu", 2, right)))
    changed = {
        "another epoch": adopting(entries, 3),
        "another leaf": Adopted(right.partitions, "us", Cut(3, "00" * 32)),
        "another cut": Adopted(right.partitions, "us", Cut(2, entries[1].leaf.hex())),
        "more": Adopted(((200, 202, 2),), "us", right.cut),
        "twice": right,
    }
    with pytest.raises(Malformed):
        await subject.append(said("eu", 2 + (wrong == "twice"), changed[wrong]))


# Copies in PostgreSQL


@pytest.mark.parametrize("cuts", [(), (2,), (3,), (1, 2, 3, 4), (4,)])
def test_behind_a_release_nothing_counts_however_a_copy_arrives(ledger: Ledger, cuts: Sequence[int]) -> None:
    late, other = new_id(), new_id()
    entries = us_log(body("wallet 200", 2, late), body("wallet 222", 1, other))
    for start, stop in itertools.pairwise((0, *cuts, len(entries))):
        ledger.append_copy(entries[start:stop])
    counted = ledger.sql("SELECT position, stream IS NOT NULL FROM ledger.entry WHERE log = 2 ORDER BY 1")
    assert counted == [(1, True), (2, True), (3, True), (4, False), (5, True)]


def test_a_copy_may_adopt_what_is_not_here_yet_and_must_then_be_right(ledger: Ledger) -> None:
    """Three regions: us has adopted from eu what this database, as ap's, sees later."""
    ledger.sql("UPDATE ledger.log SET own = false WHERE id = 1")
    try:
        eu = ledger.entries()
        release = said("eu", 2, TO_US)
        held = chained("countroom.test/eu", [eu[0].body, *release.bodies])
        first = eu[0]
        leaf = whole_leaf(first, release.bodies[0])
        id_ = new_id()
        adoption = Adopted(((1, 1, 2),), "eu", Cut(2, leaf.hex()))
        us = chained(
            US,
            [
                *opening(US, (128, 255)).bodies,
                *said("us", 2, adoption).bodies,
                body("wallet 1", 1, id_, epoch=2),
            ],
        )
        ledger.append_copy(us)
        assert ledger.sql("SELECT stream FROM ledger.entry WHERE log = 2 AND position = 3") == [(stream("wallet 1"),)]
        assert ledger.sql("SELECT cut, released_to FROM ledger.ownership WHERE partition = 1 AND epoch = 1") == [
            (2, None)
        ]
        foreign = [
            held[1]._replace(
                recorded=first.recorded + 1,
                leaf=whole_leaf(first, body("region-eu-x", 1, id_)),
                body=body("region-eu-x", 1, id_),
            )
        ]
        with pytest.raises(psycopg.DatabaseError) as refused:
            ledger.append_copy(foreign, log=1)
        assert refused.value.sqlstate == "CR012"
        ledger.append_copy([held[1]._replace(recorded=first.recorded + 1, leaf=leaf)], log=1)
        assert ledger.sql("SELECT cut, released_to FROM ledger.ownership WHERE partition = 1 AND epoch = 1") == [
            (2, "us")
        ]
    finally:
        ledger.sql("UPDATE ledger.log SET own = true WHERE id = 1")


def whole_leaf(before: Entry, raw: bytes) -> bytes:
    return leaf_hash(before.leaf, before.position + 1, before.recorded + 1, raw)


def test_a_copy_that_adopts_from_this_log_what_it_has_not_released_is_refused(ledger: Ledger) -> None:
    (first,) = ledger.entries()
    stolen = Adopted(((1, 1, 2),), "eu", Cut(1, first.leaf.hex()))
    with pytest.raises(psycopg.DatabaseError) as refused:
        ledger.append_copy(chained(US, [*opening(US, (128, 255)).bodies, *said("us", 2, stolen).bodies]))
    assert refused.value.sqlstate == "CR012"
    assert ledger.append(command(("wallet 1", 1))) == [0]


async def test_memory_refuses_a_copy_that_contradicts(subject: Subject) -> None:
    await subject.append(said("eu", 2, TO_US))
    stolen = Adopted(((1, 1, 2),), "eu", Cut(1, "00" * 32))
    with pytest.raises((Contradiction, psycopg.DatabaseError)):
        subject.copy(chained(US, [*opening(US, (128, 255)).bodies, *said("us", 2, stolen).bodies]))


# A planted bug: the epoch is not checked


def test_a_skipped_epoch_check_is_noticed(ledger: Ledger) -> None:
    assert ledger.append(command(("wallet 1", 1))) == [0]
    assert ledger.append(said("eu", 2, TO_US)) == [0]
    assert ledger.append(command(("wallet 1", 2))) == [3]
    [(source,)] = ledger.sql("SELECT pg_get_functiondef('ledger.verdicts'::regproc)")
    planted = source.replace("AND w.log = p_log AND w.cut IS NULL", "AND w.log = p_log")
    assert planted != source
    ledger.admin.execute(planted.encode())
    try:
        outcomes = ledger.append(command(("wallet 1", 2)))
    finally:
        ledger.admin.execute(source.encode())
    assert outcomes == [0], "the bug is not there"
    codec = Codec([LOGS])
    entries = ledger.entries()
    ownership = Ownership(codec.decode(entry) for entry in entries if b"region-eu-log" in entry.body)
    counts = [ownership.counts("eu", entry.position, decode_body(entry.body)) for entry in entries]
    assert counts == [True, True, True, False], "what was acknowledged does not count"


# What another region says of what is ours


@pytest.mark.parametrize(
    "stolen",
    [
        Adopted(((0, 127, 2),), "eu", Cut(2**40, "00" * 32)),
        Adopted(((0, 127, 9),), "zz", Cut(1, "00" * 32)),
        Adopted(((1, 1, 3),), "us", Cut(2, "00" * 32)),
    ],
    ids=["at a cut that is to come", "of a log that nobody knows", "at a later epoch"],
)
async def test_what_is_ours_nobody_adopts_by_saying_so(subject: Subject, stolen: Adopted) -> None:
    taken(await subject.one(command(("wallet 1", 1))))
    robbed = chained(
        US, [*opening(US, (128, 255)).bodies, *said("us", 2, stolen).bodies, body("wallet 1", 2, new_id(), epoch=2)]
    )
    with pytest.raises((psycopg.DatabaseError, Contradiction)):
        subject.copy(robbed)
    taken(await subject.one(command(("wallet 1", 2))))
    assert (await subject.streams.owners())[1] == Owner("eu", 1)


async def test_no_log_opens_with_what_is_ours_at_a_later_epoch(subject: Subject) -> None:
    opened = opening(US, (0, 255)).bodies[0].replace(b'"epoch":1', b'"epoch":7')
    assert b'"epoch":7' in opened
    with pytest.raises((psycopg.DatabaseError, Contradiction)):
        subject.copy(chained(US, [opened]))
    assert (await subject.streams.owners())[1] == Owner("eu", 1)
