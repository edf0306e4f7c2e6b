"""The Wan pipeline: one spec in, its video out.

It puts loading, memory, LoRAs, prompts and sampling together, and implements `deployments.pipeline.Pipeline`:

    runtime = WanRuntime.load(options)
    files = {lora.content: ... for lora in runtime.lacking(spec)}  # a LoraOnDisk each, see serve_app.loras.files
    rendered = runtime.render(spec, RenderInputs(files), on_step=lambda done: print(f"step {done}"))
    rendered.frames.shape  # (41, 1024, 1024, 3)
"""

import logging
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
from deployments.wan.memory.offload import (
    forget_peak,
    free_memory,
    out_of_memory,
    peak_bytes,
    place,
    size_of,
    weight_bytes,
    without_hooks,
)
from deployments.wan.memory.planner import MemoryPlan, make_plan
from deployments.wan.parallel.team import Leader, Rank, Team
from deployments.wan.parallel.work import ChangePlan, LeaveGpu, Probe, Render
from deployments.wan.prompts import PromptEmbeddings
from deployments.wan.sampling import Sampled, Stopwatch, VideoSampler
from deployments.wan.speed import Accelerator, keep_compiled_in
from serve_app.models.card import ModelCard
from serve_app.results import Acceleration, CacheUse, MadeWith, Parallelism, PipelineSeconds, Runtime
from serve_app.settings import OffloadMode
from serve_app.spec import Expert, LoraFile, RenderSpec

logger = logging.getLogger("ray.serve.wan")

_PROBE_SIZE = 8
_PLANS_TRIED = 2  # at most, for one render


