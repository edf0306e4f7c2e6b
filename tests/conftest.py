"""Fixtures that every test may use."""

pytest_plugins = [
    "tests.fixtures.store",  # first, since others import it: pytest rewrites the assertions of what it imports itself
    "tests.fixtures.api",
    "tests.fixtures.demo",
    "tests.fixtures.specs",
    "tests.fixtures.service",
]
