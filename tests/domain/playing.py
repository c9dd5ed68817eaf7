"""What happens to one player who plays: decided, and folded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from domain import play
from domain.kernel import EPOCH
from domain.limits import Limits
from domain.limits.state import Limit
from domain.play import Kind, Play, PlayEvent, SessionLaunched
from domain.players import Player, Status
from domain.wallets import Accounts
from policies.limits import Kind as Limited
from policies.limits import Period, Source, zone

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
AUSTRIAN = Player(Status.ACTIVE, "AT", "EUR", jurisdiction="AT", registered_at=NOON)
FREE = Limits()
UTC_ZONE = ZoneInfo("UTC")
HOLDS = Accounts(cash=70, bonus=5)


def player(jurisdiction: str, **more: Any) -> Player:
    return msgspec.structs.replace(AUSTRIAN, jurisdiction=jurisdiction, country=jurisdiction[:2], **more)


def at_most(seconds: int, period: Period = Period.DAY) -> Limits:
    return Limits(given=(Limit(Limited.TIME, period, Source.PLAYER, seconds),))


class Story:
    """What happens to one player, decided and folded. `now`: by the log's clock, of which the deciding process's is `ahead`."""

    ahead = timedelta(0)

    def __init__(self, who: Player = AUSTRIAN, limits: Limits = FREE, at: datetime = NOON) -> None:
        self.who, self.limits, self.now = who, limits, at
        self.state = Play()
        self.recorded = EPOCH
        self.events: list[PlayEvent] = []

    @property
    def at(self) -> datetime:
        """Of a decision: the later of its process's time and the newest entry."""
        return max(self.now + self.ahead, self.recorded)

    def fold(self, events: Sequence[PlayEvent]) -> Sequence[PlayEvent]:
        for event in events:
            self.state, self.recorded = play.evolve(self.state, event, self.now), self.now
            self.events.append(event)
        return events

    def wait(self, **duration: float) -> None:
        self.now += timedelta(**duration)

    def launch(self, name: str = "one", provider: str = "reel", **more: Any) -> Sequence[PlayEvent]:
        launched = SessionLaunched(
            session=name, provider=provider, game="g", kind=Kind.SLOT, token_hash=f"hash of {name}", ends_at=self.now, **more
        )  # fmt: skip
        return self.fold(play.launch(self.state, self.who, self.limits, launched=launched, at=self.at))

    def open(self, name: str = "one", provider: str = "reel", token_hash: str = "") -> Sequence[PlayEvent]:
        shown = token_hash or f"hash of {name}"
        return self.fold(
            play.open_(
                self.state, self.who, self.limits, session=name, provider=provider, token_hash=shown, holds=HOLDS, at=self.at
            )
        )  # fmt: skip

    def end(self, name: str = "one", provider: str | None = None) -> Sequence[PlayEvent]:
        return self.fold(play.end(self.state, self.who, session=name, provider=provider, reason="closed", at=self.at))

    def expire(self) -> Sequence[PlayEvent]:
        return self.fold(play.expire(self.state, self.who, self.limits, at=self.at))

    def check(self, name: str = "one") -> Sequence[PlayEvent]:
        return self.fold(play.check(self.state, self.who, session=name, provider=None, at=self.at))

    def bet(self, name: str = "one", provider: str = "reel", **more: Any) -> None:
        play.require_bet(self.state, self.who, self.limits, session=name, provider=provider, at=self.at, **more)

    def play(self, name: str = "one", **duration: float) -> None:
        self.launch(name)
        self.open(name)
        self.wait(**duration)

    def used(self, period: Period = Period.DAY) -> int:
        where = zone(self.who.jurisdiction)
        day = self.now.astimezone(where).date()
        return self.state.time_used(self.now, where).within(period, day=day, at=self.now)
