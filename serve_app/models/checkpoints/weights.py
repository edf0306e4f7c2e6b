"""Weights of a component (safetensors): which files hold them, and whether they are the ones its config asks for.

Only headers are read.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from serve_app.errors import ConfigurationInvalid
from serve_app.files import open_regular, read_regular
from serve_app.models.architecture import Shape

_INDEX_BYTES = 64 << 20
_SUFFIX = ".safetensors"
_LISTED = 3  # names in an error
_DTYPES = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}

Weights = dict[str, Shape]
"""Shapes of tensors by their names."""


def read_weights(arg: str, folder: Path, stem: str = "*") -> Weights:
    """Return the shapes of all tensors in the safetensors files of a component.

    These are the files that `<stem>.safetensors.index.json` names or, without one, `<stem>.safetensors`. Each must be
    as long as its header says, and hold what the index says.

    Raises:
        ConfigurationInvalid: a file or an index is missing, damaged or truncated; the message names `arg` and the file.
    """
    placed = _index(arg, folder, f"{stem}{_SUFFIX}.index.json")
    paths = sorted(set(placed.values()) or folder.glob(f"{stem}{_SUFFIX}"))
    files = {path: _read(arg, path) for path in paths}
    for name, file in placed.items():
        if name not in files[file]:
            raise ConfigurationInvalid(
                f"{arg}: {file} has no {_cut(name)}, which the index beside it places there; download both again"
            )
    return {name: shape for shapes in files.values() for name, shape in shapes.items()}


def check_weights(arg: str, folder: Path, found: Weights, wanted: Mapping[str, Shape], *, exactly: bool) -> None:
    """Check that a component has all weights that its config asks for and, with `exactly`, no others.

    Raises:
        ConfigurationInvalid: one is missing, too many, or of another shape; the message names `arg` and the folder.
    """
    if not found:
        raise ConfigurationInvalid(f"{arg}: {folder} has no safetensors files; download the checkpoint again")
    for name, shape in wanted.items():
        if found.get(name, shape) != shape:
            raise ConfigurationInvalid(
                f"{arg}: {folder}: {name} has the shape {list(found[name])}, and its config asks for {list(shape)}; "
                "use config and weights of one checkpoint"
            )
    _none_of(arg, folder, "lacks", [name for name in wanted if name not in found])
    if exactly:
        _none_of(arg, folder, "has", [name for name in found if name not in wanted])


def _none_of(arg: str, folder: Path, verb: str, names: list[str]) -> None:
    if not names:
        return
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    which = "which its config asks for" if verb == "lacks" else "which the model has no place for"
    raise ConfigurationInvalid(
        f"{arg}: {folder} {verb} {', '.join(map(_cut, sorted(names)[:_LISTED]))}{more}, {which}; use config "
        "and weights of one checkpoint"
    )


def _cut(name: str) -> str:
    return name[:100]


def _index(arg: str, folder: Path, pattern: str) -> dict[str, Path]:
    """Return the file of each tensor that an index places; nothing without an index."""
    placed: dict[str, Path] = {}
    for index in folder.glob(pattern):
        try:
            named: dict[str, str] = json.loads(read_regular(index, limit=_INDEX_BYTES))["weight_map"]
            own = {name: folder / file for name, file in named.items() if file and Path(file).name == file}
            is_index = 0 < len(named) == len(own)
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
            is_index = False
        if not is_index:
            raise ConfigurationInvalid(f"{arg}: {index} is no index of weights; download it again")
        placed |= own
    return placed


def _read(arg: str, file: Path) -> Weights:
    try:
        open_regular(file).close()  # safetensors would wait at a FIFO
        with safe_open(file, framework="numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
            odd = [name for name, tensor in slices.items() if tensor.get_dtype() not in _DTYPES]
            shapes = {name: tuple(tensor.get_shape()) for name, tensor in slices.items()}
    except FileNotFoundError:
        raise ConfigurationInvalid(f"{arg}: {file} is missing; download it again") from None
    except (SafetensorError, OSError) as error:
        raise ConfigurationInvalid(f"{arg}: {file} is damaged or cut off ({error}); download it again") from None
    if odd:
        raise ConfigurationInvalid(f"{arg}: {file}: {_cut(odd[0])} holds no floating-point numbers; download it again")
    return shapes
