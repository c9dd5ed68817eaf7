"""Fixtures for all tests, and which of them run in one process."""

import pytest

pytest_plugins = ["tests.stack", "tests.ledger"]

_SHARED = "deployment"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests run in one process, and so do all that share the two running regions: to start these takes longest."""
    for item in items:
        shares = _SHARED in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group(_SHARED if shares else item.path.stem + item.path.parent.name))
