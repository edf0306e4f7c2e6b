"""The root of all errors: its code, which its name makes, its message, its details, its form in an answer."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from serve_app.echo import MESSAGE_LENGTH, bounded, cut

_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


class ServiceError(Exception):
    """Base of the hierarchy. `details` must be JSON-serialisable."""

    code: ClassVar[str]
    status: ClassVar[int] = 500

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.code = _WORD_START.sub("_", cls.__name__).upper()

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        # Both go into args, so that the error survives pickling between processes.
        super().__init__(message, dict(details or {}))

    @property
    def message(self) -> str:
        """Return what went wrong and what to do about it."""
        return str(self.args[0])

    @property
    def details(self) -> dict[str, Any]:
        """Return the names and values that caused it."""
        return dict(self.args[1])

    def body(self) -> dict[str, Any]:
        """Return the error in the reference server's form, for the key `detail`; long texts and lists are cut."""
        message = cut(self.message, MESSAGE_LENGTH)
        return {"error": {"code": self.code, "message": message, "details": bounded(self.details)}}

    def __str__(self) -> str:
        return self.message
