"""`make bench`: all figures, or those of one NAME."""

from __future__ import annotations

import json
import sys
from importlib import import_module

from app.cli import log_to_standard_error

NAMES = ("append", "pipeline")


def main(arguments: list[str]) -> int:
    chosen = [argument for argument in arguments if not argument.startswith("--")] or list(NAMES)
    if unknown := [name for name in chosen if name not in NAMES]:
        print(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    log_to_standard_error()
    found = {}
    for name in chosen:
        module = import_module(f"bench.{name}")
        print(f"{name}: {(module.__doc__ or '').strip().partition(chr(10))[0]}", file=sys.stderr)
        found[name] = module.run()
        print(module.show(found[name]), file=sys.stderr)
    if "--json" in arguments:
        print(json.dumps(found if len(chosen) > 1 else found[chosen[0]]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
