"""Scalars of JSON (strict types): no text or truth value is taken for a number, and no number for a truth value.

Example:
    Pixels = Annotated[int, Field(ge=64, le=4096), WHOLE]

A whole number may be written as 7, 7.0 or 7e0: JSON and JSON Schema have one kind of number.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Strict
from pydantic_core import PydanticKnownError


def _number(value: Any) -> Any:
    if isinstance(value, bool | str | bytes):
        raise PydanticKnownError("int_type")
    return value


WHOLE = BeforeValidator(_number)
"""Of an int: it is written as a number. It stands behind the limits, which a JSON Schema shows only then."""

Number = Annotated[float, Strict()]
"""Any number."""

Flag = Annotated[bool, Strict()]
"""`true` or `false`."""
