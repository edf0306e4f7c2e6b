"""A next version of the code, made up: a copy of `serve_app` with one more migration, column and field of a spec.

code = next_version(directory, compatible_from=REVISION)
subprocess.run([sys.executable, "-m", "tests.serve_app.jobs.rollout", ...], env=code.environment())
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from serve_app.jobs.revisions import OLDER, REVISION

NEXT = "9999.01"
_REPOSITORY = Path(__file__).parents[3]
_MIGRATION = '''"""Say how a video feels."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None
compatible_from = "{compatible_from}"


def upgrade() -> None:
    op.add_column("renders", sa.Column("mood", sa.String(16), nullable=False, server_default="calm"))
    op.create_index("renders_of_mood", "renders", ["mood", "id"])
'''
# What the next version has changed: file, what stands there now, what stands there then.
_CHANGES = (
    ("jobs/revisions.py", f'REVISION = "{REVISION}"', f'REVISION = "{NEXT}"'),
    ("jobs/revisions.py", "OLDER: tuple[str, ...] = ()", f"OLDER: tuple[str, ...] = {(*OLDER, REVISION)!r}"),
    (
        "jobs/tables.py",
        '    Column("traceparent"',
        '    Column("mood", String(16), nullable=False, server_default="calm"),\n    Column("traceparent"',
    ),
    ("jobs/rows.py", '            "steps": spec', '            "mood": spec.mood,\n            "steps": spec'),
    ("spec.py", "    seed: int\n", '    seed: int\n    mood: str = "wild"\n'),
)


class Where(TypedDict):
    """Arguments of `subprocess` functions."""

    cwd: Path
    env: dict[str, str]


@dataclass(frozen=True)
class Code:
    """The packages of one version."""

    root: Path

    def alone(self) -> Where:
        """Say how `subprocess` runs this version: Python looks in the working directory first, then in PYTHONPATH."""
        path = os.pathsep.join([str(self.root), str(_REPOSITORY)])
        return {"cwd": self.root, "env": {**os.environ, "PYTHONPATH": path}}


THIS = Code(_REPOSITORY)


def next_version(directory: Path, *, compatible_from: str = REVISION) -> Code:
    """Write it; code from `compatible_from` on works with its schema, as its migration says."""
    package = directory / "serve_app"
    shutil.copytree(_REPOSITORY / "serve_app", package, ignore=shutil.ignore_patterns("__pycache__", "page"))
    for name, old, new in _CHANGES:
        text = (package / name).read_text()
        assert text.count(old) == 1, f"{name}: {old!r} is not there once"
        (package / name).write_text(text.replace(old, new))
    migration = _MIGRATION.format(revision=NEXT, before=REVISION, compatible_from=compatible_from)
    (package / "jobs" / "migrations" / "versions" / "0002_next.py").write_text(migration)
    return Code(directory)
