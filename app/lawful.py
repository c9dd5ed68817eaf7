"""`countroom rules …`: what the law asks for, as the program knows it."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter

if TYPE_CHECKING:
    from queries import rules as law

rules = cyclopts.App(name="rules", help="What the law asks for, as policies/rules.csv tells it.")


@rules.command
def show(
    *,
    jurisdiction: Annotated[str, Parameter(help="ISO 3166-1 alpha-2, or 3166-2 for a part of a country: GB, US-PA.")],
    at: Annotated[date | None, Parameter(help="On this day (UTC); by default today.")] = None,
    json: Annotated[bool, Parameter(help="End with one JSON object on standard output.", negative="")] = False,
) -> None:
    """The rules of a jurisdiction on a day: value, source, whether they were read in a law, and who applies them. 1 if nobody has
    looked there.
    """
    import msgspec
    from rich.console import Console

    from queries import rules as law

    try:
        found = law.show(jurisdiction, at or datetime.now(UTC).date())
    except law.UnknownJurisdiction as unknown:
        sys.stderr.write(f"countroom: {unknown.title}; known are {', '.join(map(str, unknown.facts['known']))}\n")  # type: ignore[call-overload]
        sys.exit(1)
    if json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return
    out = Console(soft_wrap=True, highlight=False)
    out.print(
        f"{found.jurisdiction} on {found.at}, {len(found.items)} rules (table {found.digest[:12]})\n", markup=False
    )
    for rule in found.items:
        out.print("\n".join(_lines(rule)), markup=False)


def _lines(rule: law.Rule) -> list[str]:
    marks = []
    if not rule.in_force:
        marks.append(f"from {rule.effective_from}, not in force yet")
    if not rule.verified:
        marks.append("UNVERIFIED: not read in a law or at an authority")
    if rule.applied is None:
        marks.append("NOT APPLIED by the engine")
    where = [f"  applied in {rule.applied}" + (f": {rule.how}" if rule.how else "")] if rule.applied else []
    return [
        f"{rule.rule} = {rule.value} {rule.unit} ({rule.jurisdiction})" + (f"  [{'; '.join(marks)}]" if marks else ""),
        *where,
        f"  {rule.source}",
    ]
