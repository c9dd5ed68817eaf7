"""`make attacks`: every attack on a region that runs; whoever succeeds, or a route that nobody guards, is an error."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from cyclopts import App, Parameter

from attacks import climbing, doors, malformed, site, strangers, suite, ways_in, world
from attacks.suite import Group, Outcome, World

GROUPS: Mapping[str, Group] = {
    "nobody": strangers.nobody,
    "reduced": strangers.reduced,
    "by_token": strangers.by_token,
    "csrf": strangers.forged,
    "cross_role": strangers.beyond,
    "in_batch": strangers.in_batch,
    "cross_brand": strangers.outside,
    "step_up": strangers.stale,
    "signatures": doors.signatures,
    "cross_player": doors.players,
    "codes": ways_in.codes,
    "sessions": ways_in.sessions,
    "probing": ways_in.probing,
    "identities": ways_in.identities,
    "four_eyes": climbing.alone,
    "keys": climbing.keys,
    "bodies": malformed.bodies,
    "paths": malformed.paths,
}
_BAR = 30


class Found(NamedTuple):
    """`attacks`: how many of each group; `faults`: answers of 500 and more."""

    routes: int
    without_policy: Sequence[str]
    attacks: Counter[str]
    succeeded: Sequence[Outcome]
    faults: int

    def report(self) -> dict[str, object]:
        return {
            "routes": self.routes,
            "without_policy": list(self.without_policy),
            "attacks": self.attacks.total(),
            "succeeded": len(self.succeeded),
            "server_errors": self.faults,
        }

    @property
    def fine(self) -> bool:
        return not (self.without_policy or self.succeeded or self.faults)


def run(
    *,
    quick: Annotated[
        bool, Parameter(help="A sample: each route, and each kind, but not each on each.", negative="")
    ] = False,
    as_json: Annotated[bool, Parameter(name="--json", help="Print one JSON object.", negative="")] = False,
    only: Annotated[str | None, Parameter(help="Only this group of attacks.")] = None,
) -> int:
    """Attack a region that is made for it. 0: nobody got anything; 1: somebody did; 2: there is no such group."""
    if only not in (None, *GROUPS):
        sys.stderr.write(f"no group is called {only}; there are {', '.join(GROUPS)}\n")
        return 2
    chosen = {name: group for name, group in GROUPS.items() if only in (None, name)}
    with tempfile.TemporaryDirectory(prefix="countroom-attacks-") as folder, site.running(Path(folder)) as here:
        attacked, bare = world.make(here, quick=quick)
        found = attack(attacked, bare, chosen)
    _show(found)
    if as_json:
        sys.stdout.write(f"{json.dumps(found.report())}\n")
    return 0 if found.fine else 1


def attack(attacked: World, bare: Sequence[str], groups: Mapping[str, Group]) -> Found:
    counts: Counter[str] = Counter()
    succeeded: list[Outcome] = []
    faults, began = 0, time.monotonic()
    for number, (name, group) in enumerate(groups.items()):
        for outcome in suite.run(group(attacked), attacked.site):
            counts[name] += 1
            faults += outcome.is_fault
            if outcome.wrong:
                succeeded.append(outcome)
                _tell(outcome)
            _progress(name, number, len(groups), counts.total(), len(succeeded), time.monotonic() - began)
    return Found(len(attacked.routes), bare, counts, succeeded, faults)


def _tell(outcome: Outcome) -> None:
    """At once: what comes later may take a while."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    sys.stderr.write(f"{outcome}\n")


def _progress(name: str, number: int, of: int, done: int, succeeded: int, seconds: float) -> None:
    """One line that rewrites itself, on a terminal only."""
    if sys.stderr.isatty():
        full = _BAR * number // of
        rate = done / seconds if seconds else 0
        line = f"[{'#' * full:<{_BAR}}] {done:,} attacks, {succeeded} succeeded, {rate:.0f}/s · {name}"
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()


def _show(found: Found) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    lines: list[str] = [f"  {name:<14} {count:>7,}" for name, count in found.attacks.items()]
    lines += [f"without a policy: {route}" for route in found.without_policy]
    total = found.report()
    figures = f"{total['routes']} routes, {found.attacks.total():,} attacks, {total['succeeded']} succeeded, {found.faults} faults of ours"
    sys.stderr.write("\n".join([*lines, figures, ""]))


def main(arguments: Sequence[str]) -> int:
    parser = App(name="attacks", version_flags=[], result_action="return_value")
    parser.default(run)
    return int(parser(list(arguments)) or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
