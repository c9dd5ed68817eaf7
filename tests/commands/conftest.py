from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.commands.house import House


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    await house.close()
