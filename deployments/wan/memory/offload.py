"""Offload hooks: carry out a memory plan's placement of weights with diffusers, and take it off again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import cpu_offload

from deployments.wan.memory.host import available_bytes
from deployments.wan.memory.planner import TEXT_ENCODER, FreeMemory, WeightBytes
from serve_app.errors import OutOfMemory
from serve_app.settings import OffloadMode
from serve_app.spec import RenderSpec


def free_memory(device: torch.device) -> FreeMemory:
    """Measure what is free now, on the device and in host memory."""
    gpu = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    return FreeMemory(gpu, available_bytes())


def forget_peak(device: torch.device) -> None:
    """Begin to measure the peak of the device's memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """Return the most that PyTorch has allocated on a GPU since `forget_peak`; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def weight_bytes(pipe: Any, experts: Sequence[str]) -> WeightBytes:
    """Return the size of each component's weights; `experts` names the components that LoRAs change."""
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    sizes = {name: sum(weight.nbytes for weight in part.parameters()) for name, part in modules.items()}
    return WeightBytes(sizes, tuple(experts))


def place(pipe: Any, mode: OffloadMode, device: torch.device) -> None:
    """Move the pipeline's weights, or install the hooks that move them, to where `mode` wants them.

    Call it again to restore the placement, or with a leaner mode: diffusers removes the old hooks and moves the
    weights to the host first. LoRA adapters are weights of their expert and move with it.
    """
    match mode:
        case OffloadMode.TEXT:
            _stream_text_encoder(pipe, device)
        case OffloadMode.MODEL:
            pipe.enable_model_cpu_offload(device=device)
        case OffloadMode.SEQUENTIAL:
            pipe.enable_sequential_cpu_offload(device=device)
        case _:
            pipe.to(device)


def _stream_text_encoder(pipe: Any, device: torch.device) -> None:
    """Move all but the text encoder to `device`; its layers come one after the other while it runs.

    Nothing is copied back, because the weights stay in host memory.
    """
    pipe.remove_all_hooks()
    pipe.to("cpu")
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and name != TEXT_ENCODER:
            part.to(device)
    cpu_offload(getattr(pipe, TEXT_ENCODER), device)


@contextmanager
def without_hooks(pipe: Any, mode: OffloadMode, device: torch.device) -> Iterator[None]:
    """Remove the hooks while the block runs, so that weights can be changed; then restore the placement.

    Under sequential offload the modules hold placeholders without data, and adapters cannot be put around a module
    that has a hook.
    """
    if mode in (OffloadMode.NONE, OffloadMode.TEXT):  # the experts have none
        yield
        return
    pipe.remove_all_hooks()
    try:
        yield
    finally:
        place(pipe, mode, device)


def out_of_memory(
    device: str, spec: RenderSpec, tried: Sequence[OffloadMode], leaner: OffloadMode | None, reason: str
) -> OutOfMemory:
    """Return the error for a render that did not fit under any mode in `tried`; `leaner` is the next one, if any."""
    modes = [mode.value for mode in tried]
    advice = f", or set offload: {leaner.value}" if leaner else ""
    return OutOfMemory(
        f"{device} ran out of memory for {size_of(spec)} with offload: {', then '.join(modes)}; "
        f"ask for fewer pixels or frames{advice}",
        {
            "width": spec.width,
            "height": spec.height,
            "num_frames": spec.num_frames,
            "offload": modes,
            "reason": reason,
        },
    )


def size_of(spec: RenderSpec) -> str:
    """Return the size of the video, in words."""
    return f"{spec.width}x{spec.height}, {spec.num_frames} frames"
