"""Fixtures for all tests, and which of them run in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

pytest_plugins = ["tests.stack", "tests.ledger"]

# No test depends on how fast a machine is: the first text that hypothesis draws on one takes seconds, for it tabulates Unicode.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

_SHARED = "tests/system/"
_ALONE = "tests/system/test_faults.py"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """A file's tests run in one process, and so do all that share two running regions: to start these takes longest."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return _SHARED if file.startswith(_SHARED) and file != _ALONE else file

    return Scheduling(config, log)
