"""The job store of a service, for commands that work on it directly; the service's config says where it is."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from serve_app.settings import ENVIRONMENT, Settings

if TYPE_CHECKING:
    from serve_app.jobs.store import JobStore

Result = TypeVar("Result")

ConfigOption = Annotated[
    Path, typer.Option("--config", help="The service's Serve config file; it says where the job store is.")
]
DEFAULT_CONFIG = Path("serve_config.yaml")


def settings_of(config: Path) -> Settings:
    """Return the settings in a config; without the file those of the environment, where that names the job store.

    Raises:
        ConfigurationInvalid: it cannot be read, or an arg is wrong.
    """
    # Imported here: Ray takes seconds to import.
    from serve_app.launch.preflight import read_config  # noqa: PLC0415

    if not config.exists() and os.environ.get(ENVIRONMENT["database_url"]):
        return Settings.from_args({})
    first, *_ = read_config(config).settings
    return first


def in_store(settings: Settings, work: Callable[["JobStore"], Awaitable[Result]]) -> Result:
    """Run `work` on the job store, which is made or brought up to date first, and return its result. Blocking.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    # Imported here: SQLAlchemy and Alembic are slow to import.
    from serve_app.jobs.schema import migrate  # noqa: PLC0415
    from serve_app.jobs.store import JobStore  # noqa: PLC0415

    async def run() -> Result:
        store = JobStore(settings.database_url)
        try:
            return await work(store)
        finally:
            await store.close()

    migrate(settings.database_url)
    return asyncio.run(run())
