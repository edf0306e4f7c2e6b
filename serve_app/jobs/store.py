"""The job store: every accepted request, durable, in SQLite or PostgreSQL.

>>> store = JobStore("sqlite:///var/jobs.db")  # on the event loop that uses it; `migrate` has made the tables
>>> await store.requests.submit(request)       # the client side
>>> await store.queue.load()                   # the scheduling side
>>> await store.claims.claim(render_id, replica, lease_s=15)  # the worker side
"""

from collections.abc import Mapping
from functools import partial

from serve_app.costs import CostKey, MeasuredCost
from serve_app.jobs.claims import Claims
from serve_app.jobs.costs import read_costs
from serve_app.jobs.database import Database
from serve_app.jobs.leadership import Leadership
from serve_app.jobs.queue import Queue
from serve_app.jobs.requests import Requests


class JobStore:
    """One database, for one process, from the side of clients, of the scheduler and of workers."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self.requests = Requests(self._database)
        self.queue = Queue(self._database)
        self.claims = Claims(self._database)

    @property
    def notifies(self) -> bool:
        """Whether the database itself tells who listens of new renders; see `serve_app.jobs.notices`."""
        return self._database.notifies

    def leadership(self, role: str) -> Leadership:
        """Return a candidate for a role that only one process may have."""
        return Leadership(self._database, role)

    async def costs(self, deployment: str) -> Mapping[CostKey, MeasuredCost]:
        """Read what renders have cost on that deployment."""
        return await self._database.read(partial(read_costs, deployment=deployment))

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()
