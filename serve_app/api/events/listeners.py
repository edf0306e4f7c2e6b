"""Limits on listeners (back-pressure): the number of open event streams, in all and for one sender.

Example:
    with listeners.place(fetcher, settings):
        ...  # a stream
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from serve_app.errors import TooManyListeners, TooManyOwnListeners
from serve_app.settings import Settings


class Listeners:
    """Counts the open streams of one process."""

    def __init__(self) -> None:
        self._of_sender: Counter[str] = Counter()

    @contextmanager
    def place(self, sender: str, settings: Settings) -> Iterator[None]:
        """Count as a listener while the block runs.

        Raises:
            TooManyListeners: the process has its largest number of listeners.
            TooManyOwnListeners: the sender has its largest number of listeners.
        """
        most, most_own = settings.max_listeners, settings.max_listeners_per_sender
        if self._of_sender[sender] >= most_own:
            raise TooManyOwnListeners(
                f"{most_own} streams of events are open for this sender, the most that one may have; close one, or ask "
                "for the status now and then (arg max_listeners_per_sender)",
                {"max_listeners_per_sender": most_own},
                retry_after_s=1,
            )
        if self._of_sender.total() >= most:
            raise TooManyListeners(
                f"{most} streams of events are open, the most that this process serves; try again later, or ask for "
                "the status now and then (arg max_listeners)",
                {"max_listeners": most},
            )
        self._of_sender[sender] += 1
        try:
            yield
        finally:
            self._of_sender[sender] -= 1
            if not self._of_sender[sender]:
                del self._of_sender[sender]
