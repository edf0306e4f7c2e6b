"""One pass over the whole file: its hash, and the promise that every weight is a finite number."""

import hashlib
from collections.abc import Collection
from io import FileIO
from pathlib import Path

import numpy as np

from serve_app.loras.formats.floats import FORMATS, FloatFormat
from serve_app.loras.formats.header import SafetensorsHeader, TensorInfo
from serve_app.loras.refusals import invalid

PIECE_BYTES = 4 << 20  # a multiple of every element size


def verify(path: Path, header: SafetensorsHeader, name: str, *, unused: Collection[str] = ()) -> str:
    """SHA-256 (hex) of the file at `path`, whose tensors were found finite, but for the `unused` ones.

    Those may be anything; all others are floats of one of `FORMATS`.

    Constant memory. The strict header guarantees that the tensors in order make up the whole data, so reading them one
    by one is one sequential pass, in which every piece begins at an element.

    Raises:
        LoraInvalid: tensors hold NaN, infinity or values beyond float32 (named), or the file became shorter.
        OSError: the file cannot be opened or read.
    """
    with FileIO(path) as stream:
        scan = _Scan(stream, name)
        scan.hash_bytes(header.data_offset)
        broken = [key for key, info in header.tensors.items() if not scan.passes(info, unused=key in unused)]
    if broken:
        reason = "tensors hold NaN, infinity or values beyond float32; the training diverged, use an earlier step"
        raise invalid(name, reason, broken)
    return scan.hash.hexdigest()


class _Scan:
    """The position in the file, with buffers that all tensors share."""

    def __init__(self, stream: FileIO, name: str) -> None:
        self.hash = hashlib.sha256()
        self._stream = stream
        self._name = name
        self._buffer = memoryview(bytearray(PIECE_BYTES))
        self._piece = np.frombuffer(self._buffer, np.uint8)
        self._exponents = np.empty(PIECE_BYTES, np.uint8)

    def hash_bytes(self, count: int) -> None:
        """Take the next `count` bytes into the hash only."""
        for length in _pieces(count):
            self._read(length)

    def passes(self, info: TensorInfo, *, unused: bool) -> bool:
        """Whether the next tensor is unused or finite. All of it is read either way, for the hash."""
        if unused:
            self.hash_bytes(info.end - info.start)
            return True
        number_format = FORMATS[info.dtype]
        pieces = [self._piece_is_finite(length, number_format) for length in _pieces(info.end - info.start)]
        return all(pieces)

    def _piece_is_finite(self, length: int, number_format: FloatFormat) -> bool:
        self._read(length)
        bits = self._piece[:length].view(number_format.bits)
        exponents = self._exponents[:length].view(number_format.bits)
        np.bitwise_and(bits, number_format.bits.type(number_format.exponent), out=exponents)
        return int(exponents.max()) < number_format.unusable

    def _read(self, length: int) -> None:
        view = self._buffer[:length]
        filled = 0
        while filled < length:
            count = self._stream.readinto(view[filled:])
            if not count:
                raise invalid(self._name, "it became shorter while it was read; retry when its copy has finished")
            filled += count
        self.hash.update(view)


def _pieces(total: int) -> list[int]:
    whole, rest = divmod(total, PIECE_BYTES)
    return [PIECE_BYTES] * whole + [rest] * bool(rest)
