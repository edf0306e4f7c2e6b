"""A dataclass as options: commands that take the same one have the same options, and get it made."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from serve_app.cli.bundles import bundled
from serve_app.cli.console import UsageError, reporting


@dataclass(frozen=True, kw_only=True)
class Fox:
    """A bundle of an argument and an option."""

    name: Annotated[str, typer.Argument(help="What it is called.")]
    tails: Annotated[int, typer.Option("--tails", min=1, envvar="TAILS", help="How many.")] = 1


app = typer.Typer()


@app.command()
@reporting
@bundled
def feed(*, fox: Fox, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
    """Feed a fox."""
    if fox.tails > 9:
        raise UsageError(f"--tails {fox.tails}: nine at most")
    typer.echo(f"{fox.name.upper() if loud else fox.name} {fox.tails}")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["ren"], 0, "ren 1"),
        (["ren", "--tails", "3", "--loud"], 0, "REN 3"),
        (["ren", "--tails", "10"], 2, "--tails 10: nine at most"),
        (["ren", "--tails", "0"], 2, "--tails"),
        ([], 2, "Missing argument"),
        (["--help"], 0, "How many."),
    ],
)
def test_fields_are_options(arguments: list[str], code: int, said: str) -> None:
    done = CliRunner().invoke(app, arguments, env={"TAILS": ""})
    assert (done.exit_code, said in done.output) == (code, True), done.output


def test_the_environment_counts() -> None:
    assert CliRunner().invoke(app, ["ren"], env={"TAILS": "2"}).stdout == "ren 2\n"
