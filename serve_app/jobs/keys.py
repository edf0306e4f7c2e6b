"""API keys in the job store: create, look up, list, revoke; and the secrets that all processes of a service share.

Example:
    await store.keys.add(made.key)
    key = await store.keys.presented(Presented.of(token))
    await store.keys.revoke(key.id)
"""

import secrets
from time import time
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, exists, insert, select, tuple_, update

from serve_app.access.keys import ApiKey, Presented, Scope
from serve_app.jobs.database import Database
from serve_app.jobs.tables import api_keys, server_secrets

_LINKS = "links"
_SECRET_BYTES = 32


class Keys:
    """The keys of one database. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: ApiKey) -> None:
        """Store a new key."""
        row = {
            "id": key.id,
            "name": key.name,
            "tenant": key.tenant,
            "scopes": ",".join(sorted(key.scopes)),
            "secret_sha256": key.secret_sha256,
            "created_at": key.created_at,
            "expires_at": key.expires_at,
        }
        await self._database.write(lambda connection: connection.execute(insert(api_keys).values(row)))

    async def presented(self, presented: Presented) -> ApiKey | None:
        """Return the key with that id and secret, even if it is revoked or has expired; None if there is none.

        A wrong secret costs what an unknown id does: one index answers both, and no row is read. Where the hashes
        differ may show in the time, but of a secret of 256 random bits its hash tells nothing.
        """
        return await self._one(
            tuple_(api_keys.c.id, api_keys.c.secret_sha256).in_([(presented.key_id, presented.secret_sha256)])
        )

    async def all(self, tenant: str | None = None) -> list[ApiKey]:
        """Return every key, or those of one tenant; the oldest first."""
        query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        if tenant is not None:
            query = query.where(api_keys.c.tenant == tenant)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [_to_key(row) for row in rows]

    async def exist(self) -> bool:
        """Return whether a key was ever made. Revoked keys count: revoking the last one opens nothing."""
        query = select(exists(select(api_keys.c.id)))
        return await self._database.read(lambda connection: bool(connection.execute(query).scalar_one()))

    async def revoke(self, key_id: str) -> ApiKey | None:
        """Revoke a key permanently, and return it; None if there is none. A second call does not change the time."""
        statement = (
            update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None)).values(revoked_at=time())
        )
        await self._database.write(lambda connection: connection.execute(statement))
        return await self._one(api_keys.c.id == key_id)

    async def _one(self, condition: ColumnElement[bool]) -> ApiKey | None:
        query = select(api_keys).where(condition)
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else _to_key(row)

    async def used(self, key_id: str) -> None:
        """Record that the key was used now."""
        statement = update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=time())
        await self._database.write(lambda connection: connection.execute(statement))

    async def link_secret(self) -> bytes:
        """Return the secret that signs links. The first caller in any process creates it."""
        query = select(server_secrets.c.value).where(server_secrets.c.name == _LINKS)
        known = await self._database.read(lambda connection: connection.execute(query).scalar_one_or_none())
        if known is not None:
            return bytes.fromhex(known)
        row = {"name": _LINKS, "value": secrets.token_hex(_SECRET_BYTES)}
        make = self._database.insert(server_secrets).values(row).on_conflict_do_nothing()

        def first(connection: Connection) -> str:
            connection.execute(make)
            value: str = connection.execute(query).scalar_one()
            return value

        return bytes.fromhex(await self._database.write(first))


def _to_key(row: Row[Any]) -> ApiKey:
    columns = dict(row._mapping)
    scopes = frozenset(Scope(scope) for scope in columns.pop("scopes").split(","))
    return ApiKey(scopes=scopes, **columns)
