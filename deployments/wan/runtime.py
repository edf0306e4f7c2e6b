"""The Wan pipeline: one spec in, its video out.

It puts loading, memory, LoRAs, prompts and sampling together, and implements `deployments.pipeline.Pipeline`:

    runtime = WanRuntime.load(options)
    files = {lora.content: ... for lora in runtime.lacking(spec)}  # a LoraOnDisk each, see serve_app.loras.files
    rendered = runtime.render(spec, RenderInputs(files), on_step=lambda done: print(f"step {done}"))
    rendered.frames.shape  # (41, 1024, 1024, 3)
"""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch

from deployments.pipeline import PipelineOptions, Rendered, RenderInputs
from deployments.wan.conditioning import check_conditioning
from deployments.wan.latent_rgb import RgbMap, latent_rgb
from deployments.wan.loading import COMPONENTS, compute_dtype, expert_files, load_pipeline, settle_cpu
from deployments.wan.loras.state import LoraState
from deployments.wan.memory.chooser import PlanChooser
from deployments.wan.memory.measuring import free_memory, weight_bytes
from deployments.wan.memory.needs import Needs
from deployments.wan.memory.offload import Placement
from deployments.wan.memory.planner import IN_PLACE, Demand
from deployments.wan.memory_control import MemoryControl
from deployments.wan.parallel.team import Leader, Rank, Team
from deployments.wan.parallel.work import Probe, Render
from deployments.wan.prompts import PromptEmbeddings
from deployments.wan.sampling import Sampled, Stopwatch, VideoSampler
from deployments.wan.speed.accelerator import Accelerator, keep_compiled_in, warnings_of
from deployments.wan.speed.float8 import check_float8
from deployments.wan.warm_start import read_ahead, warm_up_inputs, warm_up_spec, weight_files
from serve_app.models.card import ModelCard
from serve_app.needs import NeedKey
from serve_app.results import Acceleration, CacheUse, MadeWith, Parallelism, PipelineSeconds, Runtime, StartSeconds
from serve_app.settings import OffloadMode
from serve_app.spec import Expert, LoraFile, RenderSpec, Speed

_PROBE_SIZE = 8


