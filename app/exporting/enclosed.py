"""
What lies beside the logs of an export: how to read it, with what to check it, what each event means, and the sums.

Invariant: everything but the sums is written before them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from app.exporting.plan import UNFINISHED, Pinned, Plan
from app.exporting.schemas import schema_of
from verifier.export import FORMAT, MANIFEST, POLICY, SUMS, Kind, files_in, sums_of

HERE = Path(__file__).parent


def write(out: Path, plan: Plan, logs: Sequence[Pinned], tags: Sequence[str]) -> None:
    """All of it, the sums last; then the plan goes. Raises OSError."""
    for log in plan.logs:
        if log not in logs:
            shutil.rmtree(out / log.name, ignore_errors=True)
    for tag in tags:
        write_file(out / "events" / f"{tag}.json", _json(schema_of(tag)))
    write_file(out / "check.py", (HERE / "check.py").read_bytes())
    write_file(out / "HOWTO.txt", _howto(plan, logs).encode())
    if plan.asked.trust is not None:
        write_file(out / POLICY, plan.asked.trust.encode())
    manifest = {
        "format": FORMAT,
        "made_at": plan.made_at,
        "program": f"countroom {metadata.version('countroom')}",
        "selection": _selection(plan),
        "logs": logs_of(plan, logs),
    }
    write_file(out / MANIFEST, _json(manifest))
    for left in out.rglob("*.part"):  # of a run that was killed
        left.unlink()
    names = set(files_in(out)) - {SUMS, UNFINISHED}
    write_file(out / SUMS, sums_of(out, names))
    (out / UNFINISHED).unlink()


def clear(out: Path) -> None:
    """Leave the directory as empty as it was."""
    for each in out.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()


def logs_of(plan: Plan, logs: Sequence[Pinned]) -> dict[str, Any]:
    """What the manifest says of each log."""
    shown = {}
    for log in logs:
        done = plan.done[log.name]
        shown[log.name] = {
            "origin": log.origin,
            "kind": log.kind,
            "size": log.size,
            "first": log.first,
            "last": log.last,
            "entries": done.entries,
            **({"streams": done.streams} if log.kind == Kind.SELECTION and not plan.asked.types else {}),
        }
    return shown


def write_file(file: Path, data: bytes) -> None:
    """In one step, so that whoever goes on never finds half of it. Raises OSError."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
    part.replace(file)


def _selection(plan: Plan) -> dict[str, Any] | None:
    asked = plan.asked
    if not (asked.chooses or asked.first or asked.last):
        return None
    return {
        "player": asked.player,
        "jurisdiction": asked.jurisdiction,
        "types": list(asked.types),
        "from": asked.first,
        "to": asked.last,
    }


def _howto(plan: Plan, logs: Sequence[Pinned]) -> str:
    """The text for an auditor, as this export needs it."""
    text = (HERE / "howto.txt").read_text()
    what = [f"    {log.name:<12}{_what(plan, log)}" for log in logs]
    trust = "trust.policy" if plan.asked.trust is not None else "(no trust.policy came with this export)"
    return text.replace("{logs}", "\n".join(what)).replace("{trust}", trust).replace("{made_at}", plan.made_at)


def _what(plan: Plan, log: Pinned) -> str:
    entries = plan.done[log.name].entries
    if log.kind == Kind.WHOLE:
        return f"the whole log {log.origin}, {entries:,} entries"
    if log.kind == Kind.RANGE:
        return f"positions {log.first:,} to {log.last:,} of the log {log.origin}, which had {log.size:,}"
    return f"{entries:,} entries chosen from positions {log.first:,} to {log.last:,} of the log {log.origin}"


def _json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
