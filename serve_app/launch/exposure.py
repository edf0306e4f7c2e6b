"""Exposure (secure by default): a service that other machines can reach has API keys, or says that it is open.

Example:
    check_exposure(host, settings)  # before Ray is started, and when the application is built
"""

import asyncio
from ipaddress import ip_address

import ray
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from serve_app.errors import ConfigurationInvalid
from serve_app.jobs.store import JobStore
from serve_app.settings import Settings


def check_exposure(host: str, settings: Settings) -> None:
    """Check that a service which other machines reach has a key, or is declared open. Blocking.

    The database must be migrated.

    Raises:
        ConfigurationInvalid: other machines reach `host`, there is no key, and the arg `open` is not set.
        StoreUnavailable: the database does not answer.
    """
    if settings.open or settings.admin_key or is_loopback(host) or asyncio.run(_has_keys(settings.database_url)):
        return
    raise ConfigurationInvalid(
        f"http_options.host: at {host} other machines can call this service, and it has no API key. Make one with "
        "`wan-lora keys make TENANT`, or set WAN_ADMIN_KEY in the environment of every Ray process; or listen at "
        "127.0.0.1; or set the arg open: true if everyone who reaches it may use it"
    )


def is_loopback(host: str) -> bool:
    """Return whether a server at `host` is reachable from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serves_at() -> str | None:
    """Return the host at which the Serve instance of this Ray cluster listens; None if there is none yet.

    `serve run` and `serve deploy` start it before the application is built. If the application is built first,
    `serve.run` starts it on the loopback interface.
    """
    try:
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return None
    host: str = ray.get(controller.get_http_config.remote()).host
    return host


async def _has_keys(database_url: str) -> bool:
    store = JobStore(database_url)
    try:
        return await store.keys.exist()
    finally:
        await store.close()
