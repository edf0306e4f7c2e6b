"""Checkpoint folders on disk: whether they are complete, without loading them."""

import json
import re
from collections.abc import Collection
from pathlib import Path

from safetensors import SafetensorError, safe_open

from serve_app.errors import ConfigurationInvalid
from serve_app.files import open_regular, read_regular

EXPERT_FOLDERS = ("transformer", "transformer_2")  # of a checkpoint in diffusers' layout, the first for one expert

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_INDEX_BYTES = 64 << 20
_MODEL_INDEX = "model_index.json"
_WEIGHT_INDEX = "*.safetensors.index.json"


def check_checkpoint(arg: str, checkpoint: Path, *, experts: int = 0) -> None:
    """Check a checkpoint directory in diffusers' layout; anything else counts as a hub id and is not checked.

    It must have the folders of `experts` experts or, without experts, of every other component in model_index.json.
    Every safetensors file in them, and every file that an index names, must be as long as its header says. Only headers
    are read.

    Raises:
        ConfigurationInvalid: a file is missing, damaged or truncated; the message names `arg` and the file.
    """
    if not checkpoint.is_dir():
        if checkpoint.exists():
            raise ConfigurationInvalid(f"{arg}: {checkpoint} is no directory; name one, or a Hugging Face id")
        if not _HUB_ID.fullmatch(str(checkpoint)):
            raise ConfigurationInvalid(f"{arg}: {checkpoint} does not exist; name a directory or a Hugging Face id")
        return
    for part in EXPERT_FOLDERS[:experts] if experts else _components(arg, checkpoint):
        folder = checkpoint / part
        if not folder.is_dir():
            raise ConfigurationInvalid(f"{arg}: {checkpoint} has no folder {part}; download the checkpoint again")
        _check_config(arg, folder)
        for file in _weights(arg, folder):
            _check_weights(arg, file)


def _check_config(arg: str, folder: Path) -> None:
    """Check that the component says what it is. Tokenizers and processors have files of other names."""
    names = {
        "scheduler": "scheduler_config.json",
        **dict.fromkeys((*EXPERT_FOLDERS, "text_encoder", "vae"), "config.json"),
    }
    if folder.name not in names:
        return
    config = folder / names[folder.name]
    try:
        is_object = isinstance(json.loads(read_regular(config, limit=_INDEX_BYTES)), dict)
    except (OSError, ValueError):
        is_object = False
    if not is_object:
        raise ConfigurationInvalid(f"{arg}: {config} is missing or damaged; download the checkpoint again")


def _components(arg: str, checkpoint: Path) -> list[str]:
    """Return the folders that model_index.json names, without experts, which come from elsewhere."""
    index = checkpoint / _MODEL_INDEX
    try:
        named = json.loads(read_regular(index, limit=_INDEX_BYTES))
        # [library, class]; [null, null] for a component that this checkpoint does without.
        kept = {name for name, classes in named.items() if isinstance(classes, list) and None not in classes}
        return sorted(kept - set(EXPERT_FOLDERS))
    except (OSError, ValueError, AttributeError):
        raise ConfigurationInvalid(f"{arg}: {index} is missing or damaged; download the checkpoint again") from None


def _weights(arg: str, folder: Path) -> Collection[Path]:
    files = set(folder.glob("*.safetensors"))
    for index in folder.glob(_WEIGHT_INDEX):
        try:
            named = set(json.loads(read_regular(index, limit=_INDEX_BYTES))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            raise ConfigurationInvalid(f"{arg}: {index} is no index of weights; download it again") from None
        files |= {folder / name for name in named}
    return files


def _check_weights(arg: str, file: Path) -> None:
    try:
        open_regular(file).close()  # safetensors would wait at a FIFO
        with safe_open(file, framework="numpy"):
            pass
    except FileNotFoundError:
        raise ConfigurationInvalid(f"{arg}: {file} is missing; download it again") from None
    except (SafetensorError, OSError) as error:
        raise ConfigurationInvalid(f"{arg}: {file} is damaged or cut off ({error}); download it again") from None
