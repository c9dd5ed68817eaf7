"""
Commands on play: a session is launched by the house, opened and ended by its game's provider, and the player is told how long it
has been.

A token names its player and its session, so that a provider need know nothing else; whoever holds it learns no more than these.

Invariants:
    - a token is told once: a repeated launch answers without it, since only its hash is kept;
    - a token is good for the provider for whom it was launched, and for no other, whatever it is shown for;
    - what a provider says of a session is one command for ever: caller `provider:<name>`, key verb, LF, reference.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final

import msgspec

from access.policy import Action, service
from commands.edge import Amount, Edge, Endpoint, Nothing, Word, money, whole
from commands.identity import command_id, fingerprint
from commands.plan import Context, Fact, Plan, RefusedFact
from commands.protection import guarded, told
from domain import limits, play, players, protection, wallets
from domain.errors import (
    CurrencyMismatch,
    InvalidAmount,
    InvalidId,
    LimitExceeded,
    NotFound,
    PlayerBlocked,
    PlayerNotActive,
    Rejected,
    UnknownCurrency,
)
from domain.kernel import AnyStream, PlayerId, parse_id, partition_of
from domain.play import NoSuchInterval, SessionClosed, SessionLimitNeeded, TokenRefused
from domain.protection import ActionIsBlocked, PlayerExcluded, PlayerTimedOut, RegisterUnanswered
from policies import gates

SECONDS_MAX: Final = 24 * 60 * 60

SessionId = Annotated[str, whole("session_[0-7][0-9a-hjkmnp-tv-z]{25}", "A session's identifier.")]
Game = Annotated[str, whole("[A-Za-z0-9._:-]{1,100}", "As its provider calls it.")]
Reference = Annotated[
    str, msgspec.Meta(min_length=1, max_length=200, description="The provider's own; with the verb, for ever.")
]
Token = Annotated[str, msgspec.Meta(max_length=200, description="As the launch has told it. A secret.")]
Said = Annotated[str, msgspec.Meta(max_length=40, description="The verb of the path again: it is signed here.")]
At = Annotated[str, msgspec.Meta(max_length=40, description="The provider's time, which means nothing here.")]

_SUFFIX = 26
_TOKEN = re.compile("([0-7][0-9a-hjkmnp-tv-z]{25}){2}[0-9a-f]{32}")


class LaunchSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`seconds`, `loss`: how long the player lets the session last and how much they let it lose; some jurisdictions ask for both."""

    provider: Word
    game: Game
    kind: play.Kind
    seconds: Annotated[int, msgspec.Meta(ge=1, le=SECONDS_MAX)] | None = None
    loss: Amount | None = None


class SessionLaunched(msgspec.Struct, frozen=True):
    """`token`: for the provider; null where this was answered before. The session waits for it until `ends_at`."""

    session: str
    player: str
    token: str | None
    ends_at: datetime


class EndSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    session: SessionId
    reason: Word = "closed"


class CheckReality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    session: SessionId


class ChooseInterval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """After how many minutes of play the player is told; 0: as it is for everybody."""

    minutes: Annotated[int, msgspec.Meta(ge=0, le=24 * 60)]


class PlayChanged(msgspec.Struct, frozen=True):
    player: str


class Authenticate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A provider has met a token."""

    verb: Said
    reference: Reference
    token: Token
    at: At = ""


class OfSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A provider says something of a session: that it is over, or that the player was told."""

    verb: Said
    reference: Reference
    player: str
    session: SessionId
    at: At = ""


class Held(msgspec.Struct, frozen=True):
    """What the player may stake, in minor units."""

    cash: int
    bonus: int
    currency: str


class SessionOpened(msgspec.Struct, frozen=True):
    """`jurisdiction`: whose rules hold, ISO 3166."""

    session: str
    player: str
    jurisdiction: str
    balance: Held


class SessionChanged(msgspec.Struct, frozen=True):
    session: str
    player: str


# What the house says


