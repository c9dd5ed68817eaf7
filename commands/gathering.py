"""
What many callers ask for at the same moment is done together, and each hears of its own result.

Half of those under way are taken at a time, so that one half is worked on while the other waits for the disk. Nobody waits
for company: whoever is alone goes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Results(dict[int, "A | Exception"], Generic[A]):
    """Results by place. `heard` is told of each as it comes."""

    def __init__(self, heard: Callable[[int, A | Exception], None] | None = None) -> None:
        super().__init__()
        self._heard = heard

    def __setitem__(self, place: int, result: A | Exception) -> None:
        super().__setitem__(place, result)
        if self._heard is not None:
            self._heard(place, result)

    def put(self, place: int, make: Callable[..., A | Exception], *arguments: object) -> None:
        """The result is what `make` returns or raises: its own caller's, and nobody else's."""
        try:
            result = make(*arguments)
        except Exception as error:  # noqa: BLE001 — raised again by whoever asked
            result = error
        self[place] = result


class Gathering(Generic[Q, A]):
    """`work(questions, results)` gives a result to each; what it raises is the result of those that have none."""

    def __init__(self, work: Callable[[list[Q], Results[A]], Awaitable[None]]) -> None:
        self._work = work
        self._asked: list[tuple[Q, asyncio.Future[A]]] = []
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, question: Q) -> asyncio.Future[A]:
        """The result, raised if it is an exception."""
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._start)
        answer: asyncio.Future[A] = loop.create_future()
        self._asked.append((question, answer))
        self._under_way += 1
        return answer

    def _start(self) -> None:
        half = (self._under_way + 1) // 2
        part, self._asked = self._asked[:half], self._asked[half:]
        task = asyncio.create_task(self._answer(part))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._asked:
            asyncio.get_running_loop().call_soon(self._start)

    async def _answer(self, asked: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        def heard(place: int, result: A | Exception) -> None:
            answer = asked[place][1]
            self._under_way -= 1
            if answer.done():  # nobody waits any more
                return
            if isinstance(result, StopIteration):  # which no future takes
                answer.set_exception(RuntimeError("a generator's end is no result"))
            elif isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        results: Results[A] = Results(heard)
        try:
            await self._work([question for question, _ in asked], results)
        except Exception as error:  # noqa: BLE001 — raised again by whoever asked
            for place in range(len(asked)):
                if place not in results:
                    results[place] = error
