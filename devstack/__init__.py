"""
Whole regions on one machine: PostgreSQL, NATS and Valkey from wheels, and the processes that use them.

    with interruptible(), Stack(data=Path("data"), regions=["eu", "us"]) as stack:
        stack.start_servers()
        stack.start_process(region="eu", role="api", argv=[...], ready=ready.http_ok("http://127.0.0.1:8100/readyz"))
        stack.wait_ready()
        stack.run_until_stopped()

Code map: `stack` is what callers use; `region` says where things are; `postgres`, `nats` and `valkey` say how each
server is run; `realms`, `seeds` and `certificates` say who may say what over NATS, and by what they are known; `supervisor`
keeps programs alive; `launch` is the last thing that runs before a program.

Invariants:
    - it knows servers and processes, not the product: it imports nothing else of ours;
    - nothing listens anywhere but on 127.0.0.1;
    - nothing it started outlives it, not even when it is killed -9;
    - secrets lie in files of mode 0600, and never on a command line.

Runs on Linux: it relies on death signals, user namespaces and /proc.
"""

from devstack.errors import AlreadyRunning, DevstackError, MissingServer, PortTaken, StartFailed
from devstack.region import Endpoints, Given, Ports, Region
from devstack.stack import Stack
from devstack.state import read_state
from devstack.supervisor import interruptible

__all__ = [
    "AlreadyRunning",
    "DevstackError",
    "Endpoints",
    "Given",
    "MissingServer",
    "PortTaken",
    "Ports",
    "Region",
    "Stack",
    "StartFailed",
    "interruptible",
    "read_state",
]
