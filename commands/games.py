"""
The seamless wallet: what a game provider asks of a player's money, one command for each call.

Invariants:
    - a provider's verb and reference are one command for ever: said again it has its first answer, with another content it is
      refused; when it was said, and in which session, is no content;
    - a provider speaks of its own bets only: the identifier of a bet is made with the provider's name;
    - what is refused of a provider is recorded, and refused alike when it is said again, unless it may only have come too early,
      or cannot be meant;
    - only bets ask whether the player may play.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import msgspec

from access.policy import Action, service
from commands.callbacks import UnknownVerb
from commands.edge import currency, whole
from commands.identity import command_id, fingerprint
from commands.plan import Context, Fact, Plan, RefusedFact
from domain import bets, kyc, limits, play, players, protection, wallets
from domain.bets import BetElsewhere, Claimed, TooManyRounds
from domain.errors import (
    Conflict,
    CurrencyMismatch,
    GateClosed,
    Invalid,
    KeyReused,
    LimitExceeded,
    LimitRequired,
    PlayerBlocked,
    PlayerNotActive,
    Rejected,
    UnderReview,
)
from domain.ijson import exact
from domain.kernel import AMOUNT_MAX, Event, Money, PlayerId, uuid7
from domain.kyc import Kyc
from domain.limits import Limits
from domain.play import Kind as GameKind
from domain.play import Play, RealityCheckDue, SessionClosed, require_bet
from domain.players import Player
from domain.protection import ActionIsBlocked, PlayerExcluded, PlayerTimedOut, Protection, RegisterUnanswered
from domain.wallets import (
    Accounts,
    GameRefused,
    InsufficientFunds,
    Played,
    RolledBack,
    RoundClosed,
    Staked,
    StakeRefused,
    Wallet,
    Won,
)
from policies import gates
from policies.spending import WinKind

Named = Annotated[str, whole("[A-Za-z0-9._:-]{1,100}")]
Perhaps = Annotated[str, whole("[A-Za-z0-9._:-]{0,100}")]


class GameCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`reference`: this transaction, in the provider's words, as are `game`, `round` and `bet`. `amount`: in minor units.

    `bet`: the reference of the bet that is rolled back, by default the rollback's own; without an amount, all of it. Of a win,
    the bet that has won, which says game, round and session where the win does not. `token` stands for player and session where these are not known yet; `at` is when the provider has said so.
    """

    verb: str = ""
    reference: Perhaps = ""
    player: str = ""
    session: Perhaps = ""
    token: Annotated[str, msgspec.Meta(max_length=200)] = ""
    game: Perhaps = ""
    round: Perhaps = ""
    amount: Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MAX)] | None = None
    currency: Annotated[str, msgspec.Meta(max_length=10)] = ""
    bet: Perhaps = ""
    at: Annotated[str, msgspec.Meta(max_length=40)] = ""


class GameBalance(msgspec.Struct, frozen=True):
    """Minor units that the player may stake, after the call."""

    cash: int
    bonus: int
    currency: str


class GameAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """`returned`: what of the bet this rollback has given back, in minor units; of a bet, what had been rolled back before it
    came, and was not taken. `void`: all of it was.
    """

    balance: GameBalance
    returned: int = 0
    void: bool = False


REFUSALS: tuple[type[Rejected], ...] = (
    PlayerBlocked,
    PlayerNotActive,
    CurrencyMismatch,
    GateClosed,
    SessionClosed,
    RealityCheckDue,
    LimitExceeded,
    LimitRequired,
    UnderReview,
    InsufficientFunds,
    BetElsewhere,
    TooManyRounds,
    PlayerExcluded,
    PlayerTimedOut,
    ActionIsBlocked,
    RegisterUnanswered,
)
"""What is recorded when it is refused of a provider."""

_BY_CODE: Mapping[str, type[Rejected]] = {error.code: error for error in REFUSALS}


def _caller(provider: str) -> str:
    """In whose name a provider's references are identifiers."""
    return f"provider:{provider}"


