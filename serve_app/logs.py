"""Logging: one logger for the service, with the render of each line as fields (structured logs), and terminal output.

Every module logs to `ray.serve.wan`. Ray Serve's handlers write these lines into the log files of each replica, as text
or, with the arg `log_format: json`, as JSON. Lines about a render have the fields `request`, `render` and `attempt`.
No line contains a prompt, a token or a signed URL.

Example:
    logger = logging.getLogger("ray.serve.wan")
    with about(claim):
        logger.info("the render ended")  # {"message": "the render ended", "request": "b3e6...", "attempt": 1, ...}
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from serve_app.jobs.records import Claim

LOGGER = "ray.serve.wan"

# Ray Serve's own switch: with 0 its processes write their logs into files alone. `wan-lora serve` sets it.
QUIET_VARIABLE = "RAY_SERVE_LOG_TO_STDERR"

_CLAIM: ContextVar[Claim | None] = ContextVar("claim", default=None)


@contextmanager
def about(claim: Claim) -> Iterator[None]:
    """Add the fields of an attempt to all lines that are logged in the block, also by its tasks and threads."""
    token = _CLAIM.set(claim)
    try:
        yield
    finally:
        _CLAIM.reset(token)


class ClaimFilter(logging.Filter):
    """Adds the fields of the render that a line is about."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add `request`, `render` and `attempt` where they are known."""
        claim = _CLAIM.get()
        if claim is not None:
            record.request, record.render, record.attempt = claim.request_id, claim.render_id, claim.attempt
        return True


def is_quiet() -> bool:
    """Return whether Serve keeps its logs off the terminal."""
    return os.environ.get(QUIET_VARIABLE) == "0"


def configure_logging() -> None:
    """Prepare this actor's logger; call it once in each process.

    If Serve does not log to the terminal, the lines of this service are still shown there.
    """
    logger = logging.getLogger(LOGGER)
    if not any(isinstance(one, ClaimFilter) for one in logger.filters):
        logger.addFilter(ClaimFilter())
        # Serve has replaced `sys.stderr` by one that writes into its log file.
        if is_quiet() and sys.__stderr__ is not None:
            handler = logging.StreamHandler(sys.__stderr__)
            handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
            logger.addHandler(handler)
