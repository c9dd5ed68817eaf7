from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.commands.house import Bound, House
from tests.commands.us import Us


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    await house.close()


@pytest.fixture
async def bound() -> AsyncIterator[Bound]:
    house = Bound()
    yield house
    await house.close()


@pytest.fixture
async def us(house: House) -> AsyncIterator[Us]:
    """The region holds the other's log as it is, and so does the House."""
    us = Us(house)
    us.send()
    us.receive()
    yield us
    us.writer.close()
    await us.task
