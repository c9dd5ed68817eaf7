"""
What processes really take of the machine's memory.

PSS (proportional set size) counts a page shared by n processes as 1/n in each, so that the sum over all PostgreSQL
backends counts shared_buffers once; a sum of RSS would count it sixty times. Linux only.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")


def pss_bytes(pids: Iterable[int]) -> int:
    """The PSS of these processes and of everything that descends from them. A process that is gone counts nothing."""
    return sum(_pss_bytes_of(pid) for pid in family(pids))


def family(pids: Iterable[int]) -> set[int]:
    """These processes and everything that descends from them."""
    children = defaultdict(list)
    for pid, parent in _parents():
        children[parent].append(pid)
    found: set[int] = set()
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children[pid])
    return found


def _parents() -> Iterable[tuple[int, int]]:
    for folder in _PROC.iterdir():
        if folder.name.isdecimal():
            try:
                stat = (folder / "stat").read_text()
            except OSError:
                continue  # it ended while we looked
            # "pid (name) state ppid …": the name may itself hold spaces and brackets.
            yield int(folder.name), int(stat.rpartition(")")[2].split()[1])


def _pss_bytes_of(pid: int) -> int:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
