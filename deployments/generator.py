"""The Generator actor: one GPU, or several that share each render (in the demo, CPU threads); one render at a time.

It only orchestrates. `deployments.attempt` keeps the lease, `deployments.device` runs the pipeline,
`deployments.publishing` stores outputs and writes the ends of attempts, `deployments.health` ends a broken replica.

Example:
    resident = await generator.render(claim)  # returns when the device is free; the output follows
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

from deployments.attempt import Attempt, AttemptAborted, Lease
from deployments.autoscaling import BUSY
from deployments.device import Device, worker_thread
from deployments.health import STARVED_S, Starvation, leave_process
from deployments.known_needs import KnownNeeds
from deployments.lora_access import lora_files
from deployments.lora_reading import finished, hold_all, released
from deployments.observability.metrics import service_observers
from deployments.pipeline import PipelineOptions, RenderInputs, pipeline_class
from deployments.preparation import Foresee, Preparation, nothing_foreseen
from deployments.previews import Previews
from deployments.publishing import Generated, Publisher
from deployments.scheduling.residency import ResidentPairs
from serve_app.costs import CostKey, MeasuredCost
from serve_app.errors import RenderError, RenderFailed
from serve_app.images.stored import read_fitted
from serve_app.jobs.costs import Measurement
from serve_app.jobs.needs import MeasuredNeed
from serve_app.jobs.records import Claim
from serve_app.jobs.store import JobStore
from serve_app.logs import about, configure_logging
from serve_app.loras.files import LoraOnDisk
from serve_app.needs import NeedKey
from serve_app.observers import End, LoraSource, Observers, Outcome
from serve_app.outputs import OutputStore
from serve_app.plan import ModelPlan
from serve_app.results import GeneratorRuntime
from serve_app.settings import Profile
from serve_app.spec import RenderSpec
from serve_app.tasks import detached

logger = logging.getLogger("ray.serve.wan")

_LAST_OUTPUTS_S = 60.0  # for outputs that are being encoded or stored when a device has failed
_GIB = 2**30


class Generator:
    """Loads the base model once, then renders claims. Only it writes the ends of its claims."""

    _opened = False  # whether there is something to close

    def __init__(
        self,
        plan: ModelPlan,
        *,
        observers: Observers | None = None,
        leave: Callable[[str], None] = leave_process,
        foresee: Foresee = nothing_foreseen,
    ) -> None:
        """Load the pipeline that the plan's card names.

        `leave` ends this process, with a reason. `foresee` tells which render comes next here, so that it is prepared.
        """
        configure_logging()
        self._built = plan  # by the args alone
        self._plan = plan
        self._observers = service_observers(plan.settings) if observers is None else observers
        self._leave = leave
        yielding = plan.profile is Profile.CPU
        # The pipeline comes last, because it takes minutes: problems of the other parts show before.
        self._loras = lora_files(plan)
        self._store = JobStore(plan.settings.database_url, self._observers.finished)
        self._outputs = OutputStore.from_url(plan.settings.output_url)
        self._encoding = worker_thread("encoding", yielding=yielding)
        self._publisher = Publisher(self._store, self._outputs, self._encoding, plan.settings.lease_s)
        started = monotonic()
        load = partial(pipeline_class(plan.card.pipeline).load, _options(plan))
        imports_s = monotonic() - started
        self._device = Device(load, worker_thread("device", yielding=yielding))
        self._start = self._device.start.model_copy(update={"imports": round(imports_s, 3)})
        self._starvation = Starvation(self._store, plan.card.id)
        self._pairs = ResidentPairs()
        self._preparation = Preparation(
            foresee,
            self._loras,
            worker_thread("preparing", yielding=yielding),
            self._observers.prepared,
        )
        self._needs = KnownNeeds(self._store, plan.cost_name)
        self._unfinished: set[asyncio.Task[None]] = set()  # attempts that are not wholly stored yet
        self._opened = True
        self._observers.ready(plan.card.id, self._start)
        logger.info(
            "ready: %s, seconds: %s", self._device.runtime.model_dump(mode="json"), self._start.model_dump(mode="json")
        )

    def __del__(self) -> Coroutine[Any, Any, None] | None:
        """Return the coroutine that Serve awaits before it ends the process; Serve calls this method by its name."""
        return self.close() if self._opened else None

    async def close(self) -> None:
        """Wait for outputs that are still being encoded or stored."""
        self._opened = False
        if self._unfinished:
            await asyncio.wait(self._unfinished)
        await self._store.close()

    def reconfigure(self, user_config: dict[str, Any] | None) -> None:
        """Apply the changes of `user_config`, from the next render on."""
        self._plan = self._built.retuned(user_config)

    def record_routing_stats(self) -> dict[str, Any]:
        """Return what is ready here, for a Dispatcher that does not know this replica yet, and what it runs on."""
        runtime = self._device.runtime
        published = GeneratorRuntime(
            device=runtime.device,
            dtype=runtime.dtype,
            offload=runtime.offload,
            pristine=runtime.pristine,
            start=self._start,
            kernels=runtime.kernels,
        )
        return {"resident": list(self._pairs.keys), "runtime": published.model_dump(mode="json")}

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return whether this replica is at work."""
        return {BUSY: float(bool(self._unfinished))}

    async def check_health(self) -> None:
        """Tell the observers that this replica lives; end it if renders wait, but none reaches it; see `Starvation`."""
        self._observers.alive()
        if await self._starvation.check():
            self._leave(f"renders wait, but none has reached this replica for {STARVED_S:g} s")

    async def render(self, claim: Claim) -> tuple[str, ...]:
        """Run one attempt; return when the device is free for the next, with the pair keys that are ready now.

        Encoding, storing and the end state follow under the same lease, while the next render may already run. A
        canceled call does not end the render: this replica then asks the store at once whether the render was canceled.
        """
        device_free = asyncio.Event()
        claim = replace(claim, gpus=self._plan.settings.gpus_per_generator)
        attempt = Attempt(claim, self._plan.settings.render_timeout_s)
        task = detached(self._run(attempt, device_free))
        self._unfinished.add(task)
        task.add_done_callback(self._finished)
        task.add_done_callback(lambda _: device_free.set())
        try:
            await device_free.wait()
        except asyncio.CancelledError:
            attempt.look.set()
            raise
        return self._pairs.keys

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._unfinished.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("the end of a render was not recorded; its lease will run out", exc_info=error)

    async def _run(self, attempt: Attempt, device_free: asyncio.Event) -> None:
        """Run one attempt to its end, recorded in the store under the claim's token."""
        with about(attempt.claim):
            self._observers.started(attempt.claim)
            async with Lease(attempt, self._store, self._plan.settings, self._leave):
                outcome = await self._outcome(attempt, device_free)
            self._observers.ended(attempt.claim, outcome)

    async def _outcome(self, attempt: Attempt, device_free: asyncio.Event) -> Outcome:
        """Generate, encode, store, and write the end of the attempt."""
        claim = attempt.claim
        try:
            generated = await self._generate(attempt)
            async with self._publisher.turn(attempt):
                device_free.set()
                output = await self._publisher.store_output(attempt, generated)
        except AttemptAborted:
            canceled = not attempt.lease_lost and await self._publisher.cancel(claim)
            return Outcome(End.CANCELED if canceled else End.FENCED)
        except RenderError as error:
            return await self._failed(claim, error, probe=not device_free.is_set())
        except Exception as error:
            logger.exception("render %d of request %s failed", claim.render_id, claim.request_id)
            failure = RenderFailed(f"the render failed with {type(error).__name__}: {error}")
            return await self._failed(claim, failure, probe=not device_free.is_set())
        published = await self._publisher.succeed(claim, output, self._measurement(claim, generated))
        if published:
            self._observers.published(claim, output)
        end = End.SUCCEEDED if published else End.FENCED
        embeddings = generated.rendered.made_with.embeddings
        return Outcome(end, replica_s=generated.replica_s, loras=generated.loras, embeddings=embeddings)

    async def _generate(self, attempt: Attempt) -> Generated:
        """Fetch the attempt's image and LoRAs, and run the pipeline."""
        claim, loop = attempt.claim, asyncio.get_running_loop()

        def on_step(steps_done: int) -> None:  # in the device's thread
            loop.call_soon_threadsafe(self._observers.step, claim, steps_done)
            attempt.on_step(steps_done)

        with self._starvation.at_work():
            started = monotonic()
            image = await read_fitted(self._outputs, claim.request_id, claim.spec)
            async with self._lora_files(attempt) as files:
                fetched = monotonic()
                source = self._lora_source(claim.spec, files)
                previews = Previews(attempt, self._encoding).offer if claim.spec.previews else None
                needs = await self._needs.known()
                inputs = RenderInputs(files, None if image is None else image.pixels, previews, needs)
                with self._preparation.beside(claim, self._pairs, self._plan.settings.prepare_ahead_s):
                    rendered = await self._device.render(claim.spec, inputs, on_step)
            self._pairs.rendered(claim.spec, rendered.resident)
            use = None if image is None else image.use
            if files:
                self._observers.read(claim.spec.model, tuple(files.values()))
            return Generated(rendered, use, source, fetch_s=fetched - started, generate_s=monotonic() - fetched)

    def _lora_source(self, spec: RenderSpec, read: Mapping[str, LoraOnDisk]) -> LoraSource:
        if read:
            return LoraSource.DISK
        return LoraSource.LOADED if self._pairs.keys[:1] == (spec.pair_key,) else LoraSource.MEMORY

    @asynccontextmanager
    async def _lora_files(self, attempt: Attempt) -> AsyncIterator[dict[str, LoraOnDisk]]:
        """Hold the files of the LoRAs that are not resident in the pipeline while the block runs."""
        claim = attempt.claim
        lacking = self._device.lacking(claim.spec)
        if not lacking:
            yield {}
            return
        held = ExitStack()
        holding = asyncio.create_task(
            asyncio.to_thread(hold_all, self._loras, lacking, claim.spec, claim.hf_token, held)
        )
        try:
            yield await finished(holding, attempt, self._plan.settings.lora_download_timeout_s * len(lacking))
        finally:
            await released(holding, held)

    def _measurement(self, claim: Claim, generated: Generated) -> Measurement:
        """Return what the render has taken, for the cost model and the memory planner."""
        denoise_s = generated.rendered.seconds.denoise
        cost = MeasuredCost(denoise_s / claim.spec.sample_steps, generated.replica_s - denoise_s)
        needed = generated.rendered.need_bytes
        need = None if needed is None else MeasuredNeed(NeedKey.of(claim.spec), needed)
        return Measurement(self._plan.cost_name, CostKey.of(claim.spec, self._plan.card), cost, need)

    async def _failed(self, claim: Claim, error: RenderError, *, probe: bool) -> Outcome:
        """Record a failure or, if a probe shows that the device is broken, give the render to another replica.

        Without a probe if the device is free already: then it may run the next render, and the failure came later.
        """
        if probe and not await self._device.works():
            released = await self._publisher.release(claim, self._plan.settings.max_attempts)
            await self._leave_broken_device()
            return Outcome(End.RELEASED if released else End.FENCED)
        failed = await self._publisher.fail(claim, error)
        return Outcome(End.FAILED, error) if failed else Outcome(End.FENCED)

    async def _leave_broken_device(self) -> None:
        """Wait for outputs that are being stored, then end the process; the slot stays taken: no render comes here."""
        others = self._unfinished - {asyncio.current_task()}
        if others:
            # With a timeout, because another render that failed on this device would wait for this one.
            await asyncio.wait(others, timeout=_LAST_OUTPUTS_S)
        self._leave("the device failed its probe")


def _options(plan: ModelPlan) -> PipelineOptions:
    settings = plan.settings
    return PipelineOptions(
        card=plan.card,
        base_model=plan.base_model,
        transformer_model=plan.transformer_model,
        dtype=settings.dtype,
        offload=settings.offload,
        hf_token=settings.hf_token,
        device="cpu" if plan.profile is Profile.CPU else "cuda",
        pristine=settings.pristine,
        lora_memory_bytes=int(settings.lora_memory_gib * _GIB),
        compile_cache=settings.compile_cache_dir,
        speeds=settings.speeds,
        gpus=settings.gpus_per_generator,
        warm_up=None if plan.profile is Profile.CPU else settings.speed,
    )
