"""The LoRA state of one pipeline: what a render asks of its two experts is what they become."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from deployments.wan.loras.expert import ExpertLoras, Target, Use
from deployments.wan.loras.pristine import Pristine
from deployments.wan.loras.resident import ResidentLoras
from serve_app.results import AppliedLora
from serve_app.settings import PristineMode
from serve_app.spec import Expert, LoraFile, Recipe, RenderSpec, pair_key


class LoraState:
    """Owns the LoRAs of one pipeline, and with them the values of its experts' weights."""

    def __init__(
        self,
        experts: Mapping[Expert, ExpertLoras],
        resident: ResidentLoras,
        pristine: Sequence[Pristine],
        free_weights: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """`pristine` are the experts'; `free_weights` takes the offload plan's hooks off while its block runs."""
        self._experts = experts
        self._resident = resident
        self._pristine = pristine
        self._free_weights = free_weights
        self._files: tuple[LoraFile, ...] = ()

    @property
    def pair_key(self) -> str | None:
        """Routing key of the pair that is loaded now; None when both experts are the base model."""
        return pair_key(self._files) if self._files else None

    @property
    def pristine_mode(self) -> PristineMode:
        """Where the weights that LoRAs have changed are kept as they were."""
        return self._pristine[0].mode

    @property
    def applied(self) -> tuple[AppliedLora, ...]:
        """Return how each LoRA of the last spec acts, in the spec's order."""
        uses = {side: iter(expert.uses) for side, expert in self._experts.items()}
        return tuple(_applied(file, next(uses[file.expert])) for file in self._files)

    @property
    def resident(self) -> ResidentLoras:
        """Return the store of LoRAs that are ready."""
        return self._resident

    def apply(self, spec: RenderSpec) -> None:
        """Make both experts exactly what `spec` asks for.

        Everything is read and checked before anything changes. A LoRA that is resident is not read again, whatever its
        path or multiplier.

        Raises:
            LoraChanged, LoraNotLoaded: see `ResidentLoras.get` and `ExpertLoras.target`; nothing has changed.
            torch.OutOfMemoryError: the device has no room; both experts are then the base model.
        """
        targets = {side: self._target(side, spec) for side in self._experts}
        changes = {side: target for side, target in targets.items() if target.state != self._experts[side].state}
        if changes:
            self._change(changes)
        self._files = spec.loras

    def leave_gpu(self) -> bool:
        """Keep nothing on the GPU any more but what the experts are; whether that gave memory back."""
        left = [self._resident.leave_gpu(), *(pristine.leave_gpu() for pristine in self._pristine)]
        return any(left)

    def _target(self, side: Expert, spec: RenderSpec) -> Target:
        files = spec.loras_for(side)
        expert = self._experts[side]
        whole = spec.recipe is Recipe.PREVIEW
        known = expert.without_tensors(files, strict=spec.strict, whole=whole)
        if known is not None:
            return known
        return expert.target(files, [self._resident.get(file, strict=spec.strict) for file in files], whole=whole)

    def _change(self, changes: Mapping[Expert, Target]) -> None:
        with self._free_weights():
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
