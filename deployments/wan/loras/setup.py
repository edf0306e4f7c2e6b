"""Puts the LoRA state of a pipeline together, and divides the memory that it may use."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from deployments.wan.host_memory import available_bytes
from deployments.wan.loading import HIGH_NOISE_EXPERT, LOW_NOISE_EXPERT
from deployments.wan.loras.expert import ExpertLoras
from deployments.wan.loras.pristine import Pristine, choose_mode
from deployments.wan.loras.resident import ResidentLoras
from deployments.wan.loras.state import LoraState
from deployments.wan.loras.weights import ExpertWeights
from deployments.wan.offload import OffloadPlan, component_bytes, without_hooks
from serve_app.models.architecture import WanArchitecture
from serve_app.settings import OffloadMode, PristineMode
from serve_app.spec import Expert

COMPONENTS = {Expert.HIGH: HIGH_NOISE_EXPERT, Expert.LOW: LOW_NOISE_EXPERT}

ExpertFiles = Callable[[str], Mapping[str, Path]]

# On the GPU a LoRA saves its 6 ms over the bus at each switch; six rank 32 LoRAs of Wan A14B are worth no more.
_GPU_LORA_BYTES = 2 * 2**30


def set_up_loras(
    pipe: Any,
    current_plan: Callable[[], OffloadPlan],
    device: torch.device,
    dtype: torch.dtype,
    *,
    files: ExpertFiles,
    pristine: PristineMode,
    lora_memory_bytes: int,
    allowance_bytes: int,
) -> LoraState:
    """The state of `pipe`, whose experts are untouched and placed as its plan has it.

    Args:
        pipe: a WanPipeline.
        current_plan: the offload plan, which may change later.
        device: what computes.
        dtype: of the pipeline.
        files: finds the safetensors file of each parameter of the expert that a component's name stands for.
        pristine: where the operator wants untouched weights.
        lora_memory_bytes: budget of host memory for LoRAs.
        allowance_bytes: GPU memory that a render needs besides weights.

    Raises:
        ConfigurationInvalid: untouched weights cannot be kept where the operator wants them.
    """
    sizes = component_bytes(pipe)
    needed = sum(sizes[name] for name in COMPONENTS.values())
    spare = _spare_gpu_bytes(current_plan(), device, max(sizes.values()), allowance_bytes)
    mode = choose_mode(
        pristine,
        device_type=device.type,
        needed_bytes=needed,
        gpu_bytes=spare,
        host_bytes=available_bytes() - lora_memory_bytes,
    )
    if mode is PristineMode.GPU:
        spare -= needed
    originals = {side: Pristine(mode, device, partial(files, name)) for side, name in COMPONENTS.items()}
    experts = {side: getattr(pipe, name) for side, name in COMPONENTS.items()}
    return LoraState(
        {
            side: ExpertLoras(side, expert, ExpertWeights(expert, dtype, device, originals[side]))
            for side, expert in experts.items()
        },
        ResidentLoras(
            WanArchitecture.from_config(pipe.transformer.config),
            device,
            host_bytes=lora_memory_bytes,
            gpu_bytes=max(0, min(spare, _GPU_LORA_BYTES)),
        ),
        list(originals.values()),
        lambda: without_hooks(pipe, current_plan(), device),
    )


def _spare_gpu_bytes(plan: OffloadPlan, device: torch.device, largest: int, allowance: int) -> int:
    """GPU memory that neither weights nor a render will need; none where not even one component stays there."""
    if device.type != "cuda" or plan.mode is OffloadMode.SEQUENTIAL:
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    to_come = 0 if plan.mode is OffloadMode.NONE else largest
    return max(0, free - to_come - allowance)
