"""
Registers of the excluded, asked before the commands that need their answer are decided: a registration, a log-in, a
withdrawal, a check.

Invariants:
    - nobody is asked about for a caller who may not run the command;
    - the answer goes with the command as a value: the decision calls nobody.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import httpx2
import msgspec
import structlog

from access.policy import Action, Principal
from app.settings import Settings
from commands.asking import Asking
from commands.edge import read_body
from commands.logins import LogIn
from commands.players import RegisterPlayer
from commands.registers import CheckRegister
from commands.transactions.withdrawals import RequestWithdrawal
from domain.errors import Rejected
from domain.kernel import PlayerId
from domain.protection import Answer
from eventstore.log import Streams
from eventstore.record import Codec
from eventstore.vault import Vault
from eventstore.writer import Unavailable
from policies.protection import Moment
from policies.rules import RULES
from registers import known
from registers.breaker import Breaker
from registers.http import HttpRegister
from registers.known import Known
from registers.port import Person

AT_ONCE = 16
"""How many questions of one batch are under way together."""

REGISTRATION, LOGIN, CHECK = "/v1/players", "/v1/players/{player_id}/logins", "/v1/players/{player_id}/register-check"
WITHDRAWAL = "/v1/players/{player_id}/withdrawals"
PATHS: Mapping[str, Action] = {
    REGISTRATION: Action.PLAYER_REGISTER,
    LOGIN: Action.LOGIN_RECORD,
    WITHDRAWAL: Action.WITHDRAWAL_REQUEST,
    CHECK: Action.PROTECTION_SET,
}
"""By path of a command before which a register is asked, what a caller must be allowed."""

_DECODERS: Mapping[str, msgspec.json.Decoder[Any]] = {
    REGISTRATION: msgspec.json.Decoder(RegisterPlayer),
    LOGIN: msgspec.json.Decoder(LogIn),
    WITHDRAWAL: msgspec.json.Decoder(RequestWithdrawal),
    CHECK: msgspec.json.Decoder(CheckRegister),
}

_log = structlog.get_logger(__name__)


async def asking(
    settings: Settings,
    stack: AsyncExitStack,
    streams: Streams,
    codec: Codec,
    vault: Vault,
    watch: Callable[[Iterable[Breaker]], None] = lambda _registers: None,
) -> Asking:
    """Who asks the registers that the settings name. `watch` is told of them. Raises RegistersUnreadable."""
    told = known.load(settings.registers)
    client = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, limits=httpx2.Limits()))
    _warn(told)
    elsewhere = {place: each.register for each in (told or {}).values() for place in each.jurisdictions}
    registers = {name: Breaker(HttpRegister(each, client)) for name, each in (told or {}).items()}
    watch(registers.values())
    return Asking(registers, streams, codec, vault, configured=told is not None, elsewhere=elsewhere)


def digest(settings: Settings) -> dict[str, str]:
    """What `service.started` says of the registers that are asked: a SHA-256 as of any policy; of null where there is no file."""
    told = known.load(settings.registers)
    lines = None if told is None else [(each.register, each.url, sorted(each.jurisdictions)) for each in told.values()]
    return {"registers": hashlib.sha256(msgspec.json.encode(lines)).hexdigest()}


def _warn(told: Mapping[str, Known] | None) -> None:
    """Name the registers of rules.csv that nobody can ask here."""
    named = {str(rule.value): rule.jurisdiction for rule in RULES.all if rule.name == "self_exclusion.register"}
    if missing := {name: where for name, where in named.items() if name not in (told or {})}:
        _log.warning("registers that cannot be asked here", registers=missing, configured=told is not None)


async def before(
    ask: Asking | None, principal: Principal, path: str, arguments: Sequence[str], raw: bytes
) -> Sequence[Answer]:
    """What registers say before the command of this path. Nothing where the command itself will be refused."""
    if ask is None or path not in PATHS or not principal.may(PATHS[path]):
        return ()
    try:
        match read_body(_DECODERS[path], raw or b"{}"):
            case RegisterPlayer() as told:
                return await _of_registration(ask, told)
            case CheckRegister(moment=moment):
                return await ask.of_player(PlayerId(arguments[0]), Moment(moment))
            case RequestWithdrawal():
                return await ask.of_player(PlayerId(arguments[0]), Moment.PRIZE_PAYMENT)
            case _:
                return await ask.of_player(PlayerId(arguments[0]), Moment.LOGIN)
    except Rejected:
        return ()  # the command says it better


async def _of_registration(ask: Asking, told: RegisterPlayer) -> Sequence[Answer]:
    if told.occurred is not None:  # history: whoever is still here is asked about at their next log-in
        return ()
    born = told.birth_date.isoformat() if told.birth_date else None
    person = Person(told.name, born, told.email, told.phone, told.postcode)
    return await ask.of_person(person, told.jurisdiction or told.country, Moment.REGISTRATION, datetime.now(UTC))


async def before_each(
    ask: Asking | None, principal: Principal, wanted: Mapping[int, tuple[str, Sequence[str], bytes]]
) -> Mapping[int, Sequence[Answer] | Unavailable]:
    """The same of a batch's items: (path of the command, its arguments, body) by place. One that cannot be asked about has
    Unavailable: earlier ones stand in the log already.
    """
    lane = asyncio.Semaphore(AT_ONCE)

    async def one(place: int) -> tuple[int, Sequence[Answer] | Unavailable]:
        async with lane:
            try:
                return place, await before(ask, principal, *wanted[place])
            except Exception:  # noqa: BLE001 — its own caller's, and nobody else's
                _log.warning("no register can be asked for an item of a batch", path=wanted[place][0], exc_info=True)
                return place, Unavailable("nobody could be asked about the player; try again")

    return dict(await asyncio.gather(*[one(place) for place in wanted]))
