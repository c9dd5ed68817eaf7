"""
The command `countroom`.

Exit status: 0 done, 1 the answer is no (not intact, refused), 2 it could not be done. `--json` ends with one JSON object on
standard output; progress goes to standard error.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import cyclopts
import msgspec
from cyclopts import Parameter

from app.access import access
from app.lawful import rules
from app.notices import notices
from app.operators import operators
from app.redacting import redact
from app.region import region
from app.settings import SettingsError
from app.vault import vault

DATA = Path(".data")
PORT_BASE = 8100
_Names = Annotated[str, Parameter(help="Names of the regions, separated by commas.")]
_Data = Annotated[Path, Parameter(help="Folder of all data, kept between runs.")]
_Base = Annotated[
    int, Parameter(help="The API of region i listens on this port + 100·i, its servers on the next four.")
]
_Json = Annotated[bool, Parameter(help="End with one JSON object on standard output.", negative="")]
_Token = Annotated[str | None, Parameter(help="Bearer token; else the environment's COUNTROOM_TOKEN.")]

app = cyclopts.App(
    name="countroom",
    help="The back office of an online casino, on a ledger that its regulator can check.",
    version="0.1.0",
    help_format="plaintext",
)
projections = cyclopts.App(name="projections", help="Read models: list them, rebuild one.")
app.command(projections)
app.command(region)
app.command(notices)
app.command(access)
app.command(rules)
app.command(operators)
app.command(vault)


class Failed(Exception):
    """Something that the caller can understand went wrong; exit status 2."""


def main() -> None:
    log_to_standard_error()
    try:
        app()
    except (Failed, SettingsError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        sys.exit(130)


def log_to_standard_error() -> None:
    """Standard output belongs to answers. A service that runs says more (app.workers)."""
    import logging

    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            redact,
            structlog.processors.KeyValueRenderer(key_order=["level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"countroom: {message}\n")
    sys.exit(2)


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


@app.command
def up(*, regions: _Names = "eu,us", data: _Data = DATA, port_base: _Base = PORT_BASE) -> None:
    """Run whole regions on this machine until Ctrl-C; print their addresses and development tokens."""
    from app import showing

    with _local(data, regions, port_base) as local:
        showing.addresses(local)
        local.stack.run_until_stopped()


@app.command
def demo(
    *,
    regions: _Names = "eu,us",
    data: Annotated[
        Path | None, Parameter(help="Empty folder for the data; by default a fresh one, removed at the end.")
    ] = None,
    port_base: Annotated[int | None, Parameter(help="As for up; by default the first that is free.")] = None,
    keep: Annotated[bool, Parameter(help="Leave everything running, until Ctrl-C.", negative="")] = False,
    json: _Json = False,
) -> None:
    """Two fresh regions, real purchases, one proof: import in one region, read in both, verify, tamper, verify."""
    from app import demo as demonstration

    result = _understood(lambda: demonstration.run(regions.split(","), data, port_base, keep=keep, quiet=json))
    if json:
        _print_json(result)


@app.command
def status(*, data: _Data = DATA, json: _Json = False) -> None:
    """What runs in a data folder: processes, logs and positions; 1 if nothing does, or the replication of a log has halted."""
    from app import showing
    from app.status import halted
    from app.status import status as look

    found = _understood(lambda: look(data))
    if json:
        _print_json(found)
    else:
        showing.print_status(found)
    if not found["regions"] or halted(found):
        sys.exit(1)


@app.command
def serve(
    *roles: Annotated[
        str, Parameter(help="api, projector, reactor, relay, applier, checkpointer, witness, custodian, or all.")
    ],
) -> None:
    """Play roles of one region, as the environment's COUNTROOM_… settings say."""
    from app import settings, workers

    chosen = workers.ROLES if roles in {(), ("all",)} else roles
    unknown = [role for role in chosen if role not in workers.ROLES]
    if unknown:
        _fail(f"no role is called {', '.join(unknown)}; there are {', '.join(workers.ROLES)}")
    told = settings.from_environment()
    if {"api", "reactor"} & set(chosen):
        from providers import known

        _understood(lambda: known.load(told.providers))
    workers.run(told, chosen)


