"""The secret that a tenant's receivers verify with."""

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.webhooks.signing import secret_of

MASTER = "a secret of the whole service"


def test_it_is_the_one_that_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", MASTER)
    printed = CliRunner().invoke(app, ["webhook-secret", "team-a"])
    assert printed.exit_code == 0
    assert printed.output.strip() == secret_of("team-a", SecretStr(MASTER)).get_secret_value()
    assert printed.output.startswith("whsec_")


def test_without_the_services_secret_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEBHOOK_SECRET", raising=False)
    refused = CliRunner().invoke(app, ["webhook-secret"])
    assert refused.exit_code == 2
    assert "WEBHOOK_SECRET is not set" in refused.stderr
