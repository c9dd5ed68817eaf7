from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.commands.house import Bound, House


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