def context(
    provider: str, verb: str, said: GameCall, *, now: datetime, secret: bytes, trace: str | None = None
) -> Context:
    """Who asks what. Calls that record nothing have an identifier of their own each time, or they would wait for one another."""
    actor = _caller(provider)
    id_ = uuid7(now, os.urandom(10)) if verb == "balance" else command_id(actor, f"{verb}\n{said.reference}")
    content = msgspec.json.encode((said.player, said.game, said.round, said.amount, said.currency, said.bet))
    asked = fingerprint(secret, "POST", f"/v1/games/{provider}/{verb}", content)
    return Context(service(actor, "game_provider"), now, id_, asked, trace)


def plan(provider: str, verb: str, said: GameCall, context: Context) -> Plan:
    """Describe the command that a provider's call is. Raises Invalid, UnknownCurrency, UnknownVerb."""
    made = _VERBS.get(verb)
    if made is None:
        raise UnknownVerb(verbs=sorted(_VERBS))
    return made(Played(provider, said.game, said.round, said.session), said, context)


# What the provider has said


def _needs(said: GameCall, *names: str) -> None:
    for name in names:
        if getattr(said, name) in ("", None):
            raise Invalid("this verb needs it", pointer=f"/{name}")


def _money(said: GameCall) -> Money:
    """Raises Invalid, UnknownCurrency."""
    _needs(said, "amount", "currency")
    return Money(said.amount or 0, currency(said.currency, "/currency"))


def _recording(
    decide: Callable[..., Sequence[Event]], refused: Callable[..., Event]
) -> Callable[..., Sequence[Event] | RefusedFact]:
    """The decision, whose refusals are recorded as `refused(code=, facts=, currency=, accounts=)`."""

    def decision(at: datetime, **states: Any) -> Sequence[Event] | RefusedFact:
        try:
            return decide(at, **states)
        except REFUSALS as error:
            facts = {name: exact(value) for name, value in msgspec.to_builtins(error.facts).items()}
            currency = states["player"].currency
            accounts = states["wallet"].balance(currency)
            event = refused(code=error.code, facts=facts, currency=currency, accounts=accounts)
            return RefusedFact(type(error)(**facts), [event])

    return decision


# What the provider is told


def _answer(facts: Sequence[Fact]) -> GameAnswer:
    """Raises what was recorded as refused."""
    match facts[0].event:
        case Staked(money=money, accounts=accounts, ahead=ahead):
            return GameAnswer(_balance(accounts, money.currency), returned=ahead)
        case Won(money=money, accounts=accounts):
            return GameAnswer(_balance(accounts, money.currency))
        case RolledBack(money=money, accounts=accounts):
            return GameAnswer(_balance(accounts, money.currency), returned=money.amount)
        case RoundClosed(currency=currency, accounts=accounts):
            return GameAnswer(_balance(accounts, currency))
        case StakeRefused(code=code, facts=told) | GameRefused(code=code, facts=told):
            raise _BY_CODE.get(code, Conflict)(**told)
    raise TypeError(f"no game call records {facts[0].event.tag}")


def _bet_answer(facts: Sequence[Fact]) -> GameAnswer:
    """The same of a bet. Raises what was recorded as refused."""
    match facts[0].event:
        case RolledBack(money=nothing, accounts=accounts):
            return GameAnswer(_balance(accounts, nothing.currency), void=True)
    return _answer(facts)


def _balance(accounts: Accounts, currency: str) -> GameBalance:
    return GameBalance(accounts.cash, accounts.bonus, currency)


# The verbs


def _balance_of(played: Played, said: GameCall, context: Context) -> Plan:
    """Nobody is told what somebody has who does not play there now."""
    _needs(said, "session")
    player_id = PlayerId(said.player)

    def decision(at: datetime, player: Player, play: Play, **_: object) -> Sequence[Event]:
        player.require()
        play.require_open(said.session, played.provider, at)
        return ()

    return Plan(
        context=context,
        require=(Action.GAME_BALANCE,),
        writes={"wallet": wallets.stream(player_id)},
        reads={"player": players.stream(player_id), "play": play.stream(player_id)},
        decision=decision,
        answer=_answer,
        tells=lambda wallet, player, **_: GameAnswer(_balance(wallet.balance(player.currency), player.currency)),
    )


