"""
A supervisor to be interrupted and killed: `up.py DATA PORT_BASE [deaf]` prints its programs' pids when they are ready.

`deaf` makes its process ignore SIGTERM.
"""

import json
import sys
from pathlib import Path

from devstack import Stack, interruptible

DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
SLEEP = "import time; print('asleep', flush=True); time.sleep(600)"


def main() -> None:
    data, port_base, *options = sys.argv[1:]
    script = (DEAF if "deaf" in options else "") + SLEEP
    with interruptible(), Stack(data=Path(data), regions=["eu"], port_base=int(port_base)) as stack:
        stack.start_servers()
        log = stack.log("eu", "sleeper")
        log.unlink(missing_ok=True)
        stack.start_process(
            region="eu", role="sleeper", argv=[sys.executable, "-c", script], ready=lambda: "asleep" in log.read_text()
        )
        stack.wait_ready()
        sys.stdout.write(json.dumps(list(stack.pids().values())) + "\n")
        sys.stdout.flush()
        stack.run_until_stopped()


if __name__ == "__main__":
    main()
