"""Every command stands in docs/cli.md."""

import pytest
from typer.models import CommandInfo

from serve_app.cli import app
from tests.fixtures.documents import DOCS


def commands() -> dict[str, CommandInfo]:
    """Every command, by its name."""
    groups = [(group.name, group.typer_instance) for group in app.registered_groups]
    return {
        f"{group or ''} {command.name or getattr(command.callback, '__name__', '')}".strip(): command
        for group, commands in groups
        if commands is not None
        for command in commands.registered_commands
    }


@pytest.mark.parametrize("name", commands())
def test_every_command_shows_an_example_in_its_help_and_in_the_docs(name: str) -> None:
    assert (commands()[name].epilog or "").startswith(f"Example: wan-lora {name}")
    assert f"wan-lora {name}" in (DOCS / "cli.md").read_text()
