"""Long lists, validated with a limit on the reported problems (no response amplification).

pydantic makes an object for each problem, although only twenty are reported. For 20,000 problems that takes longer than
the rest of the request. Here the first problems are kept, and the others are only counted.
"""

from typing import Any

from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from serve_app.echo import ITEMS

MORE_PROBLEMS = "too_many_problems"


def few_problems(model: type[BaseModel], most: int) -> BeforeValidator:
    """Return a validator that checks each item of a list as `model` before pydantic does, for up to `most` items.

    Raises (in pydantic's way):
        ValidationError: the first twenty problems or some more, with one of the type `MORE_PROBLEMS` at the end, whose
            `count` is of the others.
    """

    def validated(value: Any) -> Any:
        if not isinstance(value, list) or len(value) > most:
            return value  # pydantic reports the problem
        items: list[Any] = []
        problems: list[InitErrorDetails] = []
        more = 0
        for index, item in enumerate(value):
            try:
                items.append(model.model_validate(item))
            except ValidationError as error:
                if len(problems) < ITEMS:
                    problems += _problems(error, index)
                else:
                    more += error.error_count()
        if more:
            counted = PydanticCustomError(MORE_PROBLEMS, "and {count} more", {"count": more})
            problems.append(InitErrorDetails(type=counted, loc=(), input=None))
        if problems:
            raise ValidationError.from_exception_data(model.__name__, problems)
        return items

    return BeforeValidator(validated)


def _problems(error: ValidationError, index: int) -> list[InitErrorDetails]:
    """Return the problems of one item as those of a list."""
    return [
        InitErrorDetails(
            type=PydanticCustomError(found["type"], "{msg}", {"msg": found["msg"]}),
            loc=(index, *found["loc"]),
            input=None,
        )
        for found in error.errors(include_url=False, include_input=False)
    ]
