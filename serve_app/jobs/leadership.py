"""Who alone may do what only one process may do: a lease in the store, taken over once it has run out."""

from time import time
from uuid import uuid4

from sqlalchemy import delete, or_, select

from serve_app.jobs.database import Database
from serve_app.jobs.tables import leaders

DISPATCHER = "dispatcher"  # the one that dispatches


class Leadership:
    """One candidate for one role."""

    def __init__(self, database: Database, role: str) -> None:
        self._database = database
        self._role = role
        self._holder = uuid4().hex

    async def hold(self, lease_s: float, replicas: int) -> bool:
        """Take or prolong the lease and say how many replicas there are; False while another candidate holds it."""
        row = {
            "role": self._role,
            "holder": self._holder,
            "expires_at": time() + lease_s,
            "replicas": replicas,
        }
        insert = self._database.insert(leaders).values(row)
        free = or_(leaders.c.holder == self._holder, leaders.c.expires_at < time())
        taken = insert.on_conflict_do_update(index_elements=["role"], set_=row, where=free).returning(leaders.c.holder)
        return await self._database.write(lambda connection: connection.execute(taken).first() is not None)

    async def resign(self) -> None:
        """Let the next candidate have it at once."""
        own = delete(leaders).where(leaders.c.role == self._role, leaders.c.holder == self._holder)
        await self._database.write(lambda connection: connection.execute(own))

    async def is_held(self) -> bool:
        """Whether any candidate holds the role now."""
        held = select(leaders.c.role).where(leaders.c.role == self._role, leaders.c.expires_at > time())
        return await self._database.read(lambda connection: connection.execute(held).first() is not None)
