"""
Who sent which command: ids that make a retry harmless, and fingerprints that tell a retry from a mistake.

    h           = SHA-256(u32 big-endian len(caller) ‖ caller ‖ key)
    command id  = h[0:16]; where key is lower-case canonical UUIDv7 text, its first 6 bytes ‖ h[0:10]
    fingerprint = HMAC-SHA-256(key, method ‖ LF ‖ path?query ‖ LF ‖ body)[0:16]

Invariants:
    - the same caller with the same key is the same command for ever, in every region;
    - nothing personal is in a fingerprint, but in one that the person's own data key has keyed: whoever has the key that all
      regions share could try birth dates and telephone numbers otherwise, also after an erasure.
"""

from __future__ import annotations

import hmac
import re
import struct
from collections.abc import Sequence
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from domain.kernel import personal_fields

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_U32 = struct.Struct(">I")


def command_id(caller: str, key: str) -> bytes:
    """The 16 bytes of a command's id. A UUIDv7 as key keeps its time, so that the index grows at its end."""
    digest = sha256(_prefix(caller) + key.encode()).digest()
    if _UUID7.fullmatch(key):
        return bytes.fromhex(key[:8] + key[9:13]) + digest[:10]
    return digest[:16]


@lru_cache(1000)
def _prefix(caller: str) -> bytes:
    name = caller.encode()
    return _U32.pack(len(name)) + name


def fingerprint(secret: bytes, method: str, target: str, body: bytes) -> str:
    """What was asked, in 32 hex digits. `target`: path and, if there is one, `?query`."""
    return hmac.digest(secret, f"{method}\n{target}\n".encode() + body, "sha256")[:16].hex()


class Prints(NamedTuple):
    """`fingerprint`: of what was asked but for what is personal in it. `whole`: of all, where something is; it is never stored."""

    fingerprint: str
    whole: str | None = None


def prints(secret: bytes, method: str, target: str, body: bytes, kind: type[msgspec.Struct]) -> Prints:
    """Of a request whose body was read as a `kind`: a member that it marks as personal stands in `whole` only."""
    paths = _personal(kind)
    if not paths:
        return Prints(fingerprint(secret, method, target, body))
    said = msgspec.json.decode(body or b"{}")
    taken = [_take(said, path) for path in paths]
    if not any(taken):
        return Prints(fingerprint(secret, method, target, body))
    rest = msgspec.json.encode(said, order="sorted")
    return Prints(fingerprint(secret, method, target, rest), fingerprint(secret, method, target, body))


@cache
def _personal(kind: type[msgspec.Struct]) -> Sequence[Sequence[str]]:
    return [path.split(".") for path in personal_fields(kind)]


def _take(said: Any, path: Sequence[str]) -> bool:
    """Take the member out; whether it was there."""
    for name in path[:-1]:
        said = said.get(name) if isinstance(said, dict) else None
    return isinstance(said, dict) and bool(said.pop(path[-1], None))


def partition_for(command: bytes, group: Sequence[int]) -> int:
    """The partition of what `command` makes: one of `group`, always the same, so that a retry meets the same owner."""
    return group[int.from_bytes(sha256(command).digest()[:8], "big") % len(group)]
