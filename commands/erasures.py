"""Commands on erasures: give up for good what identifies a former player. Two people agree to it (policies.approvals)."""

from __future__ import annotations

from datetime import datetime

import msgspec

from access.policy import Action
from commands.edge import Edge, Endpoint, Word
from commands.plan import Plan
from domain import erasures, players, wallets
from domain.erasures import MoneyLeft, NotClosed, RetentionNotOver
from domain.errors import NotFound, UnderReview
from domain.kernel import PlayerId


class ErasePlayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`basis`: why, in a word that stands in the log for ever, such as asked or retention_over."""

    basis: Word


class PlayerErased(msgspec.Struct, frozen=True):
    """The certificate is at /v1/players/{player_id}/erasure."""

    player: str


def erase(player_id: str, command: ErasePlayer, edge: Edge) -> Plan:
    """Erase a player: destroy the key of what identifies them, in every region. Another person approves it first.

    Raises NotFound, NotClosed, UnderReview, MoneyLeft, RetentionNotOver (allowed_from, rule), Forbidden.
    """

    def decide(at: datetime, player: players.Player, wallet: wallets.Wallet) -> list[players.Erased]:
        return erasures.erase(player, wallet, basis=command.basis, at=at)

    return Plan(
        edge.context,
        require=(Action.PLAYER_ERASE,),
        writes={"player": players.stream(PlayerId(player_id))},
        reads={"wallet": wallets.stream(PlayerId(player_id))},
        decision=decide,
        answer=lambda _facts: PlayerErased(player_id),
    )


ENDPOINTS = (
    Endpoint(
        "/v1/players/{player_id}/erase",
        erase,
        ErasePlayer,
        PlayerErased,
        200,
        (NotFound, NotClosed, UnderReview, MoneyLeft, RetentionNotOver),
    ),
)
