"""
Runs attacks against clean logs and judges what the verifier says of them.

A case is found if the verifier names the log that was tampered with, no other, and a position that the attack allows. It
counts as misplaced if it names anything else, and as undetected if it names nothing: neither an error nor «could not
check» is a finding.

Invariant: every case can be run again by itself, from its medium, attack and seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import NamedTuple

import psycopg

from app.verifying import DatabaseSource
from bench.servers import fresh_database
from eventstore import schema
from tamper.attacks import ATTACKS, By, Planned
from tamper.flips import DatabaseFlips, TileFlips, row_bytes
from tamper.logs import PARTITIONS, CleanLog, Maker
from tamper.shown import Database, HeldSource, Tiles, loosen
from verifier.cli import Findings, How, check
from verifier.policy import Policy, parse_policy
from verifier.source import FolderSource, Keeper

FLIP = "flip"
ENTRIES = {"eu": 1_000, "us": 120}
UNSIGNED = 7  # entries behind the newest head


class On(StrEnum):
    """Where a log stands that is tampered with."""

    DATABASE = "database"
    TILES = "tiles"


class Verdict(StrEnum):
    FOUND = "found"
    UNDETECTED = "undetected"
    MISPLACED = "misplaced"


class Case(NamedTuple):
    """One attack. For a flip, the seed is the byte's number."""

    on: On
    attack: str
    seed: int


class Outcome(NamedTuple):
    case: Case
    verdict: Verdict
    said: str

    def __str__(self) -> str:
        on, attack, seed = self.case
        return f"{self.verdict}: {self.said}; again: make tamper ARGS='--only {attack} --on {on} --seed {seed}'"


class World(NamedTuple):
    """The logs of a run, which every process that takes part has a copy of. `template`: the DSN of an empty ledger."""

    dsn: str
    template: str
    logs: dict[str, CleanLog]
    policy: bytes


def make_world(dsn: str, folder: Path, seed: int) -> World:
    """Logs in a new database of this server. Raises RuntimeError when the verifier doubts one of them."""
    template = fresh_database(dsn, "tamper_empty")
    schema.migrate(template, [("ledger", schema.HERE)])
    here = cloned(template, "tamper_clean")
    maker = Maker(folder, Random(seed))
    share = PARTITIONS // len(ENTRIES)
    with psycopg.connect(here, autocommit=True) as connection:
        logs = {
            name: maker.make(connection, name, range(nth * share, (nth + 1) * share), entries, UNSIGNED)
            for nth, (name, entries) in enumerate(ENTRIES.items())
        }
        policy = maker.policy([*logs.values()])
        if doubts := doubted([here], parse_policy(policy)):
            raise RuntimeError(f"a clean log is not intact: {doubts}")
        for (log,) in connection.execute("SELECT id FROM ledger.log").fetchall():
            loosen(connection, log)
    return World(here, template, logs, policy)


def cloned(dsn: str, name: str) -> str:
    """A new database with what stands in that one, which nobody may be connected to."""
    server, _, template = dsn.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    return f"{server}/{name}"


def bytes_of(world: World, on: On, folder: Path) -> int:
    """How many bytes there are to flip. `folder` is for files that are made to count them."""
    log = world.logs["eu"]
    if on is On.TILES:
        files = Tiles(folder, log).files
        return sum(len(data) for path, data in files.items() if path.startswith("tile/"))
    return sum(row_bytes(entry.body) for entry in log.entries)


