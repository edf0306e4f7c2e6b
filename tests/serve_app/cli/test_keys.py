"""`wan-lora keys`, as an operator uses it, and what the service then thinks of the keys."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from serve_app.access.keys import Presented
from serve_app.cli import app


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a job store that does not exist yet."""
    url = f"sqlite:///{tmp_path}/var/jobs.db"
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.chdir(tmp_path)
    return url


def keys(*args: str) -> Result:
    return CliRunner().invoke(app, ["keys", *args], env={"COLUMNS": "200"})


def listed() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(keys("list", "--json").stdout)["keys"]
    return found


def test_a_key_is_made_listed_and_revoked(database: str) -> None:
    made = keys("make", "team-a", "--name", "laptop", "--scope", "read", "--days", "30")
    assert made.exit_code == 0, made.output
    presented = Presented.of(made.stdout.strip())
    assert presented is not None
    (key,) = listed()
    assert (key["id"], key["tenant"], key["name"], key["scopes"]) == (presented.key_id, "team-a", "laptop", ["read"])
    shown = keys("list").stdout
    assert "good until" in shown
    assert made.stdout.strip().removeprefix(f"wan_{presented.key_id}_") not in shown + json.dumps(listed())
    assert keys("revoke", presented.key_id).exit_code == 0
    assert listed()[0]["revoked_at"]
    assert "revoked" in keys("list").stdout


def test_only_the_hash_is_in_the_database(database: str) -> None:
    token = keys("make", "team-a").stdout.strip()
    presented = Presented.of(token)
    assert presented is not None
    content = b"".join(path.read_bytes() for path in Path(database.removeprefix("sqlite:///")).parent.iterdir())
    assert token.removeprefix(f"wan_{presented.key_id}_").encode() not in content
    assert presented.secret_sha256.encode() in content


@pytest.mark.parametrize("args", [("make", "team a"), ("revoke", "0123"), ("make", "a", "--scope", "god")])
def test_what_is_wrong_is_a_usage_error(database: str, args: tuple[str, ...]) -> None:
    assert keys(*args).exit_code == 2


def test_the_config_says_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    args = {"database_url": f"sqlite:///{tmp_path}/there.db"}
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"applications": [{"import_path": "serve_app:build", "args": args}]}))
    assert keys("make", "team-a", "--config", str(config)).exit_code == 0
    assert (tmp_path / "there.db").is_file()
