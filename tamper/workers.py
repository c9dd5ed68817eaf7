"""
Processes that share the cases of a run, each with a database and folders of its own.

Invariant: which process a case falls to, and in which order, changes nothing of its outcome.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from tamper import suite
from tamper.suite import Bench, Case, Outcome, Verdict, World
from verifier.parallel import cores


class Job(NamedTuple):
    """Cases, or clean logs to make and verify."""

    cases: Sequence[Case]
    clean: int = 0
    number: int = 0


class Results(NamedTuple):
    """How many cases there were of each attack on each medium, those that were not found, what was said against clean logs."""

    tried: Counter[str]
    missed: list[Outcome]
    alarms: list[str]


def results(outcomes: Iterable[Outcome], alarms: Sequence[str] = ()) -> Results:
    """Of a million cases the outcomes are not kept."""
    tried: Counter[str] = Counter()
    missed = []
    for outcome in outcomes:
        tried[f"{outcome.case.attack} on {outcome.case.on}"] += 1
        if outcome.verdict is not Verdict.FOUND:
            missed.append(outcome)
    return Results(tried, missed, [*alarms])


def run_all(
    world: World, jobs: Sequence[Job], folder: Path, seed: int, progress: Callable[[int, int], None]
) -> Results:
    """On all cores; a single job in this process. `progress` is told how many cases and clean logs are done, and of how many."""
    found = results(())
    total, done = sum(len(job.cases) + job.clean for job in jobs), 0
    if len(jobs) == 1:
        worker = _Worker(world, folder, seed)
        try:
            return worker.run(jobs[0])
        finally:
            worker.bench.close()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(cores(), len(jobs)), spawn, _begin, (world, folder, seed)) as pool:
        waiting = {pool.submit(_work, job): job for job in jobs}
        try:
            for future in as_completed(waiting):
                some = future.result()
                found.tried.update(some.tried)
                found.missed.extend(some.missed)
                found.alarms.extend(some.alarms)
                done += len(waiting[future].cases) + waiting[future].clean
                progress(done, total)
        finally:
            pool.shutdown(cancel_futures=True)
    return Results(found.tried, sorted(found.missed), sorted(found.alarms))


class _Worker:
    def __init__(self, world: World, folder: Path, seed: int) -> None:
        self._folder = folder / str(os.getpid())
        self._seed = seed
        self.bench = Bench(world, os.getpid(), self._folder)

    def run(self, job: Job) -> Results:
        found = results(self.bench.run(case) for case in job.cases)
        self.bench.database.tidy()
        if job.clean:
            folder, seed = self._folder / f"clean {job.number}", self._seed + job.number
            found.alarms.extend(suite.false_alarms(self.bench.world, job.number, job.clean, seed, folder))
        return found


_worker: _Worker  # of this process


def _begin(world: World, folder: Path, seed: int) -> None:
    global _worker  # noqa: PLW0603 - what a process keeps between its jobs
    _worker = _Worker(world, folder, seed)


def _work(job: Job) -> Results:
    return _worker.run(job)