class Bench:
    """Where one process runs cases: a database of its own, and its own directories."""

    def __init__(self, world: World, number: int, folder: Path) -> None:
        self.world = world
        self.policy = parse_policy(world.policy)
        self.database = Database(cloned(world.dsn, f"tamper_{number}"), world.logs)
        self.tiles = {name: Tiles(folder / "tampered" / name, log) for name, log in world.logs.items()}
        self.copies = {name: Tiles(folder / "copy" / name, log) for name, log in world.logs.items()}
        self.flips: dict[On, DatabaseFlips | TileFlips] = {
            On.DATABASE: DatabaseFlips(self.database, "eu", self.policy),
            On.TILES: TileFlips(self.tiles["eu"], self.policy),
        }

    def close(self) -> None:
        self.database.close()

    def run(self, case: Case) -> Outcome:
        if case.attack == FLIP:
            flip = self.flips[case.on].run(case.seed)
            named = [] if flip.fault is None else [("eu", flip.fault.position)]
            return _judged(case, named, "eu", range(flip.first, flip.last + 1), str(flip.fault))
        random = Random(f"{case.on} {case.attack} {case.seed}")
        name = "us" if case.attack != "tree_hash" and random.randrange(5) == 0 else "eu"
        planned = self._planned(case, name, random)
        if case.on is On.DATABASE:
            with self.database.showing(name, planned.shown):
                return self._judge(case, name, planned, HeldSource(self.database))
        with self.tiles[name].showing(planned.shown):
            return self._judge(case, name, planned, *(FolderSource(str(tiles.folder)) for tiles in self.tiles.values()))

    def _planned(self, case: Case, name: str, random: Random) -> Planned:
        clean = self.database.clean[name] if case.on is On.DATABASE else self.tiles[name].clean
        return ATTACKS[case.attack](clean.copy(), random)

    def _judge(self, case: Case, name: str, planned: Planned, *sources: Keeper) -> Outcome:
        log = self.world.logs[name]
        if planned.by is By.COPY:
            sources = (*sources, FolderSource(str(self.copies[name].folder)))
        known = {log.origin: {log.witnessed: log.known}} if planned.by is By.KNOWN else {}
        findings = _check(sources, How(trust=self.policy, known=known))
        named, said = _named(findings, sources)
        if planned.witnessed_below is not None:
            for copy in findings.copies:
                sees = copy.report.signed.witnessed_size if copy.report and copy.report.signed else None
                tampered = copy.source.url != str(self.copies[name].folder) and copy.head.log == name
                if tampered and (sees or 0) >= planned.witnessed_below:
                    return Outcome(case, Verdict.UNDETECTED, f"heads up to {sees} are taken for witnessed")
        return _judged(case, named, name, range(planned.first, planned.last + 1), said)


def _check(sources: Sequence[Keeper], how: How) -> Findings:
    by_url = {source.url: source for source in sources}
    findings = check(list(by_url), how=how, keeper=lambda url, _: by_url[url])
    for source in sources:
        if isinstance(source, DatabaseSource) and findings.status == 0:
            source.compare_snapshots()
    return findings


def _named(findings: Findings, sources: Sequence[Keeper]) -> tuple[list[tuple[str, int]], str]:
    """Each log and position that is said to be wrong, and all that was said."""
    named: list[tuple[str, int]] = []
    said: list[str] = []
    for copy in findings.copies:
        if copy.report is not None and copy.report.fault is not None:
            named.append((copy.head.log, copy.report.fault.position))
            said.append(f"{copy.head.log}: {copy.report.fault}")
    for source in sources:
        if isinstance(source, DatabaseSource):
            named += [(log, beside.position) for log, beside in source.beside.items()]
            said += map(str, source.beside.items())
    for one, _, fault in findings.differences:
        named.append((one.head.log, fault.position))
        said.append(f"{one.head.log}: {fault}")
    return named, "; ".join([*said, *map(str, findings.errors)])


def _judged(case: Case, named: Sequence[tuple[str, int]], log: str, allowed: range, said: str) -> Outcome:
    if not named:
        return Outcome(case, Verdict.UNDETECTED, f"nothing is said of log {log}, {_spelt(allowed)} ({said})")
    right = named[0][1] in allowed and {name for name, _ in named} == {log}
    return Outcome(
        case, Verdict.FOUND if right else Verdict.MISPLACED, f"log {log}, {_spelt(allowed)}, was said: {said}"
    )


def _spelt(allowed: range) -> str:
    first, last = allowed[0], allowed[-1]
    return f"position {first}" if first == last else f"position {first} to {last}"


def doubted(targets: Sequence[str], policy: Policy) -> list[str]:
    """What the verifier says against logs in databases and directories, whatever that is: of clean ones, nothing."""
    sources: list[Keeper] = [DatabaseSource(each) if "://" in each else FolderSource(each) for each in targets]
    try:
        findings = _check(sources, How(trust=policy))
        said = _named(findings, sources)[1]
        return [said] if said else []
    finally:
        for source in sources:
            if isinstance(source, DatabaseSource):
                source.close()


CLEAN_AT_ONCE = 64  # logs in a database, each with a few partitions of its own
CLEAN_ENTRIES_MAX = 300


def false_alarms(world: World, number: int, count: int, seed: int, folder: Path) -> list[str]:
    """Make so many clean logs of chance sizes, in a database and as tiles, verify both, and say which were doubted."""
    random = Random(f"clean {seed}")
    dsn = cloned(world.template, f"tamper_clean_{number}")
    maker = Maker(folder / "keys", random)
    share = PARTITIONS // CLEAN_AT_ONCE
    logs = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        for nth in range(count):
            entries = random.randrange(2, CLEAN_ENTRIES_MAX)
            unsigned = random.randrange(min(entries, 10))
            logs.append(maker.make(connection, f"r{nth}", range(nth * share, (nth + 1) * share), entries, unsigned))
    policy = parse_policy(maker.policy(logs))
    alarms = doubted([dsn], policy)
    for log in logs:
        alarms += doubted([str(Tiles(folder / "tiles" / log.name, log).folder)], policy)
    return alarms
