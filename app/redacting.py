"""
What no process ever writes into its own log: secrets and addresses of people, whoever hands them to the logger.

Invariants:
    - a value under a name that says it is secret is not written, whatever it is;
    - a text with the shape of one of our secrets is written without it, also within an exception or another library's message.

This is the last net, not the rule: nothing of ours hands a secret to a logger. What it hides it marks, so that the place is found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

HIDDEN = "[hidden]"

_NAMES = re.compile(
    r"(?i)(^|_)(authorization|cookie|csrf|invitation|otp|pass|passwd|password|pepper|pgpassword|private_key|secret|seed|token)s?$"
)
_SHAPES = re.compile(
    r"""
      (?:\b|(?<=%[0-9A-Fa-f]{2}))cr[ti]?_[A-Za-z0-9_-]{20,}         # tokens of our own, of the file or issued, and invitations
    | (?<![\w-])(?=[\w-]*[A-Z])(?=[\w-]*[a-z])(?=[\w-]*\d)[A-Za-z0-9_-]{43}(?![\w-])  # 32 random bytes: sessions and the like
    | (?i:\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/-]{8,}=*             # of anybody's
    | (?i:__Host-[a-z0-9_-]+=)[^;\s"']+                             # cookies
    | \bS[AOUCNX][A-Z2-7]{56}\b                                     # seeds of nkeys
    | \bAGE-SECRET-KEY-1[0-9A-Z]+
    | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?  # JWTs
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----(?s:.*?)(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    | \$argon2(?:id|i|d)\$[^\s"']+
    | \botpauth://[^\s"']+
    | (?<=://)[^/\s:@"']*:[^/\s@"']+(?=@)                           # user and password in a URL
    | (?i:\b(?:password|passwd|pgpassword|client_secret|code_verifier)["']?\s*[=:]\s*)(?:'[^']*'|"[^"]*"|[^\s,;&}"']+)
    | \b[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b  # people's addresses
    """,
    re.VERBOSE,
)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor, for right before the renderer."""
    for name, value in event.items():
        event[name] = HIDDEN if _NAMES.search(name) and value else hidden(value)
    return event


def hidden(value: Any) -> Any:
    """The value without secrets: texts, and texts within lists and objects; anything else by what it looks like."""
    match value:
        case str():
            return _SHAPES.sub(HIDDEN, value)
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {name: HIDDEN if _NAMES.search(str(name)) else hidden(each) for name, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [hidden(each) for each in value]
        case bytes():
            return _SHAPES.sub(HIDDEN, value.decode("latin-1"))
        case _:
            return _SHAPES.sub(HIDDEN, repr(value))
