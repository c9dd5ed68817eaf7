"""
Data keys for whoever shall read sealed fields: asked of a region, which records that it gave them, and to whom.

Invariant: a repeated run discloses nothing a second time: its commands have the same keys.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from app.exporting.enclosed import write_file
from app.exporting.stopped import ExportStopped

PLAYERS_MAX = 500  # in one command
TIMEOUT_S = 60


def disclose(
    url: str, token: str, suffixes: Collection[str], recipient: str, reason: str, run: str, out: Path
) -> list[str]:
    """Write keys.age, and keys-2.age and so on for more players than a command takes. Raises ExportStopped."""
    names = []
    for number, players in enumerate(_chunks(sorted(suffixes)), 1):
        command = {"recipient": recipient, "reason": reason, "players": [f"player_{each}" for each in players]}
        answer = json.loads(_ask(f"{url}/v1/disclosures", token, command, f"{run}-{number}"))
        names.append("keys.age" if number == 1 else f"keys-{number}.age")
        write_file(out / names[-1], _ask(f"{url}/v1/disclosures/{answer['disclosure']}", token))
    return names


def _chunks(suffixes: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(suffixes), PLAYERS_MAX):
        yield suffixes[start : start + PLAYERS_MAX]


def _ask(url: str, token: str, command: Any = None, key: str = "") -> bytes:
    headers = {"Authorization": f"Bearer {token}"}
    if command is not None:
        headers |= {"Content-Type": "application/json", "Idempotency-Key": key}
    data = None if command is None else json.dumps(command).encode()
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 - the user's own URL, read before
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            answer: bytes = response.read()
            return answer
    except urllib.error.HTTPError as error:
        said = error.read(500).decode(errors="replace")
        raise ExportStopped(f"keys are not disclosed: {url} answered {error.code}: {said}") from None
    except (OSError, ValueError) as error:
        raise ExportStopped(f"keys are not disclosed: {url} does not answer: {error}") from None
