"""`make bench`: all figures but those that take hours, or those of one NAME; ARGS are its options, and --json."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

from cyclopts import App

from app.cli import log_to_standard_error
from bench.servers import Missing

QUICK = ("append", "verify", "pipeline", "payments", "bets", "access", "sealing", "regions")
LONG = ("size",)


def main(arguments: list[str]) -> int:
    """NAME … [--json] [options of the one NAME]: the keywords of its `run`."""
    names = QUICK + LONG
    first_option = next((place for place, each in enumerate(arguments) if each.startswith("--")), len(arguments))
    chosen, options = list(arguments[:first_option]) or list(QUICK), list(arguments[first_option:])
    if unknown := [name for name in chosen if name not in names]:
        print(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    as_json = "--json" in options
    options = [option for option in options if option != "--json"]
    if options and len(chosen) > 1:
        print("options belong to one benchmark: say which", file=sys.stderr)
        return 2
    log_to_standard_error()
    found: dict[str, Any] = {}
    for name in chosen:
        module = import_module(f"bench.{name}")
        print(f"{name}: {(module.__doc__ or '').strip().partition(chr(10))[0]}", file=sys.stderr)
        try:
            found[name] = _run(module.run, name, options)
        except Missing as missing:
            print(f"{name}: {missing}", file=sys.stderr)
            return 1
        if found[name] is None:  # only its help was asked for
            return 0
        print(module.show(found[name]), file=sys.stderr)
    if as_json:
        print(json.dumps(found if len(chosen) > 1 else found[chosen[0]]))
    return 0


def _run(run: Any, name: str, options: list[str]) -> Any:
    """Its options are the keywords of `run`; a wrong one ends the program with a word on it."""
    parser = App(name=f"bench {name}", version_flags=[], result_action="return_value")
    parser.default(run)
    return parser(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
