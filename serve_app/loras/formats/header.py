"""Safetensors header: a strict reader, which never touches the data of the tensors.

Format: 8 bytes little-endian header length, the header (a JSON object in UTF-8), then the data of all tensors without a
gap. Source: https://github.com/huggingface/safetensors, README "Format" and `Metadata::validate` in its tensor.rs. This
reader refuses all that the library refuses, and also repeated names, which the library merges silently.

A file that is no safetensors file is refused with the name of its real format, recognised by its first bytes.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from serve_app.files import open_regular
from serve_app.loras.formats.bounds import (
    DEFAULT_HEADER_BYTES,
    LIBRARY_HEADER_BYTES,
    MOST_TENSORS,
    in_turn,
    too_many_values,
)
from serve_app.loras.formats.dtypes import BITS
from serve_app.loras.formats.magic import describe_wrong_format
from serve_app.loras.refusals import invalid

_TOO_MUCH = "its header holds far more tensors or metadata than a LoRA of this model; export it again"
LENGTH_BYTES = 8
_TELLING_BYTES = 512  # enough to name the format of a file that is no safetensors file
MAX_ELEMENTS = 2**48  # of a tensor, and of any dimension; the library stops if a 64-bit product overflows


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: its dtype as the format spells it, its shape, and its bytes [start, end) within the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


Tensors = dict[str, TensorInfo]
"""Tensors by their keys."""


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What a header says. `data_offset` and `file_size` are bytes; tensors stand in the order of their data."""

    tensors: Tensors
    metadata: dict[str, str]
    data_offset: int
    file_size: int


def read_header(path: Path, name: str, most_bytes: int = DEFAULT_HEADER_BYTES) -> SafetensorsHeader:
    """Open the file at `path` and read its header; see `read_header_of`."""
    with open_regular(path) as stream:
        return read_header_of(stream, name, most_bytes)


def read_header_of(stream: BufferedReader, name: str, most_bytes: int = DEFAULT_HEADER_BYTES) -> SafetensorsHeader:
    """Read and check the header of the file behind `stream`, which is at its start; errors call the file `name`.

    It reads no header longer than `most_bytes`, and allocates no more than the size of the file. The position of
    `stream` is undefined afterwards.

    Raises:
        LoraInvalid: the file is not a complete, well-formed safetensors file; the reason says what it looks like.
        OSError: the file cannot be opened or read.
    """
    size = os.fstat(stream.fileno()).st_size
    head = stream.read(_TELLING_BYTES)
    missing = header_bytes_needed(head, size, name, most_bytes) - len(head)
    return parse_header(head + stream.read(max(missing, 0)), size, name, most_bytes)


def header_bytes_needed(head: bytes, file_size: int, name: str, most_bytes: int = DEFAULT_HEADER_BYTES) -> int:
    """Return how many bytes from the start of a file `parse_header` needs: 8 and the length of the header.

    `head` is the beginning of the file: 8 bytes are enough, a few hundred identify a wrong format better. `file_size`
    is bytes.

    Raises:
        LoraInvalid: no safetensors file begins like this, or its header is longer than `most_bytes`; the reason says
            what it looks like.
    """
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    fits = 0 < length <= most_bytes and LENGTH_BYTES + length <= file_size
    if len(head) < LENGTH_BYTES or not fits or head[LENGTH_BYTES:][:1] not in (b"", b"{"):
        # After the checks above, because the length of a valid file may look like the magic number of another format.
        raise invalid(name, describe_wrong_format(head) or _describe_length(length, file_size, most_bytes))
    return LENGTH_BYTES + length


def parse_header(head: bytes, file_size: int, name: str, most_bytes: int = DEFAULT_HEADER_BYTES) -> SafetensorsHeader:
    """Parse the header of a file of `file_size` bytes that begins with `head`; bytes after the header are ignored.

    Raises:
        LoraInvalid: the file cannot be a complete, well-formed safetensors file, or `head` is shorter than its header.
    """
    data_offset = header_bytes_needed(head, file_size, name, most_bytes)
    try:
        with in_turn(data_offset):
            return _parse(_RawHeader(head[LENGTH_BYTES:data_offset], data_offset), file_size)
    except _Malformed as error:
        raise invalid(name, str(error)) from error


class _Malformed(Exception):
    """The header is malformed; `str` is the reason. `parse_header` adds the file's name."""