def launch(player_id: str, command: LaunchSession, edge: Edge) -> Plan:
    """Launch a game session: its provider opens it with the token.

    Raises NotFound, PlayerBlocked, PlayerNotActive, SessionLimitNeeded, LimitExceeded.
    """
    owner = parse_id("player", player_id)
    suffix = edge.new_child(partition_of(owner))
    token = _token(edge.secret, command.provider, f"{owner}{suffix}")
    launched = play.SessionLaunched(
        session=f"session_{suffix}",
        provider=command.provider,
        game=command.game,
        kind=command.kind,
        token_hash=hash_of(token),
        ends_at=edge.context.now,  # which the decision knows
        seconds=command.seconds or 0,
        loss=money(command.loss, "/loss") if command.loss else None,
    )

    def decide(
        at: datetime,
        state: play.Play,
        player: players.Player,
        limits: limits.Limits,
    ) -> Sequence[play.PlayEvent]:
        player.require_active()
        return play.launch(state, player, limits, launched=launched, at=at)

    def answer(facts: Sequence[Fact]) -> SessionLaunched:
        made: Any = facts[-1].event  # whatever it ends comes before
        own = token if made.token_hash == launched.token_hash else None
        return SessionLaunched(made.session, player_id, own, made.ends_at)

    plan = Plan(
        edge.context,
        require=(Action.SESSION_LAUNCH,),
        writes={"state": play.stream(PlayerId(player_id))},
        reads=_read(player_id),
        decision=decide,
        answer=answer,
    )
    return guarded(plan, PlayerId(player_id), gates.Action.BET)


def end(player_id: str, command: EndSession, edge: Edge) -> Plan:
    """End a game session. One that has ended already stays so. Raises NotFound."""
    return _of_play(
        player_id,
        edge.context,
        lambda at, state, player: play.end(
            state, player, session=command.session, provider=None, reason=command.reason, at=at
        ),
    )


def check(player_id: str, command: CheckReality, edge: Edge) -> Plan:
    """Note that a player was told how long they have played. Raises NotFound, SessionClosed."""
    return _of_play(
        player_id,
        edge.context,
        lambda at, state, player: play.check(state, player, session=command.session, provider=None, at=at),
    )


def choose_interval(player_id: str, command: ChooseInterval, edge: Edge) -> Plan:
    """Set how often a player wants to be told how long they have played. Raises NotFound, NoSuchInterval."""
    return _of_play(
        player_id,
        edge.context,
        lambda at, state, player: play.choose_interval(state, player, minutes=command.minutes, at=at),
    )


def _of_play(player_id: str, context: Context, decision: Callable[..., Sequence[play.PlayEvent]]) -> Plan:
    return Plan(
        context,
        require=(Action.SESSION_LAUNCH,),
        writes={"state": play.stream(PlayerId(player_id))},
        reads={"player": players.stream(PlayerId(player_id))},
        decision=decision,
        answer=lambda _facts: PlayChanged(player_id),
    )


def expire(player_id: str, _command: Nothing, edge: Edge) -> Plan:
    """End the sessions of a player whose time is over. For timers. Raises NotFound."""
    return Plan(
        edge.context,
        require=(Action.TIMER_FIRE,),
        writes={"state": play.stream(PlayerId(player_id))},
        reads=_read(player_id),
        decision=lambda at, state, player, limits: play.expire(state, player, limits, at=at),
        answer=lambda _facts: PlayChanged(player_id),
    )


def _read(player_id: str) -> Mapping[str, AnyStream[Any]]:
    return {"player": players.stream(PlayerId(player_id)), "limits": limits.stream(PlayerId(player_id))}


# What a provider says


def context(
    provider: str, verb: str, said: Authenticate | OfSession, *, now: datetime, secret: bytes, trace: str | None = None
) -> Context:
    """Who says what. When it was said is no content."""
    actor = f"provider:{provider}"
    content = msgspec.json.encode(msgspec.structs.replace(said, at=""), order="sorted")
    asked = fingerprint(secret, "POST", f"/v1/games/{provider}/{verb}", content)
    return Context(service(actor, "game_provider"), now, command_id(actor, f"{verb}\n{said.reference}"), asked, trace)


def subject(token: str) -> tuple[str, str]:
    """Of which player and which session a token speaks, if it is one. Raises TokenRefused."""
    if not _TOKEN.fullmatch(token):
        raise TokenRefused
    return f"player_{token[:_SUFFIX]}", f"session_{token[_SUFFIX : 2 * _SUFFIX]}"


def subject_for(provider: str, token: str, secret: bytes) -> tuple[str, str]:
    """The same of a token that is this provider's, be the session over by now. Raises TokenRefused."""
    found = subject(token)
    if not hmac.compare_digest(token, _token(secret, provider, token[: 2 * _SUFFIX])):
        raise TokenRefused
    return found


def _token(secret: bytes, provider: str, named: str) -> str:
    """`named`: the suffixes of player and session. What follows them only the house can make: HMAC-SHA-256 (RFC 2104), cut to 128 bits."""
    if not secret:
        raise ValueError("nobody may launch games here: there is no secret")
    mark = hmac.digest(secret, f"game token\n{provider}\n{named}".encode(), "sha256")
    return named + mark[:16].hex()