class WanRuntime:
    """A loaded base model on one device. Renders one spec at a time; not safe for use from two threads at once."""

    def __init__(
        self,
        pipe: Any,
        card: ModelCard,
        plan: MemoryPlan,
        *,
        device: torch.device,
        dtype: torch.dtype,
        files: Callable[[Expert], Mapping[str, Path]],
        team: Team,
        rgb: RgbMap | None = None,
    ) -> None:
        """Place a pipeline that lies in host memory; `files` finds the file of each parameter of an expert.

        `rgb` draws previews; silent: there are none.
        """
        self._pipe = pipe
        self._card = card
        self._team = team
        self._plan = plan
        self._device = device
        self._dtype = dtype
        place(pipe, plan.offload, device)
        self._loras = LoraState(
            {side: getattr(pipe, COMPONENTS[side]) for side in card.experts},
            device=device,
            dtype=dtype,
            plan=plan,
            files=files,
            without_hooks=lambda: without_hooks(pipe, self._plan.offload, device),
        )
        self._prompts = PromptEmbeddings(pipe, device)
        experts = [getattr(pipe, COMPONENTS[side]) for side in card.experts]
        self._heads: int = experts[0].config.num_attention_heads
        self._accelerator = Accelerator(experts, device, dtype)
        if isinstance(team, Rank):
            team.take(experts, token_timesteps=card.token_timesteps)
        self._sampler = VideoSampler(pipe, device, card, team, rgb)

    @classmethod
    def load(cls, options: PipelineOptions) -> Self:
        """Load the base model onto `options.device`. Takes minutes with real weights.

        With several GPUs, the other ranks load it in processes of their own, at the same time. On a CPU, torch is
        limited to half of the cores and to instructions whose results do not depend on the CPU's generation, in the
        whole process.

        Raises:
            ConfigurationInvalid: a checkpoint cannot be loaded, or the dtype, offload mode or pristine mode does not go
                with the device; or the card does not say how an image enters the model.
        """
        device = torch.device(options.device)
        if device.type == "cpu":
            settle_cpu()
        if options.gpus == 1:
            return cls.of_team(options, Team())
        team = Leader(options, device)
        try:
            runtime = cls.of_team(options, team)
            team.ready()
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
        pipe = load_pipeline(options, dtype)
        plan = make_plan(
            offload=options.offload,
            pristine=options.pristine,
            lora_host_bytes=options.lora_memory_bytes,
            weights=weight_bytes(pipe, [COMPONENTS[side] for side in options.card.experts]),
            free=free_memory(device),
            ranks=options.gpus,
        )
        files = partial(expert_files, options.transformer_model)
        rgb = latent_rgb(options.base_model, options.card)
        drawn_with = None if rgb is None else RgbMap.of(rgb, device)
        return cls(pipe, options.card, plan, device=device, dtype=dtype, files=files, team=team, rgb=drawn_with)

    @property
    def runtime(self) -> Runtime:
        """Return what this pipeline runs on now."""
        return Runtime(
            device=self._device_name,
            dtype=str(self._dtype).removeprefix("torch."),
            offload=self._plan.offload.value,
            offload_reason=self._plan.reason,
            pristine=self._loras.originals.value,
            resident_loras=self._loras.resident.listing,
            peak_bytes=peak_bytes(self._device),
        )

    def lacking(self, spec: RenderSpec) -> tuple[LoraFile, ...]:
        """Return the LoRAs of `spec` that are not resident, each content once: their files are needed."""
        return self._loras.lacking(spec)

    def render(self, spec: RenderSpec, inputs: RenderInputs, on_step: Callable[[int], None]) -> Rendered:
        """Generate the frames of `spec`. `inputs.loras` has the LoRAs that `lacking` names.

        `on_step` gets the count of finished denoising steps after each one. What it raises ends the render and comes
        out unchanged. However a render ends, the next one gives the frames that it would have given first.

        Where memory runs out, the runtime first gives up the copies that it keeps on the GPU only to switch LoRAs
        faster, then goes over to the next leaner memory plan, stays there, and tries again; the steps then count from
        1 again. The plan itself changes no pixel, but a GPU whose memory ran out in the decoder may decode that size a
        little differently from then on (seen once on an H200, by 2 of 255).

        Raises:
            LoraChanged, LoraNotLoaded: see `LoraState.apply`; the LoRAs that acted before stay.
            OutOfMemory: the device's memory does not hold this render.
            RenderFailed: the video has numbers that are not finite, or not the size that the spec says.
            TeamBroken: another rank is gone or hangs; every further call raises it, too.
        """
        mix = self._mix(spec)
        tried = [self._plan.offload]
        while True:
            try:
                with self._team.doing(Render(spec, replace(inputs, previews=None), mix)):
                    return self._attempt(spec, inputs, on_step, mix)
            except torch.OutOfMemoryError as error:
                if self._spare_memory():
                    continue
                leaner = self._plan.leaner()
                if len(tried) == _PLANS_TRIED or leaner is None:
                    advised = None if leaner is None else leaner.offload
                    raise out_of_memory(self._device_name, spec, tried, advised, str(error)) from None
                with self._team.doing(ChangePlan(leaner, spec)):
                    self.change_plan(leaner, spec)
                tried.append(leaner.offload)

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
            raise RuntimeError(f"{self._device_name} computes wrong sums")

    def close(self) -> None:
        """End the other ranks, where there are any."""
        self._team.close()

    def _mix(self, spec: RenderSpec) -> Parallelism:
        return self._team.mix(heads=self._heads, tokens=self._tokens(spec), guided=spec.guidance_scale > 1)

    def _tokens(self, spec: RenderSpec) -> int:
        return self._card.token_count(width=spec.width, height=spec.height, num_frames=spec.num_frames)

    def _attempt(
        self, spec: RenderSpec, inputs: RenderInputs, on_step: Callable[[int], None], mix: Parallelism
    ) -> Rendered:
        watch = Stopwatch()
        forget_peak(self._device)
        try:
            with self._team.agreed():
                self._loras.apply(spec, inputs.loras)
                watch.lap("lora")
                use = self._prompts.use(spec)
                embeddings = self._prompts.arguments(spec)
                watch.lap("text")
            # What exchanges uneven parts of the tokens cannot be compiled.
            eager = self._layers_are_hooked or not mix.is_even(self._tokens(spec))
            with self._accelerator.running(spec.speed, hooked=eager) as used:
                sampled = self._sampler.sample(
                    spec, embeddings, inputs.image, on_step, watch, mix=mix, previews=inputs.previews
                )
        except BaseException as error:
            self._recover(error)
            raise
        return Rendered(
            frames=sampled.frames,
            made_with=self._made_with(spec, sampled, used.model_copy(update={"parallelism": mix}), use),
            seconds=PipelineSeconds(**watch.seconds),
            resident=self._loras.resident.content_ids,
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
            warnings=(*self._loras.warnings, *self._prompts.warnings(spec)),
            embeddings=use,
        )

    def _recover(self, error: BaseException) -> None:
        """Free what an interrupted render holds, and put every component back where the plan wants it."""
        # The frames of the failed call hold its tensors, and the VAE holds those of the frames it has decoded.
        traceback.clear_frames(error.__traceback__)
        self._pipe.vae.clear_cache()
        # Else the expert that ran, or the layer of it, stays on the GPU, and the next render would need room for two.
        place(self._pipe, self._plan.offload, self._device)
        self._empty_cache()

    def _spare_memory(self) -> bool:
        """Free the GPU memory that only makes switching LoRAs faster, on every rank; return False if none is."""
        with self._team.doing(LeaveGpu()):
            return self.leave_gpu()

    def leave_gpu(self) -> bool:
        """Free the GPU memory that only makes switching LoRAs faster; return False if there is none."""
        if not self._loras.leave_gpu():
            return False
        logger.warning("%s ran out of memory; from now on it keeps no copies for switching LoRAs", self._device_name)
        self._empty_cache()
        return True

    def change_plan(self, plan: MemoryPlan, spec: RenderSpec) -> None:
        """Go over to `plan` for good, because `spec` did not fit."""
        logger.warning(
            "%s ran out of memory for %s with offload: %s; from now on this replica runs with offload: %s, slower",
            self._device_name,
            size_of(spec),
            self._plan.offload.value,
            plan.offload.value,
        )
        place(self._pipe, plan.offload, self._device)
        self._plan = plan

    def _empty_cache(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def _layers_are_hooked(self) -> bool:
        return self._plan.offload is OffloadMode.SEQUENTIAL

    @property
    def _device_name(self) -> str:
        """Return the GPU's product name, or "cpu"."""
        return "cpu" if self._device.type == "cpu" else torch.cuda.get_device_name(self._device)
