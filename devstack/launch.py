"""
The last thing that runs before a program: it ties the program's life to ours, gives up root if need be, and execs.

Run as a script of its own (`python -I -S launch.py …`), because the alternative, `preexec_fn`, runs Python between
fork and exec of a threaded program, where any lock may be held for ever. The pid stays the same through the exec.

Identities:
    plain    run as we are;
    userns   we are root, and root is seen as `nobody` inside a new user namespace: nothing is chowned, and files below
             a home folder of mode 0700 stay reachable;
    setuid   we are root and really become `nobody`.

Invariants:
    - the program gets `death_signal` when the *thread* that started it ends, so that thread must outlive it
      (`supervisor` has a thread for each program);
    - the signal is asked for after the last change of credentials, which would clear it.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Identity = Literal["plain", "userns", "setuid"]

NOBODY = 65534
_CLONE_NEWUSER = 0x10000000  # sched.h
_PR_SET_PDEATHSIG = 1  # sys/prctl.h
_NOT_EXECUTABLE = 126  # what a shell answers in the same case


def command(
    argv: Sequence[str], *, identity: Identity = "plain", death_signal: signal.Signals = signal.SIGKILL
) -> list[str]:
    """The command line that runs argv in this way, as a direct child of the calling process."""
    launcher = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
    return [*launcher, identity, str(int(death_signal)), str(os.getpid()), *argv]


def server_identity() -> Identity:
    """How to run a server that refuses root (PostgreSQL). Probed in a child, since it depends on the sandbox."""
    if os.geteuid() != 0:
        return "plain"
    import subprocess  # late, because every start of a program pays for what this file imports

    probe = subprocess.run(
        command(["/bin/sh", "-c", ":"], identity="userns"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return "userns" if probe.returncode == 0 else "setuid"


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _become_nobody_in_a_namespace() -> None:
    if _libc().unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWUSER)")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} 0 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} 0 1")


def _become_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def _die_with(parent: int, death_signal: int) -> None:
    """Ask for death_signal when the parent dies; leave at once if it has already died. Linux only."""
    if sys.platform != "linux":
        return
    if _libc().prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        raise SystemExit(1)


def _main(identity: str, death_signal: str, parent: str, *argv: str) -> None:
    if identity == "userns":
        _become_nobody_in_a_namespace()
    elif identity == "setuid":
        _become_nobody()
    _die_with(int(parent), int(death_signal))
    os.execvp(argv[0], argv)  # noqa: S606 (argv is the point of this file)


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except OSError as error:
        print(f"cannot run {sys.argv[4]}: {error}", file=sys.stderr)
        sys.exit(_NOT_EXECUTABLE)
