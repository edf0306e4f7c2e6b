"""Adapter configs (PEFT's `LoraConfig`): what one in the metadata, or in a file beside the LoRA, says of scales.

`save_lora_weights` and `save_lora_adapter` of diffusers 0.42.1 (loaders/lora_base.py, loaders/peft.py)
write a PEFT `LoraConfig` as JSON, its names behind "transformer." or bare. As PEFT does (`update_layer` in
tuners/lora/layer.py), a layer counts alpha / r, or alpha / sqrt(r) with `use_rslora`; alpha and r are the first of
`alpha_pattern` and `rank_pattern` whose expression matches the end of the layer's name, else `lora_alpha` and `r`.
The same object is in `adapter_config.json`, which PEFT's `save_pretrained` writes beside the file.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

from serve_app.loras.formats.changes import LowRank
from serve_app.models.architecture import Module
from serve_app.spec import Expert

ADAPTER_FILE = "adapter_config.json"
BESIDE = f"the {ADAPTER_FILE} beside it"
_SCALING = (
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"),
    *("peft_type", "bias", "lora_bias", "fan_in_fan_out", "init_lora_weights"),
)
_CHANGING = ("pissa", "olora", "corda", "loftq")  # ways to begin that change the base's weights, too
_LONGEST_VALUE = 50  # characters that a refusal repeats
_PARTS = ("transformer.", "transformer_2.")  # what stands before the names of each expert's `LoraConfig`

# PEFT takes any regular expression, but trainers write names. Others could take hours to match (ReDoS).
_NAME = re.compile(r"\^?[\w.]+")
_LONGEST_NAME = 200
_MOST_NAMES = 2000  # the model has fewer layers

_Patterns = tuple[tuple[re.Pattern[str], float], ...]


class MetadataUnusable(Exception):
    """An entry or file gives scales that cannot be applied; `str` says which one, and why."""


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """The `adapter_config.json` beside a file: its text after `shortened`; whether it certainly belongs to it."""

    text: str
    certain: bool


def shortened(text: str) -> str:
    """Return the entries of an `adapter_config.json` that set scales, as canonical JSON: equal meaning, equal text.

    Raises:
        MetadataUnusable: it is no JSON object.
    """
    document = _object(text, BESIDE)
    return json.dumps({key: document[key] for key in _SCALING if key in document}, sort_keys=True)


class AdapterConfig:
    """A `LoraConfig`, or one for each expert, with the name that error messages use."""

    def __init__(self, source: str, text: str) -> None:
        self.source = source
        self._document = _object(text, source)
        self._parts: dict[Expert | None, _PartConfig] = {}

    def scale(self, change: LowRank, expert: Expert | None, module: Module) -> float:
        """Return c of the change.

        Raises:
            MetadataUnusable: it cannot be followed, or contradicts the tensors.
        """
        try:
            if expert not in self._parts:
                self._parts[expert] = _config(self._document, _PARTS[1] if expert is Expert.LOW else _PARTS[0])
            return _scale(change, module, self._parts[expert])
        except MetadataUnusable as error:
            raise MetadataUnusable(f"{self.source} {error}") from error


def _scale(change: LowRank, module: Module, config: "_PartConfig") -> float:
    if change.alpha is not None:
        raise MetadataUnusable("gives scales, and the file has alpha tensors, too")
    if config.decomposed != (change.magnitude is not None):
        raise MetadataUnusable(f"says use_dora: {str(config.decomposed).lower()}, and the tensors say otherwise")
    return config.scale(module, change.rank)


@dataclass(frozen=True, slots=True)
class _PartConfig:
    """What a PEFT `LoraConfig` says of scales."""

    alpha: float
    rank: float
    alphas: _Patterns
    ranks: _Patterns
    rank_stabilised: bool
    decomposed: bool  # a DoRA: each layer has a magnitude

    def scale(self, module: Module, rank: int) -> float:
        """Return c of the layer `module`, whose tensors have `rank`.

        Patterns may be about either of its names, as the trained model had them.

        Raises:
            MetadataUnusable: the metadata gives the layer another rank, so it is not this file's.
        """
        expected = _matching(self.ranks, module, self.rank)
        if expected != rank:
            raise MetadataUnusable(f"gives {module.name} rank {expected:g}, and its tensors have rank {rank}")
        return _matching(self.alphas, module, self.alpha) / (sqrt(rank) if self.rank_stabilised else rank)


def _object(text: str, source: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MetadataUnusable(f"{source} is no JSON") from error
    if not isinstance(document, dict):
        raise MetadataUnusable(f"{source} is no JSON object")
    return document


def _config(document: Mapping[str, Any], part: str) -> _PartConfig:
    config = _of_part(document, part)
    _check_features(config)
    return _PartConfig(
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
    if str(config.get("peft_type", "LORA")).upper() != "LORA":
        raise MetadataUnusable(f"is for another kind of adapter ({str(config['peft_type'])[:_LONGEST_VALUE]})")
    if config.get("lora_bias") or config.get("bias", "none") != "none":
        raise MetadataUnusable("says that biases were trained, too")
    begun = str(config.get("init_lora_weights", ""))[:_LONGEST_VALUE].lower()
    if begun.startswith(_CHANGING):
        raise MetadataUnusable(
            f"says that training began by changing the model's own weights (init_lora_weights: {begun}); convert it "
            "with PEFT's path_initial_model_for_weight_conversion"
        )
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


def _matching(patterns: _Patterns, module: Module, default: float) -> float:
    names = (module.name, module.original)
    return next((value for pattern, value in patterns if any(map(pattern.match, names))), default)
