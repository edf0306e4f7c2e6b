"""Retention rules: how long ended requests are kept, and how much room their outputs may take.

Example:
    rules = RetentionRules.of(settings)
    rules.expires_at(record.finished_at)
"""

from dataclasses import dataclass
from typing import Self

from serve_app.settings import RetentionMode, Settings

_DAY_S = 86_400
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """None is no limit. Times are seconds, sizes bytes."""

    mode: RetentionMode
    longest_s: float | None  # after the end of a request
    most_bytes: int | None  # of all outputs together
    grace_s: float  # younger requests and files count as in use

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the rules that the args set."""
        return cls(
            mode=settings.retention,
            longest_s=None if settings.retention_days is None else settings.retention_days * _DAY_S,
            most_bytes=None if settings.retention_gib is None else int(settings.retention_gib * _GIB),
            grace_s=settings.retention_grace_s,
        )

    def expires_at(self, finished_at: float | None) -> float | None:
        """Return when a request that ended at that time is removed for its age; None if it is not."""
        if finished_at is None or self.longest_s is None or self.mode is not RetentionMode.ON:
            return None
        return finished_at + max(self.longest_s, self.grace_s)