@app.command
def migrate() -> None:
    """Bring the database of one region up to date and open its log, as the environment's settings say."""
    import asyncio

    from app import bootstrap, settings

    asyncio.run(bootstrap.open_region(settings.from_environment()))


@app.command(name="import")
def import_(
    what: Annotated[str, Parameter(help="The kind of file: cdnow, or players.")],
    file: Annotated[
        str, Parameter(help="A file; for cdnow also `sample` or `master`, which come with a public package.")
    ],
    *,
    dry_run: Annotated[
        bool, Parameter(help="players: tell what each row would come to; record nothing.", negative="")
    ] = False,
    url: Annotated[str, Parameter(help="The region's API.")] = f"http://127.0.0.1:{PORT_BASE}",
    token: _Token = None,
    json: _Json = False,
) -> None:
    """Turn a purchase history into players and settled deposits, or a table into players; safe to repeat. 1: rows were refused."""
    import asyncio

    from app import cdnow, report

    if what == "players":
        _import_players(Path(file), url, _token(token, "importer"), dry_run=dry_run, json=json)
    if what != "cdnow" or dry_run:
        _fail(f"cannot import {what}; only cdnow and players, and only players can be tried with --dry-run")
    path = _understood(lambda: cdnow.locate(file))
    show = report.Report(quiet=json)
    bearer = _token(token, "importer")
    imported = _understood(lambda: asyncio.run(cdnow.import_cdnow(path, url, bearer, progress=show.progress())))
    if json:
        _print_json(imported)
    else:
        show.imported(imported)


def _import_players(file: Path, url: str, bearer: str, *, dry_run: bool, json: bool) -> NoReturn:
    import asyncio

    from app import importing, report

    progress = report.Report(quiet=json).progress()
    imported = importing.import_players(file, url, bearer, dry_run=dry_run, progress=progress)
    done = _understood(lambda: asyncio.run(imported))
    if json:
        _print_json(done)
    else:
        sys.stdout.write(importing.in_words(done) + "\n")
    sys.exit(done.status)


@app.command
def reconcile(
    file: Annotated[Path, Parameter(help="The provider's statement, as CSV: docs/reference/cli.md names its columns.")],
    *,
    provider: Annotated[str, Parameter(help="Whose statement it is.")],
    first: Annotated[str | None, Parameter(name="--from", help="What was settled then or later (RFC 3339).")] = None,
    last: Annotated[str | None, Parameter(name="--to", help="What was settled before (RFC 3339).")] = None,
    url: Annotated[str, Parameter(help="The region's API.")] = f"http://127.0.0.1:{PORT_BASE}",
    token: _Token = None,
    json: _Json = False,
) -> None:
    """A provider's statement against the ledger: 0 all matches, 1 something differs, 2 could not compare. Changes nothing."""
    from app import reconciling

    def compared() -> reconciling.Reconciled:
        period = reconciling.Period.of(first, last)
        return reconciling.run(file, provider, url, _token(token, "payments"), period)

    result = _understood(compared)
    if json:
        _print_json(result)
    else:
        sys.stdout.write(reconciling.in_words(result) + "\n")
    sys.exit(result.status)


