"""
Commands on erasures: give up for good what identifies a former player, to which two people agree (policies.approvals); and, by no
path, that this is due (reactions/timers.py) and that a region has carried it out (reactions/erasing.py).
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from access.policy import Action
from commands.edge import Edge, Endpoint, Nothing, Word
from commands.plan import Context, Plan
from domain import erasures, players, protection, vaults, wallets
from domain.erasures import MoneyLeft, NotClosed, RetentionNotOver
from domain.errors import NotFound, UnderReview
from domain.kernel import PlayerId
from domain.protection import PlayerExcluded, PlayerTimedOut, Protection


class ErasePlayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`basis`: why, in a word that stands in the log for ever, such as asked or retention_over."""

    basis: Word


class PlayerErased(msgspec.Struct, frozen=True):
    """The certificate is at /v1/players/{player_id}/erasure."""

    player: str


def erase(player_id: str, command: ErasePlayer, edge: Edge) -> Plan:
    """Erase a player: destroy the key of what identifies them, in every region. Another person approves it first.

    Raises NotFound, NotClosed, UnderReview, MoneyLeft, PlayerExcluded (until), PlayerTimedOut (until), RetentionNotOver
    (allowed_from, rule), Forbidden.
    """

    def decide(
        at: datetime, player: players.Player, wallet: wallets.Wallet, protected: Protection
    ) -> list[players.Erased]:
        return erasures.erase(player, wallet, protected, basis=command.basis, at=at)

    return Plan(
        edge.context,
        require=(Action.PLAYER_ERASE,),
        writes={"player": players.stream(PlayerId(player_id))},
        reads={
            "wallet": wallets.stream(PlayerId(player_id)),
            "protected": protection.stream(PlayerId(player_id)),
        },
        decision=decide,
        answer=lambda _facts: PlayerErased(player_id),
    )


def fall_due(player_id: str, _command: Nothing, edge: Edge) -> Plan:
    """Note that a former player should have been erased by now, of which a notice tells people. For timers. Raises ErasureNotDue."""
    return Plan(
        edge.context,
        require=(Action.TIMER_FIRE,),
        writes={"player": players.stream(PlayerId(player_id))},
        decision=lambda at, player: erasures.fall_due(player, at=at),
        answer=lambda _facts: PlayerErased(player_id),
    )


def note_destroyed(region: str, player_id: PlayerId, key: str, context: Context) -> Plan:
    """Say that nothing is left of an erased player in the region's vault, where somebody has just looked."""
    return Plan(
        context,
        require=(Action.TIMER_FIRE,),
        writes={"history": vaults.of_player(region, player_id)},
        decision=lambda _at, history: vaults.note_destroyed(history, player=player_id, key=key),
        answer=lambda _facts: PlayerErased(player_id),
    )


ENDPOINTS = (
    Endpoint(
        "/v1/players/{player_id}/erase",
        erase,
        ErasePlayer,
        PlayerErased,
        200,
        (NotFound, NotClosed, UnderReview, MoneyLeft, PlayerExcluded, PlayerTimedOut, RetentionNotOver),
    ),
)
