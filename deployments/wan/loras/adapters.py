"""PEFT adapters: LoRAs beside the unchanged weights of one expert, as in the reference server."""

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.wan.loras.deltas import Tensors, scale
from serve_app.loras.formats import Change, LowRank

Form = Mapping[str, int]

_WEIGHT = ".weight"


def takes(changes: Sequence[Change], linear: frozenset[str]) -> bool:
    """Return whether adapters can express `changes`: plain LoRA of distinct linear layers.

    `linear` names the weights of the expert's linear layers.
    """
    plain = all(isinstance(change, LowRank) and change.magnitude is None for change in changes)
    parameters = [change.parameter for change in changes]
    return plain and linear.issuperset(parameters) and len(set(parameters)) == len(parameters)


def add(expert: Any, name: str, changes: Sequence[Change], tensors: Tensors) -> None:
    """Put an adapter called `name` around the layers of `changes`, for which `takes` is true.

    Alpha is not multiplied into the weights, as `load_lora_weights` of diffusers 0.42.1 does, but stays a factor.
    For a file without alpha, such as AI Toolkit's, the outcome is that of `load_lora_weights`, bit for bit.
    """
    layers = {change.parameter.removesuffix(_WEIGHT): change for change in changes if isinstance(change, LowRank)}
    state = {f"{layer}.lora_A.weight": tensors[change.down] for layer, change in layers.items()}
    state |= {f"{layer}.lora_B.weight": tensors[change.up] for layer, change in layers.items()}
    with warnings.catch_warnings():
        # PEFT warns about a second adapter, in case that it is added by mistake. Here it is intended.
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute", category=UserWarning)
        expert.load_lora_adapter(
            state,
            prefix=None,
            adapter_name=name,
            metadata=_config(layers, tensors),
            low_cpu_mem_usage=True,  # the pipeline's default, which lets the file's tensors be the adapter's
        )


def form(changes: Sequence[Change]) -> Form:
    """Return what two LoRAs must share so that one adapter can hold either: the layers, and the rank in each."""
    return {change.parameter.removesuffix(_WEIGHT): change.rank for change in changes if isinstance(change, LowRank)}


def refill(expert: Any, name: str, changes: Sequence[Change], tensors: Tensors) -> None:
    """Give the adapter called `name` other tensors of the same form. Call `scale_to` afterwards.

    The outcome equals removing the adapter and adding another, which takes a hundred times longer for a full-size
    expert: PEFT builds a new module around each of 400 layers.
    """
    for change in changes:
        if isinstance(change, LowRank):
            layer = expert.get_submodule(change.parameter.removesuffix(_WEIGHT))
            for half, key in ((layer.lora_A[name], change.down), (layer.lora_B[name], change.up)):
                half.weight.data = tensors[key].to(half.weight)  # diffusers, too, casts to the expert's dtype
            layer.lora_alpha[name] = change.rank * scale(change, tensors)


def scale_to(expert: Any, multipliers: Mapping[str, float]) -> None:
    """Activate exactly these adapters, in this order, with these multipliers."""
    # Per expert: the pipeline's own set_adapters would switch both experts to one adapter name.
    expert.set_adapters(list(multipliers), weights=list(multipliers.values()))


def remove_all(expert: Any) -> None:
    """Remove every adapter; the expert's own weights were never changed."""
    expert.unload_lora()


def _config(layers: Mapping[str, LowRank], tensors: Tensors) -> dict[str, Any]:
    """Return the arguments of `peft.LoraConfig`: the most common rank and alpha, and the layers with other values."""
    ranks = {layer: change.rank for layer, change in layers.items()}
    alphas = {layer: change.rank * scale(change, tensors) for layer, change in layers.items()}
    rank, rank_pattern = _commonest(ranks)
    alpha, alpha_pattern = _commonest(alphas)
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
        "target_modules": list(layers),
    }


def _commonest(values: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """Return the most common value, and the others by regular expressions that match one layer each."""
    (common, _), *_ = Counter(values.values()).most_common(1)
    return common, {f"^{re.escape(layer)}": value for layer, value in values.items() if value != common}
