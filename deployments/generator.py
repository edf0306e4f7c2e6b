"""The Generator: one GPU (or, in the demo, one CPU thread), one render at a time."""

import asyncio
import contextvars
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

from deployments.attempt import Attempt, AttemptAborted
from deployments.autoscaling import BUSY
from deployments.lora_access import lora_files
from deployments.media.encoding import encode
from deployments.metrics import CostMetrics
from deployments.pipeline import PipelineOptions, Rendered, pipeline_class
from deployments.resident_pairs import ResidentPairs
from deployments.result_metadata import result_metadata
from serve_app.costs import CostKey, MeasuredCost
from serve_app.errors import RenderError, RenderFailed, StoreUnavailable
from serve_app.jobs.costs import Measurement
from serve_app.jobs.leadership import DISPATCHER
from serve_app.jobs.records import Claim, Output, output_name
from serve_app.jobs.store import JobStore
from serve_app.loras.files import LoraOnDisk
from serve_app.outputs import OutputStore
from serve_app.plan import ServicePlan
from serve_app.results import Timings
from serve_app.settings import Profile

logger = logging.getLogger("ray.serve")

# On a shared CPU the API must win over generation. On top of the 15 that Ray gives all workers this is 19, the end of
# Linux's scale: two fifths of the API's share of a core (weights 15 and 36); on top of 0, a tenth (110 and 1,024).
_CPU_NICENESS = 10
_RETRY_S = 1.0
_STORING_S = 60.0
_STARVED_S = 15.0  # far beyond any gap between two renders while some wait
_STARVED_CHECKS = 3  # in a row
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Generated:
    """What the device made of an attempt, and the seconds that took beside those of the pipeline's parts."""

    rendered: Rendered
    fetch_s: float
    generate_s: float

    def timings(self, *, encode_s: float, store_s: float) -> Timings:
        """Return the seconds of every part of the attempt, to a tenth of a millisecond."""
        seconds = {
            "fetch": self.fetch_s,
            "generate": self.generate_s,
            **self.rendered.seconds.model_dump(),
            "encode": encode_s,
            "store": store_s,
        }
        return Timings(**{part: round(value, 4) for part, value in seconds.items()})


