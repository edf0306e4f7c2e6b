"""State machine of one expert's LoRAs: an exact transition from any state to any other.

A LoRA acts as an adapter (PEFT, beside the weights) if its manner and its changes allow it. Else it is merged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import PurePosixPath
from typing import Any

from deployments.wan.loras import adapters
from deployments.wan.loras.deltas import Part, fits
from deployments.wan.loras.resident import LoadedLora, LoraKey, not_loaded
from deployments.wan.loras.weights import ExpertWeights
from serve_app.loras.warnings import without_effect
from serve_app.results import Application
from serve_app.spec import Expert, LoraFile


class Manner(Enum):
    """How the LoRAs of an expert act."""

    ADAPTED = auto()  # as adapters if they can express every active LoRA, else merged
    MERGED = auto()  # always in the weights, which keep their dtypes
    WHOLE = auto()  # always in the weights, all in the compute dtype, also what diffusers keeps in float32


@dataclass(frozen=True, slots=True)
class Use:
    """One LoRA in a state. `left_out` names tensors that have no place in the model."""

    key: LoraKey
    sha256: str | None
    multiplier: float
    application: Application
    left_out: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """The LoRA state of an expert. Its weights and adapters depend only on this, not on earlier states."""

    manner: Manner = Manner.ADAPTED
    uses: tuple[Use, ...] = ()

    @property
    def whole(self) -> bool:
        """Return whether all weights are in the compute dtype."""
        return self.manner is Manner.WHOLE


@dataclass(frozen=True, slots=True)
class Target:
    """The next state, and the LoRA of each use; `loras` is empty if no tensors are needed."""

    state: State
    loras: tuple[LoadedLora, ...] = ()


class ExpertLoras:
    """Owns the LoRAs of one expert. Only this class may load, scale, merge or unload one."""

    def __init__(self, side: Expert, expert: Any, weights: ExpertWeights) -> None:
        """Take an unchanged transformer, whose values `weights` owns."""
        self._side = side
        self._expert = expert
        self._weights = weights
        self._state: State | None = State()  # None: a change failed before it was complete
        self._forms: list[adapters.Form] = []  # of the adapters that exist, in the order of their uses

    @property
    def state(self) -> State | None:
        """Return the current state; None if a change failed and undoing it failed, too."""
        return self._state

    @property
    def uses(self) -> tuple[Use, ...]:
        """Return the LoRAs of the state, in their order."""
        return self._state.uses if self._state else ()

    def without_tensors(self, files: Sequence[LoraFile], *, strict: bool, manner: Manner) -> Target | None:
        """Return the target for these LoRAs if no tensors are needed, because nothing or only multipliers change.

        None otherwise. A merged LoRA needs its tensors for another multiplier. So does a LoRA that becomes active or
        inactive (multiplier 0).
        """
        if self._state is None or manner is not self._state.manner:
            return None
        wanted = [(LoraKey(file.content, strict), file.multiplier) for file in files]
        now = [(use.key, use.multiplier) for use in self._state.uses]
        if wanted == now:
            return Target(self._state)
        if [(key, factor == 0) for key, factor in wanted] != [(key, factor == 0) for key, factor in now]:
            return None
        if any(use.application is Application.MERGED for use in self._state.uses):
            return None
        uses = zip(self._state.uses, wanted, strict=True)
        rescaled = (replace(use, multiplier=factor) for use, (_, factor) in uses)
        return Target(State(manner, tuple(rescaled)))

    def target(self, files: Sequence[LoraFile], loras: Sequence[LoadedLora], *, manner: Manner) -> Target:
        """Return the target for these LoRAs; `loras` are those of `files`. Nothing changes yet.

        With ADAPTED, all act as adapters if adapters can express every active LoRA; else all are merged.

        Raises:
            LoraNotLoaded: a change does not fit the expert.
        """
        for file, lora in zip(files, loras, strict=True):
            self._check_fit(file, lora)
        acting = [lora for file, lora in zip(files, loras, strict=True) if file.multiplier]
        plain = all(adapters.takes(lora.contents.changes_for(self._side), self._weights.linear) for lora in acting)
        applied = Application.ADAPTER if plain and manner is Manner.ADAPTED else Application.MERGED
        uses = tuple(
            Use(
                key=lora.key,
                sha256=lora.sha256,
                multiplier=file.multiplier,
                application=applied if file.multiplier else Application.NONE,
                left_out=lora.contents.left_out,
                warnings=tuple(without_effect(PurePosixPath(file.reference).name, lora.contents, self._side)),
            )
            for file, lora in zip(files, loras, strict=True)
        )
        return Target(State(manner, uses), tuple(loras))

    def _check_fit(self, file: LoraFile, lora: LoadedLora) -> None:
        changes, shapes = lora.contents.changes_for(self._side), self._weights.shapes
        if not changes:
            raise not_loaded(file, f"it holds nothing for the {self._side.label}")
        missing = [change.parameter for change in changes if change.parameter not in shapes]
        if missing:
            raise not_loaded(file, "it changes parameters that the expert does not have", missing)
        misfits = [change.parameter for change in changes if not fits(change, lora.tensors, shapes[change.parameter])]
        if misfits:
            raise not_loaded(file, "it was trained on a model of another size", misfits)

    def become(self, target: Target) -> None:
        """Go to `target`. If that raises, call `clear` before the next render.

        The expert must have no offload hooks.
        """
        names = self._adapter_names(target.state)
        if target.loras or not target.state.uses:
            before, self._state = self._state, None
            if self._can_refill(before, target):
                self._fill(adapters.refill, target, names)
            else:
                self._forms = []
                adapters.remove_all(self._expert)
                fused = target.state.manner is Manner.MERGED
                self._weights.become(self._merges(target), whole=target.state.whole, fused=fused)
                self._fill(adapters.add, target, names)
                self._forms = self._forms_of(target)
        scales = {
            name: use.multiplier
            for use, name in zip(target.state.uses, names, strict=True)
            if use.application is Application.ADAPTER
        }
        if scales:
            adapters.scale_to(self._expert, scales)
        self._state = target.state

    def _can_refill(self, before: State | None, target: Target) -> bool:
        """Return whether the existing adapters fit as they are, and only need other tensors."""
        applications = [use.application for use in target.state.uses]
        return (
            before is not None
            and before.manner is target.state.manner
            and Application.ADAPTER in applications
            and applications == [use.application for use in before.uses]
            and self._forms == self._forms_of(target)
        )

    def _forms_of(self, target: Target) -> list[adapters.Form]:
        return [adapters.form(lora.contents.changes_for(self._side)) for _, lora in self._adapted(target)]

    def _adapted(self, target: Target) -> list[tuple[int, LoadedLora]]:
        """Return the LoRAs that act as adapters, with their positions among all."""
        uses = enumerate(target.state.uses)
        return [(index, target.loras[index]) for index, use in uses if use.application is Application.ADAPTER]

    def _fill(self, into: Callable[..., None], target: Target, names: Sequence[str]) -> None:
        for index, lora in self._adapted(target):
            into(self._expert, names[index], lora.contents.changes_for(self._side), lora.tensors)

    def clear(self) -> None:
        """Restore the base model from any state, also after a change that failed."""
        self.become(Target(State()))

    def _adapter_names(self, state: State) -> list[str]:
        first = f"{self._side.value}_noise"  # the reference server's names
        return [first if index == 0 else f"{first}_{index + 1}" for index in range(len(state.uses))]

    def _merges(self, target: Target) -> dict[str, list[Part]]:
        merges: dict[str, list[Part]] = {}
        for use, lora in zip(target.state.uses, target.loras, strict=True):
            if use.application is Application.MERGED:
                for change in lora.contents.changes_for(self._side):
                    merges.setdefault(change.parameter, []).append(Part(change, lora.tensors, use.multiplier))
        return merges
