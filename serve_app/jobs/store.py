"""The job store: durable requests in SQLite or PostgreSQL, with a client, a scheduling and a worker side.

Example:
    store = JobStore("sqlite:///var/jobs.db")  # on the event loop that uses it; `migrate` has made the tables
    await store.requests.submit(request)       # the client side
    await store.queue(model).load()            # the scheduling side
    await store.claims.claim(render_id, replica, lease_s=15)  # the worker side
"""

from collections.abc import Mapping
from functools import partial

from serve_app.costs import CostKey, MeasuredCost
from serve_app.jobs.claims import Claims
from serve_app.jobs.coordination import Leadership
from serve_app.jobs.costs import read_costs
from serve_app.jobs.database import Database
from serve_app.jobs.endings import Tell, nobody
from serve_app.jobs.keys import Keys
from serve_app.jobs.needs import read_needs
from serve_app.jobs.outbox import Outbox
from serve_app.jobs.queue import Queue
from serve_app.jobs.requests import Requests
from serve_app.jobs.retention import Retention
from serve_app.jobs.usage import Usages
from serve_app.needs import NeedKey


class JobStore:
    """The three sides of one database, for one process. Create it on the event loop that uses it."""

    def __init__(self, url: str, tell: Tell = nobody) -> None:
        """Take the database's address, and who is told of each render that this process ends."""
        self._database = Database(url)
        self.requests = Requests(self._database, tell)
        self.claims = Claims(self._database, tell)
        self.outbox = Outbox(self._database)
        self.keys = Keys(self._database)
        self.usage = Usages(self._database)
        self.retention = Retention(self._database)

    @property
    def notifies(self) -> bool:
        """Return whether the database notifies listeners of new renders; see `serve_app.jobs.coordination.listen`."""
        return self._database.notifies

    def queue(self, model: str) -> Queue:
        """Return the queue of that model's renders."""
        return Queue(self._database, model)

    def leadership(self, role: str) -> Leadership:
        """Return a new candidate for a role that only one process may have."""
        return Leadership(self._database, role)

    async def costs(self, deployment: str) -> Mapping[CostKey, MeasuredCost]:
        """Return the measured costs of that deployment."""
        return await self._database.read(partial(read_costs, deployment=deployment))

    async def needs(self, deployment: str) -> Mapping[NeedKey, int]:
        """Return what renders of that deployment were measured to need of a GPU's memory besides weights, in bytes."""
        return await self._database.read(partial(read_needs, deployment=deployment))

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()
