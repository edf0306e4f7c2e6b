"""LoRAs of other layouts and of other models, recognised by the names of their tensors."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from serve_app.loras.architecture import WanArchitecture
from serve_app.loras.safetensors_file import TensorInfo

_CONVERT = "which this server does not apply yet; export or convert it as AI Toolkit saves LoRAs"


@dataclass(frozen=True, slots=True)
class Foreign:
    """Why these keys are not ours."""

    reason: str
    keys: list[str]


def _model(what: str) -> str:
    return f"this looks like a LoRA for {what}, not for Wan 2.2 T2V A14B"


def _layout(what: str) -> str:
    return f"this looks like {what}, {_CONVERT}"


# In order: the first that matches any key speaks. Models come before layouts, because a FLUX LoRA in kohya's layout
# does not become usable by conversion.
_MARKERS = (
    (r"(double|single)_blocks|single_transformer_blocks", _model("FLUX or HunyuanVideo")),
    (r"(input|output|middle|down|up|mid)_blocks?[._]|^lora_te\d*_|^text_encoder", _model("Stable Diffusion")),
    (r"transformer_blocks[._]", _model("another model (such as SD3, LTX or Qwen-Image)")),
    (r"[kv]_img\b|add_[kv]_proj|img_emb|image_embedder", _model("Wan I2V (image to video)")),
    (r"\.?lokr_", _layout("a LoKr")),
    (r"\bhada_", _layout("a LoHa")),
    (r"dora_scale|lora_magnitude_vector", _layout("a DoRA")),
    (r"\.diff(_b)?$", _layout("a file with full weight differences (.diff, .diff_b)")),
    (
        r"^diffusion_model\.transformer_[12]\.",
        _layout("a combined file of both experts (split_multistage_loras: false)"),
    ),
    (r"^lora_unet_", _layout("the layout of kohya and musubi-tuner (lora_unet_)")),
    (r"^transformer(_2)?\.", _layout("the layout of diffusers (transformer.)")),
    (r"^base_model\.model\.", _layout("the layout of PEFT (base_model.model.)")),
    (r"\.lora_[AB]\.[^.]+\.weight$", _layout("a PEFT state with adapter names (.default.)")),
    (r"^blocks\.", _layout("a LoRA without the diffusion_model. prefix")),
)
_PATTERNS = tuple((re.compile(pattern), reason) for pattern, reason in _MARKERS)

_FAMILIES = {1536: "Wan 2.1 1.3B", 3072: "Wan 2.2 TI2V 5B", 5120: "Wan 2.1 or 2.2 14B"}
_ATTENTION_INPUT = re.compile(r"diffusion_model\.blocks\.\d+\.(self|cross)_attn\.[qkvo]\.lora_(A|down)\.weight")


def recognise(keys: Iterable[str]) -> Foreign | None:
    """The other layout or model that these names belong to, if one is known."""
    names = list(keys)
    for pattern, reason in _PATTERNS:
        found = [name for name in names if pattern.search(name)]
        if found:
            return Foreign(reason, found)
    return None


def recognise_width(tensors: dict[str, TensorInfo], architecture: WanArchitecture) -> Foreign | None:
    """The member of the Wan family that the LoRA was trained on, if its width is another than `architecture.dim`."""
    for key, info in tensors.items():
        width = info.shape[-1] if info.shape and _ATTENTION_INPUT.fullmatch(key) else architecture.dim
        if width != architecture.dim and width in _FAMILIES:
            reason = (
                f"this looks like a LoRA for {_FAMILIES[width]} (width {width}); "
                f"the model that this server runs has width {architecture.dim}"
            )
            return Foreign(reason, [key])
    return None
