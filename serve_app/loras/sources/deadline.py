"""How long is left for an operation of several steps."""

import time


class Deadline:
    """Runs out `seconds` after it was made."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, not below 0."""
        return max(0.0, self._end - time.monotonic())
