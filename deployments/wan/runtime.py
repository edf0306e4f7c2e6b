"""Renders video with Wan 2.2 T2V A14B and a LoRA pair: one spec in, its frames out."""

import logging
import os
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from deployments.pipeline import PipelineOptions, Rendered
from deployments.wan.loading import compute_dtype, expert_files, load_pipeline
from deployments.wan.loras.setup import ExpertFiles, set_up_loras
from deployments.wan.offload import (
    OffloadPlan,
    apply_plan,
    component_bytes,
    next_plan,
    out_of_memory,
    plan_offload,
    size_of,
)
from deployments.wan.pixels import to_pixels
from deployments.wan.prompts import PromptEmbeddings
from deployments.wan.schedulers import boundary_step, make_scheduler, shift_of
from deployments.wan.stopwatch import Stopwatch
from serve_app.results import MadeWith, PipelineSeconds, Runtime
from serve_app.settings import PristineMode
from serve_app.spec import RenderSpec

logger = logging.getLogger("ray.serve")

_PROBE_SIZE = 8
_PLANS_TRIED = 2  # at most, for one render
# What 1024x1024, 41 frames, the default render, takes beside the weights. Measured on an H200 with full-size components
# of random weights in bfloat16 (torch 2.11, diffusers 0.42.1): decoding peaks at 11.2 GiB in tensors, 16.0 GiB with
# what torch's allocator keeps; one expert with a rank 32 LoRA at 5.2 and 8.6 GiB. 1280x720, 81 frames, needs less.
_RENDER_ALLOWANCE_BYTES = 16 * 2**30


