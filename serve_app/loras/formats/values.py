"""Tensor values: one sequential pass that hashes a file, checks that every weight is finite, and reads its alphas.

Example:
    checked = check_file(path, architecture, name)
    checked.sha256, checked.contents, checked.alphas
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path

import numpy as np

from serve_app.files import open_regular
from serve_app.loras.formats.adapter_config import AdapterFile
from serve_app.loras.formats.bounds import DEFAULT_HEADER_BYTES
from serve_app.loras.formats.changes import Change, Difference, Factor, LoKr, LoraContents, LowRank
from serve_app.loras.formats.dtypes import FORMATS, FloatFormat, decode
from serve_app.loras.formats.header import SafetensorsHeader, TensorInfo, read_header_of
from serve_app.loras.formats.parser import parse
from serve_app.loras.formats.scales import alpha_keys, scale_of, unused_keys, wrong_alphas
from serve_app.loras.refusals import invalid, refuse
from serve_app.models.architecture import WanArchitecture
from serve_app.spec import Expert

PIECE_BYTES = 4 << 20  # a multiple of every element size


@dataclass(frozen=True, slots=True)
class CheckedLora:
    """A LoRA file that passed every check. `sha256` is hex, of the whole file; `alphas` are by their keys.

    `header` lacks its metadata, which may be megabytes. What it told of the training is `contents.provenance`.
    """

    header: SafetensorsHeader
    contents: LoraContents
    alphas: Mapping[str, float]
    sha256: str


def check_file(
    path: Path,
    architecture: WanArchitecture,
    name: str,
    *,
    strict: bool = True,
    sha256: str | None = None,
    beside: AdapterFile | None = None,
    most_header_bytes: int = DEFAULT_HEADER_BYTES,
) -> CheckedLora:
    """Open the file at `path` once, and check all of it: header, keys, shapes, values and alphas.

    Errors call the file `name`. `strict` and `beside` are explained at `parser.parse`. With a known `sha256`, nothing
    is hashed.

    Raises:
        LoraInvalid: the file cannot be applied as it is; details name the tensors.
        OSError: the file cannot be opened or read.
    """
    with open_regular(path) as stream:
        header = read_header_of(stream, name, most_header_bytes)
        contents = parse(header, architecture, name, strict=strict, beside=beside)
        unused, wanted = unused_keys(contents), alpha_keys(contents)
        scanned = scan(stream, header, name, unused=unused, wanted=wanted, sha256=sha256)
        alphas = {key: scanned.scalars[key] for key in alpha_keys(contents)}
        refuse(name, wrong_alphas(alphas))
        contents = replace(contents, idle=idle_parts(stream, header, contents, alphas))
    return CheckedLora(replace(header, metadata={}), contents, alphas, scanned.sha256)


def read_accepted(
    path: Path,
    architecture: WanArchitecture,
    name: str,
    sha256: str,
    *,
    strict: bool = True,
    beside: AdapterFile | None = None,
    most_header_bytes: int = DEFAULT_HEADER_BYTES,
) -> CheckedLora:
    """Return what `check_file` returned for the file when it had that SHA-256; do not check its values again.

    Raises:
        LoraInvalid, OSError: as `check_file`.
    """
    with open_regular(path) as stream:
        header = read_header_of(stream, name, most_header_bytes)
        contents = parse(header, architecture, name, strict=strict, beside=beside)
        alphas = read_alphas(stream, header, contents)
        contents = replace(contents, idle=idle_parts(stream, header, contents, alphas))
    return CheckedLora(replace(header, metadata={}), contents, alphas, sha256)


def read_alphas(stream: BufferedReader, header: SafetensorsHeader, contents: LoraContents) -> dict[str, float]:
    """Return the value of every alpha that is used, by its key. Reads a few bytes for each and nothing else.

    Raises:
        OSError: the file cannot be read.
    """
    found = {}
    for key in alpha_keys(contents):
        info = header.tensors[key]
        stream.seek(header.data_offset + info.start)
        values = decode(stream.read(info.end - info.start), info.dtype)
        found[key] = float(values[0]) if values.size else float("nan")  # the file became shorter
    return found


_NOTHING = 2.0**-24
"""A change whose every element is smaller leaves a weight as it is: in bfloat16, next to any weight above 2^-15."""


def idle_parts(
    stream: BufferedReader, header: SafetensorsHeader, contents: LoraContents, alphas: Mapping[str, float]
) -> tuple[Expert | None, ...]:
    """Return the parts of a file all of whose changes are zero, or too small to have an effect in the compute dtype.

    Reads until it finds a number that has an effect: in an ordinary file, some of the first tensors. The magnitudes of
    a DoRA are ignored: their effect depends on the original weight, which is not available here.

    Raises:
        OSError: the file cannot be read.
    """
    reader = _Largest(stream, header)
    return tuple(
        expert
        for expert, changes in contents.parts.items()
        if all(reader.bound(change, alphas) < _NOTHING for change in changes)
    )


class _Largest:
    """Bounds on the absolute values of the elements of changes."""

    def __init__(self, stream: BufferedReader, header: SafetensorsHeader) -> None:
        self._stream = stream
        self._header = header

    def bound(self, change: Change, alphas: Mapping[str, float]) -> float:
        """Return a bound on the absolute value of each element of the change, at multiplier 1."""
        match change:
            case LowRank():
                product = self._product((change.up, change.down), change.rank)
                return scale_of(change, alphas) * product if product else 0.0
            case LoKr():
                product = self._factor(change.w1) and self._factor(change.w2) * self._factor(change.w1)
                return scale_of(change, alphas) * product if product else 0.0
            case Difference():
                return self._largest(change.key)

    def _factor(self, factor: Factor) -> float:
        return self._product(factor.keys, factor.rank or 1)

    def _product(self, keys: tuple[str, ...], rank: int) -> float:
        """Return a bound on the elements of a product of two matrices with `rank` terms each, or of one matrix."""
        first, *others = keys
        largest = self._largest(first)
        for key in others:
            largest = largest and rank * largest * self._largest(key)
        return largest

    def _largest(self, key: str) -> float:
        info = self._header.tensors[key]
        self._stream.seek(self._header.data_offset + info.start)
        pieces = (decode(self._stream.read(length), info.dtype) for length in _pieces(info.end - info.start))
        return max((float(np.abs(piece).max(initial=0.0)) for piece in pieces), default=0.0)


@dataclass(frozen=True, slots=True)
class Scanned:
    """The result of a pass over a file: its SHA-256 (hex), and the wanted scalars."""

    sha256: str
    scalars: dict[str, float]


def scan(
    stream: BufferedReader,
    header: SafetensorsHeader,
    name: str,
    *,
    unused: Collection[str] = (),
    wanted: Collection[str] = (),
    sha256: str | None = None,
) -> Scanned:
    """Read the whole file behind `stream` once, from its start, in constant memory.

    Tensors named in `unused` may hold anything. All others must be finite floats of one of `FORMATS`, or scalars of one
    of `dtypes.SCALAR_DTYPES`. The values of those named in `wanted`, which have one element, are returned. A known
    `sha256` is returned instead of computed.

    Raises:
        LoraInvalid: tensors hold NaN, infinity or values beyond float32 (named), or the file became shorter.
        OSError: the file cannot be read.
    """
    # The strict header guarantees that the tensors, in order, cover the data without gaps. So reading them one by one
    # reads the file sequentially, and every piece begins at the start of an element.
    stream.seek(0)
    reader = _Pass(stream, name, hashing=sha256 is None)
    reader.skip(header.data_offset)
    broken = [key for key, info in header.tensors.items() if not reader.passes(key, info, unused, wanted)]
    if broken:
        reason = "tensors hold NaN, infinity or values beyond float32; the training diverged, use an earlier step"
        raise invalid(name, reason, broken)
    return Scanned(sha256 or reader.hash.hexdigest(), reader.scalars)


class _Pass:
    """The position in the file, with buffers that all tensors share."""

    def __init__(self, stream: BufferedReader, name: str, *, hashing: bool) -> None:
        self.hash = hashlib.sha256()
        self._hashing = hashing
        self.scalars: dict[str, float] = {}
        self._stream = stream
        self._name = name
        self._buffer = memoryview(bytearray(PIECE_BYTES))
        self._piece = np.frombuffer(self._buffer, np.uint8)
        self._exponents = np.empty(PIECE_BYTES, np.uint8)

    def skip(self, count: int) -> None:
        """Read the next `count` bytes for the hash only."""
        for length in _pieces(count):
            self._read(length)

    def passes(self, key: str, info: TensorInfo, unused: Collection[str], wanted: Collection[str]) -> bool:
        """Read the next tensor. Return whether it is unused or finite."""
        size = info.end - info.start
        if key in unused:
            self.skip(size)
            return True
        if info.dtype not in FORMATS:  # an alpha, whose value is checked by itself
            self._read(size)
            self.scalars[key] = float(decode(bytes(self._buffer[:size]), info.dtype)[0])
            return True
        number_format = FORMATS[info.dtype]
        pieces = [self._piece_is_finite(length, number_format) for length in _pieces(size)]
        if key in wanted:
            self.scalars[key] = float(decode(bytes(self._buffer[:size]), info.dtype)[0])
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
        if self._hashing:
            self.hash.update(view)


def _pieces(total: int) -> list[int]:
    whole, rest = divmod(total, PIECE_BYTES)
    return [PIECE_BYTES] * whole + [rest] * bool(rest)
