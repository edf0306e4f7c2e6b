"""Proves that diffusers took every weight of a LoRA file; of what it does not know, it drops some without an error."""

from collections.abc import Iterable
from typing import Any

from safetensors import safe_open

from serve_app.errors import LoraNotLoaded
from serve_app.jobs.spec import LoraFile

_DOWN = (".lora_A.weight", ".lora_down.weight")
_UP = (".lora_B.weight", ".lora_up.weight")
_ALPHA = (".alpha",)

_NAMED_AT_MOST = 16  # keys in an error; a full-size file has 800


def check_known(lora: LoraFile) -> None:
    """Look at the names of the file's keys only.

    Raises:
        LoraNotLoaded: a key is of no known kind, or a down matrix lacks its up matrix or the reverse.
    """
    keys = _keys(lora)
    odd = _unknown(keys) | _unpaired(keys)
    if odd:
        raise _not_loaded(lora, odd, "it has keys that no LoRA layer takes")


def check_all_applied(pipe: Any, transformer: Any, adapter: str, lora: LoraFile) -> None:
    """Compare the file's keys with the modules of `transformer` that now carry `adapter`.

    Raises:
        LoraNotLoaded: the modules that carry the adapter are not as many as the file's pairs.
    """
    keys = _keys(lora)
    applied = {name for name, module in transformer.named_modules() if adapter in getattr(module, "lora_A", ())}
    pairs = {key for key in keys if key.endswith(_DOWN)}
    if not applied or len(applied) != len(pairs):
        reason = f"{len(applied)} of its {len(pairs)} layers were applied"
        raise _not_loaded(lora, _left_out(pipe, lora, applied) or keys, reason)


def _keys(lora: LoraFile) -> set[str]:
    with safe_open(lora.location, framework="pt") as file:
        return set(file.keys())


def _unknown(keys: set[str]) -> set[str]:
    return {key for key in keys if not key.endswith(_DOWN + _UP + _ALPHA)}


def _unpaired(keys: set[str]) -> set[str]:
    downs, ups = ({_layer(key): key for key in keys if key.endswith(kind)} for kind in (_DOWN, _UP))
    return {(downs | ups)[layer] for layer in downs.keys() ^ ups.keys()}


def _left_out(pipe: Any, lora: LoraFile, applied: set[str]) -> set[str]:
    """Keys, in diffusers' words, of layers that got no adapter."""
    state = pipe.lora_state_dict(lora.location, use_safetensors=True, local_files_only=True)
    return {key for key in state if _layer(key).removeprefix("transformer.") not in applied}


def _layer(key: str) -> str:
    return key.rpartition(".lora_")[0]


def _not_loaded(lora: LoraFile, keys: Iterable[str], reason: str) -> LoraNotLoaded:
    named = sorted(keys)
    return LoraNotLoaded(
        f"LoRA '{lora.reference}' cannot be applied completely to the {lora.expert.value} noise expert: {reason}; "
        "train it for Wan 2.2 T2V A14B with linear layers only",
        {
            "path": lora.reference,
            "transformer": lora.expert.value,
            "keys": named[:_NAMED_AT_MOST],
            "key_count": len(named),
        },
    )
