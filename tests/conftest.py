"""Fixtures that every test may use, and which tests are quick."""

from pathlib import Path

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
    "tests.fixtures.s3",
    "tests.fixtures.demo",
    "tests.fixtures.service",
]

# A test that starts a server, a cluster or a pipeline is no unit test. Each of them begins with one of these fixtures,
# or lies in one of these folders.
_HEAVY_FIXTURES = frozenset({"postgres", "service", "client", "demo_checkpoint", "demo_loras", "s3_server"})
_HEAVY_FOLDERS = ("tests/integration", "tests/deployments/wan")
_HEAVY_PARAMETER = "postgresql"  # the name of a database kind in a test's id

# Tests that start a service of their own, or use the session's. They mostly wait, and want their clusters one at a
# time: `make test` runs them one after another, and the rest beside them.
_SERVICE_FIXTURES = frozenset({"service", "client"})


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave folders without unit tests alone in `make quick`: to import PyTorch takes longer than many a test."""
    heavy = [config.rootpath / folder for folder in _HEAVY_FOLDERS]
    return True if config.option.markexpr == "unit" and collection_path in heavy else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that need nothing but this process as `unit`, and those that start a cluster as `service`."""
    for item in items:
        if not _is_heavy(item):
            item.add_marker(pytest.mark.unit)
        if _needs_service(item):
            item.add_marker(pytest.mark.service)


def _needs_service(item: pytest.Item) -> bool:
    starts_one = hasattr(getattr(item, "module", None), "ServiceProcess")
    in_folder = item.nodeid.startswith("tests/integration")
    return starts_one or in_folder or bool(_SERVICE_FIXTURES & set(getattr(item, "fixturenames", ())))


def _is_heavy(item: pytest.Item) -> bool:
    fixtures: frozenset[str] = frozenset(getattr(item, "fixturenames", ()))
    return (
        bool(fixtures & _HEAVY_FIXTURES)
        or item.nodeid.startswith(_HEAVY_FOLDERS)
        or _HEAVY_PARAMETER in item.name
        or item.get_closest_marker("slow") is not None
    )