class Generator:
    """Loads the base model once, then renders claims; it alone writes how each one ended."""

    def __init__(self, plan: ServicePlan) -> None:
        settings = plan.settings
        self._built = plan  # by the args alone
        self._plan = plan
        self._store = JobStore(settings.database_url)
        self._outputs = OutputStore.from_url(settings.output_url)
        cpu = plan.profile is Profile.CPU
        # One thread for the device: torch and CUDA keep state per thread, and renders never overlap.
        self._device_thread = ThreadPoolExecutor(1, "device", initializer=_yield_to_api if cpu else None)
        self._encoding_thread = ThreadPoolExecutor(1, "encoding", initializer=_yield_to_api if cpu else None)
        options = PipelineOptions(
            card=plan.card,
            base_model=plan.base_model,
            transformer_model=plan.transformer_model,
            dtype=settings.dtype,
            offload=settings.offload,
            hf_token=settings.hf_token,
            device="cpu" if cpu else "cuda",
            pristine=settings.pristine,
            lora_memory_bytes=int(settings.lora_memory_gib * _GIB),
        )
        self._pipeline = self._device_thread.submit(pipeline_class(plan.card.pipeline).load, options).result()
        self._loras = lora_files(plan)
        self._dispatcher = self._store.leadership(DISPATCHER)
        self._pairs = ResidentPairs()
        self._cost_metrics = CostMetrics()
        self._at_work = 0  # renders that are not wholly stored yet
        self._rendering = 0
        self._idle_since = monotonic()
        self._starved_checks = 0
        self._publishing = asyncio.Lock()
        self._unfinished: set[asyncio.Task[None]] = set()
        logger.info("ready: %s", self._pipeline.runtime.model_dump(mode="json"))

    def reconfigure(self, user_config: dict[str, Any] | None) -> None:
        """Take over what `user_config` changes, from the next render on."""
        self._plan = self._built.retuned(user_config)

    def record_routing_stats(self) -> dict[str, Any]:
        """The pairs that are ready here, for a Dispatcher that does not know this replica yet."""
        return {"resident": list(self._pairs.keys)}

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Whether this replica is at work."""
        return {BUSY: float(bool(self._at_work))}

    async def check_health(self) -> None:
        """Leave where renders wait, a Dispatcher is alive, and yet none comes.

        A Dispatcher that dies between winning this replica and sending it a render leaves its only slot reserved for
        ever.
        """
        idle = not self._rendering and monotonic() - self._idle_since > _STARVED_S
        self._starved_checks = self._starved_checks + 1 if idle and await self._renders_wait() else 0
        if self._starved_checks == _STARVED_CHECKS:
            _leave(f"renders wait, but none has reached this replica for {_STARVED_S:g} s")

    async def _renders_wait(self) -> bool:
        try:
            oldest_s = await self._store.queue.oldest_wait_s()
            return oldest_s is not None and oldest_s > _STARVED_S and await self._dispatcher.is_held()
        except StoreUnavailable:
            return False  # then nobody can dispatch

    async def render(self, claim: Claim) -> tuple[str, ...]:
        """Run one attempt; returns when the device is free for the next, with the pair keys that are ready now.

        Encoding, storing and the end state follow under the same lease, while the next render may already run. A caller
        that cancels the call does not end the render: it has this replica look into the store at once, whether the
        render is canceled there.
        """
        device_free = asyncio.Event()
        attempt = Attempt(claim, self._plan.settings.render_timeout_s)
        # A task of its own, in a context of its own: the end of the caller does not end the render.
        task = asyncio.get_running_loop().create_task(self._run(attempt, device_free), context=contextvars.Context())
        self._begin(task, device_free)
        try:
            await device_free.wait()
        except asyncio.CancelledError:
            attempt.look.set()
            raise
        return self._pairs.keys

    def _begin(self, task: asyncio.Task[None], device_free: asyncio.Event) -> None:
        self._unfinished.add(task)
        self._at_work += 1
        task.add_done_callback(self._finished)
        task.add_done_callback(lambda _: device_free.set())

    async def __del__(self) -> None:
        """Called by Serve before it ends the process: what is still being encoded or stored is finished first."""
        if self._unfinished:
            await asyncio.wait(self._unfinished)
        await self._store.close()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._unfinished.discard(task)
        self._at_work -= 1
        if not task.cancelled() and (error := task.exception()):
            logger.error("the end of a render was not recorded; its lease will run out", exc_info=error)

    async def _run(self, attempt: Attempt, device_free: asyncio.Event) -> None:
        """One attempt to its end, recorded in the store under the claim's token."""
        claim = attempt.claim
        async with self._lease(attempt):
            try:
                with self._device_in_use():
                    generated = await self._generate(attempt)
                async with self._publishing:  # one at a time, so that finished frames cannot pile up in memory
                    device_free.set()
                    attempt.check()
                    output = await self._publish(attempt, generated)
            except AttemptAborted:
                if not attempt.lease_lost:
                    await self._report(lambda: self._store.claims.cancel(claim))
            except RenderError as error:
                await self._fail(claim, error, probe=not device_free.is_set())
            except Exception as error:
                logger.exception("render %d of request %s failed", claim.render_id, claim.request_id)
                failure = RenderFailed(f"the render failed with {type(error).__name__}: {error}")
                await self._fail(claim, failure, probe=not device_free.is_set())
            else:
                await self._succeed(claim, output, generated)

    @contextmanager
    def _device_in_use(self) -> Iterator[None]:
        self._rendering += 1
        try:
            yield
        finally:
            self._rendering -= 1
            self._idle_since = monotonic()

    async def _generate(self, attempt: Attempt) -> Generated:
        """Fetch the attempt's LoRAs and run the pipeline."""
        started = monotonic()
        loop = asyncio.get_running_loop()
        spec = attempt.claim.spec
        async with self._lora_files(attempt.claim) as files:
            fetched = monotonic()
            render = partial(self._pipeline.render, spec, files, attempt.on_step)
            rendered = await loop.run_in_executor(self._device_thread, render)
        self._pairs.rendered(spec, rendered.resident)
        return Generated(rendered, fetch_s=fetched - started, generate_s=monotonic() - fetched)

    async def _succeed(self, claim: Claim, output: Output, generated: Generated) -> None:
        replica_s = generated.fetch_s + generated.generate_s
        denoise_s = generated.rendered.seconds.denoise
        cost = MeasuredCost(denoise_s / claim.spec.sample_steps, replica_s - denoise_s)
        measurement = Measurement(self._plan.cost_name, CostKey.of(claim.spec, self._plan.card), cost)
        self._cost_metrics.predicted(claim.cost_s, replica_s)
        published = await self._report(lambda: self._store.claims.succeed(claim, output, measurement))
        # What nobody will ever ask for: this attempt's file, or those of attempts that died before they could publish.
        superseded = range(1, claim.attempt) if published else [claim.attempt]
        names = [output_name(claim.request_id, claim.index, attempt, output.format) for attempt in superseded]
        try:
            await self._outputs.delete(names)
        except OSError as error:
            logger.warning("files that no request refers to stay behind: %s: %s", names, error)

    @asynccontextmanager
    async def _lora_files(self, claim: Claim) -> AsyncIterator[dict[str, LoraOnDisk]]:
        """Hold the files of the LoRAs that the pipeline lacks while the block runs; where it lacks none, do nothing."""
        lacking = self._pipeline.lacking(claim.spec)
        if not lacking:
            yield {}
            return
        with ExitStack() as held:

            def hold() -> dict[str, LoraOnDisk]:
                strict, token = claim.spec.strict, claim.hf_token
                return {
                    lora.content: held.enter_context(self._loras.hold(lora, strict=strict, token=token))
                    for lora in lacking
                }

            try:
                yield await asyncio.to_thread(hold)
            finally:
                await asyncio.to_thread(held.close)

    async def _publish(self, attempt: Attempt, generated: Generated) -> Output:
        """Encode and store under the attempt's own name, so that no other attempt can overwrite it."""
        claim, spec = attempt.claim, attempt.claim.spec
        frames = generated.rendered.frames
        name = output_name(claim.request_id, claim.index, claim.attempt, spec.output_format)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "output")
            started = monotonic()
            await asyncio.get_running_loop().run_in_executor(
                self._encoding_thread, encode, frames, spec.fps, spec.output_format, path
            )
            encoded = monotonic()
            attempt.check()
            await self._outputs.put(name, path, spec.output_format.media_type)
        timings = generated.timings(encode_s=encoded - started, store_s=monotonic() - encoded)
        count, height, width, _ = frames.shape
        return Output(
            name=name,
            format=spec.output_format,
            width=width,
            height=height,
            num_frames=count,
            fps=spec.fps,
            seed=spec.seed,
            metadata=result_metadata(claim, generated.rendered.made_with, timings).model_dump(mode="json"),
        )

    @asynccontextmanager
    async def _lease(self, attempt: Attempt) -> AsyncIterator[None]:
        """Keep the claim alive, and its progress known, while the block runs."""
        ended = asyncio.Event()
        beats = asyncio.create_task(self._renew(attempt, ended))
        try:
            yield
        finally:
            ended.set()
            await beats

    async def _renew(self, attempt: Attempt, ended: asyncio.Event) -> None:
        settings = self._plan.settings
        while not await self._ended_before_beat(attempt, ended):
            if attempt.overdue:
                # Past its deadline and not at a step: the device hangs, and only a new process helps.
                _leave(f"render {attempt.claim.render_id} hangs")
            try:
                canceled = await self._store.claims.renew(attempt.claim, attempt.steps_done, settings.lease_s)
            except Exception:
                logger.exception("a lease was not renewed; the render goes on")
                continue
            if canceled is None:
                attempt.stop(lease_lost=True)
            elif canceled:
                attempt.stop()

    async def _ended_before_beat(self, attempt: Attempt, ended: asyncio.Event) -> bool:
        """Wait for the next beat, which a hint of a cancellation brings forward."""
        look = asyncio.create_task(attempt.look.wait())
        end = asyncio.create_task(ended.wait())
        await asyncio.wait({look, end}, timeout=self._plan.settings.heartbeat_s, return_when=asyncio.FIRST_COMPLETED)
        look.cancel()
        end.cancel()
        attempt.look.clear()
        return ended.is_set()

    async def _fail(self, claim: Claim, error: RenderError, *, probe: bool) -> None:
        """Record a failure, or, where a probe shows that the device is what failed, give the render to another replica.

        No probe once the device is free: it may run the next render already, and what failed is not the device.
        """
        if probe and not await self._device_works():
            await self._report(lambda: self._store.claims.release(claim, self._plan.settings.max_attempts))
            # The slot stays taken meanwhile, so that no other render meets this device.
            others = self._unfinished - {asyncio.current_task()}
            if others:
                # What is being stored gets the time; another render on this device would wait for this one in turn.
                await asyncio.wait(others, timeout=_STORING_S)
            _leave("the device failed its probe")
        await self._report(lambda: self._store.claims.fail(claim, error))

    async def _device_works(self) -> bool:
        try:
            await asyncio.get_running_loop().run_in_executor(self._device_thread, self._pipeline.probe)
        except Exception:
            logger.exception("the device failed its probe; its render goes to another replica")
            return False
        return True

    async def _report(self, write: Callable[[], Awaitable[bool]]) -> bool:
        """Write an end state; while the store does not answer, wait for it rather than lose a finished render.

        False where the claim was no longer valid, and nothing was written.
        """
        while True:
            try:
                written = await write()
                if not written:
                    logger.warning("a newer attempt holds this render; what this one did is dropped")
                return written
            except StoreUnavailable as error:
                logger.warning("%s; the end of the render is written when it is back", error)
                await asyncio.sleep(_RETRY_S)


def _leave(why: str) -> NoReturn:
    """End this process, and let Serve start another one.

    A replica that only fails its health checks is stopped gracefully: Serve would wait for the very call, or reserved
    slot, that never ends, and hold the GPU as long.
    """
    logger.critical("%s; this replica ends itself, so that another one takes its place", why)
    logging.shutdown()
    os._exit(1)


def _yield_to_api() -> None:
    os.nice(_CPU_NICENESS)  # of this thread, and of the threads and processes it starts, on Linux
