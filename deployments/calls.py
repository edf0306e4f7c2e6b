"""Calls to Generators that are under way, by the request they are for."""

from collections import defaultdict
from typing import Any

from ray.serve.exceptions import RequestCancelledError
from ray.serve.handle import DeploymentResponse


class UnderWay:
    """Lets a cancellation reach a Generator that is at work, and so takes no other call, within milliseconds.

    Serve's way to do that is to cancel the call. A Generator takes it as a hint to look into the store, which alone
    says whether a render is canceled, so nothing is lost where a call is canceled for another reason.
    """

    def __init__(self) -> None:
        self._calls: defaultdict[str, list[DeploymentResponse]] = defaultdict(list)
        self._nudged: set[DeploymentResponse] = set()

    def nudge(self, request_id: str) -> None:
        """Cancel the request's calls."""
        for call in self._calls.get(request_id, ()):
            self._nudged.add(call)
            call.cancel()

    async def finished(self, request_id: str, call: DeploymentResponse) -> Any:
        """What the call returns; None where it was nudged. Raises what it raises."""
        self._calls[request_id].append(call)
        try:
            return await call
        except RequestCancelledError:
            if call not in self._nudged:
                raise
            return None
        finally:
            self._nudged.discard(call)
            self._calls[request_id].remove(call)
            if not self._calls[request_id]:
                del self._calls[request_id]
