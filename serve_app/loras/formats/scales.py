"""Scales: the factor c = alpha / rank of each change, from alpha tensors or from the metadata.

The formulas are those of `changes`. A file without either means c = 1: AI Toolkit trains with alpha = rank where it
saves none, and diffusers and ComfyUI read it so.

**Alpha tensors.** Trainers never save an alpha of 0: kohya, LyCORIS and AI Toolkit take 0 for the rank when they start,
and save that. Where a file has one nevertheless, readers disagree: ComfyUI and diffusers divide it by the rank and the
LoRA does nothing, LyCORIS' own loader takes it for the rank again. So it is refused.

**Metadata.** `save_lora_weights` and `save_lora_adapter` of diffusers 0.42.1 (loaders/lora_base.py, loaders/peft.py)
write a PEFT `LoraConfig` as JSON, its names behind "transformer." or bare. As PEFT does (`update_layer` in
tuners/lora/layer.py), a layer counts alpha / r, or alpha / sqrt(r) with `use_rslora`; alpha and r are the first of
`alpha_pattern` and `rank_pattern` whose expression matches the end of the layer's name, else `lora_alpha` and `r`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt
from typing import Any

from serve_app.loras.formats.changes import Change, LoKr, LoraContents, LowRank
from serve_app.loras.formats.metadata import ADAPTER_METADATA
from serve_app.loras.refusals import Fault
from serve_app.models.architecture import Module
from serve_app.spec import Expert

Placed = tuple[Expert | None, Module, Change]
"""A change with the expert and the module that it is for."""

_PARTS = ("transformer.", "transformer_2.")  # what stands before the names of each expert's `LoraConfig`

# PEFT takes regular expressions of any kind, but trainers write names. Others could take for ever to match (ReDoS).
_NAME = re.compile(r"\^?[\w.]+")
_LONGEST_NAME = 200
_MOST_NAMES = 2000  # the model has fewer layers

_Patterns = tuple[tuple[re.Pattern[str], float], ...]


def scale_of(change: LowRank | LoKr, alphas: Mapping[str, float]) -> float:
    """Return c of the change. `alphas` are the values under `alpha_keys`."""
    if isinstance(change, LowRank) and change.scale is not None:
        return change.scale
    if change.alpha is None or change.rank is None:
        return 1.0
    return alphas[change.alpha] / change.rank


def alpha_keys(contents: LoraContents) -> tuple[str, ...]:
    """Return the keys of all alphas that count, in the order of the changes."""
    return tuple(
        change.alpha
        for change in contents.changes()
        if isinstance(change, LowRank | LoKr) and change.alpha is not None and change.rank is not None
    )


def unused_keys(contents: LoraContents) -> frozenset[str]:
    """Return the keys whose values nothing reads: tensors left out, and the alphas of LoKrs with two whole factors.

    AI Toolkit saves such a LoKr (`lokr_full_rank`) with an alpha of 9999999999, which is infinite in float16.
    """
    idle = (change.alpha for change in contents.changes() if isinstance(change, LoKr) and change.rank is None)
    return frozenset((*contents.left_out, *(alpha for alpha in idle if alpha is not None)))


def wrong_alphas(alphas: Mapping[str, float]) -> Fault | None:
    """Return the fault of alphas that cannot be applied: 0, negative, or not finite."""
    zero = [key for key, value in alphas.items() if value == 0]
    if zero:
        reason = "an alpha is 0, which some programs read as no effect and others as the rank; export it without alpha"
        return Fault(reason, zero)
    wrong = [key for key, value in alphas.items() if value < 0 or not isfinite(value)]
    if wrong:
        return Fault(f"an alpha is negative or no number ({alphas[wrong[0]]:g}); export it again", wrong)
    return None


class MetadataUnusable(Exception):
    """Says why the scales in the metadata cannot be followed."""


def apply_metadata(changes: Iterable[Placed], metadata: Mapping[str, str]) -> list[Placed]:
    """Return `changes` with the scales that the metadata gives, if it gives any.

    Raises:
        MetadataUnusable: the metadata cannot be followed, or contradicts the tensors.
    """
    text = metadata.get(ADAPTER_METADATA)
    if text is None:
        return list(changes)
    configs: dict[Expert | None, _AdapterConfig] = {}
    scaled: list[Placed] = []
    for expert, module, change in changes:
        if not isinstance(change, LowRank):
            scaled.append((expert, module, change))
            continue
        if expert not in configs:
            configs[expert] = _parse(text, _PARTS[1] if expert is Expert.LOW else _PARTS[0])
        scaled.append((expert, module, _scaled(change, module, configs[expert])))
    return scaled


def _scaled(change: LowRank, module: Module, config: "_AdapterConfig") -> LowRank:
    if change.alpha is not None:
        raise MetadataUnusable("gives scales, and the file has alpha tensors, too")
    if config.decomposed != (change.magnitude is not None):
        raise MetadataUnusable(f"says use_dora: {str(config.decomposed).lower()}, and the tensors say otherwise")
    return replace(change, scale=config.scale(module.name, change.rank))


@dataclass(frozen=True, slots=True)
class _AdapterConfig:
    """What a PEFT `LoraConfig` says of scales."""

    alpha: float
    rank: float
    alphas: _Patterns
    ranks: _Patterns
    rank_stabilised: bool
    decomposed: bool  # a DoRA: each layer has a magnitude

    def scale(self, module: str, rank: int) -> float:
        """Return c of the layer that diffusers calls `module`, whose tensors have `rank`.

        Raises:
            MetadataUnusable: the metadata gives the layer another rank, so it is not this file's.
        """
        expected = _matching(self.ranks, module, self.rank)
        if expected != rank:
            raise MetadataUnusable(f"gives {module} rank {expected:g}, and its tensors have rank {rank}")
        return _matching(self.alphas, module, self.alpha) / (sqrt(rank) if self.rank_stabilised else rank)


def _parse(text: str, part: str) -> _AdapterConfig:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MetadataUnusable("is no JSON") from error
    if not isinstance(document, dict):
        raise MetadataUnusable("is no JSON object")
    config = _of_part(document, part)
    _check_features(config)
    return _AdapterConfig(
        alpha=_number(config, "lora_alpha"),
        rank=_number(config, "r"),
        alphas=_patterns(config, "alpha_pattern"),
        ranks=_patterns(config, "rank_pattern"),
        rank_stabilised=bool(config.get("use_rslora")),
        decomposed=bool(config.get("use_dora")),
    )


def _of_part(document: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    own = {key.removeprefix(part): value for key, value in document.items() if key.startswith(part)}
    return own or {key: value for key, value in document.items() if not key.startswith(_PARTS)}


def _check_features(config: Mapping[str, Any]) -> None:
    if config.get("lora_bias") or config.get("bias", "none") != "none":
        raise MetadataUnusable("says that biases were trained, too")
    if config.get("fan_in_fan_out"):
        raise MetadataUnusable("says that weights are transposed (fan_in_fan_out)")


def _number(values: Mapping[str, Any], name: str) -> float:
    value = values.get(name)
    try:
        number = 0.0 if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:
        number = inf
    if not 0 < number < inf:
        raise MetadataUnusable(f"has no usable {name} (a number above 0)")
    return number


def _patterns(config: Mapping[str, Any], name: str) -> _Patterns:
    # Compiled once here: Python's own cache of expressions is smaller than a file's list can be.
    values = config.get(name) or {}
    if not isinstance(values, dict) or len(values) > _MOST_NAMES:
        raise MetadataUnusable(f"has no usable {name} (an object of at most {_MOST_NAMES} layers)")
    if not all(len(key) <= _LONGEST_NAME and _NAME.fullmatch(key) for key in values):
        raise MetadataUnusable(f"has in {name} an expression that is more than a layer's name")
    return tuple((re.compile(rf"(.*\.)?({key})$"), _number(values, key)) for key in values)


def _matching(patterns: _Patterns, module: str, default: float) -> float:
    return next((value for pattern, value in patterns if pattern.match(module)), default)