class WanRuntime:
    """A loaded base model on one device. Renders one spec at a time; not safe for use from two threads at once."""

    def __init__(
        self,
        pipe: Any,
        card: ModelCard,
        demand: Demand,
        *,
        device: torch.device,
        dtype: torch.dtype,
        files: Callable[[Expert], Mapping[str, Path]],
        team: Team,
        rgb: RgbMap | None = None,
    ) -> None:
        """Place a pipeline where a plan for `demand` wants it; `files` finds the file of each parameter of an expert.

        `rgb` draws previews; silent: there are none.
        """
        self._pipe = pipe
        self._card = card
        self._team = team
        self._device = device
        self._dtype = dtype
        usual = card.defaults
        first = NeedKey.of_size(usual.width, usual.height, usual.num_frames, Speed.EXACT)
        plans = PlanChooser(demand, Needs(card), first)
        plan = plans.current
        self._placement = Placement(pipe, device, [COMPONENTS[side] for side in card.experts])
        self._placement.apply(plan.offload, pinned=plan.pinned)
        self._start = StartSeconds()
        self._loras = LoraState(
            {side: getattr(pipe, COMPONENTS[side]) for side in card.experts},
            device=device,
            dtype=dtype,
            plan=plan,
            files=files,
            without_hooks=self._placement.lifted,
        )
        self._prompts = PromptEmbeddings(pipe, device)
        experts = [getattr(pipe, COMPONENTS[side]) for side in card.experts]
        self._heads: int = experts[0].config.num_attention_heads
        self._accelerator = Accelerator(experts, device, dtype)
        self.memory = MemoryControl(
            card,
            plans,
            self._placement,
            loras=self._loras,
            accelerator=self._accelerator,
            team=team,
            device=device,
        )
        if isinstance(team, Rank):
            team.take(experts, token_timesteps=card.token_timesteps)
        self._sampler = VideoSampler(pipe, device, card, team, rgb)

    @classmethod
    def load(cls, options: PipelineOptions) -> Self:
        """Load the base model onto `options.device`. Takes minutes with real weights.

        With several GPUs, the other ranks load it in processes of their own, at the same time. What the options say
        of a warm-up is done before this returns. On a CPU, torch is
        limited to half of the cores and to instructions whose results do not depend on the CPU's generation, in the
        whole process.

        Raises:
            ConfigurationInvalid: a checkpoint cannot be loaded, or the dtype, offload mode, pristine mode or a speed
                profile does not go with the device; or the card does not say how an image enters the model.
        """
        device = torch.device(options.device)
        if device.type == "cpu":
            settle_cpu()
        team = Team() if options.gpus == 1 else Leader(options, device)
        try:
            runtime = cls.of_team(options, team)
            team.ready()
            if options.warm_up is not None:
                runtime.warm_up(options.warm_up)
        except BaseException:
            team.close()
            raise
        return runtime

    @classmethod
    def of_team(cls, options: PipelineOptions, team: Team) -> Self:
        """Load the base model as one rank of `team`. Raise ConfigurationInvalid as `load` does."""
        check_conditioning(options.card)
        device = torch.device(options.device)
        dtype = compute_dtype(options.dtype, device)
        keep_compiled_in(options.compile_cache)
        if Speed.TURBO in options.speeds:
            check_float8(device, dtype)
        free = free_memory(device)
        watch = Stopwatch()
        read_ahead(weight_files(options))
        pipe = load_pipeline(options, dtype)
        watch.lap("load")
        demand = Demand(
            offload=options.offload,
            pristine=options.pristine,
            lora_host_bytes=options.lora_memory_bytes,
            weights=weight_bytes(pipe, [COMPONENTS[side] for side in options.card.experts]),
            free=free,
            ranks=options.gpus,
        )
        files = partial(expert_files, options.transformer_model)
        rgb = latent_rgb(options.base_model, options.card)
        drawn_with = None if rgb is None else RgbMap.of(rgb, device)
        runtime = cls(pipe, options.card, demand, device=device, dtype=dtype, files=files, team=team, rgb=drawn_with)
        watch.lap("place")
        runtime._start = StartSeconds(**watch.rounded)
        return runtime

    def warm_up(self, speed: Speed) -> None:
        """Make a small render with every expert, so that the first one of a user finds all kernels ready."""
        watch = Stopwatch()
        spec = warm_up_spec(self._card, speed, self._sampler.passes)
        self.render(spec, warm_up_inputs(self._card, spec), lambda _: None)
        watch.lap("warm_up")
        self._start = self._start.model_copy(update=watch.rounded)

    @property
    def start(self) -> StartSeconds:
        """Return how long the parts of loading took."""
        return self._start

    @property
    def runtime(self) -> Runtime:
        """Return what this pipeline runs on now."""
        plan = self.memory.plan
        return Runtime(
            device=self.memory.device_name,
            dtype=str(self._dtype).removeprefix("torch."),
            offload=plan.offload.value,
            offload_reason=plan.reason,
            pristine=self._loras.originals.value,
            resident_loras=self._loras.resident.listing,
            pinned=plan.pinned,
            predicted_bytes=plan.predicted_bytes,
            kernels=self._accelerator.kernels,
            peak_bytes=self.memory.meter.read().whole,
        )

    def lacking(self, spec: RenderSpec) -> tuple[LoraFile, ...]:
        """Return the LoRAs of `spec` that are not resident, each content once: their files are needed."""
        return self._loras.lacking(spec)

    def render(self, spec: RenderSpec, inputs: RenderInputs, on_step: Callable[[int], None]) -> Rendered:
        """Generate the frames of `spec`. `inputs.loras` has the LoRAs that `lacking` names.

        `on_step` gets the count of finished denoising steps after each one. What it raises ends the render and comes
        out unchanged. However a render ends, the next one gives the frames that it would have given first.

        The memory plan is chosen for the size of the render; see `PlanChooser`. Where memory runs out, the runtime
        first gives up the copies that it keeps on the GPU only to switch LoRAs faster, then goes over to the next
        leaner plan, and tries again, once; the steps then count from 1 again. The plan itself changes no pixel, but a
        GPU whose memory ran out in the decoder may decode that size a little differently from then on (seen once on an
        H200, by 2 of 255).

        Raises:
            LoraChanged, LoraNotLoaded: see `LoraState.apply`; the LoRAs that acted before stay.
            OutOfMemory: the device's memory does not hold this render.
            RenderFailed: the video has numbers that are not finite, or not the size that the spec says.
            TeamBroken: another rank is gone or hangs; every further call raises it, too.
        """
        mix = self._mix(spec)
        self.memory.plan_for(spec, inputs.needs)
        tried = [self.memory.plan.offload]
        while True:
            try:
                with self._team.doing(Render(spec, replace(inputs, previews=None), mix)):
                    rendered = self._attempt(spec, inputs, on_step, mix)
                self.memory.log_peak(spec)
                return rendered
            except torch.OutOfMemoryError as error:
                if not self.memory.spare(spec):
                    tried.append(self.memory.go_leaner(spec, tried, error))

    def take_part(self, spec: RenderSpec, inputs: RenderInputs, mix: Parallelism) -> None:
        """Do this rank's share of one attempt at a render that another rank leads."""
        self._attempt(spec, inputs, lambda _: None, mix)

    def probe(self) -> None:
        """Compute something tiny on every rank, and wait for it.

        Raises:
            RuntimeError: the device no longer computes (a CUDA context stays broken after some errors), or another rank
                is gone, so this process must be replaced.
        """
        with self._team.doing(Probe()):
            self._compute()

    def _compute(self) -> None:
        ones = torch.ones(_PROBE_SIZE, device=self._device)
        if ones.sum().item() != _PROBE_SIZE:  # item() waits for the device
            raise RuntimeError(f"{self.memory.device_name} computes wrong sums")

    def close(self) -> None:
        """End the other ranks, if there are any."""
        self._team.close()

    def _mix(self, spec: RenderSpec) -> Parallelism:
        return self._team.mix(heads=self._heads, tokens=self._tokens(spec), guided=spec.guidance_scale > 1)

    def _tokens(self, spec: RenderSpec) -> int:
        return self._card.token_count(width=spec.width, height=spec.height, num_frames=spec.num_frames)

    def _attempt(
        self, spec: RenderSpec, inputs: RenderInputs, on_step: Callable[[int], None], mix: Parallelism
    ) -> Rendered:
        watch = Stopwatch()
        self.memory.meter.start()
        try:
            with self._team.agreed():
                self._loras.apply(spec, inputs.loras)
                watch.lap("lora")
                use = self._prompts.use(spec)
                embeddings = self._prompts.arguments(spec)
                watch.lap("text")
            self._placement.begin(self._sampler.passes(spec))
            self.memory.meter.rest()
            with self._accelerator.running(
                spec.speed,
                compilable=not self._layers_are_hooked and mix.is_even(self._tokens(spec)),
                in_place=self.memory.plan.offload in IN_PLACE,
                step_cache=spec.step_cache,
            ) as running:
                sampled = self._sampler.sample(
                    spec, embeddings, inputs.image, on_step, watch, mix=mix, previews=inputs.previews
                )
        except BaseException as error:
            self._recover(error)
            raise
        return Rendered(
            frames=sampled.frames,
            made_with=self._made_with(spec, sampled, running.used.model_copy(update={"parallelism": mix}), use),
            seconds=PipelineSeconds(**watch.seconds),
            resident=self._loras.resident.content_ids,
            need_bytes=self.memory.measured_need(running.used),
        )

    def _made_with(self, spec: RenderSpec, sampled: Sampled, acceleration: Acceleration, use: CacheUse) -> MadeWith:
        return MadeWith(
            recipe=spec.recipe,
            sampler=spec.sampler,
            shift=sampled.shift,
            boundary_step=sampled.boundary_step,
            acceleration=acceleration,
            loras=self._loras.applied,
            runtime=self.runtime,
            warnings=(*self._loras.warnings, *self._prompts.warnings(spec), *warnings_of(acceleration)),
            embeddings=use,
        )

    def _recover(self, error: BaseException) -> None:
        """Free what an interrupted render holds, and put every component back where the plan wants it."""
        # The frames of the failed call hold its tensors, and the VAE holds those of the frames it has decoded.
        traceback.clear_frames(error.__traceback__)
        self._pipe.vae.clear_cache()
        # Else the expert that ran, or the layer of it, stays on the GPU, and the next render would need room for two.
        self._placement.restore()
        self.memory.empty_cache()

    @property
    def _layers_are_hooked(self) -> bool:
        return self.memory.plan.offload is OffloadMode.SEQUENTIAL
