"""
Log-ins: when a player came and went, from where and on what.

Invariants:
    - the state holds the last things only, however often somebody logs in;
    - the same session begins once and ends once.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

import msgspec

from domain.kernel import STREAMS_CACHED, Aggregate, Event, Personal, PlayerId, Stream, parse_id
from domain.players import Player, PlayerClosed, Reactivated, Status

DEVICES_MAX = 20
SESSIONS_MAX = 20

# Events: the tags and fields are the storage format.


class Succeeded(Event, frozen=True, kw_only=True, tag="login.succeeded"):
    """The player has logged in. `session` names what they do until they log out; `address`: the IP address."""

    device: str = ""
    country: str = ""
    session: str
    address: Personal | None = None


class Failed(Event, frozen=True, kw_only=True, tag="login.failed"):
    """Somebody tried to log in as the player. `reason`: a word, in the clear."""

    reason: str
    device: str = ""
    country: str = ""
    address: Personal | None = None


class Ended(Event, frozen=True, tag="login.ended"):
    """The player has logged out, or was logged out."""

    session: str


LoginEvent = Succeeded | Failed | Ended


# State


class Login(msgspec.Struct, frozen=True):
    """The last log-in, and the `failures` in a row since. Known devices and open sessions, the newest last."""

    last: datetime | None = None
    country: str = ""
    device: str = ""
    failures: int = 0
    devices: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()


def evolve(login: Login, event: LoginEvent, at: datetime) -> Login:
    match event:
        case Succeeded():
            devices = _newest(login.devices, event.device, DEVICES_MAX) if event.device else login.devices
            sessions = _newest(login.sessions, event.session, SESSIONS_MAX)
            return Login(at, event.country, event.device, 0, devices, sessions)
        case Failed():
            return msgspec.structs.replace(login, failures=login.failures + 1)
        case Ended(session):
            return msgspec.structs.replace(login, sessions=tuple(each for each in login.sessions if each != session))


def forgotten(login: Login) -> Login:
    """What is shown of it once the player was erased: nothing by which they could be known, such as what they call their telephone."""
    return Login(login.last, failures=login.failures)


def _newest(kept: tuple[str, ...], one: str, limit: int) -> tuple[str, ...]:
    return (*(each for each in kept if each != one), one)[-limit:]


LOGINS = Aggregate("login", initial=Login(), evolve=evolve, events=[Succeeded, Failed, Ended])


@lru_cache(STREAMS_CACHED)
def stream(player_id: PlayerId) -> Stream[Login]:
    return Stream(LOGINS, parse_id("player", player_id))


# Decisions


def succeed(login: Login, player: Player, *, succeeded: Succeeded) -> list[LoginEvent | Reactivated]:
    """The player is here: an account that slept wakes up. The same session again records nothing."""
    player.require()
    if player.status is Status.CLOSED:
        raise PlayerClosed
    if succeeded.session in login.sessions:
        return []
    return [succeeded, Reactivated()] if player.status is Status.DORMANT else [succeeded]


def fail(_login: Login, player: Player, *, failed: Failed) -> list[LoginEvent]:
    """Each attempt is one more."""
    player.require()
    return [failed]


def end(login: Login, player: Player, *, session: str) -> list[LoginEvent]:
    """A session that is not open has ended already: that records nothing."""
    player.require()
    return [Ended(session)] if session in login.sessions else []
