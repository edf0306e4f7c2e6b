"""The scheduler of one render: made anew for each, so that none finds what another left behind."""

from collections.abc import Mapping
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler

from serve_app.spec import RenderSpec, Sampler

_TRAIN_TIMESTEPS = 1000
_EULER_SHIFT = 5.0  # AI Toolkit's own previews since 0.9.4


def make_scheduler(spec: RenderSpec, shipped: Any) -> Any:
    """A fresh scheduler for `spec`; `shipped` is the base checkpoint's, which is only looked at.

    Without a shift of the spec's own, UniPC is the checkpoint's scheduler, bit for bit, and Euler has shift 5.
    """
    if spec.sampler is Sampler.EULER:
        shift = _EULER_SHIFT if spec.shift is None else spec.shift
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=_TRAIN_TIMESTEPS, shift=shift)
    changes = {} if spec.shift is None else {_shift_name(shipped.config): spec.shift}
    return type(shipped).from_config(shipped.config, **changes)


def shift_of(scheduler: Any) -> float:
    """Return the flow shift that is in effect."""
    config = scheduler.config
    return float(config[_shift_name(config)])


def boundary_step(scheduler: Any, boundary_ratio: float | None) -> int:
    """Count the denoising steps that the high noise expert ran.

    It takes those whose timestep is at or above boundary_ratio x the scheduler's training timesteps
    (`WanPipeline.__call__`); without a ratio, all.
    """
    if boundary_ratio is None:
        return len(scheduler.timesteps)
    boundary = boundary_ratio * scheduler.config["num_train_timesteps"]
    return sum(timestep >= boundary for timestep in scheduler.timesteps.tolist())


def _shift_name(config: Mapping[str, Any]) -> str:
    return "flow_shift" if "flow_shift" in config else "shift"