def _bet(played: Played, said: GameCall, context: Context) -> Plan:
    _needs(said, "reference", "session", "game", "round")
    money, player_id = _money(said), PlayerId(said.player)
    wallet_stream = wallets.stream(player_id)

    def decide(
        at: datetime, wallet: Wallet, play: Play, limits: Limits, player: Player, kyc: Kyc, protection: Protection
    ) -> Sequence[Event]:
        early = wallet.early_of(played, said.reference)
        if early >= max(1, money.amount):
            return bets.not_taken(wallet, player, played=played, reference=said.reference, money=money)
        wanted = Money(money.amount - early, money.currency) if early else money
        parts = bets.paying(wallet, player, wanted)
        player.require_active()
        protection.require(gates.Action.BET, at)
        kyc.require(player, gates.Action.BET, deposited=wallet.deposited.get(money.currency, 0), at=at)
        session = require_bet(
            play,
            player,
            limits,
            session=said.session,
            provider=played.provider,
            at=at,
            stake=bets.cash_in(parts),
            lost=wallet.lost_in(said.session),
        )
        return bets.stake(
            wallet,
            limits,
            player,
            played=played,
            reference=said.reference,
            money=wanted,
            parts=parts,
            is_slot=session.kind is GameKind.SLOT or played.game != session.game,  # another game may be anything
            at=at,
            alive=play.sessions,
            ahead=early,
        )

    def claimed(facts: Sequence[Fact]) -> GameAnswer:
        """The first answer of a bet whose rollback had come before it. Raises KeyReused if that was about somebody else."""
        match facts:
            case [Fact(stream=stream, event=RolledBack(money=nothing, accounts=accounts)), _]:
                if stream == wallet_stream.name:
                    return GameAnswer(_balance(accounts, nothing.currency), void=True)
        raise KeyReused

    return Plan(
        context=context,
        require=(Action.GAME_BET,),
        writes={"wallet": wallet_stream},
        reads={
            "play": play.stream(player_id),
            "limits": limits.stream(player_id),
            "player": players.stream(player_id),
            "kyc": kyc.stream(player_id),
            "protection": protection.stream(player_id),
        },
        decision=_recording(decide, partial(StakeRefused, played=played, reference=said.reference, money=money)),
        answer=_bet_answer,
        claimed=claimed,
    )


def _win(kind: WinKind) -> Callable[[Played, GameCall, Context], Plan]:
    def described(played: Played, said: GameCall, context: Context) -> Plan:
        _needs(said, "reference")
        if not said.bet:
            _needs(said, "game", "round")
        money, reference = _money(said), said.reference

        player_id = PlayerId(said.player)
        is_whole = all((said.session, said.game, said.round))
        stream = wallets.stream(player_id).name

        def decide(
            at: datetime, wallet: Wallet, player: Player, play: Play, bet: Sequence[Fact] = ()
        ) -> Sequence[Event]:
            where, alive = played, play.sessions
            match bet:
                case [Fact(stream=on, event=Staked() as staked)] if on == stream:
                    where = bets.completed(played, staked.played)
            if not where.game or not where.round:
                raise Invalid(
                    "no such bet is here that would name its game and round",
                    pointer="/round" if where.game else "/game",
                )
            return bets.win(
                wallet, player, played=where, reference=reference, kind=kind, money=money, at=at, alive=alive
            )

        owed = _owed(played, said, context, kind, Action.GAME_WIN, decide, money)
        return msgspec.structs.replace(
            owed,
            reads={**owed.reads, "play": play.stream(player_id)},
            refers={} if is_whole or not said.bet else {"bet": bet_id(played.provider, said.bet)},
        )

    return described


