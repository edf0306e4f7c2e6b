"""A glance at a LoRA file: what a list shows of it, from its header and a few of its keys, in about a millisecond.

Example:
    seen = glance(path, {"wan22_14b_t2v": card.architecture}, most_header_bytes)
    seen.rank, seen.side, seen.models, seen.provenance.step

`parser` looks at every key and refuses what would not be applied, which takes a hundred times as long. A glance refuses
nothing: `models` are those in which the keys that it looked at have their place.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from serve_app.errors import LoraInvalid
from serve_app.files import open_regular
from serve_app.loras.formats.bounds import in_turn, too_many_values
from serve_app.loras.formats.header import LENGTH_BYTES, header_bytes_needed
from serve_app.loras.formats.keys import Place, Role, find_place, split_key
from serve_app.loras.formats.metadata import Provenance, read_provenance
from serve_app.models.architecture import Shape, WanArchitecture
from serve_app.spec import Expert

SideOfFile = Literal["high", "low", "both"]

_TELLING_BYTES = 512
_LOOKED_AT = 6  # keys with each beginning: both halves of three layers
_BLOCKS = "blocks"  # what stands before it is the wrapper, which is the same for hundreds of keys


@dataclass(frozen=True, slots=True)
class Glance:
    """What a glance shows. All of it is empty for a file that is no LoRA of a served model."""

    rank: int | None = None  # of the first layer
    side: SideOfFile | None = None  # that its keys name; most files leave it to their name
    models: tuple[str, ...] = ()  # ids
    provenance: Provenance = field(default_factory=Provenance)


def glance(path: Path, models: Mapping[str, WanArchitecture], most_header_bytes: int) -> Glance:
    """Return what the file at `path` looks like; `models` are the served ones, by their ids. Blocking.

    Raises:
        OSError: it cannot be opened or read.
    """
    tensors, metadata = _header(path, most_header_bytes)
    looked_at = list(_some(tensors))
    fitting = {
        model: places
        for model, architecture in models.items()
        if looked_at and all(places := [_placed(key, shape, architecture) for key, shape in looked_at])
    }
    first = next(iter(fitting.values()), [])
    return Glance(
        rank=_rank(looked_at),
        side=_side([place for place in first if place is not None]),
        models=tuple(fitting),
        provenance=read_provenance(metadata, ""),
    )


def _header(path: Path, most_bytes: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the tensors and the metadata of a header, unchecked; nothing where it is none."""
    with open_regular(path) as stream:
        head = stream.read(_TELLING_BYTES)
        try:
            needed = header_bytes_needed(head, path.stat().st_size, path.name, most_bytes)
        except LoraInvalid:
            return {}, {}
        text = (head + stream.read(max(0, needed - len(head))))[LENGTH_BYTES:needed]
    with in_turn(needed):
        if too_many_values(text):
            return {}, {}
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return {}, {}
    if not isinstance(document, dict):
        return {}, {}
    metadata = document.pop("__metadata__", {})
    is_text = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    return document, metadata if is_text else {}


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
    """Return the place of a tensor in a model; None where it has none, or another size."""
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
