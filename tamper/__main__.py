"""`make tamper`: every attack on clean logs, each of which the verifier must find; and clean logs, of which it must doubt none."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from cyclopts import App, Parameter

from bench import servers
from tamper import suite
from tamper.attacks import ATTACKS, DATABASE_ONLY
from tamper.suite import FLIP, Case, On, Verdict, World
from tamper.workers import Job, Results, run_all

SEED = 20_261_122
AT_ONCE = 25  # attacks that a process is given at a time
FLIPS_AT_ONCE = 4_000  # neighbours: of what stands before them nothing is read twice
_BAR = 30


class Scale(NamedTuple):
    """How many of each attack and medium, every how many-th byte, how many clean logs."""

    attacks: int
    flips_every: int
    clean: int


FULL = Scale(1_000, 1, 1_000)
QUICK = Scale(12, 1_499, 64)


def run(
    *,
    quick: Annotated[bool, Parameter(help="A sample of everything.", negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", help="Print one JSON object.", negative="")] = False,
    only: Annotated[str | None, Parameter(help="Only this attack, or flip.")] = None,
    on: Annotated[On | None, Parameter(help="Only on this medium.")] = None,
    seed: Annotated[int | None, Parameter(help="Only this one of the attacks; of flips, the byte's number.")] = None,
) -> int:
    """Tamper with logs; 0: all was found where it is, and no clean log was doubted; 1: not so."""
    if only not in (None, FLIP, *ATTACKS):
        sys.stderr.write(f"no attack is called {only}; there are {', '.join((FLIP, *ATTACKS))}\n")
        return 2
    scale = QUICK if quick else FULL
    with servers.running() as here, tempfile.TemporaryDirectory(prefix="countroom-tamper-") as folder:
        world = suite.make_world(here.dsn, Path(folder, "keys"), SEED)
        jobs = list(_jobs(world, Path(folder, "sizes"), scale, only=only, on=on, seed=seed))
        found = run_all(world, jobs, Path(folder), SEED, _progress)
    counted = report(found)
    _show(found, counted)
    if as_json:
        sys.stdout.write(f"{json.dumps(counted)}\n")
    return 1 if found.missed or found.alarms else 0


def report(found: Results) -> dict[str, object]:
    """{"tried", "undetected", "misplaced", "false_alarms", "by_attack"}; see docs/reference/tamper.md."""
    verdicts = Counter(outcome.verdict for outcome in found.missed)
    return {
        "tried": found.tried.total(),
        "undetected": verdicts[Verdict.UNDETECTED],
        "misplaced": verdicts[Verdict.MISPLACED],
        "false_alarms": len(found.alarms),
        "by_attack": dict(sorted(found.tried.items())),
    }


def _jobs(
    world: World, folder: Path, scale: Scale, *, only: str | None, on: On | None, seed: int | None
) -> Iterator[Job]:
    media = [each for each in On if on in (None, each)]
    for medium in media:
        if only in (None, FLIP):
            yield from _flips(medium, suite.bytes_of(world, medium, folder), scale.flips_every, seed)
        for attack in ATTACKS:
            if only in (None, attack) and not (medium is On.TILES and attack in DATABASE_ONLY):
                seeds = range(scale.attacks) if seed is None else [seed]
                for first in range(0, len(seeds), AT_ONCE):
                    yield Job([Case(medium, attack, each) for each in seeds[first : first + AT_ONCE]])
    if only is None:
        for number, first in enumerate(range(0, scale.clean, suite.CLEAN_AT_ONCE)):
            yield Job((), min(suite.CLEAN_AT_ONCE, scale.clean - first), number)


def _flips(medium: On, count: int, every: int, seed: int | None) -> Iterator[Job]:
    numbers = range(0, count, every) if seed is None else [seed]
    for first in range(0, len(numbers), FLIPS_AT_ONCE):
        yield Job([Case(medium, FLIP, each) for each in numbers[first : first + FLIPS_AT_ONCE]])


def _progress(done: int, total: int) -> None:
    """One line that rewrites itself, on a terminal only."""
    if sys.stderr.isatty():
        full = _BAR * done // total
        sys.stderr.write(f"\r\x1b[K[{'#' * full:<{_BAR}}] {done:,} of {total:,}")
        sys.stderr.flush()


def _show(found: Results, counted: dict[str, object]) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    lines = [*map(str, found.missed), *(f"false alarm: {alarm}" for alarm in found.alarms)]
    figures = [f"{value:,} {name.replace('_', ' ')}" for name, value in counted.items() if isinstance(value, int)]
    sys.stderr.write("\n".join([*lines, ", ".join(figures), ""]))


def main(arguments: Sequence[str]) -> int:
    parser = App(name="tamper", version_flags=[], result_action="return_value")
    parser.default(run)
    return int(parser(list(arguments)) or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
