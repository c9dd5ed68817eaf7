"""What a log promises (eventstore.log): one suite, run on the log in memory and on the one in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from eventstore.log import Appended, Command, Malformed, Outcome, Place, Reason, Refused, Snapshot, TooLarge
from eventstore.record import BODY_BYTES_MAX, decode_body
from tests.ledger import EU, OWNED, Clock, Subject, body, command, new_id, stream, whole


def placed(outcome: Outcome) -> int:
    """Where an appended command stands."""
    assert isinstance(outcome, Appended), outcome
    return outcome.position


def refused(outcome: Outcome) -> Reason:
    assert isinstance(outcome, Refused), outcome
    return outcome.reason


# The chain


async def test_positions_have_no_gaps_and_each_leaf_follows_from_its_predecessor(subject: Subject) -> None:
    outcomes = [
        *await subject.append(command(("wallet 1", 1)), command(("wallet 2", 1), ("limits 2", 1))),
        *await subject.append(command(("wallet 1", 2))),
    ]
    assert [placed(outcome) for outcome in outcomes] == [2, 3, 5]
    entries = list(whole(subject.entries(), EU))
    assert len(entries) == 5
    for outcome in outcomes:
        assert isinstance(outcome, Appended)
        for n, leaf in enumerate(outcome.leaves):
            entry = entries[outcome.position - 1 + n]
            assert (entry.leaf, entry.recorded) == (leaf, outcome.recorded + n)


async def test_a_body_is_stored_as_it_was_given(subject: Subject) -> None:
    id_ = new_id()
    odd = b" " + body("wallet 1", 1, id_, data={"text": "Jägermeister \U0001f40e"}) + b"\n"
    placed(await subject.one(Command(id_, [odd])))
    assert subject.entries()[1].body == odd
    assert (await subject.streams.load({stream("wallet 1"): 0}))[stream("wallet 1")][0].body == odd


async def test_recorded_increases_within_a_batch_and_between_batches(subject: Subject) -> None:
    for version in range(1, 4):
        await subject.append(*(command((f"wallet {n}", version), (f"limits {n}", version)) for n in range(20)))
    times = [entry.recorded for entry in subject.entries()]
    assert times == sorted(set(times))


async def test_recorded_increases_even_where_the_clock_goes_back(subject: Subject) -> None:
    first = await subject.one(command(("wallet 1", 1)))
    if isinstance(clock := getattr(subject.log, "_clock", None), Clock):  # nobody turns back PostgreSQL's
        clock.now -= 10_000_000
    second = await subject.one(command(("wallet 1", 2)))
    assert isinstance(first, Appended)
    assert isinstance(second, Appended)
    assert second.recorded > first.recorded


# Conditions


@pytest.mark.parametrize("wrong", [1, 3, 4])
async def test_an_event_must_have_the_next_version_of_its_stream(subject: Subject, wrong: int) -> None:
    await subject.append(command(("wallet 1", 1)))
    assert refused(await subject.one(command(("wallet 1", wrong)))) is Reason.CONFLICT
    placed(await subject.one(command(("wallet 1", 2))))


async def test_a_stream_that_was_only_read_must_stand_where_it_was_read(subject: Subject) -> None:
    await subject.append(command(("player 1", 1)))
    for version in (0, 2):
        outcome = await subject.one(command(("wallet 1", 1), reads=[("player 1", version)]))
        assert refused(outcome) is Reason.CONFLICT
    assert refused(await subject.one(command(("wallet 1", 1), reads=[("limits 1", 1)]))) is Reason.CONFLICT
    placed(await subject.one(command(("wallet 1", 1), reads=[("player 1", 1), ("limits 1", 0)])))


async def test_every_one_of_a_commands_conditions_counts(subject: Subject) -> None:
    await subject.append(command(("player 1", 1)))
    same_twice = command(("wallet 1", 1), reads=[("player 1", 0), ("player 1", 1)])
    assert refused(await subject.one(same_twice)) is Reason.CONFLICT
    read_what_it_writes = command(("wallet 1", 1), reads=[("wallet 1", 1)])
    assert refused(await subject.one(read_what_it_writes)) is Reason.CONFLICT


async def test_a_command_of_several_streams_is_there_as_a_whole_or_not_at_all(subject: Subject) -> None:
    await subject.append(command(("limits 1", 1)))
    stale = command(("transaction 1", 1), ("wallet 1", 1), ("limits 1", 1))
    assert refused(await subject.one(stale)) is Reason.CONFLICT
    assert len(subject.entries()) == 2
    first = placed(await subject.one(command(("transaction 1", 1), ("limits 1", 2), ("transaction 1", 2))))
    (entries,) = await subject.streams.commands([Place("eu", first)])
    assert [decode_body(entry.body).stream for entry in entries] == [
        stream("transaction 1"),
        stream("limits 1"),
        stream("transaction 1"),
    ]
    assert [entry.position for entry in entries] == [first, first + 1, first + 2]


async def test_a_refused_command_leaves_the_others_of_its_batch_in(subject: Subject) -> None:
    seen = command(("wallet 1", 1))
    await subject.append(seen)
    batch = [
        command(("wallet 2", 1), ("limits 2", 1)),
        command(("wallet 3", 2)),
        seen,
        command(("wallet 200", 1)),
        command(("wallet 4", 1)),
        Command(new_id(), (), ((stream("player 5"), 0),)),
        command(("wallet 6", 1)),
    ]
    outcomes = await subject.append(*batch)
    kinds = [o.reason if isinstance(o, Refused) else o.position for o in outcomes]
    assert kinds == [3, Reason.CONFLICT, Reason.DUPLICATE, Reason.NOT_OWNED, 5, 6, 6]
    assert len(list(whole(subject.entries(), EU))) == 6


# Batches of independent commands


@pytest.mark.parametrize(
    "pair",
    [
        (command(("wallet 1", 1)), command(("wallet 1", 2))),
        (command(("wallet 1", 1)), command(("limits 2", 1), reads=[("wallet 1", 0)])),
        (command(("limits 2", 1), reads=[("wallet 1", 0)]), command(("wallet 1", 1))),
        (command(("wallet 1", 1)), Command(new_id(), (), ((stream("wallet 1"), 1),))),
        (command(("wallet 1", 1), id_=(twice := new_id())), command(("wallet 2", 1), id_=twice)),
    ],
    ids=["write and write", "write and read", "read and write", "write and confirm", "one id twice"],
)
async def test_commands_that_depend_on_one_another_are_no_batch(
    subject: Subject, pair: tuple[Command, Command]
) -> None:
    with pytest.raises(Malformed):
        await subject.append(command(("wallet 9", 1)), *pair)
    assert len(subject.entries()) == 1


async def test_commands_of_a_batch_may_read_the_same_stream(subject: Subject) -> None:
    readers = [command((f"wallet {n}", 1), reads=[("player 1", 0)]) for n in (1, 2)]
    assert [placed(outcome) for outcome in await subject.append(*readers)] == [2, 3]


async def test_a_batch_may_be_empty(subject: Subject) -> None:
    assert await subject.append() == []


# Command ids


async def test_a_repeated_command_answers_with_its_first_place(subject: Subject) -> None:
    first = command(("wallet 1", 1), ("limits 1", 1))
    assert placed(await subject.one(first)) == 2
    await subject.append(command(("wallet 1", 2)))
    for repeated in (first, command(("wallet 1", 3), id_=first.id), command(("wallet 200", 1), id_=first.id)):
        assert await subject.one(repeated) == Refused(Reason.DUPLICATE, Place("eu", 2))
    assert len(subject.entries()) == 4


async def test_a_refused_commands_id_is_not_taken(subject: Subject) -> None:
    id_ = new_id()
    refused(await subject.one(command(("wallet 1", 2), id_=id_)))
    assert await subject.streams.find([id_]) == {}
    placed(await subject.one(command(("wallet 1", 1), id_=id_)))


async def test_commands_are_found_by_their_ids(subject: Subject) -> None:
    one, other = command(("wallet 1", 1), ("limits 1", 1)), command(("wallet 2", 1))
    await subject.append(one, other)
    found = await subject.streams.find([other.id, new_id(), one.id])
    assert found == {one.id: Place("eu", 2), other.id: Place("eu", 4)}
    commands = await subject.streams.commands([found[other.id], found[one.id]])
    assert [[entry.body for entry in entries] for entries in commands] == [other.bodies, one.bodies]


def claiming(claimed: bytes, name: str = "wallet 1") -> Command:
    """A command whose second event claims another command's id."""
    id_ = new_id()
    first = body(name, 1, id_, 1, 2)
    return Command(id_, [first, body(name, 2, id_, 2, 2, claims=claimed.hex())], (), frozenset([stream(name)]))


