"""The scale of a LoRA as diffusers writes it: in the file's metadata instead of alpha tensors.

`save_lora_weights` and `save_lora_adapter` of diffusers 0.42.1 (loaders/lora_base.py, loaders/peft.py) put a PEFT
`LoraConfig` there as JSON, its names behind "transformer." or bare. As PEFT does (`update_layer` in
tuners/lora/layer.py), a layer counts alpha / r, or alpha / sqrt(r) with `use_rslora`; alpha and r are the first of
`alpha_pattern` and `rank_pattern` whose expression matches the end of the layer's name, else `lora_alpha` and `r`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

METADATA_KEY = "lora_adapter_metadata"
PARTS = ("transformer.", "transformer_2.")

# PEFT takes expressions of any kind, but trainers write names. Others could be made to take for ever.
_NAME = re.compile(r"\^?[\w.]+")
_LONGEST_NAME = 200
_MOST_NAMES = 2000  # the model has fewer layers

Patterns = tuple[tuple[re.Pattern[str], float], ...]


class Unusable(Exception):
    """Says why the metadata cannot be followed."""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What a `LoraConfig` says of scales."""

    alpha: float
    rank: float
    alphas: Patterns
    ranks: Patterns
    rank_stabilised: bool
    decomposed: bool  # a DoRA: each layer has a magnitude

    def scale(self, module: str, rank: int) -> float:
        """c of the layer that diffusers calls `module`, whose tensors have `rank`.

        Raises:
            Unusable: the metadata gives the layer another rank, so it is not this file's.
        """
        expected = _matching(self.ranks, module, self.rank)
        if expected != rank:
            raise Unusable(f"gives {module} rank {expected:g}, and its tensors have rank {rank}")
        return _matching(self.alphas, module, self.alpha) / (sqrt(rank) if self.rank_stabilised else rank)


def parse(text: str, part: str) -> AdapterConfig:
    """The config in the metadata entry `text` for `part` of the pipeline (one of `PARTS`).

    Raises:
        Unusable: it is malformed, or says something that this service does not apply.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable("is no JSON") from error
    if not isinstance(document, dict):
        raise Unusable("is no JSON object")
    config = _of_part(document, part)
    _check_features(config)
    return AdapterConfig(
        alpha=_number(config, "lora_alpha"),
        rank=_number(config, "r"),
        alphas=_patterns(config, "alpha_pattern"),
        ranks=_patterns(config, "rank_pattern"),
        rank_stabilised=bool(config.get("use_rslora")),
        decomposed=bool(config.get("use_dora")),
    )


def _of_part(document: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    own = {key.removeprefix(part): value for key, value in document.items() if key.startswith(part)}
    return own or {key: value for key, value in document.items() if not key.startswith(PARTS)}


def _check_features(config: Mapping[str, Any]) -> None:
    if config.get("lora_bias") or config.get("bias", "none") != "none":
        raise Unusable("says that biases were trained, too")
    if config.get("fan_in_fan_out"):
        raise Unusable("says that weights are transposed (fan_in_fan_out)")


def _number(values: Mapping[str, Any], name: str) -> float:
    value = values.get(name)
    try:
        number = 0.0 if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:
        number = inf
    if not 0 < number < inf:
        raise Unusable(f"has no usable {name} (a number above 0)")
    return number


def _patterns(config: Mapping[str, Any], name: str) -> Patterns:
    """Compiled here and not at each layer: Python's own cache of expressions is smaller than a file's list can be."""
    values = config.get(name) or {}
    if not isinstance(values, dict) or len(values) > _MOST_NAMES:
        raise Unusable(f"has no usable {name} (an object of at most {_MOST_NAMES} layers)")
    if not all(len(key) <= _LONGEST_NAME and _NAME.fullmatch(key) for key in values):
        raise Unusable(f"has in {name} an expression that is more than a layer's name")
    return tuple((re.compile(rf"(.*\.)?({key})$"), _number(values, key)) for key in values)


def _matching(patterns: Patterns, module: str, default: float) -> float:
    return next((value for pattern, value in patterns if pattern.match(module)), default)
