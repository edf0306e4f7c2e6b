"""`wan-lora sweep`, as an operator uses it."""

import json
import os
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from serve_app.cli import app


def sweep(*args: str) -> Result:
    return CliRunner().invoke(app, ["sweep", *args], env={"COLUMNS": "200"})


def test_a_dry_run_names_what_a_sweep_then_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/jobs.db")
    monkeypatch.setenv("OUTPUT_BASE_PATH", str(tmp_path / "outputs"))
    orphan = tmp_path / "outputs" / str(uuid4()) / "0-1.mp4"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"what a killed Generator left")
    os.utime(orphan, (0, 0))
    shown = sweep("--dry-run")
    assert shown.exit_code == 0, shown.output
    assert f"no request knows {orphan.parent.name}/0-1.mp4" in shown.stdout
    assert orphan.exists()
    report = json.loads(sweep("--json").stdout)
    assert (report["orphans"], report["dry_run"], report["complete"]) == (1, False, True)
    assert not orphan.exists()
