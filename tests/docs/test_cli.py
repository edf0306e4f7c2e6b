"""Every command of the README and of docs/cli.md, in order, against the API."""

import asyncio
import shlex
from pathlib import Path

import pytest
from typer.models import CommandInfo
from typer.testing import CliRunner, Result

from deployments.media.encoding import encode
from serve_app.cli import app
from serve_app.spec import OutputFormat
from tests.fixtures.api import ServeApi
from tests.fixtures.documents import DOCS, blocks
from tests.fixtures.loopback import loopback
from tests.fixtures.renderer import frames_of, rendering
from tests.fixtures.specs import make_spec
from tests.serve_app.cli.test_inspect import write_experts
from tests.serve_app.loras.files import full, save


def prepare(directory: Path) -> None:
    """Write the files that the document takes for granted."""
    save(directory / "high.safetensors", full(8))
    save(directory / "low.safetensors", full(4))
    write_experts(directory / "experts")
    spec = make_spec(width=128, height=128, num_frames=17)
    encode(frames_of(spec), spec.fps, OutputFormat.WEBP, directory / "preview.webp")


@pytest.mark.slow
async def test_the_examples_run(serve_api: ServeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    prepare(here)
    monkeypatch.chdir(here)
    commands = [*readme_s(), *(command for block in blocks("cli.md", "console") for command in block.commands())]
    async with serve_api(uploads=True) as api, loopback(api.app) as url, rendering(api):
        for command in commands:
            name, *arguments = shlex.split(command)
            assert name == "wan-lora"
            request = api.observed.requests[0].id if api.observed.requests else ""
            done = await run([argument.replace("REQUEST", request) for argument in arguments], url)
            assert done.exit_code == 0, (command, done.output)
    assert {"circle.mp4", "fox-7.webp", "fox-8.webp", "grid.html"} <= {path.name for path in here.iterdir()}


def readme_s() -> list[str]:
    """Return the commands that the README shows in blocks of their own."""
    lines = (DOCS.parent / "README.md").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    shown = [line.strip() for line in lines if line.startswith("    .venv/bin/wan-lora ")]
    assert len(shown) == 2
    return [command.removeprefix(".venv/bin/") for command in shown]


async def run(arguments: list[str], url: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, arguments, env={"WAN_SERVER": url, "COLUMNS": "200"})


def _spelled(command: CommandInfo) -> str:
    """As typer makes a command's name from its function's."""
    return getattr(command.callback, "__name__", "").replace("_", "-")


def commands() -> dict[str, CommandInfo]:
    """Return every command, by its name."""
    groups = [(group.name, group.typer_instance) for group in app.registered_groups]
    return {
        f"{group or ''} {command.name or _spelled(command)}".strip(): command
        for group, commands in groups
        if commands is not None
        for command in commands.registered_commands
    }


@pytest.mark.parametrize("name", commands())
def test_every_command_shows_an_example_in_its_help_and_in_the_docs(name: str) -> None:
    epilog = (commands()[name].epilog or "").replace("\\[", "[")
    assert epilog.startswith("Example: ")
    assert f"wan-lora {name}" in epilog
    shown = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    assert "".join(epilog.split()) in "".join(shown.split())  # whole: square brackets are not markup
    assert f"wan-lora {name}" in (DOCS / "cli.md").read_text()
