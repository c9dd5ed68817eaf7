"""
Protecting a player whom another region owns, while that one cannot be reached (commands/safeguards.py).

    protective command ──▶ its owner ──▶ as any other
                              └─ not reached, or silent ──▶ recorded here, by the same id ──▶ the owner takes it up from its copy

Invariants:
    - whoever asks for protection is told `owner_unreachable` only where this region cannot record what they ask for;
    - from then on nothing that it closes is sent on from here: not before the owner has taken it up, as far as is known here;
    - what stands in a log that is held here has its first answer, whatever has been closed since.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus

import structlog

from app.batching import NotMade
from app.forwarding import unknown
from app.lane import Answered
from app.planning import Services
from app.problems import OwnerUnreachable
from app.registering import REGISTRATION
from commands import authorising, safeguards
from commands.plan import Plan, Receipt
from commands.safeguards import Here
from domain.errors import NotFound, Rejected
from domain.protection import Stop

_ON_ITS_WAY = "what protects the player is on its way to the region that owns them"
_MONEY_IN = frozenset({Stop.DEPOSIT, Stop.BET})
_GAMES = "/v1/games/"
_BET = f"{_GAMES}{{provider}}/bet"

CONCERNED = safeguards.PATHS | safeguards.OPENED.keys()
"""Of commands that are described here before they are sent to another region."""

MAY_STAND_HERE = safeguards.PATHS | {REGISTRATION}
"""Of commands that this region may have recorded although another one owns their player, which may not know of it yet."""

_log = structlog.get_logger(__name__)


async def require_open(services: Services, path: str, plan: Plan) -> Receipt | None:
    """Ask before a command is sent to another region. `path`: of its endpoint. The first answer, if it is closed now and stands in
    a log that is held here. Raises what closes it, OwnerUnreachable.
    """
    unsent = (await not_to_be_sent(services, {0: (path, plan)})).get(0)
    if isinstance(unsent, Exception):
        raise unsent
    return unsent


async def not_to_be_sent(
    services: Services, asked: Mapping[int, tuple[str, Plan]]
) -> Mapping[int, Receipt | Exception]:
    """The same of several, by place: those that are not to be sent, and their first answers, or why."""
    players = {
        place: player_id
        for place, (path, plan) in asked.items()
        if path in safeguards.OPENED and (player_id := safeguards.player_of(plan)) is not None
    }
    if not players:
        return {}
    decider = services.decider
    held = await safeguards.look_here(set(players.values()), await decider.logs(), decider.look)
    refused: dict[int, Rejected] = {}
    for place, player_id in players.items():
        if (here := held.get(player_id)) is not None and here.is_open():
            try:
                _require_open(here, *asked[place])
            except Rejected as error:
                refused[place] = error
    # What games say is said again until it was heard: their door asks nobody for a first answer but the owner.
    repeated = {place: asked[place][1] for place in refused if not asked[place][0].startswith(_GAMES)}
    known = await first_answers(services, repeated)
    return {**refused, **known}


async def standing_here(services: Services, asked: Mapping[int, tuple[str, Plan]]) -> Mapping[int, Receipt | Exception]:
    """By place, the first answers of those whose owner may not know of them: a registration that stands in any log here, and what
    protects where it was recorded by this region. (What the owner has recorded it judges better: it has the player's key.)
    """
    plans = {place: plan for place, (path, plan) in asked.items() if path in MAY_STAND_HERE}
    known = await first_answers(services, plans)
    return {
        place: each
        for place, each in known.items()
        if asked[place][0] == REGISTRATION or not _is_recorded_by_another(services.decider.log, each)
    }


def _is_recorded_by_another(log: str, known: Receipt | Exception) -> bool:
    """That a key stands for something else has no position, and is so wherever that stands."""
    position = known.position if isinstance(known, Receipt | Rejected) else None
    return position is not None and not position.startswith(f"{log}/")


async def first_answers(services: Services, plans: Mapping[int, Plan]) -> dict[int, Receipt | Exception]:
    """By place, of those that stand in a log that is held here."""
    known = await services.decider.repeats(list(plans.values())) if plans else ()
    return {place: each for place, each in zip(plans, known, strict=True) if each is not None}


def _require_open(here: Here, path: str, plan: Plan) -> None:
    """Raises what closes it, OwnerUnreachable."""
    action, at = safeguards.OPENED[path], datetime.now(UTC)
    plan.context.principal.require(*plan.require)
    authorising.require(plan, {"player": here.player}, at)
    # A bet may be a repeat, and stand: its provider must not hear that it was refused.
    if path != _BET and (refused := here.refusal(action, at)):
        raise refused
    if action in _MONEY_IN:  # the owner might not know of a limit
        raise OwnerUnreachable(_ON_ITS_WAY)


async def recorded(services: Services, path: str, plan: Plan) -> Receipt | None:
    """The command, recorded here; None if it is not one that may be, or the player is not known here. Raises what it raises."""
    player_id, decider = safeguards.player_of(plan), services.decider
    if path not in safeguards.PATHS or player_id is None or plan.seen.streams:
        return None
    logs = await decider.logs()
    held = await decider.look(safeguards.seen_by(plan, logs))
    try:
        receipt = await decider.decide(safeguards.record(plan, player_id, decider.log, logs, held))
    except (NotFound, safeguards.NeedsOwner):
        return None
    _log.warning("what protects a player is recorded without their owner", path=path, position=receipt.position)
    return receipt


def is_unreached(answered: Answered, command_id: bytes) -> bool:
    """Whether the owner could not record anything just now, or a region on the way has not heard of it in time."""
    return answered.status == HTTPStatus.SERVICE_UNAVAILABLE or answered.body == unknown(command_id).body


def is_unreached_item(result: object) -> bool:
    """The same of an item of a batch."""
    if isinstance(result, NotMade):
        return result.result.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.ACCEPTED)
    return isinstance(result, OwnerUnreachable)
