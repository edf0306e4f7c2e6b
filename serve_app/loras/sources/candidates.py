"""Which file of a repository is meant when only the repository is named."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from serve_app.errors import LoraPathRefused
from serve_app.spec import PAIR, Expert

_SHOWN = 20
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Whole words: "flow" and "highres" say nothing about an expert.
_WORDS = {side: re.compile(rf"(?<![a-z]){side.value}(?:(?![a-z])|(?=noise))") for side in PAIR}


def choose(files: Sequence[str], expert: Expert | None, name: str) -> str:
    """The only LoRA file among a repository's `files`, or the only one whose name says `expert`.

    Raises:
        LoraPathRefused: none can be told from the others; details: `candidates`, the first 20.
    """
    candidates = sorted(file for file in files if file.lower().endswith(".safetensors"))
    for fitting in (candidates, [file for file in candidates if _says(file) is expert and expert is not None]):
        if len(fitting) == 1:
            return fitting[0]
    reason = "no .safetensors file is in the repository"
    if candidates:
        reason = f"{len(candidates)} files are in the repository; add one of them to the path: "
        reason += ", ".join(candidates[:_SHOWN])
    raise LoraPathRefused(f"LoRA path {name!r} is refused: {reason}", {"path": name, "candidates": candidates[:_SHOWN]})


def _says(file: str) -> Expert | None:
    """The expert that the file's name speaks of, else its folder's."""
    path = PurePosixPath(file)
    for text in (path.stem, str(path.parent)):
        words = _CAMEL.sub("_", text).lower()
        said = [side for side, word in _WORDS.items() if word.search(words)]
        if len(said) == 1:
            return said[0]
    return None