@app.command
def verify(
    *targets: Annotated[
        str,
        Parameter(help="URLs of regions or of logs in tiles, DSNs of databases, directories of tiles; or: proof FILE."),
    ],
    trust: Annotated[
        Path | None, Parameter(help="A policy (C2SP tlog-policy): the keys of logs and witnesses to be believed.")
    ] = None,
    known: Annotated[
        list[Path] | None,
        Parameter(help="A signed head known from elsewhere (a witness's record): its log must still begin with it."),
    ] = None,
    token: _Token = None,
    log: Annotated[str | None, Parameter(help="Only this log.")] = None,
    merkle_only: Annotated[
        bool,
        Parameter(help="Entries are opaque, as in other people's logs: tiles, tree and signatures only.", negative=""),
    ] = False,
    workers: Annotated[int, Parameter(help="Processes to read with; 0: one for each core.")] = 0,
    entry: Annotated[Path | None, Parameter(help="With proof: the entry, exactly as it was hashed.")] = None,
    leaf: Annotated[str | None, Parameter(help="With proof: the leaf of the entry, in hex.")] = None,
    json: _Json = False,
) -> None:
    """Recompute chain, tree and heads from the stored bytes: 0 intact, 1 not intact, 2 could not check.

    With --trust every signature is verified, and the entries are counted that no witness has signed yet. On a database also
    index columns, snapshots and tiles are compared with the entries. Copies of a log are compared with one another.
    `verify proof FILE` checks a C2SP tlog-proof, without any connection.
    """
    from app import checking
    from verifier.faults import CouldNotCheck

    if not targets:
        _fail("name the URL of a region, the DSN of its database, or a directory of tiles")
    result: Any
    try:
        if targets[0] == "proof":
            result = checking.prove(targets[1:], trust, entry, leaf)
        else:
            bearer = _token(token, "auditor", needed=False)
            how = checking.how(trust, known or [], merkle_only=merkle_only, workers=workers)
            result = checking.verify(targets, bearer, log, checking.say_progress, how)
    except CouldNotCheck as error:
        _fail(str(error))
    if json:
        _print_json(result.to_json())
    else:
        sys.stdout.write(result.to_text() + "\n")
    sys.exit(result.status)


@app.command
def replay(
    *targets: Annotated[
        str, Parameter(help="URL of a region, DSN of a database, directory of tiles, or export; or: figure URL.")
    ],
    player: Annotated[
        str | None, Parameter(help="A player's account and all that happened; else the dashboard.")
    ] = None,
    at: Annotated[str | None, Parameter(help="As of a position (eu/1234) or a time (RFC 3339).")] = None,
    known_to: Annotated[
        str | None, Parameter(help="With a time: as this region knew it then, as its signatures prove.")
    ] = None,
    diff: Annotated[
        str | None, Parameter(help="What changed since this position or time, and by which events.")
    ] = None,
    follow: Annotated[bool, Parameter(help="Go on with new entries, until Ctrl-C.", negative="")] = False,
    html: Annotated[
        Path | None, Parameter(help="Write the player's timeline into this file, which stands alone.")
    ] = None,
    identity: Annotated[
        Path | None, Parameter(help="Your age identity: opens what was disclosed with an export.")
    ] = None,
    compare: Annotated[
        str | None, Parameter(help="A region's URL: do its live read models follow from these logs?")
    ] = None,
    trust: Annotated[Path | None, Parameter(help="As for verify.")] = None,
    token: _Token = None,
    json: _Json = False,
) -> None:
    """Rebuild state from logs that are verified first: 0 done or equal, 1 not intact or different, 2 could not.

    A player's account, or the dashboard, as of any moment; the difference between two; whatever happens next.
    `--compare URL` makes a region's read models again and compares them; `figure URL` makes one answer again (a dashboard, a
    trial balance or a segment) at the positions that it names.
    """
    from app.replaying import command

    what = [name for name in targets if name != "figure"]
    if len(what) != 1:
        _fail("name one target: a region, a database, a directory of tiles or an export; or: figure URL")
    bearer = _token(token, "auditor", needed=False)
    asked = command.Asked(
        what[0], bearer, trust, player, at, known_to, diff, html, identity, follow=follow, json=json
    )  # fmt: skip
    if len(targets) > 1:
        work = partial(command.figure, what[0], bearer, trust, json=json)
    elif compare is not None:
        work = partial(command.compare, what[0], compare, bearer, trust, json=json)
    else:
        work = partial(command.replay, asked)
    sys.exit(_understood(lambda: command.run(work)))


