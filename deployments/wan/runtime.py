"""Renders video with Wan 2.2 T2V A14B and a LoRA pair: one spec in, its frames out."""

import traceback
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from deployments.wan.adapters import PairAdapters
from deployments.wan.loading import compute_dtype, load_pipeline
from deployments.wan.offload import OffloadPlan, apply_plan, plan_offload
from serve_app.errors import OutOfMemory, RenderFailed
from serve_app.jobs.spec import RenderSpec
from serve_app.offload_mode import OffloadMode

Frames = npt.NDArray[np.uint8]

_PROBE_SIZE = 8
# What 1024x1024, 41 frames, the default render, takes beside the weights. Measured on an H200 with full-size components
# of random weights in bfloat16 (torch 2.11, diffusers 0.42.1): decoding peaks at 11.2 GiB in tensors, 16.0 GiB with
# what torch's allocator keeps; one expert with a rank 32 LoRA at 5.2 and 8.6 GiB. 1280x720, 81 frames, needs less.
_RENDER_ALLOWANCE_BYTES = 16 * 2**30


class WanRuntime:
    """A loaded base model on one device. Renders one spec at a time; not safe for use from two threads at once."""

    def __init__(self, pipe: Any, plan: OffloadPlan, device: torch.device, dtype: torch.dtype) -> None:
        self._pipe = pipe
        self._plan = plan
        self._device = device
        self._dtype = dtype
        apply_plan(pipe, plan, device)
        self._adapters = PairAdapters(pipe, lambda: apply_plan(pipe, plan, device))

    @classmethod
    def load(
        cls,
        *,
        base_model: str,
        transformer_model: str,
        dtype: str,
        offload: OffloadMode,
        hf_token: str | None,
        device: str,
    ) -> Self:
        """Load the base model onto `device` ("cpu" or "cuda"). Takes minutes with real weights.

        Raises:
            ConfigurationError: a checkpoint cannot be loaded, or the dtype or offload mode does not go with the
                device.
        """
        target = torch.device(device)
        number_type = compute_dtype(dtype, target)
        pipe = load_pipeline(base_model, transformer_model, number_type, hf_token)
        plan = plan_offload(
            offload,
            device_type=target.type,
            component_bytes=_component_bytes(pipe),
            allowance_bytes=_RENDER_ALLOWANCE_BYTES,
            free_bytes=0 if target.type == "cpu" else torch.cuda.mem_get_info(target)[0],
        )
        return cls(pipe, plan, target, number_type)

    @property
    def pair_key(self) -> str | None:
        """Routing key of the LoRA pair that is loaded now; None when there is none."""
        return self._adapters.pair_key

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
    def summary(self) -> dict[str, Any]:
        """What this runtime runs on, for logs and results."""
        return {
            "device": self.device_name,
            "dtype": self.dtype_name,
            "offload": self._plan.mode.value,
            "offload_reason": self._plan.reason,
        }

    def render(self, spec: RenderSpec, on_step: Callable[[int], None]) -> Frames:
        """Generate the frames of `spec`, [frames, height, width, 3] in RGB.

        `on_step` gets the count of finished denoising steps after each one. What it raises ends the render and comes
        out unchanged. However a render ends, the next one gives the frames that it would have given first.

        Raises:
            LoraChanged, LoraNotLoaded: see `PairAdapters.apply`.
            OutOfMemory: the device's memory does not hold this render.
            RenderFailed: the video has numbers that are not finite, or not the size that the spec says.
        """
        try:
            self._adapters.apply(spec.loras)
            return _to_pixels(self._generate(spec, on_step), spec)
        except torch.OutOfMemoryError as error:
            self._recover(error)
            raise self._out_of_memory(spec, str(error)) from None
        except BaseException as error:
            self._recover(error)
            raise

    def probe(self) -> None:
        """Compute something tiny and wait for it.

        Raises:
            RuntimeError: the device no longer computes (a CUDA context stays broken after some errors), so this
                process must be replaced.
        """
        ones = torch.ones(_PROBE_SIZE, device=self._device)
        if ones.sum().item() != _PROBE_SIZE:  # item() waits for the device
            raise RuntimeError(f"{self.device_name} computes wrong sums")

    def _generate(self, spec: RenderSpec, on_step: Callable[[int], None]) -> npt.NDArray[np.float32]:
        """The video as the pipeline gives it, [frames, height, width, 3] in 0..1."""

        def after_step(_pipe: Any, step: int, _timestep: Any, _tensors: dict[str, Any]) -> dict[str, Any]:
            on_step(step + 1)
            return {}

        result = self._pipe(
            prompt=spec.prompt,
            negative_prompt=spec.negative_prompt,
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
        # Else the expert that ran stays on the GPU, and the next render would need room for two.
        self._pipe.maybe_free_model_hooks()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _out_of_memory(self, spec: RenderSpec, reason: str) -> OutOfMemory:
        return OutOfMemory(
            f"{self.device_name} ran out of memory for {spec.width}x{spec.height}, {spec.num_frames} frames with "
            f"offload: {self._plan.mode.value}; ask for fewer pixels or frames, or set a stronger offload",
            {"offload": self._plan.mode.value, "reason": reason},
        )


def _component_bytes(pipe: Any) -> dict[str, int]:
    """Size of the weights of each component that has any."""
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {name: sum(weight.nbytes for weight in part.parameters()) for name, part in modules.items()}


def _to_pixels(video: npt.NDArray[np.float32], spec: RenderSpec) -> Frames:
    """0..1 to 0..255, rounded to the nearest as diffusers rounds PIL frames.

    Raises:
        RenderFailed: a number is not finite, or the shape is not the spec's.
    """
    expected = (spec.num_frames, spec.height, spec.width, 3)
    if video.shape != expected:
        raise RenderFailed(f"the pipeline gave frames of shape {video.shape}, expected {expected}")
    if not np.isfinite(video).all():
        raise RenderFailed(
            "the video has pixels that are not finite numbers; a LoRA with broken weights, or too high a multiplier "
            "for it, does that"
        )
    return (video * 255).round().astype(np.uint8)
