"""Fixtures that every test may use, and which tests are quick."""

import pytest
from hypothesis import settings

# An example on a busy machine may take long; how long is a benchmark's business.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")

pytest_plugins = [
    # First, since others import them: pytest rewrites the assertions of what it imports itself.
    "tests.fixtures.specs",
    "tests.fixtures.store",
    "tests.fixtures.api",
    "tests.fixtures.images",
    "tests.fixtures.demo",
    "tests.fixtures.service",
]

# A test that starts a server, a cluster or a pipeline is no unit test. Each of them begins with one of these fixtures,
# or lies in one of these folders.
_HEAVY_FIXTURES = frozenset({"postgres", "service", "client", "demo_checkpoint", "demo_loras", "s3_server"})
_HEAVY_FOLDERS = ("tests/integration", "tests/deployments/wan")
_HEAVY_PARAMETER = "postgresql"  # the name of a database kind in a test's id


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `unit` every test that needs nothing but this process: `make quick` runs those."""
    for item in items:
        if not _is_heavy(item):
            item.add_marker(pytest.mark.unit)


def _is_heavy(item: pytest.Item) -> bool:
    fixtures: frozenset[str] = frozenset(getattr(item, "fixturenames", ()))
    return (
        bool(fixtures & _HEAVY_FIXTURES)
        or item.nodeid.startswith(_HEAVY_FOLDERS)
        or _HEAVY_PARAMETER in item.name
        or item.get_closest_marker("slow") is not None
    )
