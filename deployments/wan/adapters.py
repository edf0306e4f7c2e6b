"""The LoRA state of one pipeline: which pair is loaded into the two experts, and how strongly each side acts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from deployments.wan.loading import HIGH_NOISE_EXPERT, LOW_NOISE_EXPERT
from deployments.wan.lora_keys import check_all_applied, check_known
from deployments.wan.pinned_files import PinnedFiles
from serve_app.errors import LoraNotLoaded
from serve_app.jobs.spec import Expert, LoraFile, pair_key


@dataclass(frozen=True)
class _Side:
    component: str  # of the pipeline
    adapter: str  # the reference server's name for it

    @property
    def is_second(self) -> bool:
        return self.component == LOW_NOISE_EXPERT


_SIDES = {
    Expert.HIGH: _Side(HIGH_NOISE_EXPERT, "high_noise"),
    Expert.LOW: _Side(LOW_NOISE_EXPERT, "low_noise"),
}


class PairAdapters:
    """Owns the LoRAs of one pipeline; nothing else may load, scale or unload one.

    Each side is a PEFT adapter beside the untouched base weights, one at most per expert, so that an expert without
    a LoRA, or with multiplier 0, is the base model bit for bit.
    """

    def __init__(self, pipe: Any, restore_offload: Callable[[], None]) -> None:
        """`restore_offload` applies the pipeline's offload plan again: diffusers loses it when a load fails."""
        self._pipe = pipe
        self._restore_offload = restore_offload
        self._files = PinnedFiles()
        self._loaded: dict[Expert, LoraFile] = {}

    @property
    def pair_key(self) -> str | None:
        """Routing key of the pair that is loaded now; None when both experts are the base model."""
        return pair_key(self._loaded.values()) if self._loaded else None

    def apply(self, loras: tuple[LoraFile, ...]) -> None:
        """Make the experts' LoRA state exactly `loras`, at most one per expert.

        A side whose content is already loaded is not read again, whatever its path or multiplier.

        Raises:
            LoraChanged: a file to be loaded is gone or has another content. If that shows before loading starts,
                what was loaded stays.
            LoraNotLoaded: the pipeline did not take every weight; both experts are then the base model.
        """
        wanted = {lora.expert: lora for lora in loras}
        stale = [expert for expert in Expert if _content(wanted, expert) != _content(self._loaded, expert)]
        for expert in stale:
            if expert in wanted:
                self._files.verify(wanted[expert])
        try:
            # All old weights go before new ones come, so that memory never holds parts of two pairs.
            for expert in stale:
                self._unload(expert)
            for expert in stale:
                if expert in wanted:
                    self._load(wanted[expert])
            for lora in loras:
                side = _SIDES[lora.expert]
                # Per expert: the pipeline's own set_adapters would switch both experts to one adapter name.
                self._expert(lora.expert).set_adapters(side.adapter, weights=lora.multiplier)
        except BaseException:
            self._clear()
            raise

    def _expert(self, expert: Expert) -> Any:
        return getattr(self._pipe, _SIDES[expert].component)

    def _load(self, lora: LoraFile) -> None:
        side = _SIDES[lora.expert]
        try:
            check_known(lora)
            self._pipe.load_lora_weights(
                lora.location,
                adapter_name=side.adapter,
                load_into_transformer_2=side.is_second,
                use_safetensors=True,  # never unpickle
                local_files_only=True,  # a path that vanished is not a hub id
            )
            check_all_applied(self._pipe, self._expert(lora.expert), side.adapter, lora)
        except (LoraNotLoaded, torch.OutOfMemoryError):
            raise
        except Exception as error:
            self._files.verify(lora)  # a file that changed while it was read explains any failure
            raise LoraNotLoaded(
                f"the pipeline refused LoRA '{lora.reference}': {type(error).__name__}: {error}",
                {"path": lora.reference, "transformer": lora.expert.value},
            ) from error
        self._files.verify(lora)
        self._loaded[lora.expert] = lora

    def _unload(self, expert: Expert) -> None:
        self._loaded.pop(expert, None)
        self._expert(expert).unload_lora()

    def _clear(self) -> None:
        """Both experts as the base model, under the plan that they were under."""
        for expert in Expert:
            self._unload(expert)
        self._restore_offload()


def _content(loras: dict[Expert, LoraFile], expert: Expert) -> str | None:
    return loras[expert].sha256 if expert in loras else None
