"""Resource limits on a safetensors header: what is refused before it is downloaded, and before it is parsed.

A header is bounded in bytes by its announced length (the file's first eight bytes), and in values by counting them.
Long headers are parsed one at a time, so that at most one thread competes for the global interpreter lock (GIL).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from serve_app.json_bounds import json_size

DEFAULT_HEADER_BYTES = 8 << 20
"""Full-size files have about half a megabyte; trainers that list the tags of every image, some megabytes."""

LIBRARY_HEADER_BYTES = 100_000_000
"""The safetensors library's own limit."""

MOST_TENSORS = 8_000
"""Each expert of Wan 2.2 A14B has 407 linear layers and 688 other parameters. A file of both that changes all of them,
with four factors and an alpha for each layer, has 5,446 tensors. More is a hostile header."""

_MOST_METADATA = 20_000  # entries
_STRINGS = 5  # of a tensor's entry: its key, "dtype", the dtype, "shape", "data_offsets"
_VALUES = 10  # of a tensor's entry, in a shape of at most five dimensions
_MOST_STRINGS = _STRINGS * MOST_TENSORS + 2 * _MOST_METADATA
_MOST_SEPARATORS = _VALUES * MOST_TENSORS + _MOST_METADATA
_LONG_BYTES = 256 << 10  # the first look into a full-size file takes 20 ms; what is longer is rare
_long = Lock()


def too_many_values(text: bytes) -> bool:
    """Return whether the JSON `text` holds more strings or other values than the header of a LoRA."""
    size = json_size(text)
    return size.strings > _MOST_STRINGS or size.separators > _MOST_SEPARATORS


@contextmanager
def in_turn(header_bytes: int) -> Iterator[None]:
    """Run the block under a lock if the header has more than 256 KiB, so that such blocks run one after the other."""
    if header_bytes <= _LONG_BYTES:
        yield
        return
    with _long:
        yield
