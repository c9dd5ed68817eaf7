"""
Who sent which command: ids that make a retry harmless, and fingerprints that tell a retry from a mistake.

    h           = SHA-256(u32 big-endian len(caller) ‖ caller ‖ key)
    command id  = h[0:16]; where key is lower-case canonical UUIDv7 text, its first 6 bytes ‖ h[0:10]
    fingerprint = HMAC-SHA-256(key, method ‖ LF ‖ path?query ‖ LF ‖ body)[0:16]

Invariant: the same caller with the same key is the same command for ever, in every region.
"""

from __future__ import annotations

import hmac
import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

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


def partition_for(command: bytes, group: Sequence[int]) -> int:
    """The partition of the player that `command` registers: a retry meets the same owner."""
    return group[int.from_bytes(sha256(command).digest()[:8], "big") % len(group)]