async def test_a_claimed_id_is_a_duplicate_from_then_on(subject: Subject) -> None:
    late = command(("wallet 2", 1))
    rollback = claiming(late.id)
    placed(await subject.one(rollback))
    outcome = await subject.one(late)
    assert outcome == Refused(Reason.DUPLICATE, Place("eu", 3))
    assert await subject.one(rollback) == Refused(Reason.DUPLICATE, Place("eu", 2))
    (entries,) = await subject.streams.commands([Place("eu", 3)])
    assert [entry.position for entry in entries] == [2, 3]


async def test_an_id_that_is_taken_cannot_be_claimed(subject: Subject) -> None:
    bet = command(("wallet 2", 1))
    assert [type(outcome) for outcome in await subject.append(bet, claiming(bet.id))] == [Appended, Refused]
    assert refused(await subject.one(claiming(bet.id))) is Reason.CONFLICT


async def test_an_id_is_claimed_once(subject: Subject) -> None:
    bet = new_id()
    with pytest.raises(Malformed):
        await subject.append(claiming(bet), claiming(bet, "wallet 2"))
    placed(await subject.one(claiming(bet)))
    assert refused(await subject.one(claiming(bet, "wallet 2"))) is Reason.CONFLICT


# Without events: a confirmation


async def test_a_call_without_events_confirms_its_conditions_and_records_nothing(subject: Subject) -> None:
    await subject.append(command(("player 1", 1)))
    confirm = Command(new_id(), (), ((stream("player 1"), 1), (stream("wallet 1"), 0)))
    outcome = await subject.one(confirm)
    assert isinstance(outcome, Appended)
    assert list(outcome.leaves) == []
    assert len(subject.entries()) == 2
    assert await subject.streams.find([confirm.id]) == {}


