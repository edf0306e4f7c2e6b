"""Whether a LoRA would be applied completely: each tensor has a known place, its other half, and the right shape.

Accepted is what `WanPipeline.load_lora_weights` of diffusers 0.42.1 was seen to apply exactly (its converter is
`_convert_non_diffusers_wan_lora_to_diffusers` in loaders/lora_conversion_utils.py): for any subset of the linear
layers, and ranks that differ between them,

    diffusion_model.<module>.lora_A.weight  [r, in]     or  .lora_down.weight
    diffusion_model.<module>.lora_B.weight  [out, r]    or  .lora_up.weight
    diffusion_model.<module>.alpha          [] or [1]   optional; the LoRA counts alpha / r, without it 1
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from serve_app.loras.architecture import WanArchitecture
from serve_app.loras.floats import FORMATS
from serve_app.loras.foreign import Foreign, recognise, recognise_width
from serve_app.loras.refusals import invalid
from serve_app.loras.safetensors_file import SafetensorsHeader, TensorInfo

# With this entry diffusers takes rank and alpha from the metadata instead of the tensors: seen to scale a correct
# LoRA four times too strong, or to raise.
ADAPTER_METADATA = "lora_adapter_metadata"

_KEY = re.compile(r"diffusion_model\.(?P<module>.+?)\.(?P<part>lora_(?:A|B|down|up)\.weight|alpha)")
_CONVENTIONS = (("lora_A.weight", "lora_B.weight"), ("lora_down.weight", "lora_up.weight"))


@dataclass(frozen=True, slots=True)
class LoraModule:
    """One linear layer's LoRA: `down` [r, in], `up` [out, r], `alpha` [] or [1] or absent."""

    name: str
    down_key: str
    down: TensorInfo
    up_key: str
    up: TensorInfo
    alpha_key: str | None
    alpha: TensorInfo | None

    @property
    def rank(self) -> int:
        """r, as the down half has it."""
        return self.down.shape[0]


def check_layout(header: SafetensorsHeader, architecture: WanArchitecture, name: str) -> list[LoraModule]:
    """The LoRA's modules, all of whose tensors `architecture` takes; `name` is the file in errors.

    Raises:
        LoraInvalid: a tensor would be dropped or applied wrongly, or loading would fail. Details name the tensors.
    """
    tensors = header.tensors
    shapes = architecture.linear_shapes()
    _refuse(name, _whole_file_fault(header, architecture))
    _refuse(name, _unknown(tensors, shapes, architecture))
    _refuse(name, _wrong_dtype(tensors))
    _refuse(name, _mixed_conventions(tensors))
    _refuse(name, _missing_half(tensors))
    modules = _modules(tensors)
    _refuse(name, next((fault for module in modules if (fault := _wrong_shape(module, shapes[module.name]))), None))
    return modules


def _refuse(name: str, fault: Foreign | None) -> None:
    if fault is not None:
        raise invalid(name, fault.reason, fault.keys)


def _whole_file_fault(header: SafetensorsHeader, architecture: WanArchitecture) -> Foreign | None:
    if not header.tensors:
        return Foreign("it holds no tensors; export it again", [])
    if ADAPTER_METADATA in header.metadata:
        reason = f"its metadata entry {ADAPTER_METADATA!r} would override the scale of its tensors; export it without"
        return Foreign(reason, [])
    return recognise(header.tensors) or recognise_width(header.tensors, architecture)


def _split(key: str) -> tuple[str, str]:
    """(module, part) of a key; both empty where the key follows no convention of ours."""
    match = _KEY.fullmatch(key)
    return (match["module"], match["part"]) if match else ("", "")


def _unknown(keys: Iterable[str], shapes: dict[str, tuple[int, int]], model: WanArchitecture) -> Foreign | None:
    unknown = [key for key in keys if _split(key)[0] not in shapes]
    reason = (
        "it has tensors for which this model has no place; expected are lora_A, lora_B and alpha of "
        f"diffusion_model.blocks.0 to {model.num_layers - 1}, in self_attn and cross_attn q, k, v, o and ffn.0, ffn.2"
    )
    return Foreign(reason, unknown) if unknown else None


def _wrong_dtype(tensors: dict[str, TensorInfo]) -> Foreign | None:
    wrong = {key: info.dtype for key, info in tensors.items() if info.dtype not in FORMATS}
    reason = f"it has tensors of dtype {', '.join(sorted(set(wrong.values())))}; export it as {', '.join(FORMATS)}"
    return Foreign(reason, list(wrong)) if wrong else None


def _mixed_conventions(keys: Iterable[str]) -> Foreign | None:
    """Diffusers picks one convention per file and fails on the other."""
    down_up = [key for key in keys if _split(key)[1] in _CONVENTIONS[1]]
    a_b = any(_split(key)[1] in _CONVENTIONS[0] for key in keys)
    reason = "it mixes lora_A / lora_B with lora_down / lora_up; export it with one of the two"
    return Foreign(reason, down_up) if down_up and a_b else None


def _convention(keys: Iterable[str]) -> tuple[str, str]:
    return _CONVENTIONS[1] if any(_split(key)[1] in _CONVENTIONS[1] for key in keys) else _CONVENTIONS[0]


def _missing_half(tensors: dict[str, TensorInfo]) -> Foreign | None:
    modules = dict.fromkeys(_split(key)[0] for key in tensors)
    halves = [f"diffusion_model.{module}.{part}" for module in modules for part in _convention(tensors)]
    missing = [key for key in halves if key not in tensors]
    reason = "these tensors are missing beside their other half or their alpha; export it again"
    return Foreign(reason, missing) if missing else None


def _modules(tensors: dict[str, TensorInfo]) -> list[LoraModule]:
    down, up = _convention(tensors)
    found = []
    for module in dict.fromkeys(_split(key)[0] for key in tensors):
        down_key, up_key, alpha_key = (f"diffusion_model.{module}.{part}" for part in (down, up, "alpha"))
        alpha = tensors.get(alpha_key)
        known_alpha_key = None if alpha is None else alpha_key
        found.append(LoraModule(module, down_key, tensors[down_key], up_key, tensors[up_key], known_alpha_key, alpha))
    return found


def _wrong_shape(module: LoraModule, linear: tuple[int, int]) -> Foreign | None:
    out_features, in_features = linear
    rank = module.down.shape[0] if module.down.shape else 0
    if rank == 0 or module.down.shape != (rank, in_features):
        return _shape_fault(module.down_key, f"[r, {in_features}] with r at least 1", module.down)
    if module.up.shape != (out_features, rank):
        return _shape_fault(module.up_key, f"[{out_features}, {rank}]", module.up)
    if module.alpha_key and module.alpha and module.alpha.shape not in ((), (1,)):
        return _shape_fault(module.alpha_key, "[] or [1]", module.alpha)
    return None


def _shape_fault(key: str, expected: str, info: TensorInfo) -> Foreign:
    reason = (
        f"a tensor has the wrong shape: expected {expected}, found {list(info.shape)}; it was trained on another model"
    )
    return Foreign(reason, [key])
