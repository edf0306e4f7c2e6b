"""Fixtures that every test may use."""

pytest_plugins = [
    "tests.fixtures.api",
    "tests.fixtures.demo",
    "tests.fixtures.specs",
    "tests.fixtures.store",
    "tests.fixtures.service",
]