async def test_a_call_without_events_is_refused_as_one_with_events_would_be(subject: Subject) -> None:
    done = command(("player 1", 1))
    await subject.append(done)
    stale = Command(new_id(), (), ((stream("player 1"), 0),))
    assert refused(await subject.one(stale)) is Reason.CONFLICT
    repeated = Command(done.id, (), ((stream("player 1"), 0),))
    assert await subject.one(repeated) == Refused(Reason.DUPLICATE, Place("eu", 2))
    foreign = Command(new_id(), (), ((stream("player 200"), 0),))
    assert refused(await subject.one(foreign)) is Reason.NOT_OWNED


# Ownership


async def test_a_partition_of_another_region_is_neither_written_nor_read(subject: Subject) -> None:
    assert refused(await subject.one(command(("wallet 128", 1)))) is Reason.NOT_OWNED
    assert refused(await subject.one(command(("wallet 1", 1), reads=[("player 128", 0)]))) is Reason.NOT_OWNED
    placed(await subject.one(command(("wallet 127", 1))))


@pytest.mark.parametrize("epoch", [2, 7])
async def test_an_event_names_the_epoch_in_which_its_partition_is_owned(subject: Subject, epoch: int) -> None:
    id_ = new_id()
    late = Command(id_, [body("wallet 1", 1, id_, epoch=epoch)])
    assert refused(await subject.one(late)) is Reason.NOT_OWNED


async def test_the_log_says_which_partitions_it_owns(subject: Subject) -> None:
    assert await subject.streams.epochs("eu") == dict.fromkeys(OWNED, 1)
    assert await subject.streams.epochs("us") == {}


async def test_a_regions_own_streams_have_no_partition(subject: Subject) -> None:
    placed(await subject.one(command(("region-eu-settings", 1), ("region-eu-reads_01ka7g0000e00800000000001a", 1))))
    placed(await subject.one(command(("wallet 1", 1), reads=[("region-eu-settings", 1)])))


# What can never stand in a log

Members = Callable[[bytes], bytes]


def changed(**members: object) -> Members:
    """The body of "wallet 1" with other members; None leaves a member out."""

    def change(id_: bytes) -> bytes:
        known = msgspec.json.decode(body("wallet 1", 1, id_)) | members
        return msgspec.json.encode({name: value for name, value in known.items() if value is not None})

    return change


def part(**members: object) -> Members:
    def change(id_: bytes) -> bytes:
        known = msgspec.json.decode(body("wallet 1", 1, id_))
        return msgspec.json.encode({**known, "command": {**known["command"], **members}})

    return change


