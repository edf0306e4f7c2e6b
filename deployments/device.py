"""The device of a Generator: a pipeline on its one thread, and the probe that tells a broken device from a bad render.

Example of its use:

    device = Device(partial(pipeline_class(card.pipeline).load, options), worker_thread("device", yielding=False))
    rendered = await device.render(spec, RenderInputs(files), on_step)  # files: of device.lacking(spec)
    await device.works()  # False: replace the process
"""

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from deployments.heap import HeapTrimmer
from deployments.pipeline import Pipeline, Rendered, RenderInputs
from serve_app.results import Runtime, StartSeconds
from serve_app.spec import LoraFile, RenderSpec

logger = logging.getLogger("ray.serve.wan")

# On a shared CPU the API must win over generation. On top of the 15 that Ray gives all workers this is 19, the end of
# Linux's scale: two fifths of the API's share of a core (weights 15 and 36); on top of 0, a tenth (110 and 1,024).
_CPU_NICENESS = 10


def worker_thread(name: str, *, yielding: bool) -> ThreadPoolExecutor:
    """Return one named thread; with `yielding` it has a low priority, so that the API gets the CPU first."""
    return ThreadPoolExecutor(1, name, initializer=_be_nice if yielding else None)


class Device:
    """Runs one pipeline on one thread, because torch and CUDA keep state per thread. Renders never overlap."""

    def __init__(self, load: Callable[[], Pipeline], thread: ThreadPoolExecutor) -> None:
        """Load the pipeline in the thread, and wait for it: minutes with real weights."""
        self._thread = thread
        self._heap = HeapTrimmer()
        self._pipeline = thread.submit(load).result()

    @property
    def start(self) -> StartSeconds:
        """Return how long the parts of loading the pipeline took."""
        return self._pipeline.start

    @property
    def runtime(self) -> Runtime:
        """Return what the pipeline runs on."""
        return self._pipeline.runtime

    def lacking(self, spec: RenderSpec) -> tuple[LoraFile, ...]:
        """Return the LoRAs of `spec` that are not resident, so that `render` needs their files."""
        return self._pipeline.lacking(spec)

    async def render(self, spec: RenderSpec, inputs: RenderInputs, on_step: Callable[[int], None]) -> Rendered:
        """Render in the thread, with the files of the LoRAs that were lacking; raise what the pipeline raises."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._render, spec, inputs, on_step)

    def _render(self, spec: RenderSpec, inputs: RenderInputs, on_step: Callable[[int], None]) -> Rendered:
        try:
            return self._pipeline.render(spec, inputs, on_step)
        finally:
            self._heap.trim()

    async def works(self) -> bool:
        """Probe the device; a failure is logged."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._pipeline.probe)
        except Exception:
            logger.exception("the device failed its probe")
            return False
        return True


def _be_nice() -> None:
    os.nice(_CPU_NICENESS)  # of this thread, and of the threads and processes it starts, on Linux