def _close(played: Played, said: GameCall, context: Context) -> Plan:
    _needs(said, "reference", "game", "round")

    def decide(_at: datetime, wallet: Wallet, player: Player) -> Sequence[Event]:
        return bets.close(wallet, player, played=played, reference=said.reference)

    return _owed(played, said, context, "close", Action.GAME_CLOSE, decide)


def _owed(
    played: Played,
    said: GameCall,
    context: Context,
    verb: str,
    require: Action,
    decide: Callable[..., Sequence[Event]],
    money: Money | None = None,
) -> Plan:
    """What nobody may refuse because of who the player is, or how they stand."""
    player_id = PlayerId(said.player)
    return Plan(
        context=context,
        require=(require,),
        writes={"wallet": wallets.stream(player_id)},
        reads={"player": players.stream(player_id)},
        decision=_recording(
            decide, partial(GameRefused, verb=verb, played=played, reference=said.reference, money=money)
        ),
        answer=_answer,
    )


def bet_id(provider: str, reference: str) -> bytes:
    """The identifier of the command by which a provider has placed a bet."""
    return command_id(_caller(provider), f"bet\n{reference}")


def part_id(bet: bytes, part: int) -> bytes:
    """The identifier that the n-th part of a bet claims when it is rolled back. No actor is called so."""
    return command_id("rolled back", f"{bet.hex()}\n{part}")


def parts_of(bet: bytes) -> Callable[[int], bytes]:
    """The series of them, for Plan.series."""
    return lambda part: part_id(bet, part)


def part_in(facts: Sequence[Fact], bet: str) -> RolledBack | None:
    """The part of this bet that a command has rolled back: a provider's, or the void of a round, which may be of several bets."""
    return next((fact.event for fact in facts if isinstance(fact.event, RolledBack) and fact.event.bet == bet), None)


def _rollback(played: Played, said: GameCall, context: Context) -> Plan:
    _needs(said, "reference")
    player_id, named = PlayerId(said.player), said.bet or said.reference
    money = None if said.amount is None else _money(said)
    if money is not None and not money.amount:
        raise Invalid("to roll back a part is to roll back something", pointer="/amount")
    bet_command = bet_id(played.provider, named)
    amount = money.amount if money else None
    wallet_stream = wallets.stream(player_id)

    def decide(
        _at: datetime, wallet: Wallet, player: Player, bet: Sequence[Fact], parts: Sequence[Fact], **_: object
    ) -> Sequence[Event]:
        if money is not None:
            bets.require_currency(player, money)
        if bet and bet[0].stream != wallet_stream.name:
            raise BetElsewhere
        match bet:
            case [Fact(event=Staked() as staked, at=at)] if at is not None:
                last = part_in(parts, staked.reference)
                return bets.roll_back(wallet, staked, staked_at=at, last=last, reference=said.reference, amount=amount)
        before = bet[0].event if bet else None
        assert before is None or isinstance(before, StakeRefused | RolledBack)  # noqa: S101 — nothing else is a bet's
        return bets.roll_back_nothing(
            wallet, player, played=played, reference=said.reference, bet=named, before=before, amount=amount
        )

    def claims(events: Sequence[Event]) -> Mapping[int, bytes]:
        match events:
            case [RolledBack(part=part), Claimed()]:
                return {2: part_id(bet_command, part) if part else bet_command}
        return {}

    owed = _owed(played, said, context, "rollback", Action.GAME_ROLLBACK, decide, money)
    return msgspec.structs.replace(
        owed,
        writes={"wallet": wallet_stream, "bet_claims": bets.stream(player_id)},
        refers={"bet": bet_command},
        series={"parts": parts_of(bet_command)},
        claims=claims,
    )


_VERBS: Mapping[str, Callable[[Played, GameCall, Context], Plan]] = {
    "balance": _balance_of,
    "bet": _bet,
    "win": _win(WinKind.WIN),
    "bonus_win": _win(WinKind.BONUS_WIN),
    "free_win": _win(WinKind.FREE_WIN),
    "rollback": _rollback,
    "close": _close,
}

VERBS = frozenset(_VERBS)
"""What a game provider may ask of the wallet."""
