"""The LoRA state of one pipeline: switch its experts exactly to the LoRAs of a render, from any earlier state.

The one way to change LoRAs of a loaded model:

    loras = LoraState(experts, device=device, dtype=dtype, plan=plan, files=expert_files, without_hooks=without_hooks)
    files = {lora.content: ... for lora in loras.lacking(spec)}  # a LoraOnDisk each, see serve_app.loras.files
    loras.apply(spec, files)
    loras.applied  # (AppliedLora(transformer=<Expert.HIGH>, network_multiplier=1.0, ...), ...)
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from deployments.wan.loras.expert import ExpertLoras, Manner, Target, Use
from deployments.wan.loras.pristine import Pristine
from deployments.wan.loras.resident import LoadedLora, ResidentLoras
from deployments.wan.loras.weights import ExpertWeights
from deployments.wan.memory.host import available_bytes
from deployments.wan.memory.planner import MemoryPlan, originals_off_gpu
from serve_app.loras.files import LoraOnDisk
from serve_app.results import AppliedLora
from serve_app.settings import PristineMode
from serve_app.spec import Expert, LoraFile, Recipe, RenderSpec, Speed, pair_key

_ADAPTER_BYTES = 307_000_000  # a rank 32 LoRA of Wan A14B in 16 bits


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
        """Take experts whose weights are unchanged.

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
        self.resident = ResidentLoras(device, host_bytes=plan.lora_host_bytes, gpu_bytes=plan.lora_gpu_bytes)
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

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return that LoRAs of the last spec change nothing, which their values told."""
        return tuple(warning for expert in self._experts.values() for use in expert.uses for warning in use.warnings)

    def lacking(self, spec: RenderSpec) -> tuple[LoraFile, ...]:
        """Return the LoRAs that `apply` would have to read, each content once. Not while a render runs."""
        return self.resident.lacking(self._needed(spec), strict=spec.strict)

    def apply(self, spec: RenderSpec, files: Mapping[str, LoraOnDisk]) -> None:
        """Make every expert exactly what `spec` asks for.

        Everything is read and checked before anything changes. A LoRA that is resident is not read again, whatever its
        path or multiplier; `files`, by `LoraFile.content`, has the others.

        Raises:
            LoraChanged, LoraNotLoaded: see `ResidentLoras.get` and `ExpertLoras.target`; nothing has changed.
            torch.OutOfMemoryError: the device has no room; every expert is then the base model.
        """
        needed = self._needed(spec)
        loaded = {lora.key.content: lora for lora in self.resident.get(needed, files, strict=spec.strict)}
        targets = {side: self._target(side, spec, loaded) for side in self._experts}
        changes = {side: target for side, target in targets.items() if target.state != self._experts[side].state}
        if changes:
            self._change(changes)
        self._files = spec.acting

    def leave_gpu(self) -> bool:
        """Free the GPU memory that only makes switches faster; return whether there was any."""
        left = self.resident.use_gpu(0)
        if self._originals is PristineMode.GPU:
            kept = sum(pristine.gpu_bytes for pristine in self._pristine.values())
            self._move_originals(originals_off_gpu(kept, available_bytes()))
            left = left or kept > 0
        return left

    def follow(self, plan: MemoryPlan) -> None:
        """Keep originals and copies where another memory plan wants them."""
        self.resident.use_gpu(plan.lora_gpu_bytes)
        self._move_originals(plan.originals)

    def _move_originals(self, to: PristineMode) -> None:
        if to is not self._originals:
            self._originals = to
            for pristine in self._pristine.values():
                pristine.move(to)

    def _needed(self, spec: RenderSpec) -> tuple[LoraFile, ...]:
        """Return the LoRAs whose tensors it takes to get to `spec` from here."""
        return tuple(lora for lora in spec.acting if self._known(lora.expert, spec) is None)

    def _known(self, side: Expert, spec: RenderSpec) -> Target | None:
        return self._experts[side].without_tensors(spec.loras_for(side), strict=spec.strict, manner=_manner(spec))

    def _target(self, side: Expert, spec: RenderSpec, loaded: Mapping[str, LoadedLora]) -> Target:
        known = self._known(side, spec)
        if known is not None:
            return known
        files = spec.loras_for(side)
        return self._experts[side].target(files, [loaded[file.content] for file in files], manner=_manner(spec))

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


def adapter_bytes(spec: RenderSpec) -> int:
    """Return about how much memory the LoRAs of `spec` take beside the weights; merged ones take none."""
    acting = [lora for lora in spec.acting if lora.multiplier]
    return len(acting) * _ADAPTER_BYTES if _manner(spec) is Manner.ADAPTED else 0


def _manner(spec: RenderSpec) -> Manner:
    """Return how LoRAs act in this render: the recipe says it, and a fast render runs no adapters."""
    if spec.recipe is Recipe.PREVIEW:
        return Manner.WHOLE
    return Manner.ADAPTED if spec.speed is Speed.EXACT else Manner.MERGED


def _applied(file: LoraFile, use: Use) -> AppliedLora:
    return AppliedLora(
        transformer=file.expert,
        network_multiplier=file.multiplier,
        sha256=use.sha256,
        application=use.application,
        left_out=use.left_out,
    )
