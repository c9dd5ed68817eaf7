"""`countroom notices …`: what rules would have found in a time that is over."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

notices = cyclopts.App(name="notices", help="Notices: what rules would have found in a time that is over.")


@notices.command
def rerun(
    target: Annotated[
        str, Parameter(help="URL of a region, DSN of a database, directory of tiles, or export of whole logs.")
    ] = "http://127.0.0.1:8100",
    *,
    first: Annotated[str, Parameter(name="--from", help="Causes that were recorded then or later (RFC 3339).")],
    last: Annotated[str, Parameter(name="--to", help="And before this time (RFC 3339).")],
    rule: Annotated[str | None, Parameter(help="Only this rule.")] = None,
    version: Annotated[
        int | None, Parameter(help="This version, as if it had been in force all the time; else those of their days.")
    ] = None,
    rules: Annotated[
        Path | None, Parameter(help="Rules to try instead, in a file: docs/reference/notices.md shows one.")
    ] = None,
    trust: Annotated[Path | None, Parameter(help="As for verify.")] = None,
    token: Annotated[str | None, Parameter(help="Bearer token; else the environment's COUNTROOM_TOKEN.")] = None,
    json: Annotated[bool, Parameter(help="End with one JSON object on standard output.", negative="")] = False,
) -> None:
    """What rules would have found, from logs that are verified first: 0 done, 1 not intact, 2 could not. Changes nothing."""
    from app import rerunning, settings
    from app.replaying import command, showing
    from app.replaying.verified import verified
    from app.status import dev_token
    from policies.findings import Unusable
    from verifier.faults import CouldNotCheck

    bearer = token or settings.client_token() or dev_token(Path(".data"), "auditor") or ""
    asked = rerunning.Asked(first, last, rule, version, rules)

    def work() -> int:
        try:
            rerunning.refuse_nonsense(asked)
            found = rerunning.rerun(verified(target, bearer, trust), asked, sys.stderr.write)
        except (Unusable, OSError) as error:
            raise CouldNotCheck(str(error)) from None
        if json:
            showing.json(found)
        else:
            sys.stdout.write(rerunning.in_words(found))
        return command.DONE

    sys.exit(command.run(work))
