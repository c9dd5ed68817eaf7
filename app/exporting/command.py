"""`countroom export` as it is called: what it says, and with which exit status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from app import checking, settings
from app.exporting.plan import Asked
from app.exporting.run import export
from app.exporting.stopped import ExportStopped, NotIntact
from verifier.faults import CouldNotCheck
from verifier.parallel import cores

DONE, NOT_INTACT, NOT_DONE = 0, 1, 2


def run(asked: Asked, out: Path, token: str, trust: Path | None, *, json: bool) -> int:
    """Make an export, and say what is in it. The answer is the exit status."""
    try:
        asked = msgspec.structs.replace(asked, trust=_policy(trust))
        made = export(asked, out, token, checking.say_progress, cores())
    except NotIntact as error:
        sys.stderr.write(f"countroom: NOT INTACT, and not exported: {error}\n")
        return NOT_INTACT
    except (ExportStopped, CouldNotCheck) as error:
        sys.stderr.write(f"countroom: not exported: {error}\n")
        return NOT_DONE
    sys.stdout.write(msgspec.json.encode(made).decode() + "\n" if json else _in_words(made))
    return DONE


def _policy(trust: Path | None) -> str | None:
    """The policy to enclose: the one given, else the region's own. Raises ExportStopped."""
    file = trust or settings.policy_file()
    if file is None:
        return None
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ExportStopped(f"the policy {file} cannot be read: {error}") from None


def _in_words(made: dict[str, Any]) -> str:
    lines = []
    for name, log in made["logs"].items():
        part = "" if log["kind"] == "whole" else f", {log['kind']} of positions {log['first']:,} to {log['last']:,}"
        beyond = made["beyond"][name]
        lines.append(
            f"{name}  {log['entries']:,} entries{part}, proved by the head of {log['size']:,}"
            + (f"; {beyond:,} entries behind it are not exported" if beyond else "")
        )
    lines += [f"{name}  not exported: {why}" for name, why in made["skipped"].items()]
    if not made["trust"]:
        lines.append("no keys are enclosed: no --trust was given, and there is no COUNTROOM_POLICY")
    lines += [f"{name} holds data keys, encrypted" for name in made["keys"]]
    return "\n".join([*lines, f"check it with: countroom-verifier verify {made['export']} --trust POLICY"]) + "\n"
