"""`countroom access`: are the policies sound, and why may somebody do something, or not."""

from __future__ import annotations

import json as json_
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from cyclopts import App, Parameter

access = App(name="access", help="Who may do what: check the policies, explain a decision.")


@access.command
def check(
    folder: Annotated[Path | None, Parameter(help="Policies and schema; by default those of this release.")] = None,
    /,
    *,
    json: Annotated[bool, Parameter(help="End with one JSON object on standard output.", negative="")] = False,
) -> None:
    """Hold the policies against their schema, and print their hash: what is proposed and adopted. Exits 1 if something is wrong."""
    from access import cedar, files

    try:
        read = files.read(folder) if folder else files.read()
        found, hash_ = files.faults(read), read.digest
        if not found:
            cedar.Policies(read)
    except (OSError, ValueError) as error:
        found, hash_ = str(error).splitlines(), ""
    if json:
        sys.stdout.write(json_.dumps({"hash": hash_, "faults": found}) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in found) or f"sound: {hash_}\n")
    sys.exit(1 if found else 0)


@access.command
def roles() -> None:
    """What each role is granted, as a table in Markdown: x whatever it is about, c under a condition."""
    sys.stdout.write(table())


def table() -> str:
    """As docs/reference/access.md shows it: two tables, of people and of programs."""
    from access import files

    found = files.grants(files.read().text)
    actions = sorted({action for grant in found for action in grant.actions})
    programs = ("aggregator", "importer")
    people = list(dict.fromkeys(grant.name for grant in found if grant.kind == "Role" and grant.name not in programs))
    services = list(dict.fromkeys(grant.name for grant in found if grant.kind == "Service"))

    def mark(role: str, action: str) -> str:
        of = [grant for grant in found if grant.name == role and action in grant.actions]
        return "x" if any(not grant.conditional for grant in of) else "c" if of else ""

    def lines(names: list[str]) -> list[str]:
        rows = [[f"`{action}`", *(mark(name, action) for name in names)] for action in actions]
        shown = [row for row in rows if any(row[1:])]
        return [f"| {' | '.join(row)} |" for row in (["action", *names], ["---"] * (len(names) + 1), *shown)]

    return "\n".join([*lines(people), "", *lines([*programs, *services])]) + "\n"


@access.command
def explain(
    *,
    actor: Annotated[str, Parameter(help="Who, as in events: operator:ann.")],
    action: Annotated[str, Parameter(help="What: ticket.work.")],
    player: Annotated[str | None, Parameter(help="To which player, whom the token may read of.")] = None,
    brand: Annotated[str | None, Parameter(help="Or to players of which brand.")] = None,
    country: Annotated[str | None, Parameter(help="And of which country.")] = None,
    amount: Annotated[int | None, Parameter(help="Of how much, in minor units.")] = None,
    currency: Annotated[str | None, Parameter(help="Of which currency.")] = None,
    assignee: Annotated[str | None, Parameter(help="To whom the ticket or notice was given.")] = None,
    at: Annotated[str | None, Parameter(help="When (RFC 3339); by default now.")] = None,
    url: Annotated[str, Parameter(help="The region's API.")] = "http://127.0.0.1:8100",
    token: Annotated[str | None, Parameter(help="Bearer token; else the environment's COUNTROOM_TOKEN.")] = None,
    json: Annotated[bool, Parameter(help="End with one JSON object on standard output.", negative="")] = False,
) -> None:
    """Why somebody may do something, or may not: the policies that decide, and their reasons. Exits 0 if they may, 1 if not."""
    asked = {
        "actor": actor,
        "action": action,
        "player": player,
        "brand": brand,
        "country": country,
        "amount": amount,
        "currency": currency,
        "assignee": assignee,
        "at": at,
    }
    found = _ask(url, token, {name: value for name, value in asked.items() if value is not None})
    sys.stdout.write(json_.dumps(found) + "\n" if json else in_words(found))
    sys.exit(0 if found["allowed"] else 1)


def in_words(found: dict[str, Any]) -> str:
    """An explanation, for a terminal."""
    verb = "may" if found["allowed"] else "may not"
    lines = [f"{found['actor']} {verb} {found['action']}", f"  roles: {', '.join(found['roles']) or 'none'}"]
    known = ", ".join(f"{name} {value}" for name, value in sorted(found["attributes"].items()))
    lines.append(f"  about: {known or 'nothing in particular'}")
    lines += [f"  decided by {each['id']}: {each['reason']}" for each in found["policies"]]
    lines += [
        f"  would be granted by {each['id']}, whose conditions do not hold: {each['reason']}" for each in found["unmet"]
    ]
    if not found["policies"] and not found["unmet"]:
        lines.append("  no policy of these roles grants it")
    return "".join(f"{line}\n" for line in [*lines, f"  policies: {found['hash']}"])


def _ask(url: str, token: str | None, asked: dict[str, Any]) -> dict[str, Any]:
    import httpx2

    from app import settings
    from app.status import dev_token

    bearer = token or settings.client_token() or dev_token(Path(".data"), "compliance") or ""
    try:
        answer = httpx2.get(
            f"{url}/v1/access/explain?{urlencode(asked)}", headers={"Authorization": f"Bearer {bearer}"}, timeout=30
        )
        found: dict[str, Any] = answer.json()
    except (httpx2.HTTPError, ValueError) as error:
        sys.stderr.write(f"{url} does not answer: {error}\n")
        sys.exit(2)
    if answer.status_code != httpx2.codes.OK:
        sys.stderr.write(f"{found.get('code', answer.status_code)}: {found.get('detail', '')}\n")
        sys.exit(2)
    return found
