"""Paths of LoRAs inside `lora_root`: the traversal guard of `serve_app.paths`, worded for LoRAs."""

from pathlib import Path

from serve_app.errors import LoraNotFound, LoraPathRefused, RequestError
from serve_app.paths import PathForbidden, PathMissing, Root
from serve_app.paths import unreadable as fault_of


def resolve(reference: str, root: Path) -> Path:
    """Return the regular file under `root` that `reference` names; see `serve_app.paths.Root.resolve`.

    Raises:
        LoraPathRefused: it leads out of root, or is not a relative path to a regular file.
        LoraNotFound: nothing is there. No error tells where root lies.
    """
    loras = Root(root, arg="lora_root", wanted="the .safetensors file", example="my_lora_high_noise.safetensors")
    try:
        return loras.resolve(reference)
    except (PathForbidden, PathMissing) as fault:
        raise _worded(reference, fault) from fault


def unreadable(reference: str, error: OSError) -> RequestError:
    """Return the error for a file that cannot be opened; raise `error` again where it is not about the file."""
    return _worded(reference, fault_of(error))


def _worded(reference: str, fault: PathForbidden | PathMissing) -> RequestError:
    if isinstance(fault, PathMissing):
        return LoraNotFound(f"LoRA file(s) not found: {[reference]}", {"missing_files": [reference]})
    sendable = reference.encode(errors="backslashreplace").decode()  # an answer with a lone surrogate has no UTF-8
    return LoraPathRefused(f"LoRA path {reference!r} is refused: {fault}", {"path": sendable})
