"""Schema revisions (expand and contract): which versions of the code may use one database at the same time.

During an upgrade the old version and the new one work on the same job store. Each migration therefore says, in its
attribute `compatible_from`, the oldest revision whose code still works with the schema that it leaves. The database
keeps that in `schema_revisions`, since code of an older version has no file of a newer migration.

Nothing here imports Alembic, which takes a tenth of a second, in every process.
"""

REVISION = "2026.11"
"""The schema that this code was written for: the newest migration under `migrations/versions`."""

OLDER: tuple[str, ...] = ()
"""The revisions before it, oldest first. Code of these versions gives way to this one; see `Leadership.hold`."""


def works_with(compatible_from: str | None) -> bool:
    """Return whether this code may use a newer schema; `compatible_from` is the oldest revision that works with it."""
    return compatible_from in (*OLDER, REVISION)