MALFORMED: dict[str, Members] = {
    "not JSON": lambda _: b"wallet.credited",
    "no object": lambda id_: b"[" + body("wallet 1", 1, id_) + b"]",
    "not UTF-8": lambda id_: body("wallet 1", 1, id_, data="x").replace(b'"x"', b'"\xff"'),
    "a name twice": lambda id_: body("wallet 1", 1, id_).replace(b'"data":{}', b'"data":{},"data":{}'),
    "a name twice within": lambda id_: body("wallet 1", 1, id_).replace(b'"data":{}', b'"data":{"a":{"b":1,"b":1}}'),
    "a name twice, written otherwise": lambda id_: body("wallet 1", 1, id_).replace(
        b'"data":{}', b'"data":{"a":1,"\\u0061":1}'
    ),
    "cut off": lambda id_: body("wallet 1", 1, id_)[:-1],
    "followed by more": lambda id_: body("wallet 1", 1, id_) + b"{}",
    "empty": lambda _: b"",
    "no stream": changed(stream=None),
    "no type": changed(type=None),
    "type without a dot": changed(type="credited"),
    "no version": changed(version=None),
    "version 0": changed(version=0),
    "version as text": changed(version="one"),
    "no command": changed(command=None),
    "another command's id": part(id="00" * 16),
    "i is 2 of 1": part(i=2),
    "i is 0": part(i=0),
    "n is 2 of 1": part(n=2),
    "another partition": changed(partition=2),
    "no partition": changed(partition=None),
    "no epoch": changed(epoch=None),
    "epoch 0": changed(epoch=0),
    "stream without suffix": changed(stream="wallet"),
    "suffix too short": changed(stream=stream("wallet 1")[:-1]),
    "suffix in capitals": changed(stream="wallet-" + stream("wallet 1")[7:].upper()),
    "aggregate in capitals": changed(stream="Wallet" + stream("wallet 1")[6:]),
    "a foreign region's stream": changed(stream="region-us-settings", partition=None, epoch=None),
    "a region's stream of no kind": changed(stream="region-eu-", partition=None, epoch=None),
    "a region whose name begins alike": changed(stream="region-eux-settings", partition=None, epoch=None),
    "a region's stream with another suffix": changed(stream="region-eu-reads_01ab", partition=None, epoch=None),
    "a region's stream with a partition": changed(stream="region-eu-settings"),
    "a line after the stream": changed(stream=stream("wallet 1") + "\n"),
}


