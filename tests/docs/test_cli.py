"""Every command stands in docs/cli.md."""

import pytest
from typer.models import CommandInfo

from serve_app.cli import app
from tests.fixtures.documents import DOCS


def _spelled(command: CommandInfo) -> str:
    """As typer makes a command's name from its function's."""
    return getattr(command.callback, "__name__", "").replace("_", "-")


def commands() -> dict[str, CommandInfo]:
    """Every command, by its name."""
    groups = [(group.name, group.typer_instance) for group in app.registered_groups]
    return {
        f"{group or ''} {command.name or _spelled(command)}".strip(): command
        for group, commands in groups
        if commands is not None
        for command in commands.registered_commands
    }


@pytest.mark.parametrize("name", commands())
def test_every_command_shows_an_example_in_its_help_and_in_the_docs(name: str) -> None:
    epilog = commands()[name].epilog or ""
    assert epilog.startswith("Example: ")
    assert f"wan-lora {name}" in epilog
    assert f"wan-lora {name}" in (DOCS / "cli.md").read_text()