@app.command
def export(
    target: Annotated[str, Parameter(help="The URL of a region, or the DSN of its database.")],
    out: Annotated[
        Path, Parameter(help="A new directory; one that was begun with the same arguments is gone on with.")
    ],
    *,
    log: Annotated[str | None, Parameter(help="Only this log; by default all that are held there.")] = None,
    player: Annotated[str | None, Parameter(help="Only what concerns this player, with proofs.")] = None,
    jurisdiction: Annotated[str | None, Parameter(help="Only players who registered in this country, e.g. GB.")] = None,
    types: Annotated[
        list[str] | None, Parameter(name="--type", help="Only events of this type, e.g. wallet.*; may be repeated.")
    ] = None,
    first: Annotated[
        str | None, Parameter(name="--from", help="From a position, e.g. eu/17, or a time (RFC 3339).")
    ] = None,
    last: Annotated[str | None, Parameter(name="--to", help="Up to a position or a time, included.")] = None,
    disclose_to: Annotated[
        str | None, Parameter(help="Add the players' data keys, encrypted to this age key. It is recorded.")
    ] = None,
    reason: Annotated[str | None, Parameter(help="Why keys are disclosed, a word: order-17-26.")] = None,
    trust: Annotated[Path | None, Parameter(help="The policy to enclose; else that of COUNTROOM_POLICY.")] = None,
    token: _Token = None,
    json: _Json = False,
) -> None:
    """A directory that a regulator can check without us: whole logs, a range of one, or chosen entries with proofs.

    Nothing is exported beyond the newest published head. Exit status 1: what is kept does not lead to that head.
    """
    from app.exporting import command
    from app.exporting.plan import Asked

    asked = Asked(
        target=target,
        log=log,
        player=player,
        jurisdiction=jurisdiction,
        types=tuple(types or ()),
        first=first,
        last=last,
        disclose_to=disclose_to,
        reason=reason,
    )
    role = "auditor" if disclose_to is None else "compliance"
    sys.exit(command.run(asked, out, _token(token, role, needed=False), trust, json=json))


@projections.command(name="list")
def list_projections() -> None:
    """The names of all read models."""
    from projections.catalog import NAMES

    sys.stdout.write("\n".join(NAMES) + "\n")


@projections.command
def rebuild(
    name: str,
    *,
    region: Annotated[str, Parameter(help="Which of the regions in the data folder.")] = "eu",
    data: _Data = DATA,
    json: _Json = False,
) -> None:
    """Rebuild a read model beside the live one, then swap."""
    from app import showing

    result = _understood(lambda: showing.rebuild(name, region, data, quiet=json))
    if json:
        _print_json(result)
    else:
        sys.stdout.write(f"{name} of {region} was rebuilt and swapped in\n")


@app.command
def token(
    actor: Annotated[str, Parameter(help="Who it speaks for, e.g. operator:ann.")],
    *roles: Annotated[str, Parameter(help="viewer, operator, payments, importer, auditor, compliance.")],
    data: _Data = DATA,
) -> None:
    """Add a bearer token to a data folder and print it once; services know it after their next start."""
    from access import tokens as access_tokens
    from app.local import write_private

    file = data / "tokens.json"
    if not file.exists():
        _fail(f"{data} holds no regions yet; run `countroom up` first")
    made = access_tokens.new_token()
    try:
        record = access_tokens.record(made, actor, roles)
    except ValueError as error:
        _fail(str(error))
    known = msgspec.json.decode(file.read_bytes(), type=list[access_tokens.TokenRecord])
    write_private(file, msgspec.json.encode([*known, record]).decode())
    sys.stdout.write(made + "\n")


def _local(data: Path, regions: str, port_base: int) -> Any:
    from app import local

    return _Understood(local.running(data, regions.split(","), port_base))


class _Understood:
    """A context whose errors of the environment become messages."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __enter__(self) -> Any:
        return _understood(self._context.__enter__)

    def __exit__(self, *error: object) -> Any:
        return self._context.__exit__(*error)


def _understood(work: Any) -> Any:
    """Run `work`; what a caller can mend is told in one sentence instead of a trace."""
    from app.expected import expected_errors

    try:
        return work()
    except expected_errors() as error:
        raise Failed(str(error)) from error


def _token(given: str | None, role: str, *, needed: bool = True) -> str:
    from app import settings
    from app.status import dev_token

    found = given or settings.client_token() or dev_token(DATA, role)
    if found is None and needed:
        _fail("a bearer token is needed: --token or COUNTROOM_TOKEN")
    return found or ""
