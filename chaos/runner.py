"""
A run: regions, load, schedule, healing, catching up, judge.

Invariants:
    - what a step does is said before it is done, so that a run that hangs has told on what;
    - steps that need the same region (or what is between the regions) come one after the other, in the order of the schedule;
    - the judge is asked whatever has happened before, as long as the regions answer;
    - after a run that did not go well its folder stays: data, logs, schedule, record and what was said.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chaos import catalog, releases
from chaos.catching_up import NotCaughtUp, await_caught_up
from chaos.load import RATE
from chaos.schedule import CLOCK_AHEAD, CLOCK_BEHIND, KILLS, UPGRADE, LeftOut, Step
from chaos.site import Site, running_site
from devstack import DevstackError

LOADED_LINES = 300  # of the record, before anything befalls anybody: players and money are there
LOADED_S = 200.0
CAUGHT_UP_S = 240.0
LOAD_ENDS_S = 120.0
JUDGED_S = 600.0  # at least
JUDGED_S_PER_LINE = 0.02  # of the record: so long runs have time, too
_CHECKOUT = Path(__file__).parent.parent


class LoadEnded(Exception):
    """The load ended before it was told to, or did not begin."""


class Run:
    """One run. `errors`: what keeps its result from being one."""

    def __init__(
        self,
        folder: Path,
        steps: Sequence[Step],
        *,
        seed: int,
        regions: Sequence[str],
        release: str | None = None,
        rate: float = RATE,
    ) -> None:
        self.folder = folder
        self.steps = steps
        self.seed = seed
        self.regions = regions
        self.release = release  # the older one, of which one region begins; None: the newest that differs
        self.rate = rate  # requests a second
        self.done: Counter[str] = Counter()
        self.left_out: dict[str, str] = {}
        self.errors: list[str] = []
        self.load: subprocess.Popen[bytes] | None = None
        self.ahead: set[str] = set()  # regions whose log has entries of a clock that was ahead
        self.behind: set[str] = set()  # regions that have signed as witnesses with a clock that was behind
        self.laws: dict[str, Any] = {}
        self.verdict: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}

    def carry_out(self) -> dict[str, Any]:
        """Returns the result, as docs/how-to/chaos.md describes it."""
        began = time.monotonic()
        (self.folder / "schedule.json").write_text(json.dumps([step._asdict() for step in self.steps], indent=1))
        try:
            checkouts = self._checkouts()
            with running_site(self.folder, seed=self.seed, regions=self.regions, checkouts=checkouts) as site:
                self._befall(site)
        except DevstackError as error:
            self.errors.append(f"the regions: {error}")
        self.seconds["in_all"] = round(time.monotonic() - began, 1)
        return self._result()

    def _checkouts(self) -> dict[str, Path]:
        """The folder of an older release, by the region that is to be upgraded from it. Where there is none, that step is left out."""
        upgraded = [step.region for step in self.steps if step.fault == UPGRADE]
        if not upgraded:
            return {}
        try:
            older = releases.older(self.folder / "releases", self.release)
        except LeftOut as reason:
            self.left_out[UPGRADE] = str(reason)
            self.steps = [step for step in self.steps if step.fault != UPGRADE]
            return {}
        return dict.fromkeys(upgraded, older.folder)

    def _befall(self, site: Site) -> None:
        place = self._describe(site)
        site.history = self.folder / "history.jsonl"
        site.history.touch()
        try:
            with self._load(site, place, site.history):
                began = time.monotonic()
                self._schedule(site)
                self.seconds["schedule"] = round(time.monotonic() - began, 1)
                site.log("healing")
                site.heal()
                site.await_all_ready()
                self._caught_up(site, "under_load", quiet=False)
        except (LoadEnded, TimeoutError) as error:
            self.errors.append(str(error))
        self._caught_up(site, "at_rest", quiet=True)
        self._judge(site, place, site.history)

    def _describe(self, site: Site) -> Path:
        """SITE.json, for load and judge."""
        settings = site.local.settings
        policy = next(iter(settings.values())).policy
        place = self.folder / "site.json"
        told = {
            "regions": {
                name: {"url": here.url, "postgres": here.postgres, "log": name} for name, here in settings.items()
            },
            "tokens": site.local.tokens,
            "deployment": next(iter(settings.values())).deployment,
            "policy": str(policy) if policy else None,
        }
        place.touch(mode=0o600)
        place.write_text(json.dumps(told))
        return place

    @contextmanager
    def _load(self, site: Site, place: Path, history: Path) -> Iterator[None]:
        """Within, the load runs. It is told to end on any way out, and must have ended well."""
        command = ["chaos.load", "--site", str(place), "--history", str(history), "--seed", str(self.seed)]
        command += ["--rate", str(self.rate)]
        with (self.folder / "load.log").open("wb") as log:
            load = self.load = subprocess.Popen([sys.executable, "-m", *command], cwd=_CHECKOUT, stdout=log, stderr=log)
            try:
                self._await_load(load, history)
                site.log("the load runs")
                yield
                if load.poll() is not None:
                    raise LoadEnded(f"the load ended with {load.returncode}; see {log.name}")
            finally:
                load.terminate()
                try:
                    code = load.wait(LOAD_ENDS_S)
                except subprocess.TimeoutExpired:
                    load.kill()
                    code = load.wait()
                if code != 0:
                    self.errors.append(f"the load ended with {code}; see {log.name}")
                site.log("the load has ended")

    def _await_load(self, load: subprocess.Popen[bytes], history: Path) -> None:
        end = time.monotonic() + LOADED_S
        while _lines(history) < LOADED_LINES:
            if load.poll() is not None or time.monotonic() > end:
                raise LoadEnded(f"the load did not begin: {_lines(history)} lines, exit code {load.poll()}")
            time.sleep(0.2)

    def _schedule(self, site: Site) -> None:
        """Each step at its time, or as soon as what it needs is free."""
        began, turns = time.monotonic(), Turns()
        with ThreadPoolExecutor(max_workers=len(self.regions) + 1, thread_name_prefix="chaos") as pool:
            for step in self.steps:
                time.sleep(max(0.0, began + step.at_s - time.monotonic()))
                if self.load and self.load.poll() is not None:
                    raise LoadEnded(f"the load ended with {self.load.returncode} before {step}; see load.log")
                needed = catalog.needs(step, self.regions)
                turns.take(needed)
                pool.submit(self._step, site, step, turns, needed)

    def _step(self, site: Site, step: Step, turns: Turns, needed: frozenset[str]) -> None:
        site.log(f"{step}")
        began = time.monotonic()
        try:
            catalog.known()[step.fault](site, step)
        except LeftOut as reason:
            self.left_out[step.fault] = str(reason)
            site.log(f"{step}: left out: {reason}")
        except Exception as error:  # noqa: BLE001 — whatever it is, it belongs into the result
            self.errors.append(f"{step}: {type(error).__name__}: {error}")
            site.log(f"{step}: could not be carried out: {type(error).__name__}: {error}")
            self._note_clock(step)  # how far it came is not known
        else:
            self.done[step.fault] += 1
            self._note_clock(step)
            site.log(f"{step}: over after {time.monotonic() - began:.1f} s")
        finally:
            turns.give_back(needed)

    def _note_clock(self, step: Step) -> None:
        """The judge excuses what follows from a clock that was moved, and from no other."""
        if step.fault == CLOCK_AHEAD:
            self.ahead.add(step.region)
        if step.fault == CLOCK_BEHIND:
            self.behind.add(step.region)

    def _caught_up(self, site: Site, name: str, *, quiet: bool) -> None:
        """That the regions come together again is a law as well."""
        law = self.laws.setdefault("caught_up", {"holds": True, "broken": []})
        try:
            took_s = await_caught_up(site, CAUGHT_UP_S, quiet=quiet)
        except NotCaughtUp as error:
            law["holds"] = False
            law["broken"].append(f"{name}: {error}")
            site.log(f"not caught up {name}: {error}")
        else:
            self.seconds[f"caught_up_{name}"] = round(took_s, 1)
            site.log(f"caught up {name} after {took_s:.1f} s")

    def _judge(self, site: Site, place: Path, history: Path) -> None:
        site.log("the judge reads the record")
        told = json.loads(place.read_text())
        place.write_text(json.dumps(told | {"clocks": sorted(self.ahead), "behind": sorted(self.behind)}))
        began = time.monotonic()
        command = [sys.executable, "-m", "chaos.checker", "--site", str(place), "--history", str(history)]
        try:
            judged = subprocess.run(
                command, cwd=_CHECKOUT, capture_output=True, text=True, timeout=judged_s(_lines(history)), check=False
            )
            (self.folder / "checker.log").write_text(judged.stderr)
            self.verdict = json.loads(judged.stdout)
        except (subprocess.TimeoutExpired, ValueError) as error:
            self.errors.append(f"the judge said nothing: {error}")
            return
        self.laws |= self.verdict.get("laws", {})
        if judged.returncode not in (0, 1):
            self.errors.append(f"the judge could not judge: exit code {judged.returncode}")
        self.seconds["judged"] = round(time.monotonic() - began, 1)
        site.log("judged")

    def _result(self) -> dict[str, Any]:
        found = {key: self.verdict.get(key) for key in ("acknowledged", "lost", "duplicated")}
        facts = {key: self.verdict.get(key) for key in ("books_zero", "copies_equal", "intact")}
        return {
            "kills": sum(self.done[fault] for fault in KILLS),
            **found,
            **facts,
            "seed": self.seed,
            "faults": dict(sorted(self.done.items())),
            "left_out": self.left_out,
            "laws": self.laws,
            "errors": self.errors,
            "seconds": self.seconds,
        }


class Turns:
    """What is in use, and who waits for it. Who asks first is served first."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._changed = threading.Condition()

    def take(self, needed: frozenset[str]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not needed & self._used)
            self._used |= needed

    def give_back(self, needed: frozenset[str]) -> None:
        with self._changed:
            self._used -= needed
            self._changed.notify_all()


def exit_code(result: dict[str, Any]) -> int:
    """0: every law holds. 1: one is broken. 2: the run is none, since something could not be done or judged."""
    if any(not law["holds"] for law in result["laws"].values()):
        return 1
    return 2 if result["errors"] else 0


def judged_s(lines: int) -> float:
    """How long the judge may take over a record of so many lines, and what the regions hold of it."""
    return max(JUDGED_S, JUDGED_S_PER_LINE * lines)


def throw_away(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n")
