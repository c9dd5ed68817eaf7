"""A register that does not answer is not asked for a while, and one question finds out when it does again."""

from __future__ import annotations

import asyncio

import pytest

from providers.port import Unanswered, Unbelievable
from registers.breaker import FAILURES_MAX, PAUSE_S, Breaker
from registers.circuit import State
from registers.port import Answer, Clear, InRegister, Person

ADA = Person("Ada Lovelace", "1990-12-10")


class Asked:
    """A register in memory: what it says next, and how often it was asked. `held`: it waits to be let go."""

    name = "CRUKS"

    def __init__(self) -> None:
        self.says: Answer | Exception = Clear()
        self.count = 0
        self.held: asyncio.Event | None = None

    async def ask(self, _person: Person) -> Answer:
        self.count += 1
        says = self.says
        if self.held:
            await self.held.wait()
        if isinstance(says, Exception):
            raise says
        return says


class Watched:
    """A breaker, its register, and its clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.register = Asked()
        self.breaker = Breaker(self.register, clock=lambda: self.now)

    async def fails(self, times: int) -> None:
        self.register.says = Unanswered("down")
        for _ in range(times):
            with pytest.raises(Unanswered):
                await self.breaker.ask(ADA)

    @property
    def state(self) -> State:
        return self.breaker.state


@pytest.fixture
def watched() -> Watched:
    return Watched()


async def test_what_it_says_is_handed_on_and_counted(watched: Watched) -> None:
    assert await watched.breaker.ask(ADA) == Clear()
    watched.register.says = InRegister()
    assert await watched.breaker.ask(ADA) == InRegister()
    assert watched.breaker.counted == {"clear": 1, "excluded": 1}


async def test_after_some_failures_in_a_row_it_is_not_asked_for_a_while(watched: Watched) -> None:
    await watched.fails(FAILURES_MAX - 1)
    assert watched.state is State.CLOSED
    await watched.fails(1)
    assert watched.state is State.OPEN
    watched.register.says = Clear()
    watched.now += PAUSE_S - 0.001
    with pytest.raises(Unanswered, match="not asked"):
        await watched.breaker.ask(ADA)
    assert watched.register.count == FAILURES_MAX
    assert watched.breaker.counted == {"unanswered": FAILURES_MAX, "not_asked": 1}


async def test_an_answer_in_between_begins_the_row_anew(watched: Watched) -> None:
    for _ in range(3):
        await watched.fails(FAILURES_MAX - 1)
        watched.register.says = Clear()
        await watched.breaker.ask(ADA)
    assert watched.state is State.CLOSED


async def test_then_one_question_goes_through_and_if_it_is_answered_all_do(watched: Watched) -> None:
    await watched.fails(FAILURES_MAX)
    watched.now += PAUSE_S
    watched.register.says, watched.register.held = Clear(), asyncio.Event()
    first = asyncio.create_task(watched.breaker.ask(ADA))
    await asyncio.sleep(0)
    assert watched.state is State.HALF_OPEN
    with pytest.raises(Unanswered, match="not asked"):
        await watched.breaker.ask(ADA)
    assert watched.register.count == FAILURES_MAX + 1
    watched.register.held.set()
    assert await first == Clear()
    assert watched.state is State.CLOSED
    assert await watched.breaker.ask(ADA) == Clear()


async def test_if_it_is_not_answered_the_while_begins_anew(watched: Watched) -> None:
    await watched.fails(FAILURES_MAX)
    for _ in range(3):
        watched.now += PAUSE_S
        await watched.fails(1)
        assert watched.state is State.OPEN
        asked = watched.register.count
        await watched.fails(1)
        assert watched.register.count == asked


async def test_a_question_that_is_given_up_leaves_room_for_another(watched: Watched) -> None:
    await watched.fails(FAILURES_MAX)
    watched.now += PAUSE_S
    watched.register.says, watched.register.held = Clear(), asyncio.Event()
    given_up = asyncio.create_task(watched.breaker.ask(ADA))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    watched.register.held = None
    assert await watched.breaker.ask(ADA) == Clear()


async def test_a_lie_is_no_answer_and_keeps_nobody_waiting_so_it_is_asked_on(watched: Watched) -> None:
    watched.register.says = Unbelievable("not signed")
    for _ in range(2 * FAILURES_MAX):
        with pytest.raises(Unbelievable):
            await watched.breaker.ask(ADA)
    assert watched.state is State.CLOSED
    assert watched.breaker.counted == {"unbelievable": 2 * FAILURES_MAX}


async def test_what_was_asked_before_it_failed_may_still_say_that_it_answers(watched: Watched) -> None:
    watched.register.held = asyncio.Event()
    early = asyncio.create_task(watched.breaker.ask(ADA))
    await asyncio.sleep(0)
    watched.register.held, held = None, watched.register.held
    await watched.fails(FAILURES_MAX)
    assert watched.state is State.OPEN
    held.set()
    assert await early == Clear()
    assert watched.state is State.CLOSED
