"""The service on a fleet: PostgreSQL, S3, Redis, and a Ray cluster of four nodes; one for the whole session."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.fleet import Fleet
from tests.fixtures.s3 import running_s3
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Start the fleet, with the service on it."""
    shared = tmp_path_factory.mktemp("shared")
    with ExitStack() as stack:
        # Ray makes Unix sockets there, and their paths may have 107 bytes only.
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-", ignore_cleanup_errors=True)))
        database = PostgresServer(shared / "postgres", fsync=False)
        redis = RedisServer(shared / "redis")
        for server in (database, redis):
            stack.callback(server.stop)
            server.start()
        s3 = stack.enter_context(running_s3())
        fleet = Fleet(directory, shared, database.create_database("fleet"), redis.address, s3)
        stack.callback(fleet.cluster.kill)
        fleet.start()
        yield fleet
