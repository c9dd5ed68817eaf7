from __future__ import annotations

import pytest

from domain import players
from domain.errors import AlreadyRegistered, NotFound
from domain.players import PLAYERS, Blocked, Player, Status
from tests.domain.history import EUR, REGISTERED, given


def test_a_new_player_is_registered() -> None:
    assert players.register(given(PLAYERS), registered=REGISTERED) == [REGISTERED]
    assert given(PLAYERS, REGISTERED) == Player(Status.ACTIVE, "DE", EUR, REGISTERED.key.id)


@pytest.mark.parametrize("history", [[REGISTERED], [REGISTERED, Blocked(reason="fraud")]])
def test_a_player_is_registered_once(history: list[players.PlayerEvent]) -> None:
    with pytest.raises(AlreadyRegistered):
        players.register(given(PLAYERS, *history), registered=REGISTERED)


def test_a_registered_player_can_be_blocked() -> None:
    assert players.block(given(PLAYERS, REGISTERED), reason="fraud") == [Blocked(reason="fraud")]


def test_blocking_again_records_nothing() -> None:
    blocked = given(PLAYERS, REGISTERED, Blocked(reason="fraud"))
    assert players.block(blocked, reason="another reason") == []


def test_nobody_can_be_blocked_who_is_not_there() -> None:
    with pytest.raises(NotFound):
        players.block(given(PLAYERS), reason="fraud")


def test_a_blocked_player_keeps_country_and_currency() -> None:
    assert given(PLAYERS, REGISTERED, Blocked(reason="fraud")) == Player(Status.BLOCKED, "DE", EUR, REGISTERED.key.id)


def test_the_state_holds_nothing_personal() -> None:
    assert set(Player.__struct_fields__) == {"status", "country", "currency", "key"}
