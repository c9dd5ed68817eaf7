"""
Builds logs for the tests, from the design and the standard library alone: the verifier must not check its own homework.
"""

import json
from collections.abc import Iterable
from hashlib import md5, sha256
from typing import Any

ORIGIN = "countroom.test/eu"
BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
STARTED = 1_763_164_800_000_000

Entry = tuple[int, bytes, bytes]


def hash_leaf(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def hash_genesis(origin: str) -> bytes:
    return sha256(b"countroom/log/v1\n" + origin.encode()).digest()


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def stream(number: int, partition: int = 42, aggregate: str = "wallet") -> str:
    value = 0x019A8F00_0000_7000_8000_000000000000 | number << 8 | partition
    return f"{aggregate}-" + "".join(BASE32[value >> 5 * digit & 31] for digit in reversed(range(26)))


def event_id(number: int) -> str:
    return f"019a8f00-0001-7000-8000-{number:012x}"


def command_id(number: int) -> str:
    return md5(b"%d" % number).hexdigest()


def opening(origin: str = ORIGIN, partitions: object = None, **changes: object) -> dict[str, Any]:
    region = origin.rpartition("/")[2]
    body = {
        "stream": f"region-{region}-log",
        "version": 1,
        "type": "log.opened",
        "id": event_id(0),
        "actor": "system",
        "command": {"id": command_id(0), "i": 1, "n": 1},
        "data": {"origin": origin, "epoch": 1, "partitions": [[0, 127]] if partitions is None else partitions},
    }
    return {**body, **changes}


def event(number: int, version: int, *, of: int = 1, i: int = 1, n: int = 1, **changes: object) -> dict[str, Any]:
    """Event `number` of a log, on stream `of`; `number` also makes the command's id, so events of one share it less i."""
    body = {
        "stream": stream(of),
        "version": version,
        "type": "wallet.credited",
        "id": event_id(number),
        "partition": 42,
        "epoch": 1,
        "actor": "service:import",
        "command": {"id": command_id(number - i + 1), "fingerprint": command_id(10**6 + number), "i": i, "n": n},
        "data": {"money": {"amount": 100 * number, "currency": "EUR"}},
    }
    return {**body, **changes}


def region_event(
    number: int, version: int, kind: str = "settings", region: str = "eu", **changes: object
) -> dict[str, Any]:
    body = event(number, version, stream=f"region-{region}-{kind}", type="settings.changed")
    del body["partition"], body["epoch"]
    return {**body, **changes}


def chain(bodies: Iterable[dict[str, Any] | bytes], origin: str = ORIGIN) -> list[Entry]:
    """The log of these bodies, one µs apart."""
    entries: list[Entry] = []
    leaf = hash_genesis(origin)
    for position, body in enumerate(bodies, start=1):
        written = body if isinstance(body, bytes) else compact(body)
        entry = leaf + position.to_bytes(8, "big") + (STARTED + position).to_bytes(8, "big") + written
        leaf = hash_leaf(entry)
        entries.append((position, entry, leaf))
    return entries


def small_log(entries: int = 12) -> list[Entry]:
    """An intact log of every kind of thing that a log may hold."""
    bodies: list[dict[str, Any]] = [
        opening(),
        event(2, 1),
        event(3, 2, i=1, n=2),
        event(4, 1, of=2, i=2, n=2),
        region_event(5, 1),
        event(6, 3, trace="00-0123456789abcdef0123456789abcdef-0123456789abcdef-01", cause=event_id(2)),
        event(7, 2, of=2, claims=command_id(99), occurred="2020-02-29T23:59:60.5+01:00"),
        region_event(8, 1, kind=f"protection_{stream(1).partition('-')[2]}"),
        event(9, 3, of=2, actor="operator:Ærø", data={"note": 'é "quoted" \u2713'}),
        event(10, 4, data={"list": [1, 2], "none": None, "yes": True, "deep": [[{"a": -1}]], "empty": {}}),
    ]
    bodies += (event(number, number - 6) for number in range(11, entries + 1))
    return chain(bodies[:entries])
