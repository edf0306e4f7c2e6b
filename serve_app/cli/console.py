"""What every command shares: exit codes, tables and JSON on stdout, progress and errors on stderr (rich)."""

import json
import sys
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import wraps
from typing import Annotated, Any, ParamSpec

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serve_app.client.failures import details_of
from serve_app.errors import (
    AdmissionError,
    AnswerNotUnderstood,
    DownloadDamaged,
    FieldsInvalid,
    RenderError,
    RequestCanceled,
    ServerUnreachable,
    ServiceError,
    WaitedTooLong,
)

Parameters = ParamSpec("Parameters")


class Exit(IntEnum):
    """Exit codes; docs/cli.md lists them."""

    DONE = 0
    FAILED = 1  # the render failed or was canceled; a file is damaged
    USAGE = 2  # an option or a value is wrong; also typer's own
    REFUSED = 3  # the service says no, and why
    UNREACHABLE = 4  # nobody answers, or the service cannot just now: the same command may succeed later
    INTERRUPTED = 130  # Ctrl-C, as shells count it


JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, errors too; for programs.")]

_FAILED = (RenderError, RequestCanceled, DownloadDamaged)
_UNREACHABLE = (ServerUnreachable, AnswerNotUnderstood, AdmissionError, WaitedTooLong)
_UNAVAILABLE = 503
_WIDE = 400  # characters of a line in a file


class UsageError(Exception):
    """An option is wrong; the message names it and says what to write."""


def stderr() -> Console:
    """Return the console of everything that is not the answer."""
    return Console(stderr=True)


def table(first: str, *others: str) -> Table:
    """Return an empty table. What is meant to be copied is never cut: the first column keeps its width, others fold."""
    made = Table()
    made.add_column(first, no_wrap=True)
    for other in others:
        made.add_column(other, overflow="fold")
    return made


def show(made: Table) -> None:
    """Write a table; in a file or a pipe it is as wide as it wants to be."""
    console = Console()
    console.print(made, width=None if console.is_terminal else _WIDE)


def say(message: str) -> None:
    """Write a line that is not the answer."""
    stderr().print(escape(message), soft_wrap=True)


def print_json(document: BaseModel | Mapping[str, Any]) -> None:
    """Write the answer for programs."""
    content = document.model_dump(mode="json") if isinstance(document, BaseModel) else document
    typer.echo(json.dumps(content, indent=2))


def warn(messages: list[str]) -> None:
    """Write warnings, each once."""
    for message in dict.fromkeys(messages):
        stderr().print(f"[bold yellow]warning:[/] {escape(message)}", soft_wrap=True)


def reporting(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Have a command end with a line and an exit code where it raises one of the service's errors."""

    @wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except UsageError as error:
            _end(Exit.USAGE, {"code": "USAGE", "message": str(error), "details": {}}, kwargs)
        except ServiceError as error:
            _end(code_of(error), details_of(error), kwargs)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            message = f"{where}{error.strerror or error}"
            _end(Exit.USAGE, {"code": "FILE", "message": message, "details": {}}, kwargs)
        except KeyboardInterrupt:
            raise typer.Exit(Exit.INTERRUPTED) from None

    return run


def code_of(error: ServiceError) -> Exit:
    """Return the exit code of an error."""
    if isinstance(error, _FAILED):
        return Exit.FAILED
    if isinstance(error, FieldsInvalid):
        return Exit.USAGE
    return Exit.UNREACHABLE if isinstance(error, _UNREACHABLE) or error.status == _UNAVAILABLE else Exit.REFUSED


def _end(code: Exit, error: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    if options.get("as_json"):
        print_json({"error": error})
    else:
        stderr().print(f"[bold red]error:[/] {escape(str(error['message']))}", soft_wrap=True)
    sys.stdout.flush()
    raise typer.Exit(code)
