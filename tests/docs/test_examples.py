"""Every example of the documentation runs, against a service with the demo: shell, Python and JavaScript."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import playwright
import pytest
import yaml
from pydantic import SecretStr
from standardwebhooks import Webhook

from serve_app.aliases import Alias
from serve_app.api.schemas.bodies import InferenceRequest
from serve_app.client import Client
from serve_app.webhooks.signing import secret_of
from tests.client import body
from tests.fixtures.documents import DOCS, SERVER, blocks
from tests.fixtures.service import WEBHOOK_SECRET
from tests.service_process import ServiceProcess

NODE = Path(playwright.__file__).parent / "driver" / "node"  # Playwright brings one
ELSEWHERE = {"client.md", "cli.md"}
FIRST_BYTES = b"ftyp"  # of an mp4, behind its length


def pages(language: str) -> list[str]:
    """Return those that have such blocks, but for those whose own tests run them."""
    return sorted(path.name for path in DOCS.glob("*.md") if path.name not in ELSEWHERE and blocks(path.name, language))


def code(page: str, language: str, server: str = SERVER) -> str:
    """Return all blocks of a page in that language, one after another, as a reader would run them."""
    return "\n".join(block.at(server) for block in blocks(page, language))


def run(command: list[str | Path], directory: Path) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def is_mp4(path: Path) -> bool:
    return path.read_bytes()[4:8] == FIRST_BYTES


@pytest.mark.parametrize("page", pages("bash"))
def test_the_shell_examples_of(page: str, service: ServiceProcess, tmp_path: Path) -> None:
    script = code(page, "bash", service.url).replace("curl -s ", "curl -sS --fail-with-body ")
    printed = run(["bash", "-euo", "pipefail", "-c", script], tmp_path)
    assert '"request_id"' in printed
    if page == "start.md":
        assert is_mp4(tmp_path / "first.mp4")


@pytest.mark.parametrize("page", pages("python"))
def test_the_python_examples_of(page: str, service: ServiceProcess, tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    program.write_text(code(page, "python", service.url))
    run([sys.executable, program], tmp_path)
    made = {path.name for path in tmp_path.glob("*.mp4")}
    assert made == ({"style.mp4"} if page == "clients.md" else set())
    assert all(is_mp4(tmp_path / name) for name in made)


@pytest.mark.parametrize("page", pages("js"))
def test_the_javascript_examples_of(page: str, service: ServiceProcess, tmp_path: Path) -> None:
    program = tmp_path / "example.mjs"
    program.write_text(code(page, "js", service.url))
    assert "succeeded" in run([NODE, program], tmp_path)


def test_the_receiver_of_the_docs_verifies_a_message() -> None:
    names: dict[str, Any] = {}
    exec(code("webhooks.md", "python"), names)  # noqa: S102 - the example itself
    secret = secret_of("team-a", SecretStr(WEBHOOK_SECRET)).get_secret_value()
    now, content = datetime.now(UTC), json.dumps({"type": "request.ended"})
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", now, content),
    }
    assert names["received"](content.encode(), headers, secret) == {"type": "request.ended"}


def test_the_body_of_the_webhooks_page_has_fields_that_exist() -> None:
    shown = json.loads(code("webhooks.md", "json"))
    InferenceRequest.model_validate({**body(), **{key: shown[key] for key in ("webhook_url", "webhook_events")}})


def test_the_alias_of_the_configuration_page_is_one() -> None:
    (alias,) = yaml.safe_load(code("configuration.md", "yaml"))["aliases"].values()
    Alias.model_validate(alias)


def test_the_readme_s_request_is_accepted(service: ServiceProcess) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    shown = readme.partition("application/json' -d '")[2].partition("}'")[0] + "}"
    with Client(service.url) as client:
        accepted = client.submit(InferenceRequest.model_validate_json(shown))
        client.cancel(accepted.request_id)
