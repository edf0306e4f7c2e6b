"""What every source that is not a local directory can do."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager

from serve_app.loras.sources.deadline import Deadline
from serve_app.loras.sources.located import Located, Part
from serve_app.spec import Expert


class RemoteSource(ABC):
    """Files behind one kind of address. Thread-safe; it blocks. `name` is the reference as it may be shown.

    What can go wrong, everywhere: LoraNotFound, LoraPathRefused, LoraInvalid, LoraSourceUnavailable, and
    `faults.Forbidden`.
    """

    @abstractmethod
    def locate(self, reference: str, name: str, *, token: str | None, expert: Expert | None) -> Located:
        """Identify the file that `reference` names now."""

    @abstractmethod
    def open(
        self,
        location: str,
        name: str,
        *,
        content: str,
        token: str | None,
        start: int,
        stop: int | None,
        deadline: Deadline,
    ) -> AbstractContextManager[Part]:
        """Bytes [start, stop) of the file at `location`; `stop` None is its end. A source may begin at 0 instead.

        Raises:
            faults.Transient: trying again may help.
            faults.Changed: the file there is not `content` any more, as far as the source can tell without reading it.
        """
