"""`make chaos`: two real regions under load, what befalls them, and a judge. See docs/how-to/chaos.md."""

from __future__ import annotations

import json
import secrets
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from app.cli import log_to_standard_error
from chaos import catalog
from chaos.load import RATE
from chaos.runner import Run, exit_code, throw_away
from chaos.schedule import schedule
from chaos.site import REGIONS
from devstack import interruptible


def run(
    *,
    kills: Annotated[int, Parameter(help="How many kills: -9, or SIGSTOP and SIGCONT.")] = 10,
    seed: Annotated[int | None, Parameter(help="Repeats a schedule; else one is drawn.")] = None,
    faults: Annotated[
        str | None, Parameter(help="Only these other faults, all of them, separated by commas; or none.")
    ] = None,
    hold: Annotated[float | None, Parameter(help="Seconds for which whatever is held back is held.")] = None,
    long: Annotated[bool, Parameter(help="Every fault, and cut links for 1, 5 and 30 minutes.", negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", help="Print one JSON object.", negative="")] = False,
    keep: Annotated[bool, Parameter(help="Keep the folder of the run.", negative="")] = False,
    release: Annotated[
        str | None, Parameter(help="The commit from which a region is upgraded; else the newest that differs.")
    ] = None,
    region_count: Annotated[int, Parameter(help="How many regions.")] = 2,
    rate: Annotated[float, Parameter(help="Requests a second, all together.")] = RATE,
) -> int:
    """Let faults befall regions under load; 0: every law holds; 1: one is broken; 2: something could not be done or judged."""
    chosen = catalog.others() if faults is None else [each for each in faults.split(",") if each not in {"", "none"}]
    if unknown := set(chosen) - set(catalog.others()):
        sys.stderr.write(f"no fault is called {', '.join(sorted(unknown))}; there are {', '.join(catalog.others())}\n")
        return 2
    if not 1 < region_count <= len(REGIONS):
        sys.stderr.write(f"there may be 2 to {len(REGIONS)} regions\n")
        return 2
    drawn = secrets.randbelow(10**9) if seed is None else seed
    regions = REGIONS[:region_count]
    share = {} if faults is None else {"share": None}
    steps = schedule(drawn, kills, chosen, regions, long=long, hold_s=hold, **share)
    folder = Path(tempfile.mkdtemp(prefix="countroom-chaos-"))
    sys.stderr.write(f"seed {drawn}, {len(steps)} steps, {folder}\n")
    log_to_standard_error()
    with interruptible():
        result = Run(folder, steps, seed=drawn, regions=regions, release=release, rate=rate).carry_out()
    code = exit_code(result)
    _tell(result, folder if code or keep else None)
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
    if not code and not keep:
        throw_away(folder)
    return code


def _tell(result: dict[str, Any], kept: Path | None) -> None:
    lines = [f"{fault}: left out: {reason}" for fault, reason in result["left_out"].items()]
    lines += [f"error: {error}" for error in result["errors"]]
    for name, law in result["laws"].items():
        lines.append(f"{name}: {'holds' if law['holds'] else 'BROKEN'}")
        lines += [f"    {each}" for each in law["broken"]]
    figures = ("kills", "acknowledged", "lost", "duplicated", "books_zero", "copies_equal", "intact", "seed")
    lines.append(", ".join(f"{name} {result[name]}" for name in figures))
    if kept:
        lines.append(f"kept: {kept} (schedule.json, history.jsonl, chaos.log, load.log, checker.log, data/*/logs)")
    sys.stderr.write("\n".join([*lines, ""]))


def main(arguments: Sequence[str]) -> int:
    parser = App(name="chaos", version_flags=[], result_action="return_value")
    parser.default(run)
    return int(parser(list(arguments)) or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