class WanRuntime:
    """A loaded base model on one device. Renders one spec at a time; not safe for use from two threads at once."""

    def __init__(
        self,
        pipe: Any,
        plan: OffloadPlan,
        device: torch.device,
        dtype: torch.dtype,
        *,
        files: ExpertFiles,
        pristine: PristineMode,
        lora_memory_bytes: int,
    ) -> None:
        """See `load`, and `set_up_loras` for the files, the pristine mode and the LoRA memory."""
        self._pipe = pipe
        self._plan = plan
        self._device = device
        self._dtype = dtype
        self._shipped_scheduler = pipe.scheduler
        apply_plan(pipe, plan, device)
        self._loras = set_up_loras(
            pipe,
            lambda: self._plan,
            device,
            dtype,
            files=files,
            pristine=pristine,
            lora_memory_bytes=lora_memory_bytes,
            allowance_bytes=_RENDER_ALLOWANCE_BYTES,
        )
        self._prompts = PromptEmbeddings(pipe, device)

    @classmethod
    def load(cls, options: PipelineOptions) -> Self:
        """Load the base model onto `options.device`. Takes minutes with real weights.

        On a CPU, torch is limited to half of the cores and to instructions whose results do not depend on the CPU's
        generation, in the whole process.

        Raises:
            ConfigurationInvalid: a checkpoint cannot be loaded, or the dtype, offload mode or pristine mode does not go
                with the device.
        """
        device = torch.device(options.device)
        dtype = compute_dtype(options.dtype, device)
        if device.type == "cpu":
            _settle_cpu()
        token = None if options.hf_token is None else options.hf_token.get_secret_value()
        pipe = load_pipeline(options.base_model, options.transformer_model, dtype, token)
        plan = plan_offload(
            options.offload,
            device_type=device.type,
            component_bytes=component_bytes(pipe),
            allowance_bytes=_RENDER_ALLOWANCE_BYTES,
            free_bytes=0 if device.type == "cpu" else torch.cuda.mem_get_info(device)[0],
        )
        return cls(
            pipe,
            plan,
            device,
            dtype,
            files=partial(expert_files, options.transformer_model),
            pristine=options.pristine,
            lora_memory_bytes=options.lora_memory_bytes,
        )

    @property
    def pair_key(self) -> str | None:
        """Routing key of the LoRA pair that is loaded now; None when there is none."""
        return self._loras.pair_key

    @property
    def plan(self) -> OffloadPlan:
        """Where the weights wait while they are not in use, and why there."""
        return self._plan

    @property
    def device_name(self) -> str:
        """The GPU's product name, or "cpu"."""
        return "cpu" if self._device.type == "cpu" else torch.cuda.get_device_name(self._device)

    @property
    def dtype_name(self) -> str:
        """The compute dtype: "bfloat16" or "float32"."""
        return str(self._dtype).removeprefix("torch.")

    @property
    def runtime(self) -> Runtime:
        """Return what this pipeline runs on now."""
        return Runtime(
            device=self.device_name,
            dtype=self.dtype_name,
            offload=self._plan.mode.value,
            offload_reason=self._plan.reason,
            pristine=self._loras.pristine_mode.value,
            resident_loras=self._loras.resident.listing,
        )

    def render(self, spec: RenderSpec, on_step: Callable[[int], None]) -> Rendered:
        """Generate the frames of `spec`.

        `on_step` gets the count of finished denoising steps after each one. What it raises ends the render and comes
        out unchanged. However a render ends, the next one gives the frames that it would have given first.

        Where memory runs out, the runtime first gives up the copies that it keeps on the GPU only to switch LoRAs
        faster, then goes over to the next leaner offload plan, stays there, and tries again; the steps then count from
        1 again. The plan itself changes no pixel, but a GPU whose memory ran out in the decoder may decode that size a
        little differently from then on (seen once on an H200, by 2 of 255).

        Raises:
            LoraChanged, LoraNotLoaded: see `LoraState.apply`; the loaded LoRAs stay.
            OutOfMemory: the device's memory does not hold this render.
            RenderFailed: the video has numbers that are not finite, or not the size that the spec says.
        """
        tried = [self._plan]
        while True:
            try:
                return self._attempt(spec, on_step)
            except torch.OutOfMemoryError as error:
                if self._leave_gpu():
                    continue
                if len(tried) == _PLANS_TRIED or not self._make_leaner(spec):
                    following = next_plan(self._plan, self._device.type)
                    raise out_of_memory(self.device_name, spec, tried, following, str(error)) from None
                tried.append(self._plan)

    def probe(self) -> None:
        """Compute something tiny and wait for it.

        Raises:
            RuntimeError: the device no longer computes (a CUDA context stays broken after some errors), so this
                process must be replaced.
        """
        ones = torch.ones(_PROBE_SIZE, device=self._device)
        if ones.sum().item() != _PROBE_SIZE:  # item() waits for the device
            raise RuntimeError(f"{self.device_name} computes wrong sums")

    def _attempt(self, spec: RenderSpec, on_step: Callable[[int], None]) -> Rendered:
        watch = Stopwatch()
        try:
            self._loras.apply(spec)
            watch.lap("lora")
            conditions = self._conditions(spec)
            watch.lap("text")
            frames = to_pixels(self._generate(spec, conditions, on_step, watch), spec)
            watch.lap("decode")
        except BaseException as error:
            self._recover(error)
            raise
        return Rendered(
            frames=frames,
            made_with=self._made_with(spec),
            seconds=PipelineSeconds(**watch.seconds),
            resident=self._loras.resident.content_ids,
        )

    def _made_with(self, spec: RenderSpec) -> MadeWith:
        scheduler = self._pipe.scheduler
        return MadeWith(
            recipe=spec.recipe,
            sampler=spec.sampler,
            shift=shift_of(scheduler),
            boundary_step=boundary_step(scheduler, self._pipe.config.boundary_ratio),
            loras=self._loras.applied,
            runtime=self.runtime,
        )

    def _conditions(self, spec: RenderSpec) -> dict[str, torch.Tensor]:
        """The pipeline's arguments in place of the prompts."""
        conditions = {"prompt_embeds": self._prompts.get(spec.prompt)}
        if spec.guidance_scale > 1:  # the pipeline's own rule; below, it looks at no negative prompt
            conditions["negative_prompt_embeds"] = self._prompts.get(spec.negative_prompt)
        return conditions

    def _generate(
        self,
        spec: RenderSpec,
        conditions: dict[str, torch.Tensor],
        on_step: Callable[[int], None],
        watch: Stopwatch,
    ) -> npt.NDArray[np.float32]:
        """The video as the pipeline gives it, [frames, height, width, 3] in 0..1."""

        def after_step(_pipe: Any, step: int, _timestep: Any, _tensors: dict[str, Any]) -> dict[str, Any]:
            if step + 1 == spec.sample_steps:
                self._wait_for_device()  # else the last step would count as decoding
            watch.lap("denoise")
            on_step(step + 1)
            return {}

        self._pipe.scheduler = make_scheduler(spec, self._shipped_scheduler)
        result = self._pipe(
            **conditions,
            width=spec.width,
            height=spec.height,
            num_frames=spec.num_frames,
            num_inference_steps=spec.sample_steps,
            # Only this one: the pipeline then uses it for both experts, and 1.0 turns guidance off for both.
            guidance_scale=spec.guidance_scale,
            # On the CPU whatever the device, so that a seed means the same noise everywhere.
            generator=torch.Generator("cpu").manual_seed(spec.seed),
            callback_on_step_end=after_step,
            output_type="np",
        )
        video: npt.NDArray[np.float32] = result.frames[0]
        return video

    def _recover(self, error: BaseException) -> None:
        """Give back what an interrupted render holds, and put every component back where the plan wants it."""
        # The frames of the failed call hold its tensors, and the VAE holds those of the frames it has decoded.
        traceback.clear_frames(error.__traceback__)
        self._pipe.vae.clear_cache()
        # Else the expert that ran, or the layer of it, stays on the GPU, and the next render would need room for two.
        apply_plan(self._pipe, self._plan, self._device)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _wait_for_device(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _leave_gpu(self) -> bool:
        """Give up the GPU memory that only makes switching LoRAs faster; False where there is none."""
        if not self._loras.leave_gpu():
            return False
        logger.warning("%s ran out of memory; from now on it keeps no copies for switching LoRAs", self.device_name)
        torch.cuda.empty_cache()
        return True

    def _make_leaner(self, spec: RenderSpec) -> bool:
        """Go over to the next offload plan for good; False where there is none."""
        plan = next_plan(self._plan, self._device.type)
        if plan is None:
            return False
        logger.warning(
            "%s ran out of memory for %s with offload: %s; from now on this replica runs with offload: %s, slower",
            self.device_name,
            size_of(spec),
            self._plan.mode.value,
            plan.mode.value,
        )
        apply_plan(self._pipe, plan, self._device)
        self._plan = plan
        return True


def _settle_cpu() -> None:
    """Leave half of the cores to others (with few of them, one stays free for the API), and do without AMX.

    AMX adds up bfloat16 products in another order: seen to change a tiny video by 2.8 of 255, while AVX-512 with
    and without bfloat16 instructions agree. oneDNN reads the variable when it computes for the first time.
    """
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
