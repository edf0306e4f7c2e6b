"""Foreign models: the facts by which a LoRA for a model other than the served one is recognised.

Three things identify such a file: the names of its layers, the sizes of its tensors, and the base model in its
metadata. This module holds the facts; `serve_app.loras` writes the error messages and warnings.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from serve_app.models.architecture import Shape, WanArchitecture

# A part of a layer's name -> the models that have such layers. In this order: the first that matches any layer counts.
_LAYER_MARKERS = (
    (r"(double|single)_blocks|single_transformer_blocks", "FLUX or HunyuanVideo"),
    (r"(input|output|middle|down|up|mid)_blocks?[._]", "Stable Diffusion"),
    (r"transformer_blocks[._]", "another model (such as SD3, LTX or Qwen-Image)"),
    (r"[kv]_img(?![a-z])|add_[kv]_proj|norm_added_k|img_emb|image_embedder", "Wan I2V (image to video)"),
)
_LAYER_PATTERNS = tuple((re.compile(pattern), model) for pattern, model in _LAYER_MARKERS)

WAN_OF_WIDTH = {1536: "Wan 2.1 1.3B", 3072: "Wan 2.2 TI2V 5B", 5120: "Wan 2.1 or 2.2 14B"}
"""Members of the Wan family by the width of their blocks: `dim` in the config.json of each checkpoint."""

_ATTENTION_PROJECTION = re.compile(
    r".*blocks[._]\d+[._](?:(?:self|cross)_attn|attn[12])[._](?:[qkvo]|to_[qkv]|to_out[._]0)"
)
_PATCH_EMBEDDING = re.compile(r".*patch_embedding")
_PATCH_DIMENSIONS = 5  # of its weight: [out, channels, frames, rows, columns]

I2V_CHANNELS = 36
"""Channels that the patch embedding of Wan I2V takes: 16 of the latents, 16 of the image, 4 of a mask."""

_WAN_2_1 = "Wan 2.1"
_BASE_MODELS = {
    r"ti2v|(?<!\d)5b": "Wan 2.2 TI2V 5B",
    r"(?<!t)i2v": "Wan I2V (image to video)",
    r"vace": "Wan VACE",
    r"wan[_-]?2[._]?1(?!\d)": _WAN_2_1,
}


@dataclass(frozen=True, slots=True)
class ForeignLayers:
    """Layers that belong to another model, and its title."""

    model: str
    names: tuple[str, ...]


def recognise_layers(names: Iterable[str]) -> ForeignLayers | None:
    """Return the other model that has layers with these names, with the names that identify it; None if unknown."""
    known = list(names)
    for pattern, model in _LAYER_PATTERNS:
        found = tuple(name for name in known if pattern.search(name))
        if found:
            return ForeignLayers(model, found)
    return None


def block_width(layer: str, shape: Shape) -> int | None:
    """Return the width of the model that `layer` belongs to, with any prefix before its name.

    `shape` is that of a tensor whose last dimension is the layer's input: a LoRA's down half [r, in], or a difference
    [out, in]. None if the layer is no attention projection of a block, so that its input tells nothing.
    """
    return shape[-1] if shape and _ATTENTION_PROJECTION.fullmatch(layer) else None


def takes_images(layer: str, shape: Shape, architecture: WanArchitecture) -> bool:
    """Return whether `layer` is the patch embedding of Wan I2V, and a model of `architecture` is another.

    `shape` is [r, channels, frames, rows, columns] of a LoRA's down half, or [out, ...] of a difference.
    """
    return (
        len(shape) == _PATCH_DIMENSIONS
        and shape[1] == I2V_CHANNELS != architecture.in_channels
        and _PATCH_EMBEDDING.fullmatch(layer) is not None
    )


def other_base_model(base_version: str, model_spec: str, served: str) -> str | None:
    """Return the member of the Wan family that the metadata of a LoRA names as its base; None if it is the served one.

    `base_version` is the entry `ss_base_model_version`, `model_spec` is `modelspec.architecture`; "" where absent. Wan
    2.1 counts only in the former: musubi-tuner writes "wan2.1/lora" into the latter for LoRAs of Wan 2.2, too. `served`
    is the title of the served model, such as "Wan 2.2 T2V A14B". Other models than Wan's are not told apart.
    """
    for pattern, model in _BASE_MODELS.items():
        texts = (base_version,) if model == _WAN_2_1 else (base_version, model_spec)
        if any(_names(text, pattern) for text in texts):
            return None if _names(served.replace(" ", "_"), pattern) else model
    return None


_TASKS = {
    "Wan I2V (image to video)": ("i2v", r"im(?:age|g)[\W_]*(?:to|2)[\W_]*vid(?:eo)?"),
    "Wan T2V (text to video)": ("t2v", r"te?xt[\W_]*(?:to|2)[\W_]*vid(?:eo)?"),
}
# A word may stand beside digits ("wan22i2v14b"), and be one of several in camel case ("myI2VLora").
_TASK_WORDS = {
    task: re.compile(
        rf"(?i:(?<![a-z]){word}(?![a-z])|(?<![a-z]){spelled}(?![a-z]))|(?<![A-Z]){word.upper()}(?=[A-Z][a-z])"
        rf"|(?<=[a-z]){word.upper()}(?![A-Za-z])"
    )
    for task, (word, spelled) in _TASKS.items()
}


def other_task(names: Iterable[str], served: str) -> str | None:
    """Return what a LoRA with these names is for by their words, image or text to video, if `served` is for the other.

    None if the names tell none or both, or the title `served` does.
    """
    own, said = _tasks((served,)), _tasks(tuple(names))
    return next(iter(said)) if len(own) == len(said) == 1 and own != said else None


@lru_cache(maxsize=1024)  # each request asks for its files, which are few
def _tasks(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(task for task, words in _TASK_WORDS.items() if any(words.search(name) for name in names))


def _names(text: str, pattern: str) -> bool:
    lower = text.lower()
    return "wan" in lower and re.search(pattern, lower) is not None
