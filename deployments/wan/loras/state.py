"""The LoRA state of one pipeline: make its experts exactly what a render asks for, whatever they were before.

loras = LoraState(experts, device=device, dtype=dtype, plan=plan, files=files, without_hooks=without_hooks)
loras.apply(spec)
loras.applied  # (AppliedLora(transformer=<Expert.HIGH>, network_multiplier=1.0, ...), ...)
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from deployments.wan.loras.expert import ExpertLoras, Target, Use
from deployments.wan.loras.pristine import Pristine
from deployments.wan.loras.resident import ResidentLoras
from deployments.wan.loras.weights import ExpertWeights
from deployments.wan.memory.host import available_bytes
from deployments.wan.memory.planner import MemoryPlan, originals_off_gpu
from serve_app.models.architecture import WanArchitecture
from serve_app.results import AppliedLora
from serve_app.settings import PristineMode
from serve_app.spec import Expert, LoraFile, Recipe, RenderSpec, pair_key


class LoraState:
    """Owns the LoRAs of one pipeline, and with them the values of its experts' weights."""

    def __init__(
        self,
        experts: Mapping[Expert, Any],
        *,
        device: torch.device,
        dtype: torch.dtype,
        plan: MemoryPlan,
        files: Callable[[Expert], Mapping[str, Path]],
        without_hooks: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Take over experts whose weights are untouched.

        Args:
            experts: the `WanTransformer3DModel` of each expert.
            device: what computes.
            dtype: compute dtype of the pipeline.
            plan: where originals are kept, and what resident LoRAs may take.
            files: finds the safetensors file of each parameter of an expert.
            without_hooks: removes offload hooks while its block runs, so that weights can be changed.

        Raises:
            ConfigurationInvalid: the originals cannot be kept where the plan wants them.
        """
        self._originals = plan.originals
        self._pristine = {side: Pristine(plan.originals, device, partial(files, side)) for side in experts}
        self._experts = {
            side: ExpertLoras(side, expert, ExpertWeights(expert, dtype, device, self._pristine[side]))
            for side, expert in experts.items()
        }
        self.resident = ResidentLoras(
            WanArchitecture.from_config(next(iter(experts.values())).config),
            device,
            host_bytes=plan.lora_host_bytes,
            gpu_bytes=plan.lora_gpu_bytes,
        )
        self._without_hooks = without_hooks
        self._files: tuple[LoraFile, ...] = ()

    @property
    def pair_key(self) -> str | None:
        """Return the routing key of the pair that acts now; None when every expert is the base model."""
        return pair_key(self._files) if self._files else None

    @property
    def originals(self) -> PristineMode:
        """Return where the weights that merged LoRAs have changed are kept as they were."""
        return self._originals

    @property
    def applied(self) -> tuple[AppliedLora, ...]:
        """Return how each LoRA of the last spec acts, in the spec's order."""
        uses = {side: iter(expert.uses) for side, expert in self._experts.items()}
        return tuple(_applied(file, next(uses[file.expert])) for file in self._files)

    def apply(self, spec: RenderSpec) -> None:
        """Make every expert exactly what `spec` asks for.

        Everything is read and checked before anything changes. A LoRA that is resident is not read again, whatever its
        path or multiplier.

        Raises:
            LoraChanged, LoraNotLoaded: see `ResidentLoras.get` and `ExpertLoras.target`; nothing has changed.
            torch.OutOfMemoryError: the device has no room; every expert is then the base model.
        """
        targets = {side: self._target(side, spec) for side in self._experts}
        changes = {side: target for side, target in targets.items() if target.state != self._experts[side].state}
        if changes:
            self._change(changes)
        self._files = spec.loras

    def leave_gpu(self) -> bool:
        """Free the GPU memory that only makes switches faster, for good; return whether there was any."""
        left = self.resident.leave_gpu()
        if self._originals is PristineMode.GPU:
            kept = sum(pristine.gpu_bytes for pristine in self._pristine.values())
            self._originals = originals_off_gpu(kept, available_bytes())
            for pristine in self._pristine.values():
                pristine.leave_gpu(self._originals)
            left = left or kept > 0
        return left

    def _target(self, side: Expert, spec: RenderSpec) -> Target:
        files = spec.loras_for(side)
        expert = self._experts[side]
        whole = spec.recipe is Recipe.PREVIEW
        known = expert.without_tensors(files, strict=spec.strict, whole=whole)
        if known is not None:
            return known
        return expert.target(files, [self.resident.get(file, strict=spec.strict) for file in files], whole=whole)

    def _change(self, changes: Mapping[Expert, Target]) -> None:
        with self._without_hooks():
            try:
                for side, target in changes.items():
                    self._experts[side].become(target)
            except BaseException:
                self._files = ()
                for expert in self._experts.values():
                    expert.clear()
                raise


def _applied(file: LoraFile, use: Use) -> AppliedLora:
    return AppliedLora(
        transformer=file.expert,
        network_multiplier=file.multiplier,
        sha256=use.sha256,
        application=use.application,
        left_out=use.left_out,
    )
