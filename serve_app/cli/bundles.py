"""Options that several commands share, as one value (parameter object): each field of a dataclass is an option.

Example:
    @app.command()
    @bundled
    def generate(*, look: Look, service: Service, as_json: JsonOption = False) -> None: ...

Typer sees the fields of `Look` and `Service` in place of the two parameters. What an option is called and what its help
says is written once, beside the code that reads it.
"""

import dataclasses
import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, get_type_hints


def bundled(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with the fields of its dataclasses as parameters; a dataclass is made of them at each call."""
    hints = get_type_hints(command, include_extras=True)
    bundles: dict[str, type] = {
        name: kind for name, kind in hints.items() if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }
    parameters = [
        expanded
        for parameter in inspect.signature(command).parameters.values()
        for expanded in (
            _fields_of(bundles[parameter.name])
            if parameter.name in bundles
            else [parameter.replace(annotation=hints[parameter.name])]
        )
    ]

    @wraps(command)
    def run(**given: Any) -> None:
        made = {name: kind(**_taken(given, kind)) for name, kind in bundles.items()}
        command(**given, **made)

    # Parameters with a default may stand before others without one: typer calls by name.
    by_name = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in by_name}
    run.__signature__ = inspect.Signature(by_name)  # type: ignore[attr-defined]  # what inspect and typer look at
    return run


def _fields_of(kind: type) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(kind)
    ]


def _taken(given: dict[str, Any], kind: type) -> dict[str, Any]:
    """Return the values of a dataclass's fields, and leave the others in `given`."""
    return {field.name: given.pop(field.name) for field in dataclasses.fields(kind)}
