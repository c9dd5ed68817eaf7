"""Commands on log-ins: what the front end tells of players who come and go."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec

from access.policy import Action
from commands import protection, registers
from commands.edge import PERSONAL, Country, Edge, Endpoint, Label, Word
from commands.plan import Plan, RefusedFact
from commands.sealing import KeyNotHeld
from domain import logins, players
from domain.errors import NotFound
from domain.kernel import Event, PlayerId
from domain.logins import Login
from domain.play import Play
from domain.players import Player, PlayerClosed
from domain.protection import REFUSALS, Protection, Stop, refused
from policies.protection import Moment

Address = Annotated[
    str,
    msgspec.Meta(
        min_length=1, max_length=45, description="The IP address. Sealed under the player's own key.", extra=PERSONAL
    ),
]


class LogIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`session`: a name of the front end's for what follows until the log-out; no secret."""

    session: Label
    device: Label | None = None
    country: Country | None = None
    address: Address | None = None


class FailLogIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`reason`: a word, such as password."""

    reason: Word
    device: Label | None = None
    country: Country | None = None
    address: Address | None = None


class LogOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    session: Label


class LoginRecorded(msgspec.Struct, frozen=True):
    player: str


def succeed(player_id: str, command: LogIn, edge: Edge) -> Plan:
    """Record that a player has logged in; the register of their jurisdiction has been asked before. Whoever is excluded or has
    a time-out is refused, and that is recorded. Raises NotFound, PlayerClosed, KeyNotHeld, PlayerExcluded (until), PlayerTimedOut
    (until), ActionIsBlocked, RegisterUnanswered.
    """
    succeeded = logins.Succeeded(
        device=command.device or "", country=command.country or "", session=command.session, address=command.address
    )

    def decide(
        at: datetime, state: Protection, playing: Play, login: Login, player: Player
    ) -> Sequence[Event] | RefusedFact:
        made = logins.succeed(login, player, succeeded=succeeded)
        asked, after = registers.heard(edge, state, player.jurisdiction, Moment.LOGIN, at)
        events = protection.with_ends(asked, playing, login, player, at)
        if (error := after.refusal(Stop.LOGIN, at)) is not None:
            return RefusedFact(error, [*events, refused(Stop.LOGIN, error)])
        return [*events, *made]

    return Plan(
        edge.context,
        require=(Action.LOGIN_RECORD,),
        writes={**protection.streams(PlayerId(player_id)), "player": players.stream(PlayerId(player_id))},
        decision=decide,
        answer=protection.told(lambda _facts: LoginRecorded(player_id)),
        key=lambda player, **_: player.sealing_key(),
    )


def fail(player_id: str, command: FailLogIn, edge: Edge) -> Plan:
    """Record that somebody tried in vain to log in as a player. Raises NotFound, KeyNotHeld."""
    failed = logins.Failed(
        reason=command.reason, device=command.device or "", country=command.country or "", address=command.address
    )
    return Plan(
        edge.context,
        require=(Action.LOGIN_RECORD,),
        writes={"login": logins.stream(PlayerId(player_id))},
        reads={"player": players.stream(PlayerId(player_id))},
        decision=lambda _at, login, player: logins.fail(login, player, failed=failed),
        answer=lambda _facts: LoginRecorded(player_id),
        key=lambda login, player: player.sealing_key(),  # noqa: ARG005 — the states come by these names
    )


def end(player_id: str, command: LogOut, edge: Edge) -> Plan:
    """Record that a player has logged out. Raises NotFound."""
    return Plan(
        edge.context,
        require=(Action.LOGIN_RECORD,),
        writes={"login": logins.stream(PlayerId(player_id))},
        reads={"player": players.stream(PlayerId(player_id))},
        decision=lambda _at, login, player: logins.end(login, player, session=command.session),
        answer=lambda _facts: LoginRecorded(player_id),
    )


_ONE = "/v1/players/{player_id}/logins"

ENDPOINTS = (
    Endpoint(_ONE, succeed, LogIn, LoginRecorded, 201, (NotFound, PlayerClosed, KeyNotHeld, *REFUSALS.values())),
    Endpoint(f"{_ONE}/fail", fail, FailLogIn, LoginRecorded, 201, (NotFound, KeyNotHeld)),
    Endpoint(f"{_ONE}/end", end, LogOut, LoginRecorded, 200, (NotFound,)),
)
