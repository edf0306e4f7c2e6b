"""Loads Wan 2.2 as the reference server does, from directories or from the Hugging Face hub."""

import json
from pathlib import Path
from typing import Any

import ftfy  # noqa: F401 - WanPipeline cleans prompts with it and silently does not where it is missing
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from diffusers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME
from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open

from serve_app.errors import ConfigurationInvalid

# Names of the two experts, as pipeline components and as folders of a checkpoint.
HIGH_NOISE_EXPERT = "transformer"
LOW_NOISE_EXPERT = "transformer_2"

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype called `name`; `auto` is the reference server's choice, bfloat16 on a GPU and float32 on a CPU.

    Raises:
        ConfigurationInvalid: `name` is none of auto, bfloat16 and float32.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise ConfigurationInvalid(f"dtype: '{name}' is unknown; use auto, {' or '.join(_DTYPES)}")
    return _DTYPES[name]


def load_pipeline(base_model: str, transformer_model: str, dtype: torch.dtype, hf_token: str | None) -> Any:
    """A WanPipeline in host memory: both experts from `transformer_model`, everything else from `base_model`.

    Each is a directory or a hub id. All components get `dtype`, also the VAE and the text encoder, but for the
    modules that diffusers keeps in float32; the scheduler stays as the base checkpoint ships it.

    Raises:
        ConfigurationInvalid: a checkpoint is missing, incomplete or cannot be downloaded.
    """
    options = {"dtype": dtype, "token": hf_token}
    # Absent experts are not downloaded from the base checkpoint: 57 GB that would be thrown away.
    absent = {HIGH_NOISE_EXPERT: None, LOW_NOISE_EXPERT: None}
    pipe = _from_pretrained(WanPipeline, "base_model", base_model, **absent, **options)
    for name in (HIGH_NOISE_EXPERT, LOW_NOISE_EXPERT):
        expert = _from_pretrained(
            WanTransformer3DModel, "transformer_model", transformer_model, subfolder=name, **options
        )
        pipe.register_modules(**{name: expert})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def expert_files(transformer_model: str, expert: str) -> dict[str, Path]:
    """The safetensors file of each parameter of an expert that `load_pipeline` has loaded, by name.

    Raises:
        ConfigurationInvalid: the expert did not come from safetensors files.
    """
    index = _local_file(transformer_model, expert, SAFE_WEIGHTS_INDEX_NAME)
    if index is not None:
        files: dict[str, str] = json.loads(index.read_text())["weight_map"]
        return {name: index.parent / file for name, file in files.items()}
    weights = _local_file(transformer_model, expert, SAFETENSORS_WEIGHTS_NAME)
    if weights is None:
        raise ConfigurationInvalid(f"transformer_model: '{transformer_model}' has no safetensors files for {expert}")
    with safe_open(weights, framework="pt") as file:
        return dict.fromkeys(file.keys(), weights)


def _local_file(checkpoint: str, folder: str, name: str) -> Path | None:
    """A file of a directory, or of a hub repository as the cache has it."""
    if Path(checkpoint).is_dir():
        path = Path(checkpoint, folder, name)
        return path if path.is_file() else None
    cached = try_to_load_from_cache(checkpoint, f"{folder}/{name}")
    return Path(cached) if isinstance(cached, str) else None


def _from_pretrained(cls: Any, arg: str, checkpoint: str, **options: Any) -> Any:
    try:
        return cls.from_pretrained(checkpoint, **options)
    except (OSError, ValueError) as error:  # what diffusers and the hub raise for anything absent or malformed
        raise ConfigurationInvalid(f"{arg}: cannot load '{checkpoint}': {error}") from error
