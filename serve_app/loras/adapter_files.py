"""PEFT's `adapter_config.json` beside a LoRA file: the scales that `save_pretrained` does not write into the file.

Example:
    beside = local("folder/adapter_model.safetensors", lora_root)       # an AdapterFile, or None
    beside = parsed(text, "adapter_model.safetensors", "hf://org/repository/adapter_model.safetensors")
"""

import os
from pathlib import Path, PurePosixPath

from serve_app.errors import LoraNotFound, LoraPathRefused
from serve_app.files import open_regular
from serve_app.loras import paths
from serve_app.loras.formats import Layout, LoraContents, LowRank
from serve_app.loras.formats.adapter_config import ADAPTER_FILE, AdapterFile, MetadataUnusable, shortened
from serve_app.loras.refusals import invalid

MOST_BYTES = 1 << 20  # PEFT lists every layer by name in target_modules
_PEFT_NAME = "adapter_model"  # what `save_pretrained` calls the file


def local(reference: str, root: Path) -> AdapterFile | None:
    """Return the adapter config in the folder of the file that `reference` names in `root`; None if there is none.

    It certainly belongs to the file if the file has PEFT's name, or is the only LoRA in the folder.

    Raises:
        LoraInvalid: it cannot be read as an adapter_config.json.
        OSError: the storage failed.
    """
    path = PurePosixPath(reference)
    if not os.path.lexists(root / path.with_name(ADAPTER_FILE)):  # as a rule: no path has to be resolved
        return None
    try:
        config = paths.resolve(str(path.with_name(ADAPTER_FILE)), root)
    except (LoraNotFound, LoraPathRefused):
        return None
    return beside_path(config, path.name, reference)


def beside_path(config: Path, file_name: str, name: str) -> AdapterFile | None:
    """Return what the file `config` says about the scales of `file_name` in its folder; None if it does not exist.

    `name` is how errors call the LoRA file.

    Raises:
        LoraInvalid, OSError: as `local`.
    """
    if not config.is_file():
        return None
    with open_regular(config) as stream:
        text = stream.read(MOST_BYTES + 1)
    loras = [path for path in config.parent.iterdir() if path.suffix.lower() == ".safetensors"]
    return parsed(text, file_name, name, alone=len(loras) == 1)


def wanted(file_name: str, contents: LoraContents) -> bool:
    """Return whether a file may have its scales in a file beside it, by its header alone."""
    unscaled = any(
        change.alpha is None and change.scale is None for change in contents.changes() if isinstance(change, LowRank)
    )
    return unscaled and (contents.layout is Layout.PEFT or file_name.startswith(_PEFT_NAME))


def parsed(text: bytes, file_name: str, name: str, *, alone: bool = False) -> AdapterFile:
    """Return the scales in the text of an adapter_config.json beside `file_name`; errors call the file `name`.

    Raises:
        LoraInvalid: the text is no valid adapter config.
    """
    try:
        if len(text) > MOST_BYTES:
            raise MetadataUnusable(f"the {ADAPTER_FILE} beside it is larger than {MOST_BYTES} bytes")
        short = shortened(text.decode())
    except UnicodeDecodeError as error:
        raise invalid(name, f"the {ADAPTER_FILE} beside it is not UTF-8; export both again") from error
    except MetadataUnusable as error:
        raise invalid(name, f"{error}; export both again") from error
    return AdapterFile(short, certain=alone or file_name.startswith(_PEFT_NAME))
