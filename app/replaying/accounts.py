"""
A player, replayed: the account as of a moment and everything that happened up to it, or what changed between two.

Invariant: an account is made of entries that count and were verified; whatever else concerns the player is shown beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import NamedTuple

import msgspec

from app.replaying import disclosed
from app.replaying.verified import Verified
from domain.kernel import PlayerId
from eventstore.vault import DataKey
from projections.version import CODE
from queries.history import Account
from replay import timeline
from replay.account import Incomplete, Story, Unreadable
from replay.difference import Change, changes
from replay.evidence import Evidence, LogEvidence
from replay.moment import END, Moment
from replay.page import page
from replay.timeline import Row
from verifier.cli import signatures_in_words
from verifier.faults import CouldNotCheck


class Replayed(msgspec.Struct, frozen=True):
    """
    A player as of a moment. `personal`: fields that were opened with a disclosed key.

    Of a difference, `since` is the account as of the earlier moment, `since_moment` that in words, `changes` what is not the
    same, and `events` are those between.
    """

    player: str
    evidence: Evidence
    code: str
    account: Account
    personal: Mapping[str, str]
    events: list[Row]
    since: Account | None = None
    since_moment: str | None = None
    changes: list[Change] | None = None

    def to_html(self) -> str:
        return page(self.account, self.events, self.evidence, self.personal, self.player)


class Reading(NamedTuple):
    """What concerns a player in all logs, and the last entry of each that one of the moments covers."""

    story: Story
    reached: Mapping[str, int]


def read(logs: Verified, player: str, *moments: Moment | None) -> Reading:
    """Raises CouldNotCheck, InvalidId."""
    story = Story(PlayerId(player), logs.ownership)
    reached: dict[str, int] = {}
    with or_could_not_check(player):
        for log in logs.logs:
            for entry in logs.entries(log):
                story.take(entry)
                if any(each is not None and each.covers(log, entry.position, entry.recorded) for each in moments):
                    reached[log] = entry.position
    return Reading(story, reached)


def replayed(
    logs: Verified,
    reading: Reading,
    moment: Moment = END,
    since: Moment | None = None,
    keys: Mapping[str, DataKey] = {},
) -> Replayed:
    """The player as of `moment`; with `since` what changed since then. Raises CouldNotCheck."""
    story, player = reading.story, reading.story.player
    if since is not None and story.concerned(moment, since) and not story.concerned(since, moment):
        since, moment = moment, since
    with or_could_not_check(player):
        account = story.account(logs.codec, moment)
        before = story.account(logs.codec, since) if since is not None else None
    if not story.concerned(upto=moment):
        raise CouldNotCheck(f"nothing at {logs.shown} is about {player}, {moment.said}")
    reveal = disclosed.revealing(keys, [account.key] if account.key else [])
    rows = timeline.rows(story.concerned(since, moment), reveal, story.player)
    personal = {
        name: text
        for name, told in account.told().items()
        if (text := reveal(told.event, f"data.{name}", told.sealed)) is not None
    }
    stranded = sum(not row.counts for row in rows)
    return Replayed(
        player=player,
        evidence=evidence(logs, moment, reading.reached, stranded),
        code=CODE,
        account=account,
        personal=personal,
        events=rows,
        since=before,
        since_moment=None if since is None else since.said,
        changes=None if before is None else changes(before, account),
    )


@contextmanager
def or_could_not_check(player: str) -> Iterator[None]:
    try:
        yield
    except (Unreadable, Incomplete) as error:
        raise CouldNotCheck(f"no account of {player} can be made: {error}") from None


def evidence(logs: Verified, moment: Moment, reached: Mapping[str, int], stranded: int = 0) -> Evidence:
    """`reached`: the last entry of each log that was looked at."""
    return Evidence(
        target=logs.shown,
        moment=moment.said,
        logs=[
            LogEvidence(
                name, log.report.origin, log.report.position, log.report.leaf, reached.get(name, 0), _found(logs, name)
            )
            for name, log in logs.logs.items()
        ],
        program=f"countroom {metadata.version('countroom')}",
        stranded=stranded,
        others=logs.others,
    )


def _found(logs: Verified, name: str) -> str:
    log = logs.logs[name]
    said = f"{log.report.entries:,} {'entry' if log.report.entries == 1 else 'entries'} intact"
    if log.kind != "whole":
        said += f", a {log.kind} of the log"
    if name in logs.ownership.granted:
        said += ", all taken to count, since the log's opening is not among them"
    return said + signatures_in_words(log.report)