def authenticate(provider: str, said: Authenticate, context: Context) -> Plan:
    """Open the session of a token. One that is open stays so, which is recorded. Raises TokenRefused, and what forbids to play."""
    player_id, session = subject(said.token)

    def decide(
        at: datetime,
        state: play.Play,
        player: players.Player,
        limits: limits.Limits,
        protected: protection.Protection,
        wallet: wallets.Wallet,
    ) -> Sequence[play.PlayEvent] | RefusedFact:
        held, token_hash = wallet.balance(player.currency), hash_of(said.token)
        made = play.open_(
            state, player, limits, session=session, provider=provider, token_hash=token_hash, holds=held, at=at
        )
        if error := protected.refusal(gates.Action.BET, at):  # of somebody who holds the token, and nobody else
            return RefusedFact(error, [protection.refused(gates.Action.BET, error)])
        return made

    def answer(facts: Sequence[Fact]) -> SessionOpened:
        made: Any = facts[-1].event  # whatever it ends comes before
        held = Held(made.accounts.cash, made.accounts.bonus, made.currency)
        return SessionOpened(made.session, player_id, made.jurisdiction, held)

    return Plan(
        context,
        require=(Action.SESSION_OPEN,),
        writes={
            "state": play.stream(PlayerId(player_id)),
            "protected": protection.stream(PlayerId(player_id)),
        },
        reads={**_read(player_id), "wallet": wallets.stream(PlayerId(player_id))},
        decision=decide,
        answer=told(answer),
    )


def end_theirs(provider: str, said: OfSession, context: Context) -> Plan:
    """End a session of this provider's. One that has ended already stays so. Raises NotFound."""
    return _theirs(
        said,
        context,
        lambda at, state, player: play.end(
            state, player, session=said.session, provider=provider, reason="provider", at=at
        ),
    )


def check_theirs(provider: str, said: OfSession, context: Context) -> Plan:
    """Note that a game has told its player how long they have played. Raises NotFound, SessionClosed."""
    return _theirs(
        said,
        context,
        lambda at, state, player: play.check(state, player, session=said.session, provider=provider, at=at),
    )


def _theirs(said: OfSession, context: Context, decision: Callable[..., Sequence[play.PlayEvent]]) -> Plan:
    return Plan(
        context,
        require=(Action.SESSION_OPEN,),
        writes={"state": play.stream(PlayerId(said.player))},
        reads={"player": players.stream(PlayerId(said.player))},
        decision=decision,
        answer=lambda _facts: SessionChanged(said.session, said.player),
    )


def hash_of(token: str) -> str:
    """SHA-256 in hex: what is kept of a token."""
    return sha256(token.encode()).hexdigest()


FORBID: Final[tuple[type[Rejected], ...]] = (
    NotFound,
    InvalidId,
    PlayerBlocked,
    PlayerNotActive,
    PlayerExcluded,
    PlayerTimedOut,
    ActionIsBlocked,
    RegisterUnanswered,
    LimitExceeded,
)
"""What forbids to play, whoever asks."""

_ONE = "/v1/players/{player_id}/sessions"
_LAUNCH = (*FORBID, CurrencyMismatch, SessionLimitNeeded, UnknownCurrency, InvalidAmount)

ENDPOINTS = (
    Endpoint(_ONE, launch, LaunchSession, SessionLaunched, 201, _LAUNCH),
    Endpoint(f"{_ONE}/end", end, EndSession, PlayChanged, 200, (NotFound,)),
    Endpoint(f"{_ONE}/checked", check, CheckReality, PlayChanged, 200, (NotFound, SessionClosed)),
    Endpoint(f"{_ONE}/check-every", choose_interval, ChooseInterval, PlayChanged, 200, (NotFound, NoSuchInterval)),
    Endpoint(f"{_ONE}/expire", expire, Nothing, PlayChanged, 200, (NotFound,)),
)

THEIRS: Final[Mapping[str, tuple[Callable[[str, Any, Context], Plan], type, type, tuple[type[Rejected], ...]]]] = {
    "authenticate": (authenticate, Authenticate, SessionOpened, (*FORBID, TokenRefused)),
    "end": (end_theirs, OfSession, SessionChanged, (NotFound, InvalidId)),
    "reality_check": (check_theirs, OfSession, SessionChanged, (NotFound, InvalidId, SessionClosed)),
}
"""By verb of a provider: the command, its body, its answer, its refusals."""
