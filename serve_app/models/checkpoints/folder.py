"""Checkpoint folders in diffusers' layout: whether each component can be loaded, before anything is started.

Example:
    check_base("base_model", Path("/models/wan22"), card)  # text encoder, tokenizer, VAE, scheduler
    check_experts("transformer_model", Path("/models/wan22"), card)
    check_text_width("transformer_model", base, experts, card)
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from serve_app.errors import ConfigurationInvalid
from serve_app.files import read_regular
from serve_app.models.architecture import WanArchitecture
from serve_app.models.card import ModelCard
from serve_app.models.checkpoints.autoencoder import autoencoder_weights
from serve_app.models.checkpoints.configs import AutoencoderConfig, ExpertConfig, SchedulerConfig, TextEncoderConfig
from serve_app.models.checkpoints.text_encoder import EMBEDDING, text_encoder_weights
from serve_app.models.checkpoints.weights import check_weights, read_weights
from serve_app.settings import wrong_values

EXPERT_FOLDERS = ("transformer", "transformer_2")  # of a checkpoint in diffusers' layout, the first for one expert

_WAN_PIPELINE = "deployments.wan.runtime:WanRuntime"  # of cards whose components are known here
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_JSON_BYTES = 64 << 20
_MODEL_INDEX = "model_index.json"
_CLASSES = {
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
}
_DIFFUSERS, _TRANSFORMERS = "diffusion_pytorch_model", "model"  # the names of their weight files

_Read = TypeVar("_Read", bound=BaseModel)


def check_base(arg: str, checkpoint: Path, card: ModelCard) -> None:
    """Check everything but the experts of a checkpoint directory; a hub id is not checked.

    Raises:
        ConfigurationInvalid: a file is missing, damaged, truncated, or of another model; the message names `arg` and
            the file.
    """
    if not _is_folder(arg, checkpoint):
        return
    named = _components(arg, checkpoint)
    if not _is_wan(card):
        for part in sorted(named):
            read_weights(arg, _part(arg, checkpoint, part))
        return
    checks: dict[str, Callable[[str, Path, ModelCard], object]] = {
        "text_encoder": _check_text_encoder,
        "tokenizer": _check_tokenizer,
        "vae": _check_autoencoder,
        **({"scheduler": _check_scheduler} if card.ships_scheduler else {}),
    }
    for part, check in checks.items():
        if part not in named:
            raise ConfigurationInvalid(
                f"{arg}: {checkpoint / _MODEL_INDEX} names no {part}; download the checkpoint again"
            )
        if named[part] != (classes := _CLASSES.get(part, named[part])):
            raise ConfigurationInvalid(
                f"{arg}: {checkpoint / _MODEL_INDEX} names another class for {part} than {classes}; it is of another "
                "model, or damaged"
            )
        check(arg, _part(arg, checkpoint, part), card)


def check_experts(arg: str, checkpoint: Path, card: ModelCard) -> None:
    """Check the experts of a checkpoint directory; a hub id is not checked. Raise ConfigurationInvalid as `check_base`.

    They must have the latents of the card, and one architecture, because the LoRAs of a pair are for both.
    """
    if not _is_folder(arg, checkpoint):
        return
    folders = [_part(arg, checkpoint, part) for part in EXPERT_FOLDERS[: len(card.experts)]]
    if not _is_wan(card):
        for folder in folders:
            read_weights(arg, folder)
        return
    found = [_check_expert(arg, folder, card) for folder in folders]
    if found[0] != found[-1]:
        raise ConfigurationInvalid(
            f"{arg}: {checkpoint}: {' and '.join(EXPERT_FOLDERS)} have different architectures; use both of one model"
        )


def check_text_width(arg: str, base: Path, experts: Path, card: ModelCard) -> None:
    """Check that the experts take what the text encoder gives, where both are directories that passed their checks.

    Raises:
        ConfigurationInvalid: they are of different models.
    """
    if not (_is_wan(card) and base.is_dir() and experts.is_dir()):
        return
    text = _config(arg, base / "text_encoder" / "config.json", TextEncoderConfig)
    expert = _config(arg, experts / EXPERT_FOLDERS[0] / "config.json", ExpertConfig)
    if text.d_model != expert.text_dim:
        raise ConfigurationInvalid(
            f"{arg}: the experts of {experts} take texts of width {expert.text_dim}, and the text encoder of {base} "
            f"gives {text.d_model}; use both of one model"
        )


def _is_folder(arg: str, checkpoint: Path) -> bool:
    if checkpoint.is_dir():
        return True
    if checkpoint.exists():
        raise ConfigurationInvalid(f"{arg}: {checkpoint} is no directory; name one, or a Hugging Face id")
    if not _HUB_ID.fullmatch(str(checkpoint)):
        raise ConfigurationInvalid(f"{arg}: {checkpoint} does not exist; name a directory or a Hugging Face id")
    return False


def _is_wan(card: ModelCard) -> bool:
    return card.pipeline == _WAN_PIPELINE


def _part(arg: str, checkpoint: Path, part: str) -> Path:
    folder = checkpoint / part
    if not folder.is_dir():
        raise ConfigurationInvalid(f"{arg}: {checkpoint} has no folder {part}; download the checkpoint again")
    return folder


def _components(arg: str, checkpoint: Path) -> dict[str, list[Any]]:
    """Return [library, class] of what model_index.json names, without experts, which come from elsewhere."""
    named = _object(arg, checkpoint / _MODEL_INDEX)
    # [null, null] for a component that this checkpoint does without.
    kept = {name: classes for name, classes in named.items() if isinstance(classes, list) and None not in classes}
    return {name: classes for name, classes in kept.items() if name not in EXPERT_FOLDERS}


def _check_expert(arg: str, folder: Path, card: ModelCard) -> WanArchitecture:
    config = _config(arg, folder / "config.json", ExpertConfig)
    found = WanArchitecture.from_config(config.model_dump(), card.title)
    wanted = card.architecture
    for name in ("in_channels", "out_channels", "patch_size"):
        if getattr(found, name) != getattr(wanted, name):
            raise ConfigurationInvalid(
                f"{arg}: {folder / 'config.json'} has {name} {getattr(found, name)}, and {card.title} has "
                f"{getattr(wanted, name)}; it is of another model"
            )
    check_weights(arg, folder, read_weights(arg, folder, _DIFFUSERS), found.parameters(), exactly=True)
    return found


def _check_autoencoder(arg: str, folder: Path, card: ModelCard) -> None:
    config = _config(arg, folder / "config.json", AutoencoderConfig)
    latents = card.latents
    if (config.z_dim, config.stride) != (latents.channels, tuple(latents.stride)):
        raise ConfigurationInvalid(
            f"{arg}: {folder / 'config.json'} makes latents of {config.z_dim} channels and strides {config.stride}, "
            f"and {card.title} has {latents.channels} and {tuple(latents.stride)}; it is of another model"
        )
    check_weights(arg, folder, read_weights(arg, folder, _DIFFUSERS), autoencoder_weights(config), exactly=True)


def _check_text_encoder(arg: str, folder: Path, _card: ModelCard) -> None:
    config = _config(arg, folder / "config.json", TextEncoderConfig)
    found = read_weights(arg, folder, _TRANSFORMERS)
    if EMBEDDING[1] in found:
        found.setdefault(EMBEDDING[0], found[EMBEDDING[1]])
    # A checkpoint may hold the decoder, too, which is not loaded.
    check_weights(arg, folder, found, text_encoder_weights(config), exactly=False)


def _check_tokenizer(arg: str, folder: Path, _card: ModelCard) -> None:
    """Check that the vocabulary is there, and has no more words than the text encoder beside it."""
    _object(arg, folder / "tokenizer_config.json")
    vocabulary = folder / "tokenizer.json"
    if not vocabulary.exists() and (folder / "spiece.model").is_file():
        return  # SentencePiece's own format, which transformers converts
    model = _object(arg, vocabulary).get("model")
    words = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(words, list | dict) or not words:
        raise ConfigurationInvalid(f"{arg}: {vocabulary} has no vocabulary; download the checkpoint again")
    most = _config(arg, folder.parent / "text_encoder" / "config.json", TextEncoderConfig).vocab_size
    if len(words) > most:
        raise ConfigurationInvalid(
            f"{arg}: {vocabulary} has {len(words)} words, and the text encoder {most}; use both of one checkpoint"
        )


def _check_scheduler(arg: str, folder: Path, _card: ModelCard) -> None:
    _config(arg, folder / "scheduler_config.json", SchedulerConfig)


def _config(arg: str, path: Path, kind: type[_Read]) -> _Read:
    try:
        return kind.model_validate(_object(arg, path))
    except ValidationError as error:
        problem = wrong_values(error, "config")
        raise ConfigurationInvalid(f"{arg}: {path}: {problem}; download the checkpoint again") from None


def _object(arg: str, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_regular(path, limit=_JSON_BYTES))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ConfigurationInvalid(f"{arg}: {path} is missing or damaged; download the checkpoint again")
    return found
