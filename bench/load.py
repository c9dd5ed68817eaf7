"""
Load: requests that were made before the clock started, sent one at a time on each of some connections by another process.

That process is `wrk` (of Debian's package of that name) where there is one, and else this module:

    python -m bench.load HOST PORT FILE SECONDS CONNECTIONS

FILE: each request as its length in 8 digits and its bytes of HTTP/1.1. On standard output: one JSON object {"done", "seconds", "p50_ms",
"p99_ms", "failed"}. They go to connections in turn, and none is sent twice.
"""

from __future__ import annotations

import gc
import json
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_END = b"\r\n\r\n"
_LENGTH = b"content-length: "
_OK = (b"200", b"201")
_DIGITS = 8
_SCRIPT = Path(__file__).with_name("wrk.lua")
_CHECKOUT = Path(__file__).parent.parent


class _Connection:
    __slots__ = ("answer", "asked", "requests", "socket")

    def __init__(self, address: tuple[str, int], requests: Sequence[bytes]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.requests = iter(requests)
        self.answer = b""
        self.asked = 0.0

    def ask(self) -> bool:
        """Send the next one, if there is any."""
        request = next(self.requests, None)
        if request is None:
            return False
        self.answer = b""
        self.asked = time.perf_counter()
        self.socket.sendall(request)
        return True

    def hear(self) -> bool:
        """Whether all of the answer is here. Raises RuntimeError for any but a good one."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise RuntimeError("the service has hung up")
        self.answer += data
        head, end, body = self.answer.partition(_END)
        if not end:
            return False
        if len(body) < int(head.lower().partition(_LENGTH)[2].partition(b"\r\n")[0]):
            return False
        if head[9:12] not in _OK:
            raise RuntimeError(self.answer[:600].decode("utf-8", "replace"))
        return True


def run(address: tuple[str, int], requests: Sequence[bytes], seconds: float, count: int) -> dict[str, float]:
    """Send for so long on `count` connections."""
    some = [_Connection(address, requests[n::count]) for n in range(count)]
    connections = {each.socket.fileno(): each for each in some}
    poll = select.epoll()
    for number in connections:
        poll.register(number, select.EPOLLIN)
    taken: list[float] = []
    gc.disable()
    began = time.perf_counter()
    end = began + seconds
    busy = sum(each.ask() for each in some)
    while busy:
        for number, _ in poll.poll():
            connection = connections[number]
            if not connection.hear():
                continue
            now = time.perf_counter()
            taken.append(now - connection.asked)
            if now >= end or not connection.ask():
                busy -= 1
    lasted = time.perf_counter() - began
    for each in some:
        each.socket.close()
    hundredths = statistics.quantiles(taken, n=100)
    return {
        "done": len(taken),
        "seconds": lasted,
        "p50_ms": 1e3 * hundredths[49],
        "p99_ms": 1e3 * hundredths[98],
        "failed": 0,
    }


def main(host: str, port: str, file: str, seconds: str, connections: str) -> None:
    print(json.dumps(run((host, int(port)), read(Path(file)), float(seconds), int(connections))))


def read(file: Path) -> list[bytes]:
    requests, raw, place = [], file.read_bytes(), 0
    while place < len(raw):
        begins = place + _DIGITS
        place = begins + int(raw[place:begins])
        requests.append(raw[begins:place])
    return requests


# The other side of it


class Load(NamedTuple):
    per_s: float
    p50_ms: float
    p99_ms: float


def generator() -> str:
    return "wrk" if shutil.which("wrk") else "bench.load"


def send(address: tuple[str, int], requests: Sequence[bytes], seconds: float, connections: int) -> Load:
    """Send them from another process. Raises RuntimeError if one failed, or if there were too few of them."""
    host, port = address
    with tempfile.NamedTemporaryFile() as file:
        for each in requests:
            file.write(b"%08d" % len(each) + each)
        file.flush()
        if wrk := shutil.which("wrk"):
            argv = [
                wrk,
                "-t1",
                f"-c{connections}",
                f"-d{max(1, round(seconds))}s",
                "--timeout",
                "10s",
                "-s",
                str(_SCRIPT),
            ]
            argv += [f"http://{host}:{port}", "--", file.name]
        else:
            argv = [sys.executable, "-m", "bench.load", host, str(port), file.name, str(seconds), str(connections)]
        answered = subprocess.run(argv, cwd=_CHECKOUT, capture_output=True, text=True, check=False)
    if answered.returncode:
        raise RuntimeError(answered.stderr[-2_000:])
    found = json.loads(answered.stdout.strip().rpartition("\n")[2])
    if found["failed"] or found["done"] > len(requests) - connections:
        raise RuntimeError(f"{found['done']} of {len(requests)} requests were answered, and {found['failed']} failed")
    return Load(found["done"] / found["seconds"], found["p50_ms"], found["p99_ms"])


if __name__ == "__main__":
    main(*sys.argv[1:])
