"""Memory plans under way: go over to the plan of each render, and to a leaner one when memory runs out.

Example:
    memory.plan_for(spec, inputs.needs)
    tried = [memory.plan.offload]
    try:
        ...  # the render
    except torch.OutOfMemoryError as error:
        if not memory.spare(spec):
            tried.append(memory.go_leaner(spec, tried, error))  # OutOfMemory if nothing is leaner
        ...  # the render again

Rank 0 of a team decides, and every rank makes the same changes.
"""

import logging
from collections.abc import Mapping, Sequence

import torch

from deployments.wan.loras.state import LoraState, adapter_bytes
from deployments.wan.memory.chooser import PlanChooser
from deployments.wan.memory.measuring import PeakMeter
from deployments.wan.memory.needs import largest_size
from deployments.wan.memory.offload import Placement
from deployments.wan.memory.planner import MemoryPlan
from deployments.wan.memory.refusal import out_of_memory, size_of
from deployments.wan.parallel.team import Team
from deployments.wan.parallel.work import ChangePlan, LeaveGpu
from deployments.wan.speed.accelerator import Accelerator
from serve_app.models.card import ModelCard
from serve_app.needs import NeedKey
from serve_app.results import Acceleration
from serve_app.settings import OffloadMode
from serve_app.spec import RenderSpec

logger = logging.getLogger("ray.serve.wan")

_GIB = 2**30
_PLANS_TRIED = 2  # at most, for one render


class MemoryControl:
    """Carries out the memory plans of one replica, on every rank of its team."""

    def __init__(
        self,
        card: ModelCard,
        plans: PlanChooser,
        placement: Placement,
        *,
        loras: LoraState,
        accelerator: Accelerator,
        team: Team,
        device: torch.device,
    ) -> None:
        """Take over what is placed already as the current plan of `plans` wants it."""
        self._card = card
        self._plans = plans
        self._placement = placement
        self._loras = loras
        self._accelerator = accelerator
        self._team = team
        self._device = device
        self.meter = PeakMeter(device)

    @property
    def plan(self) -> MemoryPlan:
        """Return the plan in effect."""
        return self._plans.current

    @property
    def device_name(self) -> str:
        """Return the GPU's product name, or "cpu"."""
        return "cpu" if self._device.type == "cpu" else torch.cuda.get_device_name(self._device)

    def plan_for(self, spec: RenderSpec, needs: Mapping[NeedKey, int]) -> None:
        """Go over to the memory plan for a render, if that is another one; `needs` are measured peaks, in bytes."""
        before = self._plans.current
        self._plans.learn(needs)
        plan = self._plans.before(NeedKey.of(spec), *self._beside(spec))
        if not plan.lies_as(before):
            self._plans.take(before)  # until it is carried out
            self._go_over_to(plan)

    def spare(self, spec: RenderSpec) -> bool:
        """Free the GPU memory that only makes switching LoRAs faster, on every rank; return False if there is none."""
        with self._team.doing(LeaveGpu()):
            left = self.leave_gpu()
        if left:
            self._plans.copies_ran_out(NeedKey.of(spec), self._loras.originals)
        return left

    def go_leaner(self, spec: RenderSpec, tried: Sequence[OffloadMode], error: Exception) -> OffloadMode:
        """Go over to the next leaner plan after `error`, and return its mode; `tried` has failed.

        Raises:
            OutOfMemory: as many plans were tried as a render may try, or there is no leaner one.
        """
        leaner = self._plans.ran_out(NeedKey.of(spec), *self._beside(spec))
        if len(tried) == _PLANS_TRIED or leaner is None:
            largest = largest_size(spec, self._card.size_divisors[spec.recipe], self._plans.fits)
            raise out_of_memory(self.device_name, spec, tried, largest, str(error)) from None
        logger.warning("%s ran out of memory for %s", self.device_name, size_of(spec))
        self._go_over_to(leaner)
        return leaner.offload

    def leave_gpu(self) -> bool:
        """Free the memory of this rank's GPU that only makes switching LoRAs faster; return False if there is none."""
        if not self._loras.leave_gpu():
            return False
        logger.warning("%s ran out of memory; it keeps no copies for switching LoRAs at this size", self.device_name)
        self.empty_cache()
        return True

    def change_plan(self, plan: MemoryPlan) -> None:
        """Go over to `plan` on this rank. What leaves the GPU goes first, and then what comes has room."""
        before = self._plans.current
        logger.warning(
            "%s goes from offload: %s to offload: %s (%s)",
            self.device_name,
            before.offload.value,
            plan.offload.value,
            plan.reason,
        )
        self._plans.take(plan)
        faster = plan.slowness < before.slowness
        if not faster:
            self._loras.follow(plan)
        if (plan.offload, plan.pinned) != (before.offload, before.pinned):
            self._placement.apply(plan.offload, pinned=plan.pinned)
        self.empty_cache()
        if faster:
            self._loras.follow(plan)

    def empty_cache(self) -> None:
        """Give the GPU what PyTorch's allocator keeps without using it."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def measured_need(self, used: Acceleration) -> int | None:
        """Return what the render needed beside weights; None if weights came and went meanwhile, or on a CPU."""
        activations = self.meter.read().activations
        if activations is None or self._plans.current.offload in (OffloadMode.MODEL, OffloadMode.SEQUENTIAL):
            return None
        return activations - (self._accelerator.copies_bytes(used.speed) if used.float8 else 0)

    def log_peak(self, spec: RenderSpec) -> None:
        """Write a line with the memory that a render held, beside what was predicted."""
        plan, peak = self._plans.current, self.meter.read().whole
        if plan.predicted_bytes is not None and peak is not None:
            logger.info(
                "%s held %.1f GiB for %s with offload: %s, %.1f predicted",
                self.device_name,
                peak / _GIB,
                size_of(spec),
                plan.offload.value,
                plan.predicted_bytes / _GIB,
            )

    def _beside(self, spec: RenderSpec) -> tuple[int, int]:
        """Return the bytes of the adapters that act beside the weights, and of copies in FP8."""
        return adapter_bytes(spec), self._accelerator.copies_bytes(spec.speed)

    def _go_over_to(self, plan: MemoryPlan) -> None:
        with self._team.doing(ChangePlan(plan)):
            self.change_plan(plan)
