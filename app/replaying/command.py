"""
`countroom replay`: from what was asked to what is printed.

Invariant: the answer is printed whole or not at all, except what is followed.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from app.replaying import accounts, comparing, disclosed, figures, showing
from app.replaying.following import Following
from app.replaying.verified import NotIntact, Verified, verified
from domain.errors import InvalidId
from eventstore.vault import DataKey
from projections.version import CODE
from queries.context import Made
from replay import timeline
from replay.account import judged
from replay.difference import Change, changes
from replay.evidence import Evidence
from replay.moment import END, Moment, NoMoment
from verifier.faults import CouldNotCheck

DONE, NO, COULD_NOT = 0, 1, 2


class Asked(NamedTuple):
    """What is wanted of the logs at `target`: a player, or without one the dashboard."""

    target: str
    token: str = ""
    trust: Path | None = None
    player: str | None = None
    at: str | None = None
    known_to: str | None = None
    diff: str | None = None
    html: Path | None = None
    identity: Path | None = None
    follow: bool = False
    json: bool = False


class Shown(msgspec.Struct, frozen=True):
    """The dashboard as of a moment; of a difference, what changed since an earlier one."""

    evidence: Evidence
    code: str
    dashboard: Any
    changes: list[Change] | None = None


def run(work: Callable[[], int]) -> int:
    """The exit status of one of the functions below; why there is no answer is told on standard error."""
    gc.disable()  # nothing that is made here is cyclic, and to look for cycles takes a third of the time
    try:
        return work()
    except NotIntact as error:
        sys.stderr.write(f"{error}\n")
        return NO
    except (CouldNotCheck, NoMoment, InvalidId) as error:
        sys.stderr.write(f"countroom: {error}\n")
        return COULD_NOT
    finally:
        gc.enable()


def replay(asked: Asked) -> int:
    """Print what was asked for. Raises CouldNotCheck, NoMoment, InvalidId, NotIntact."""
    _refuse_nonsense(asked)
    logs = verified(asked.target, asked.token, asked.trust)
    moment = _moment(asked, logs)
    since = logs.moment(asked.diff) if asked.diff else None
    reading = accounts.read(logs, asked.player, moment, since) if asked.player else None
    if reading is None:
        shown = _dashboard(logs, moment, since)
        if asked.json:
            showing.json(shown)
        else:
            showing.dashboard(shown.evidence, shown.dashboard, shown.changes)
    else:
        found = accounts.replayed(logs, reading, moment, since, _keys(asked))
        if asked.html:
            asked.html.write_text(found.to_html(), encoding="utf-8")
            sys.stderr.write(f"written: {asked.html}\n")
        if asked.json:
            showing.json(found)
        elif not asked.html:
            showing.account(found)
    if asked.follow:
        _follow(logs, reading, showing.json if asked.json else showing.line)
    return DONE


def compare(target: str, url: str, token: str, trust: Path | None, *, json: bool) -> int:
    """Print whether the live read models at `url` are those that the logs at `target` make. Raises CouldNotCheck, NotIntact."""
    live = comparing.Live(url, token)  # first, so that the logs reach as far
    found = comparing.compare(live, verified(target, token, trust))
    if json:
        showing.json({"equal": all(each.equal for each in found), "projections": found})
    else:
        sys.stdout.write("".join(f"{each}\n" for each in found))
    return DONE if all(each.equal for each in found) else NO


def figure(url: str, token: str, trust: Path | None, *, json: bool) -> int:
    """Print whether one live answer follows from the logs at its own positions. Raises CouldNotCheck, NotIntact."""
    answer = comparing.get_figure(url, token)
    found = comparing.figure(url, answer, verified(comparing.region_of(url), token, trust))
    if json:
        showing.json(found)
    else:
        at = ", ".join(f"{log}/{position}" for log, position in sorted(found.positions.items()))
        sys.stdout.write(f"{'equal' if found.equal else 'DIFFERENT'}  {url}  at {at}\n")
        if found.live_code != found.code:
            sys.stdout.write(f"  made by other code: live {found.live_code}, here {found.code}\n")
        for change in found.changes:
            sys.stdout.write(f"  {change.field}: live {change.before!r}, replayed {change.after!r}\n")
    return DONE if found.equal else NO


def _refuse_nonsense(asked: Asked) -> None:
    """Raises NoMoment."""
    if asked.known_to and not asked.at:
        raise NoMoment("--known-to needs a time: --at 2026-03-01T12:00:00Z")
    if asked.follow and (asked.at or asked.diff or asked.html):
        raise NoMoment("--follow goes on from now: it has no --at, --diff or --html")
    if asked.player is None and (asked.html or asked.identity):
        raise NoMoment("--html and --identity are about a player: give --player")


def _moment(asked: Asked, logs: Verified) -> Moment:
    if asked.at is None:
        return END
    return logs.known_to(asked.known_to, asked.at) if asked.known_to else logs.moment(asked.at)


def _keys(asked: Asked) -> Mapping[str, DataKey]:
    return disclosed.read_keys(Path(asked.target), asked.identity) if asked.identity else {}


def _dashboard(logs: Verified, moment: Moment, since: Moment | None) -> Shown:
    store = figures.as_of(logs, moment, ["dashboard"])["dashboard"]
    shown = comparing.dashboard_of(store, Made(store.positions, CODE))
    differs = None
    if since is not None:
        earlier = figures.as_of(logs, since, ["dashboard"])["dashboard"]
        differs = changes(comparing.dashboard_of(earlier, Made(earlier.positions, CODE)), shown)
    return Shown(accounts.evidence(logs, moment, store.positions), CODE, shown, differs)


def _follow(logs: Verified, reading: accounts.Reading | None, show: Callable[[timeline.Row], None]) -> None:
    """Print events as they come, all or a player's, until Ctrl-C. Raises CouldNotCheck."""
    following, player = Following(logs), None if reading is None else reading.story.player
    sys.stderr.write("following; Ctrl-C ends\n")
    with suppress(KeyboardInterrupt), accounts.or_could_not_check("what is followed"):
        for entry in following.for_ever():
            found = judged(entry, logs.ownership) if reading is None else reading.story.take(entry)
            for row in timeline.rows([found] if found else [], player=player):
                show(row)
