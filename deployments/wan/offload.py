"""Fits the pipeline into GPU memory: picks where weights wait while they are not in use, and sets diffusers so."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from serve_app.errors import ConfigurationInvalid, OutOfMemory
from serve_app.settings import OffloadMode
from serve_app.spec import RenderSpec

_GIB = 2**30

_LEANER = {OffloadMode.NONE: OffloadMode.MODEL, OffloadMode.MODEL: OffloadMode.SEQUENTIAL}


@dataclass(frozen=True)
class OffloadPlan:
    """What was picked (never AUTO), and why, in words for the log and the result."""

    mode: OffloadMode
    reason: str


def plan_offload(
    mode: OffloadMode,
    *,
    device_type: str,
    component_bytes: Mapping[str, int],
    allowance_bytes: int,
    free_bytes: int,
) -> OffloadPlan:
    """Decide where the weights wait.

    Args:
        mode: what the operator asked for; a mode other than AUTO is taken as it is.
        device_type: "cpu", "cuda", ...
        component_bytes: size of each component's weights.
        allowance_bytes: what a render needs besides weights: activations, and the LoRA pair.
        free_bytes: memory of the GPU that nothing uses now; not looked at on a CPU.

    Raises:
        ConfigurationInvalid: offload on a CPU, where the weights have nowhere else to be.
    """
    if device_type == "cpu":
        if mode in (OffloadMode.AUTO, OffloadMode.NONE):
            return OffloadPlan(OffloadMode.NONE, "the device is a CPU")
        raise ConfigurationInvalid(f"offload: {mode.value} needs a GPU; use auto or none on a CPU")
    if mode is not OffloadMode.AUTO:
        return OffloadPlan(mode, "set by the operator")
    return _fastest_that_fits(component_bytes, allowance_bytes, free_bytes)


def _fastest_that_fits(component_bytes: Mapping[str, int], allowance: int, free: int) -> OffloadPlan:
    everything = sum(component_bytes.values())
    name, largest = max(component_bytes.items(), key=lambda item: item[1])
    room = f"{_gib(allowance)} for a render, {_gib(free)} free"
    if everything + allowance <= free:
        return OffloadPlan(OffloadMode.NONE, f"all weights fit: {_gib(everything)} and {room}")
    all_weights = f"all weights do not fit ({_gib(everything)} and {room})"
    if largest + allowance <= free:
        return OffloadPlan(OffloadMode.MODEL, f"{all_weights}, the largest component, {name}, does ({_gib(largest)})")
    return OffloadPlan(OffloadMode.SEQUENTIAL, f"{all_weights}, nor does {name} alone ({_gib(largest)})")


def next_plan(plan: OffloadPlan, device_type: str) -> OffloadPlan | None:
    """The plan that needs less GPU memory than `plan`, after that ran out; None where there is none."""
    if device_type == "cpu" or plan.mode not in _LEANER:
        return None
    return OffloadPlan(_LEANER[plan.mode], f"out of memory with {plan.mode.value} ({plan.reason})")


def component_bytes(pipe: Any) -> dict[str, int]:
    """Size of the weights of each component that has any."""
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {name: sum(weight.nbytes for weight in part.parameters()) for name, part in modules.items()}


def apply_plan(pipe: Any, plan: OffloadPlan, device: torch.device) -> None:
    """Move the pipeline's weights, or the hooks that move them, to where the plan wants them.

    Repeatable, also with a leaner plan than before: diffusers takes the old plan's hooks off and the weights to the
    host first. LoRA adapters are weights of their expert and go with it.
    """
    match plan.mode:
        case OffloadMode.MODEL:
            pipe.enable_model_cpu_offload(device=device)
        case OffloadMode.SEQUENTIAL:
            pipe.enable_sequential_cpu_offload(device=device)
        case _:
            pipe.to(device)


@contextmanager
def without_hooks(pipe: Any, plan: OffloadPlan, device: torch.device) -> Iterator[None]:
    """The pipeline's weights where they wait, real and free to be changed, while the block runs; then `plan` again.

    Under sequential offload the modules hold placeholders without data, and adapters cannot be put around a module
    that has a hook.
    """
    if plan.mode is OffloadMode.NONE:
        yield
        return
    pipe.remove_all_hooks()
    try:
        yield
    finally:
        apply_plan(pipe, plan, device)


def out_of_memory(
    device: str, spec: RenderSpec, tried: Sequence[OffloadPlan], leaner: OffloadPlan | None, reason: str
) -> OutOfMemory:
    """The error for a render that did not fit under any of the plans `tried`; `leaner` is the next one, if any."""
    modes = [plan.mode.value for plan in tried]
    advice = f", or set offload: {leaner.mode.value}" if leaner else ""
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
    """The size of the video, in words."""
    return f"{spec.width}x{spec.height}, {spec.num_frames} frames"


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
