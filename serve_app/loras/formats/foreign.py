"""LoRAs of other models, recognised by the names and shapes of their tensors."""

import re
from collections.abc import Iterable, Mapping

from serve_app.loras.formats.header import TensorInfo
from serve_app.loras.formats.suffixes import LONGEST_KEY
from serve_app.loras.refusals import Fault
from serve_app.models.architecture import WanArchitecture

# In order: the first that matches any key speaks.
_MARKERS = (
    (r"(double|single)_blocks|single_transformer_blocks", "FLUX or HunyuanVideo"),
    (r"(input|output|middle|down|up|mid)_blocks?[._]", "Stable Diffusion"),
    (r"transformer_blocks[._]", "another model (such as SD3, LTX or Qwen-Image)"),
    (r"[kv]_img(?![a-z])|add_[kv]_proj|norm_added_k|img_emb|image_embedder", "Wan I2V (image to video)"),
)
_PATTERNS = tuple((re.compile(pattern), model) for pattern, model in _MARKERS)

_FAMILIES = {1536: "Wan 2.1 1.3B", 3072: "Wan 2.2 TI2V 5B", 5120: "Wan 2.1 or 2.2 14B"}
_ATTENTION_INPUT = re.compile(
    r".*blocks[._]\d+[._](?:(?:self|cross)_attn|attn[12])[._](?:[qkvo]|to_[qkv]|to_out[._]0)"
    r"\.(?:lora_A(?:\.[^.]+)?\.weight|lora_down\.weight|lora\.down\.weight|diff)"
)
_PATCH_INPUT = re.compile(
    r".*patch_embedding\.(?:lora_A(?:\.[^.]+)?\.weight|lora_down\.weight|lora\.down\.weight|diff)"
)
_PATCH_DIMENSIONS = 5
_I2V_CHANNELS = 36  # 16 of latents, 16 of the image's, 4 of a mask


def _looks_like(model: str) -> str:
    return f"this looks like a LoRA for {model}, not for Wan 2.2 T2V A14B"


def recognise(keys: Iterable[str]) -> Fault | None:
    """The other model that these names belong to, if one is known."""
    names = list(keys)
    for pattern, model in _PATTERNS:
        found = [name for name in names if pattern.search(name)]
        if found:
            return Fault(_looks_like(model), found)
    return None


def recognise_shapes(tensors: Mapping[str, TensorInfo], architecture: WanArchitecture) -> Fault | None:
    """The member of the Wan family that the LoRA was trained on, if shapes tell that it is another."""
    for key, info in tensors.items():
        if len(key) > LONGEST_KEY:
            continue
        width = info.shape[-1] if info.shape and _ATTENTION_INPUT.fullmatch(key) else architecture.dim
        if width != architecture.dim and width in _FAMILIES:
            reason = (
                f"this looks like a LoRA for {_FAMILIES[width]} (width {width}); "
                f"the model that this server runs has width {architecture.dim}"
            )
            return Fault(reason, [key])
        if _is_image_to_video(key, info, architecture):
            return Fault(_looks_like(f"Wan I2V (its patch embedding takes {_I2V_CHANNELS} channels)"), [key])
    return None


def _is_image_to_video(key: str, info: TensorInfo, architecture: WanArchitecture) -> bool:
    return (
        len(info.shape) == _PATCH_DIMENSIONS
        and info.shape[1] == _I2V_CHANNELS != architecture.in_channels
        and _PATCH_INPUT.fullmatch(key) is not None
    )
