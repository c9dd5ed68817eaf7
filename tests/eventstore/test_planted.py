"""The behaviour suite notices what it is there to notice: each planted fault fails a test of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
import pytest

from eventstore.log import Command, Outcome, Reason, Refused, Resumed, Snapshot
from eventstore.memory import MemoryLog
from tests.eventstore import test_log as suite
from tests.ledger import Subject, memory_subject


class IgnoresReads(MemoryLog):
    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        return await super().append([msgspec.structs.replace(command, reads=()) for command in commands])


class ForgetsIds(MemoryLog):
    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        self._commands.clear()
        return await super().append(commands)


class ConflictsBeforeItLooksForRepeats(MemoryLog):
    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        outcomes = await super().append(commands)
        return [
            Refused(Reason.CONFLICT) if isinstance(o, Refused) and o.reason is Reason.DUPLICATE else o for o in outcomes
        ]


class TakesTheIdOfAConfirmation(MemoryLog):
    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        outcomes = await super().append(commands)
        for command in commands:
            self._commands.setdefault(command.id, len(self.entries))
        return outcomes


class StopsAtTheFirstRefusal(MemoryLog):
    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for command in commands:
            if outcomes and isinstance(outcomes[-1], Refused):
                outcomes.append(Refused(Reason.CONFLICT))
            else:
                outcomes += await super().append([command])
        return outcomes


class ForgetsTheLeaf(MemoryLog):
    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        before = self.entries[-1:]
        if before:
            self.entries[-1] = before[0]._replace(leaf=bytes(32))
        outcomes = await super().append(commands)
        if before:
            self.entries[-1 - sum(len(o.leaves) for o in outcomes if not isinstance(o, Refused))] = before[0]
        return outcomes


class TrustsItsClock(MemoryLog):
    async def append(self, commands: Sequence[Command]) -> list[Outcome]:
        outcomes = await super().append(commands)
        self.entries = [entry._replace(recorded=1_763_164_800_000_000) for entry in self.entries]
        return outcomes


class KeepsAnySnapshot(MemoryLog):
    async def keep(self, snapshots: Sequence[Snapshot]) -> None:
        self._snapshots.update((snapshot.stream, snapshot) for snapshot in snapshots)

    async def resume(self, schemas: Mapping[str, str]) -> dict[str, Resumed]:
        found = await super().resume(schemas)
        return {stream: Resumed(self._snapshots.get(stream), found[stream].entries) for stream in schemas}


Test = Callable[[Subject], Awaitable[None]]


@pytest.mark.parametrize(
    ("planted", "test"),
    [
        (IgnoresReads, suite.test_a_stream_that_was_only_read_must_stand_where_it_was_read),
        (IgnoresReads, suite.test_a_partition_of_another_region_is_neither_written_nor_read),
        (ForgetsIds, suite.test_a_repeated_command_answers_with_its_first_place),
        (ConflictsBeforeItLooksForRepeats, suite.test_a_repeated_command_answers_with_its_first_place),
        (TakesTheIdOfAConfirmation, suite.test_a_call_without_events_confirms_its_conditions_and_records_nothing),
        (TakesTheIdOfAConfirmation, suite.test_a_refused_commands_id_is_not_taken),
        (StopsAtTheFirstRefusal, suite.test_a_refused_command_leaves_the_others_of_its_batch_in),
        (ForgetsTheLeaf, suite.test_positions_have_no_gaps_and_each_leaf_follows_from_its_predecessor),
        (TrustsItsClock, suite.test_recorded_increases_within_a_batch_and_between_batches),
        (KeepsAnySnapshot, suite.test_a_snapshot_is_kept_while_its_last_entry_counts),
    ],
)
async def test_a_planted_fault_is_noticed(planted: type[MemoryLog], test: Test) -> None:
    await test(await memory_subject())
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await test(await memory_subject(planted))
