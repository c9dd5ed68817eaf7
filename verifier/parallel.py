"""
Runs the same work on several cores, and gives the results in order.

Processes, not threads: what a check costs is Python and hashing of short texts, which threads do one at a time. They are
spawned, so that nothing of the caller's (connections, locks, threads) is inherited.

Invariants:
    - with one worker nothing is started, and the results are the same;
    - no more than a few results wait to be taken, however many there are to come.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from verifier.faults import CouldNotCheck

if TYPE_CHECKING:
    from concurrent.futures import Future

AHEAD = 3  # tasks for each worker, beside the one whose result is due

T = TypeVar("T")
R = TypeVar("R")

_work: Callable[[Any], Any]  # of this worker process, which has no other


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(work: Callable[[T], R], tasks: Iterable[T], workers: int) -> Generator[R, None, None]:
    """
    `work` of each task. With several workers each has a copy of it, which it keeps from one task to the next.

    `work`, tasks and results can be pickled then. Raises what `work` raises; CouldNotCheck when a worker dies.
    """
    if workers <= 1:
        yield from map(work, tasks)
        return
    import multiprocessing  # noqa: PLC0415 - it takes a while, and short logs need none of it
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415
    from concurrent.futures.process import BrokenProcessPool  # noqa: PLC0415

    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin, initargs=(work,))
    waiting: deque[Future[R]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_do, task))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise CouldNotCheck("a process of the check has died (is there enough memory?)") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(work: Callable[[Any], Any]) -> None:
    global _work  # noqa: PLW0603 - what the worker keeps between tasks
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process ends the others


def _do(task: Any) -> Any:
    return _work(task)
