"""A quick summary of a LoRA file for lists, from its header and a few of its keys, in about a millisecond.

Example:
    seen = glance(path, {"wan22_14b_t2v": card.architecture}, most_header_bytes)
    seen.rank, seen.side, seen.models, seen.problem, seen.provenance.step

`parser` looks at every key and refuses what would not be applied, which takes a hundred times as long. A glance finds
what shows at once: no safetensors file, a file cut short, half of a layer missing, no place in any served model.
Otherwise `models` are those in which the keys that it looked at have their place.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from serve_app.errors import LoraInvalid
from serve_app.files import open_regular
from serve_app.loras.formats.bounds import in_turn, too_many_values
from serve_app.loras.formats.header import LENGTH_BYTES, header_bytes_needed
from serve_app.loras.formats.keys import Place, Role, find_place, lone_halves, split_key
from serve_app.loras.formats.metadata import Provenance, read_provenance
from serve_app.loras.refusals import KEY_LENGTH
from serve_app.models.architecture import Shape, WanArchitecture
from serve_app.spec import Expert

SideOfFile = Literal["high", "low", "both"]

_TELLING_BYTES = 512
_LOOKED_AT = 6  # keys with each beginning: both halves of three layers
_NO_PLACE = "no served model has a place for its tensors"
_BLOCKS = "blocks"  # what stands before it is the wrapper, which is the same for hundreds of keys


@dataclass(frozen=True, slots=True)
class Glance:
    """What a glance shows. Where there is a problem, no model can use the file, and `models` is empty."""

    rank: int | None = None  # of the first layer
    side: SideOfFile | None = None  # by its keys; most files only say it in their name
    models: tuple[str, ...] = ()  # ids
    provenance: Provenance = field(default_factory=Provenance)
    problem: str | None = None  # why no served model can use it, as far as a glance shows


@dataclass(frozen=True, slots=True)
class _Header:
    """A header as far as it can be read, and why it cannot be read further."""

    tensors: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    problem: str | None = None


def glance(path: Path, models: Mapping[str, WanArchitecture], most_header_bytes: int) -> Glance:
    """Return the summary of the file at `path`; `models` are the served ones, by their ids. Blocking.

    Raises:
        OSError: it cannot be opened or read.
    """
    header = _header(path, most_header_bytes)
    looked_at = list(_some(header.tensors))
    fitting = {
        model: places
        for model, architecture in models.items()
        if looked_at and all(places := [_placed(key, shape, architecture) for key, shape in looked_at])
    }
    first = next(iter(fitting.values()), [])
    problem = header.problem or _incomplete(header.tensors) or (None if fitting else _NO_PLACE)
    return Glance(
        rank=_rank(looked_at),
        side=_side([place for place in first if place is not None]),
        models=() if problem else tuple(fitting),
        provenance=read_provenance(header.metadata, ""),
        problem=problem,
    )


def _header(path: Path, most_bytes: int) -> _Header:
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(_TELLING_BYTES)
        try:
            needed = header_bytes_needed(head, size, path.name, most_bytes)
        except LoraInvalid as error:
            return _Header(problem=error.details["reason"])
        text = (head + stream.read(max(0, needed - len(head))))[LENGTH_BYTES:needed]
    with in_turn(needed):
        document = {} if too_many_values(text) else _object(text)
    if not document:
        return _Header(problem="its header cannot be read; export it again")
    metadata = document.pop("__metadata__", {})
    is_text = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    missing = max(map(_end, document.values()), default=0) - (size - needed)
    problem = f"{missing} bytes at its end are missing; download or copy it again" if missing > 0 else None
    return _Header(document, metadata if is_text else {}, problem)


def _object(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _end(tensor: object) -> int:
    """Return where the data of a tensor ends, by its entry; 0 if the entry is none."""
    match tensor:
        case {"data_offsets": [int(), int() as end]}:
            return end
    return 0


def _incomplete(tensors: Mapping[str, Any]) -> str | None:
    lone = lone_halves(tensors)
    if not lone:
        return None
    first = lone[0][:KEY_LENGTH]
    return f"the other half of {first} is missing (first of {len(lone)} tensors); export it again"


def _some(tensors: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    """Yield a few keys with each wrapper, and all outside the blocks, in which members of one family differ."""
    counts: dict[str, int] = {}
    for key, value in tensors.items():
        wrapper, blocks, _ = key.partition(_BLOCKS)
        if blocks:
            counts[wrapper] = counts.get(wrapper, 0) + 1
            if counts[wrapper] > _LOOKED_AT:
                continue
        shape = value.get("shape") if isinstance(value, dict) else None
        whole = isinstance(shape, list) and all(type(size) is int for size in shape)
        yield key, tuple(shape) if whole and shape else ()


def _placed(key: str, shape: Shape, architecture: WanArchitecture) -> Place | None:
    """Return the place of a tensor in a model; None if it has none, or another size."""
    split = split_key(key)
    place = None if split is None else find_place(split[0], architecture)
    if split is None or place is None:
        return None
    expected = place.module.shape
    sized = {
        Role.DOWN: shape[1:] == expected[1:],
        Role.UP: shape[:1] == expected[:1],
        Role.DIFFERENCE: shape == expected,
    }
    return place if sized.get(split[1], True) else None


def _rank(looked_at: Iterable[tuple[str, Shape]]) -> int | None:
    downs = (shape[0] for key, shape in looked_at if shape and (split := split_key(key)) and split[1] is Role.DOWN)
    return next(downs, None)


def _side(places: Iterable[Place]) -> SideOfFile | None:
    """Return the side that wrappers name; a pipeline calls its two experts `transformer` and `transformer_2`."""
    found = list(places)
    named = {place.expert for place in found if place.expert is not None}
    has_first = {place.wrapper for place in found} & {place.first_of for place in found if place.first_of is not None}
    if len(named) > 1 or has_first:
        return "both"
    return None if not named else "high" if Expert.HIGH in named else "low"
