"""Preparation (prefetch): while a render runs, the LoRA files of the next one are fetched and checked.

The device would idle for that long between the two: for seconds, where a LoRA is downloaded. Nothing is claimed ahead:
a Generator asks which render it would get if it were free now, and fills the caches of its node for it. That render
stays queued. Its client may cancel it, another replica may take it, and if this one dies there is nothing to give back.

Example:
    thread = worker_thread("preparing", yielding=False)
    preparation = Preparation(DispatcherForesight("Dispatcher"), files, thread, observers.prepared)
    with preparation.beside(claim, pairs, ahead_s=60):
        rendered = await device.render(...)

Texts are not encoded ahead. Where the text encoder is on the device, that is work of the device itself, and is done no
sooner for being done earlier. Where the memory plan keeps it elsewhere, the device has no room for it during a render,
and another device would not give the same bits.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from time import monotonic

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.lora_reading import hold_all
from deployments.scheduling.residency import ResidentPairs
from serve_app.jobs.records import Claim, Foreseen
from serve_app.loras.files import LoraFiles
from serve_app.spec import LoraFile

logger = logging.getLogger("ray.serve.wan")

FIRST_ASKED_S = 0.2  # after its start: a render that takes less than this asks nobody
AGAIN_S = 5.0  # what comes next may change, by a cancellation or a render of higher priority

Foresee = Callable[[str, tuple[str, ...]], Awaitable[Foreseen | None]]
"""Is called with a replica and the pairs that are ready there; see `Dispatcher.foresee`."""


async def nothing_foreseen(_replica_id: str, _ready: tuple[str, ...]) -> Foreseen | None:
    """Return None: nobody says what comes next."""
    return None


class DispatcherForesight:
    """Asks the Dispatcher, by the name of its deployment in the application of the caller."""

    def __init__(self, deployment: str) -> None:
        self._deployment = deployment
        self._handle: DeploymentHandle | None = None

    async def __call__(self, replica_id: str, ready: tuple[str, ...]) -> Foreseen | None:
        """Return what the Dispatcher foresees. Raise what Serve raises where there is none."""
        if self._handle is None:  # it asks the controller: not on the event loop
            self._handle = await asyncio.to_thread(serve.get_deployment_handle, self._deployment)
        handle: DeploymentHandle = self._handle
        foreseen: Foreseen | None = await handle.foresee.remote(replica_id, ready)
        return foreseen


class Preparation:
    """Prepares one render at a time, on a thread of its own."""

    def __init__(
        self,
        foresee: Foresee,
        files: LoraFiles,
        thread: ThreadPoolExecutor,
        prepared: Callable[[str, float], None],
    ) -> None:
        """Take what foresees, the files, and their thread.

        `prepared` hears the model, and for how many seconds files were prepared while the device was busy.
        """
        self._foresee = foresee
        self._files = files
        self._thread = thread
        self._prepared = prepared

    @contextmanager
    def beside(self, claim: Claim, pairs: ResidentPairs, ahead_s: float) -> Iterator[None]:
        """Prepare while the block runs `claim`: from `ahead_s` seconds before its predicted end; 0: never.

        A download that is under way at the end of the block goes on: the render that it is for joins it
        (single-flight), and for any other it fills the cache.
        """
        if not ahead_s:
            yield
            return
        preparing = asyncio.create_task(self._repeat(claim, pairs, ahead_s))
        try:
            yield
        finally:
            preparing.cancel()

    async def _repeat(self, claim: Claim, pairs: ResidentPairs, ahead_s: float) -> None:
        last: int | None = None
        await asyncio.sleep(max(FIRST_ASKED_S, claim.cost_s - ahead_s))
        while True:
            try:
                coming = await self._foresee(claim.replica, (claim.spec.pair_key, *pairs.keys))
                if coming is not None and coming.render_id != last:
                    last = coming.render_id
                    await self._prepare(coming, _lacking(coming, claim, pairs))
            except Exception as error:
                # It is no render's end: the next one reads its files itself, and says what is wrong with them.
                logger.info("the next render was not prepared: %r", error)
            await asyncio.sleep(AGAIN_S)

    async def _prepare(self, coming: Foreseen, lacking: Sequence[LoraFile]) -> None:
        if not lacking:
            return
        started = monotonic()
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._fill_caches, coming, lacking)
        finally:  # also where the device became free first
            self._prepared(coming.spec.model, monotonic() - started)

    def _fill_caches(self, coming: Foreseen, lacking: Sequence[LoraFile]) -> None:
        with ExitStack() as held:
            hold_all(self._files, lacking, coming.spec, coming.hf_token, held)


def _lacking(coming: Foreseen, claim: Claim, pairs: ResidentPairs) -> tuple[LoraFile, ...]:
    """Return the LoRAs that would have to be read; what the device itself knows changes while it renders."""
    ready = pairs.contents | {lora.content for lora in claim.spec.acting}
    return tuple({lora.content: lora for lora in coming.spec.acting if lora.content not in ready}.values())
