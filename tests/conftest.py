"""Fixtures for all tests."""

pytest_plugins = ["tests.stack", "tests.ledger"]
