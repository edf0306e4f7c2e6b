"""Waiting for the end of a request by polling: how long until the next question."""

import time

from serve_app.api.schemas.answers import RequestStatus
from serve_app.errors import WaitedTooLong

_SHORTEST_S, _LONGEST_S = 0.05, 2.0
_OF_ETA = 0.1  # of the predicted rest: the end is noticed that much late at most
ENDED = frozenset({"succeeded", "failed", "canceled"})


class Wait:
    """One wait, of at most `timeout_s` seconds."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._started = time.monotonic()

    def pause(self, status: RequestStatus) -> float | None:
        """Return the seconds to wait before asking again; None once the request has ended.

        Raises:
            WaitedTooLong: the time is over.
        """
        if status.status in ENDED:
            return None
        pause_s = min(max(_SHORTEST_S, _OF_ETA * (status.eta_seconds or 0.0)), _LONGEST_S)
        if self._timeout_s is None:
            return pause_s
        left_s = self._started + self._timeout_s - time.monotonic()
        if left_s <= 0:
            raise WaitedTooLong(
                f"request {status.request_id} is still {status.status} after {self._timeout_s:g} s; it goes on: wait "
                "again, or cancel it",
                {"request_id": status.request_id, "status": status.status, "eta_seconds": status.eta_seconds},
            )
        return min(pause_s, left_s)