@dataclass(frozen=True, slots=True)
class _RawHeader:
    json: bytes
    data_offset: int


def _describe_length(length: int, size: int, most_bytes: int) -> str:
    if size < LENGTH_BYTES:
        return f"it has only {size} bytes, too few for a safetensors file; download or copy it again"
    if length > LIBRARY_HEADER_BYTES:
        return f"it is not a safetensors file (its header would be {length} bytes long); download or export it again"
    if length > most_bytes:
        return f"its header has {length} bytes, and this service reads at most {most_bytes}; export it without metadata"
    if LENGTH_BYTES + length > size:
        missing = LENGTH_BYTES + length - size
        return f"it ends within its header, at least {missing} bytes are missing; download or copy it again"
    return "it is not a safetensors file (its header is no JSON object); download or export it again"


def _parse(raw: _RawHeader, size: int) -> SafetensorsHeader:
    document = _decode(raw.json)
    metadata = _metadata(document.pop("__metadata__", {}))
    tensors = {name: _tensor(name, value) for name, value in document.items()}
    in_order = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)))
    _check_coverage(in_order, size - raw.data_offset)
    return SafetensorsHeader(in_order, metadata, raw.data_offset, size)


def _decode(text: bytes) -> dict[str, Any]:
    if too_many_values(text):
        raise _Malformed(_TOO_MUCH)
    try:
        # Only an escape can spell a character that UTF-8 has not.
        document = json.loads(text.decode(), object_pairs_hook=_unique_utf8 if b"\\u" in text else _unique)
    except RecursionError as error:
        raise _Malformed("its header is nested too deeply; export it again") from error
    except ValueError as error:  # not UTF-8, not JSON, or a number too long to be one
        raise _Malformed(f"its header is not JSON in UTF-8 ({error}); download or export it again") from error
    if type(document) is not dict:
        raise _Malformed("its header is no JSON object; download or export it again")
    if len(document) > MOST_TENSORS + 1:  # with the metadata
        raise _Malformed(_TOO_MUCH)
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise _Malformed(f"its header names {twice[:200]!r} twice; export it again")
    return found


def _unique_utf8(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for pair in pairs:
        for text in pair:
            if isinstance(text, str):
                text.encode()  # a lone surrogate is a ValueError
    return _unique(pairs)


def _metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _Malformed("its __metadata__ is no object of strings; export it again")
    return value


def _tensor(name: str, value: object) -> TensorInfo:
    what = f"its header entry for {name[:200]!r}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _Malformed(f"{what} does not consist of dtype, shape and data_offsets; export it again")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _Malformed(f"{what} has the unknown dtype {str(dtype)[:50]!r}; export it as F16, BF16 or F32")
    if not _is_naturals(shape) or not _is_naturals(offsets) or len(offsets) != len(("start", "end")):
        raise _Malformed(f"{what} has a shape or data_offsets that are no natural numbers; export it again")
    info = TensorInfo(dtype, tuple(shape), offsets[0], offsets[1])
    if _elements(what, info.shape) * BITS[dtype] != (info.end - info.start) * 8:
        raise _Malformed(
            f"{what} gives {info.end - info.start} bytes to {dtype} of shape {str(list(shape))[:100]}; export it again"
        )
    return info


def _is_naturals(value: object) -> bool:
    # `type` and not isinstance: True is an int in Python. In C and not in a generator: a hostile header has thousands.
    return isinstance(value, list) and set(map(type, value)) <= {int} and min(value, default=0) >= 0


def _elements(what: str, shape: tuple[int, ...]) -> int:
    count = 1
    for dimension in shape:
        count *= dimension
        if max(count, dimension) > MAX_ELEMENTS:
            raise _Malformed(f"{what} has a shape of more than 2^48 elements; export it again")
    return count


def _check_coverage(tensors: Mapping[str, TensorInfo], data_size: int) -> None:
    """Raise _Malformed unless every byte of the data belongs to exactly one tensor, so that nothing hides in it."""
    position = 0
    for name, info in tensors.items():
        if info.start != position:
            fault = "overlaps the tensor before it" if info.start < position else "leaves a gap before it"
            raise _Malformed(f"tensor {name[:200]!r} {fault}; export it again")
        position = info.end
    if position > data_size:
        raise _Malformed(f"{position - data_size} bytes at its end are missing; download or copy it again")
    if position < data_size:
        raise _Malformed(f"it has {data_size - position} bytes after its last tensor; download or export it again")
