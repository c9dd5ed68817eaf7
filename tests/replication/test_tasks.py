from __future__ import annotations

import asyncio

import pytest

from replication import tasks


async def test_who_does_not_hear_the_first_cancellation_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_CANCEL_AGAIN_S", 0.01)
    told = 0

    async def deaf() -> None:
        nonlocal told
        while told < 2:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                told += 1

    async def first() -> None:
        await asyncio.sleep(0)

    await tasks.together(first(), deaf())
    assert told == 2


async def test_what_the_first_to_end_raised_is_raised_when_all_have_ended() -> None:
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async def failing() -> None:
        await asyncio.sleep(0)
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await tasks.together(endless(), failing())
    assert ended.is_set()
