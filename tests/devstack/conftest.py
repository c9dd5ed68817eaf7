"""
One stack of three regions for all tests of this folder; those that must start or stop servers have their own.

The third region is there for the attacks between NATS servers: its other servers are said to run elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devstack import Given, Stack
from tests.stack import running_stack

pytest.register_assert_rewrite("tests.devstack.attacks", "tests.devstack.world")

REGIONS = ("eu", "us", "ca.2")
ELSEWHERE = Given(postgres="postgresql://elsewhere/countroom", redis="redis://elsewhere")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack"), REGIONS, given={"ca.2": ELSEWHERE}) as stack:
        yield stack
