"""Loading: a diffusers pipeline from checkpoints, in directories or on the Hugging Face Hub."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ftfy  # noqa: F401 - WanPipeline cleans prompts with it and silently does not if it is missing
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from diffusers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import safe_open
from transformers import T5TokenizerFast, UMT5EncoderModel

from deployments.pipeline import PipelineOptions
from serve_app.errors import ConfigurationInvalid
from serve_app.files import read_regular
from serve_app.models.card import ModelCard, Parts
from serve_app.spec import Expert

_INDEX_BYTES = 64 << 20  # of the index of a checkpoint's weights; real ones have a tenth of a megabyte

_REASON = 500  # characters of a library's own words

# The pipeline component that each expert is; also the name of its folder in a checkpoint.
COMPONENTS: Mapping[Expert, str] = {
    Expert.HIGH: "transformer",
    Expert.LOW: "transformer_2",
    Expert.ONLY: "transformer",
}

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype called `name`; `auto` is the reference server's choice, bfloat16 on a GPU and float32 on a CPU.

    Raises:
        ConfigurationInvalid: `name` is none of auto, bfloat16 and float32.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise ConfigurationInvalid(f"dtype: '{name}' is unknown; use auto, {' or '.join(_DTYPES)}")
    return _DTYPES[name]


def load_pipeline(options: PipelineOptions, dtype: torch.dtype) -> Any:
    """Load a WanPipeline into host memory: the experts from `transformer_model`, everything else from `base_model`.

    If `base_model` is the card's own, and is no complete checkpoint, the card says where its parts come from. All
    components get `dtype`, also the VAE and the text encoder, except the modules that diffusers keeps in float32. The
    scheduler comes from the base checkpoint, or from the card's description.

    Raises:
        ConfigurationInvalid: a checkpoint is missing, incomplete or cannot be downloaded.
    """
    token = None if options.hf_token is None else options.hf_token.get_secret_value()
    arguments = {"dtype": dtype, "token": token}
    # A component given as None is not downloaded from the base checkpoint. This saves 57 GB that would not be used.
    absent: dict[str, Any] = dict.fromkeys(COMPONENTS.values())
    card = options.card
    made = {} if card.ships_scheduler else {"scheduler": _scheduler(card)}
    if card.parts is not None and options.base_model == card.base_model:
        pipe = WanPipeline(**_load_parts(card.parts, dtype, token), **made, **absent)
    else:
        pipe = _from_pretrained(WanPipeline, "base_model", options.base_model, **made, **absent, **arguments)
    for name in (COMPONENTS[expert] for expert in options.card.experts):
        expert = _from_pretrained(
            WanTransformer3DModel, "transformer_model", options.transformer_model, subfolder=name, **arguments
        )
        pipe.register_modules(**{name: expert})
    _check_whole(pipe)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _load_parts(parts: Parts, dtype: torch.dtype, token: str | None) -> dict[str, Any]:
    classes = {"text_encoder": UMT5EncoderModel, "tokenizer": T5TokenizerFast, "vae": AutoencoderKLWan}
    loaded = {}
    for name, cls in classes.items():
        part = getattr(parts, name)
        typed = {} if name == "tokenizer" else {"dtype": dtype}
        loaded[name] = _from_pretrained(cls, name, part.checkpoint, subfolder=part.folder, token=token, **typed)
    return loaded


def _scheduler(card: ModelCard) -> UniPCMultistepScheduler:
    """Make the scheduler that the reference server and ai-toolkit's `get_train_scheduler` write down in code."""
    return UniPCMultistepScheduler(
        num_train_timesteps=card.train_timesteps,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=card.checkpoint_shift,
    )


def expert_files(transformer_model: str, expert: Expert) -> dict[str, Path]:
    """Find the safetensors file of each parameter of an expert that `load_pipeline` has loaded, by name.

    Raises:
        ConfigurationInvalid: the expert did not come from safetensors files.
    """
    folder = COMPONENTS[expert]
    index = _local_file(transformer_model, folder, SAFE_WEIGHTS_INDEX_NAME)
    if index is not None:
        files: dict[str, str] = json.loads(read_regular(index, limit=_INDEX_BYTES))["weight_map"]
        return {name: index.parent / file for name, file in files.items()}
    weights = _local_file(transformer_model, folder, SAFETENSORS_WEIGHTS_NAME)
    if weights is None:
        raise ConfigurationInvalid(f"transformer_model: '{transformer_model}' has no safetensors files for {folder}")
    with safe_open(weights, framework="pt") as file:
        return dict.fromkeys(file.keys(), weights)


def settle_cpu() -> None:
    """Use half of the cores (with few cores, leave one free for the API), and disable AMX.

    AMX adds bfloat16 products in another order. This changed a tiny video by up to 2.8 of 255, while AVX-512 with and
    without bfloat16 instructions agree. oneDNN reads the variable at its first computation.
    """
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")


def local_folder(checkpoint: str, folder: str) -> Path | None:
    """Find the folder of a component in a directory, or in a hub repository as the cache has it; None: not here."""
    try:
        config = _local_file(checkpoint, folder, "config.json")
    except HFValidationError:  # no name of a repository; loading it says so
        return None
    return None if config is None else config.parent


def _local_file(checkpoint: str, folder: str, name: str) -> Path | None:
    """Find a file of a directory, or of a hub repository as the cache has it."""
    if Path(checkpoint).is_dir():
        path = Path(checkpoint, folder, name)
        return path if path.is_file() else None
    cached = try_to_load_from_cache(checkpoint, f"{folder}/{name}".lstrip("/"))
    return Path(cached) if isinstance(cached, str) else None


def _from_pretrained(cls: Any, arg: str, checkpoint: str, **options: Any) -> Any:
    try:
        return cls.from_pretrained(checkpoint, **options)
    except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # no fault of the checkpoint: another try, or another GPU, may do
    except Exception as error:  # each library, and each file, has errors of its own for what is absent or malformed
        reason = " ".join(str(error).split())[:_REASON] or type(error).__name__
        raise ConfigurationInvalid(f"{arg}: cannot load '{checkpoint}': {reason}") from error


def _check_whole(pipe: Any) -> None:
    """Raise ConfigurationInvalid if a parameter got no values: the libraries only warn of weights that are missing."""
    for part in ("text_encoder", "vae", *COMPONENTS.values()):
        module = getattr(pipe, part, None)
        absent = [name for name, value in module.named_parameters() if value.is_meta] if module is not None else []
        if absent:
            raise ConfigurationInvalid(
                f"{part} of the checkpoint lacks {absent[0]} and {len(absent) - 1} more weights; download it again"
            )
