"""Candidates: which file of a repository is meant when only the repository is named."""

from collections.abc import Sequence

from serve_app.errors import LoraPathRefused
from serve_app.loras.sides import files_for
from serve_app.spec import Expert

_SHOWN = 20


def choose(files: Sequence[str], expert: Expert | None, name: str) -> str:
    """Return the only LoRA file among a repository's `files`, or the only one for `expert` by the side rule.

    Raises:
        LoraPathRefused: none can be told from the others; details: `candidates`, the first 20.
    """
    candidates = sorted(file for file in files if file.lower().endswith(".safetensors"))
    for fitting in (candidates, files_for(expert, candidates) if expert else []):
        if len(fitting) == 1:
            return fitting[0]
    reason = "no .safetensors file is in the repository"
    if candidates:
        reason = f"{len(candidates)} files are in the repository; add one of them to the path: "
        reason += ", ".join(candidates[:_SHOWN])
    raise LoraPathRefused(f"LoRA path {name!r} is refused: {reason}", {"path": name, "candidates": candidates[:_SHOWN]})
