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
# time: one worker of `make test` runs them all, from the start on, and the others run the rest.
_SERVICES = "services"
_SERVICE_FIXTURES = frozenset({"service", "client"})


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave folders without unit tests alone in `make quick`: to import PyTorch takes longer than many a test."""
    heavy = [config.rootpath / folder for folder in _HEAVY_FOLDERS]
    return True if config.option.markexpr == "unit" and collection_path in heavy else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `unit` every test that needs nothing but this process, and say which tests share a worker, in order."""
    for item in items:
        if not _is_heavy(item):
            item.add_marker(pytest.mark.unit)
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=lambda item: _group(item) != _SERVICES)


def _group(item: pytest.Item) -> str:
    """Return the tests that one worker runs one after another: those with services, or those of a file."""
    module = getattr(item, "module", None)
    starts_services = hasattr(module, "ServiceProcess") or item.nodeid.startswith("tests/integration")
    if starts_services or _SERVICE_FIXTURES & set(getattr(item, "fixturenames", ())):
        return _SERVICES
    return item.nodeid.partition("::")[0]


def _is_heavy(item: pytest.Item) -> bool:
    fixtures: frozenset[str] = frozenset(getattr(item, "fixturenames", ()))
    return (
        bool(fixtures & _HEAVY_FIXTURES)
        or item.nodeid.startswith(_HEAVY_FOLDERS)
        or _HEAVY_PARAMETER in item.name
        or item.get_closest_marker("slow") is not None
    )
