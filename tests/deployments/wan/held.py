"""The files of LoRAs as a Generator holds them for its pipeline."""

import atexit
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from serve_app.loras.cache import LoraCache
from serve_app.loras.files import LoraFiles, LoraOnDisk
from serve_app.loras.library import LoraLibrary
from serve_app.loras.sources import LoraSources, SourcePolicy
from serve_app.models.architecture import WanArchitecture
from serve_app.spec import LoraFile


@contextmanager
def held(loras: Iterable[LoraFile], config: Mapping[str, Any], *, strict: bool) -> Iterator[dict[str, LoraOnDisk]]:
    """Hold local files, for an expert with that config.json, while the block runs."""
    files = lora_files(WanArchitecture.from_config(config, "Wan 2.2 T2V A14B"))
    with ExitStack() as holding:
        yield {lora.content: holding.enter_context(files.hold(lora, strict=strict, token=None)) for lora in loras}


@cache
def lora_files(architecture: WanArchitecture) -> LoraFiles:
    """Return what a Generator asks for files, with an empty cache of downloads."""
    directory = tempfile.TemporaryDirectory()
    atexit.register(directory.cleanup)
    root = Path(directory.name)
    return LoraFiles(LoraSources(root, SourcePolicy(), LoraCache(root, 0)), LoraLibrary(root, architecture))
