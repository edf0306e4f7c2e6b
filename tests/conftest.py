"""Fixtures that every test may use."""

pytest_plugins = ["tests.fixtures.specs", "tests.fixtures.store"]
