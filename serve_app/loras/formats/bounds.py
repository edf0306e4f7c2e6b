"""Resource limits on a safetensors header: what is refused before it is downloaded, and before it is parsed.

JSON becomes objects that take ten times its size, and parsing holds the interpreter's lock. So a header is bounded in
bytes by what its file's first eight bytes say, and in values by counting its separators, which is done in C.
The few that are long and yet allowed are parsed one at a time, so that they never fill every thread of the process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

DEFAULT_HEADER_BYTES = 8 << 20
"""Full-size files have about half a megabyte; trainers that list the tags of every image, some megabytes."""

LIBRARY_HEADER_BYTES = 100_000_000
"""The safetensors library's own limit."""

MOST_TENSORS = 20_000
"""Two experts of Wan 2.2 A14B have 2190 parameters, and a LoRA some tensors for each. More is a hostile header."""

_MOST_METADATA = 20_000  # entries
_STRINGS = 5  # of a tensor's entry: its key, "dtype", the dtype, "shape", "data_offsets"
_VALUES = 10  # of a tensor's entry, in a shape of at most five dimensions
_MOST_QUOTES = 2 * (_STRINGS * MOST_TENSORS + 2 * _MOST_METADATA)
_MOST_SEPARATORS = _VALUES * MOST_TENSORS + _MOST_METADATA
_LONG_BYTES = 1 << 20
_long = Lock()


def too_many_values(text: bytes) -> bool:
    """Return whether the JSON `text` holds more strings or other values than the header of a LoRA.

    Malformed JSON may be either: its parser tells what is wrong with it, at a cost that is bounded then.
    """
    plain = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > _MOST_QUOTES:
        return True
    outside = b"".join(plain.split(b'"')[::2])
    return sum(map(outside.count, (b",", b"[", b"{"))) > _MOST_SEPARATORS


@contextmanager
def in_turn(header_bytes: int) -> Iterator[None]:
    """Have the block wait for others of its kind where it is about a header of more than a mebibyte."""
    if header_bytes <= _LONG_BYTES:
        yield
        return
    with _long:
        yield
