"""Fixtures that every test may use, and which tests are quick."""

import gc
import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

# An example on a busy machine may take long; how long is a benchmark's business. Thirty examples are for every day, and
# `make contract` tries many more (--hypothesis-profile=thorough).
settings.register_profile("daily", deadline=None, max_examples=30)
settings.register_profile("thorough", deadline=None, max_examples=500)
settings.load_profile("daily")

pytest_plugins = [
    # First, since others import them: pytest rewrites the assertions of what it imports itself.
    "tests.fixtures.specs",
    "tests.fixtures.store",
    "tests.fixtures.api",
    "tests.fixtures.images",
    "tests.fixtures.drafts",
    "tests.fixtures.s3",
    "tests.fixtures.demo",
    "tests.fixtures.collector",
    "tests.fixtures.service",
]

# A unit test needs nothing but this process: no database or HTTP server, no other process, no cluster, no pipeline.
# One that does begins with one of these fixtures, lies in one of these folders, or in a file with such an import.
_HEAVY_FIXTURES = frozenset({"postgres", "service", "client", "demo_checkpoint", "demo_loras", "s3_server", "server"})
_BROWSER = "tests/browser"
_CLUSTER = "tests/cluster"
_HEAVY_FOLDERS = ("tests/integration", "tests/deployments/wan", _BROWSER, _CLUSTER)
_HEAVY_PARAMETER = "postgresql"  # the name of a database kind in a test's id
_HEAVY_IMPORT = re.compile(
    r"^(import (openai|subprocess|torch|uvicorn)\b"
    r"|from (deployments\.wan|diffusers|moto|torch|uvicorn)\b"
    r"|from tests\.(fixtures\.(s3|web_server)|serve_app\.loras\.sources)\b"
    r"|from tests\.service_process import .*ServiceProcess)",
    re.MULTILINE,
)

# Tests that use the session's service. They mostly wait, so `make test` runs them beside others, as it does those that
# start services of their own.
_SERVICE_FIXTURES = frozenset({"service", "client"})
_OWN_SERVICE_FOLDER = "tests/integration"
# One of these is in the text of every such file, which `pytest_collection_modifyitems` checks.
_SERVICE_TEXT = re.compile(r"\bServiceProcess\b|\b(service|client|lora_root): ")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files alone that hold no test that is asked for: to import PyTorch takes longer than many a test."""
    match config.option.markexpr:
        case "unit":
            folders = [config.rootpath / folder for folder in _HEAVY_FOLDERS]
            return True if collection_path in folders or _imports_more(collection_path) else None
        case "service" | "own_service":
            return None if _may_need_a_service(collection_path, config.rootpath) else True
        case _:
            return None


@cache
def _imports_more(path: Path) -> bool:
    return path.suffix == ".py" and path.name.startswith("test_") and bool(_HEAVY_IMPORT.search(path.read_text()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they need.

    `unit`, nothing but this process; `service`, the session's service; `own_service`, a service of their own; a
    `browser`; or a `cluster`.
    """
    for item in items:
        if item.nodeid.startswith(_BROWSER):
            item.add_marker(pytest.mark.browser)
            continue
        if item.nodeid.startswith(_CLUSTER):
            item.add_marker(pytest.mark.cluster)
            continue
        if not _is_heavy(item):
            item.add_marker(pytest.mark.unit)
        if _SERVICE_FIXTURES & set(getattr(item, "fixturenames", ())):
            _mark_service(item, "service")
        elif item.nodeid.startswith(_OWN_SERVICE_FOLDER) or hasattr(getattr(item, "module", None), "ServiceProcess"):
            _mark_service(item, "own_service")


def pytest_collection_finish() -> None:
    """Keep what was collected out of garbage collection, which would go through all tests again in many a test."""
    gc.collect()
    gc.freeze()


def _may_need_a_service(path: Path, root: Path) -> bool:
    if not (path.suffix == ".py" and path.name.startswith("test_")):
        return True
    return path.is_relative_to(root / _OWN_SERVICE_FOLDER) or bool(_SERVICE_TEXT.search(path.read_text()))


def _mark_service(item: pytest.Item, mark: str) -> None:
    """Mark a test; of those with services of their own, one worker of xdist runs a folder's, which may share one."""
    assert _may_need_a_service(item.path, item.config.rootpath), f"_SERVICE_TEXT does not find {item.path}"
    item.add_marker(getattr(pytest.mark, mark))
    shared = item.path.parent if item.path.parent.name == "several_models" else item.path
    item.add_marker(pytest.mark.xdist_group(shared.name))


def _is_heavy(item: pytest.Item) -> bool:
    fixtures: frozenset[str] = frozenset(getattr(item, "fixturenames", ()))
    return (
        bool(fixtures & _HEAVY_FIXTURES)
        or item.nodeid.startswith(_HEAVY_FOLDERS)
        or _HEAVY_PARAMETER in item.name
        or item.get_closest_marker("slow") is not None
        or _imports_more(item.path)
    )