@pytest.mark.parametrize("made", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_body_fails_the_whole_call(subject: Subject, made: Members) -> None:
    id_ = new_id()
    with pytest.raises(Malformed):
        await subject.append(command(("wallet 9", 1)), Command(id_, [made(id_)]))
    assert len(subject.entries()) == 1


@pytest.mark.parametrize("versions", [(1, 3), (2, 1), (1, 1)])
async def test_the_versions_of_a_stream_follow_one_another_in_a_command(
    subject: Subject, versions: tuple[int, int]
) -> None:
    with pytest.raises(Malformed):
        await subject.one(command(*(("wallet 1", version) for version in versions)))


async def test_the_events_of_a_command_are_counted_and_in_order(subject: Subject) -> None:
    right = command(("wallet 1", 1), ("wallet 1", 2))
    for wrong in (right.bodies[::-1], right.bodies[:1], right.bodies[1:], [right.bodies[0], *right.bodies]):
        with pytest.raises(Malformed):
            await subject.one(msgspec.structs.replace(right, bodies=wrong))
    placed(await subject.one(right))


async def test_a_command_has_one_partition(subject: Subject) -> None:
    with pytest.raises(Malformed):
        await subject.one(command(("wallet 1", 1), ("wallet 2", 1)))


async def test_a_body_has_at_most_60_kib(subject: Subject) -> None:
    def sized(size: int) -> Command:
        id_ = new_id()
        bare = body("wallet 1", 1, id_, data="")
        return Command(id_, [body("wallet 1", 1, id_, data="x" * (size - len(bare)))])

    with pytest.raises(TooLarge):
        await subject.one(sized(BODY_BYTES_MAX + 1))
    placed(await subject.one(sized(BODY_BYTES_MAX)))


async def test_a_command_has_at_most_256_kib(subject: Subject) -> None:
    with pytest.raises(TooLarge):
        await subject.one(command(*(("wallet 1", version) for version in range(1, 6)), data="x" * 53_000))
    placed(await subject.one(command(*(("wallet 1", version) for version in range(1, 5)), data="x" * 53_000)))


# Reading


async def test_streams_are_loaded_after_a_version_and_in_order(subject: Subject) -> None:
    for version in range(1, 5):
        await subject.append(command(("wallet 1", version)), command(("wallet 2", version)))
    one, two, none = stream("wallet 1"), stream("wallet 2"), stream("wallet 3")
    loaded = await subject.streams.load({one: 0, two: 3, none: 0})
    assert {name: [decode_body(entry.body).version for entry in found] for name, found in loaded.items()} == {
        one: [1, 2, 3, 4],
        two: [4],
        none: [],
    }
    assert all(entry in subject.entries() for found in loaded.values() for entry in found)


async def test_the_streams_of_an_aggregate_are_named_with_their_versions(subject: Subject) -> None:
    await subject.append(command(("wallet 1", 1), ("wallet 1", 2)), command(("player 2", 1)))
    await subject.append(command(("wallet 2", 1)))
    assert await subject.streams.versions("wallet") == {stream("wallet 1"): 2, stream("wallet 2"): 1}
    assert await subject.streams.versions("player") == {stream("player 2"): 1}
    assert await subject.streams.versions("wall") == {}


async def test_streams_are_found_by_how_their_names_begin(subject: Subject) -> None:
    one, two = (f"region-eu-protection_{stream(f'player {n}').partition('-')[2]}" for n in (1, 2))
    await subject.append(command((one, 1), (one, 2)), command(("wallet 1", 1)))
    await subject.append(command((two, 1)))
    assert await subject.streams.beginning("region-eu-protection_") == {one: 2, two: 1}
    assert await subject.streams.beginning("region-us-protection_") == {}
    assert "eu" in await subject.streams.logs()


async def test_streams_with_later_entries_are_found_by_how_their_names_begin(subject: Subject) -> None:
    one, two = (f"region-eu-protection_{stream(f'player {n}').partition('-')[2]}" for n in (1, 2))
    since, prefix = subject.streams.since, "region-eu-protection_"
    before, _ = await since("eu", -1, prefix)
    await subject.append(command((one, 1), (one, 2)), command(("wallet 1", 1)))
    assert await since("eu", before, prefix) == (before + 3, {one: 2})
    await subject.append(command((two, 1)))
    assert await since("eu", before + 3, prefix) == (before + 4, {two: 1})
    assert await since("eu", before, prefix) == (before + 4, {one: 2, two: 1})
    assert await since("eu", before, "region-us-protection_") == (before + 4, {})
    assert await since("eu", -1, prefix) == (before + 4, {})
    assert (await since("us", 0, prefix))[1] == {}


# Snapshots


async def test_a_snapshot_is_kept_while_its_last_entry_counts(subject: Subject) -> None:
    one = await subject.one(command(("wallet 1", 1)))
    two = await subject.one(command(("wallet 1", 2)))
    assert isinstance(one, Appended)
    assert isinstance(two, Appended)
    name, other = stream("wallet 1"), stream("wallet 2")
    right = Snapshot(name, 2, two.leaves[0], two.recorded, "wallet/1", b"{}")
    older = Snapshot(name, 1, one.leaves[0], one.recorded, "wallet/1", b"{}")
    elsewhere = Snapshot(other, 1, one.leaves[0], one.recorded, "wallet/1", b"{}")
    wrong = right._replace(leaf=one.leaves[0])

    async def resumed(schema: str = "wallet/1") -> tuple[Snapshot | None, list[int]]:
        found = await subject.streams.resume({name: schema, other: schema})
        assert found[other] == (None, [])
        return found[name].snapshot, [decode_body(entry.body).version for entry in found[name].entries]

    await subject.streams.keep([wrong, elsewhere])
    assert await resumed() == (None, [1, 2])
    await subject.streams.keep([older])
    assert await resumed() == (older, [2])
    await subject.streams.keep([right])
    await subject.streams.keep([older])
    assert await resumed() == (right, [])
    reshaped = right._replace(schema="wallet/2", state=b"[]")
    await subject.streams.keep([reshaped])
    assert await resumed("wallet/2") == (reshaped, [])
    assert await resumed() == (None, [1, 2])
