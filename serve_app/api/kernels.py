"""Kernels that the Generators of each model found at their start, asked of the Dispatchers in the background, cached.

Example:
    kernels = FoundKernels({model.card.id: model.announcer for model in services.models.values()})
    (await kernels.now())["wan22_5b"]  # [Kernels(attention=<Attention.FLASH_3>, compiled=True, float8=True)]
"""

import asyncio
from collections.abc import Mapping

from serve_app.api.served import Announcer
from serve_app.freshness import Fresh
from serve_app.results import Kernels

_FRESH_S = 30.0  # Generators come and go, and mostly on cards of one kind
_WITHIN_S = 0.3  # probes of load balancers have short timeouts

Found = Mapping[str, list[Kernels]]  # by model; each kind once


class FoundKernels:
    """Asks each model's Dispatcher now and then."""

    def __init__(self, announcers: Mapping[str, Announcer]) -> None:
        """Take the ways to the Dispatchers, by the ids of their models."""
        self._announcers = announcers
        self._unknown: Found = {model: [] for model in announcers}
        self._found: Fresh[Found] = Fresh(self._look, lambda _: _FRESH_S)

    async def now(self) -> Found:
        """Return the kernels by model, half a minute or so old; none if no Generator is known."""
        return await self._found.soon(_WITHIN_S, default=self._unknown)

    async def _look(self) -> Found:
        lists = await asyncio.gather(*map(_of, self._announcers.values()))
        return dict(zip(self._announcers, lists, strict=True))


async def _of(announcer: Announcer) -> list[Kernels]:
    fleet = await announcer.fleet() or {}
    kinds = {runtime.kernels for runtime in fleet.values() if runtime.kernels is not None}
    return sorted(kinds, key=lambda kernels: kernels.model_dump_json())
