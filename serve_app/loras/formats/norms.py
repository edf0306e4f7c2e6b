"""How strongly a file changes each layer: the Frobenius norm of c * (up @ down), and of the other kinds of change."""

from math import isfinite, sqrt
from pathlib import Path
from statistics import median
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from serve_app.loras.formats.alphas import read_alphas, scale_of
from serve_app.loras.formats.changes import Change, Difference, Factor, LoKr, LoraContents, LowRank
from serve_app.loras.formats.floats import decode
from serve_app.loras.formats.header import SafetensorsHeader
from serve_app.loras.refusals import Fault, refuse
from serve_app.models.families import Family, family

Matrix = NDArray[np.float64]


class NormSummary(BaseModel):
    """Of all changes to one family of parameters, at multiplier 1. Of a DoRA, the norm before it is rescaled."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    min: float
    """The smallest."""
    median: float
    """The middle one."""
    max: float
    """The largest."""
    largest: str
    """The parameter with the largest."""


def summarise(path: Path, header: SafetensorsHeader, contents: LoraContents, name: str) -> dict[Family, NormSummary]:
    """The norms by family, over all parts. Reads the whole file; in memory is one change at a time.

    Raises:
        LoraInvalid: changes are not finite; named. `name` is the file.
        OSError: the file cannot be opened or read.
        ValueError: it became shorter.
    """
    alphas = read_alphas(path, header, contents)
    found: dict[Family, dict[str, float]] = {}
    with path.open("rb") as stream, np.errstate(over="ignore", invalid="ignore"):
        reader = _Reader(stream, header)
        for expert, changes in contents.parts.items():
            for change in changes:
                label = f"{expert.value} {change.parameter}" if expert else change.parameter
                found.setdefault(family(change.parameter), {})[label] = _norm(change, reader, alphas)
    broken = [label for norms in found.values() for label, norm in norms.items() if not isfinite(norm)]
    refuse(
        name,
        Fault("its changes are not finite; the training diverged, use an earlier step", broken) if broken else None,
    )
    return {kind: _summary(norms) for kind, norms in found.items()}


class _Reader:
    """Reads tensors as matrices of their rows."""

    def __init__(self, stream: BinaryIO, header: SafetensorsHeader) -> None:
        self._stream = stream
        self._header = header

    def matrix(self, key: str) -> Matrix:
        """[first dimension, all others]."""
        info = self._header.tensors[key]
        self._stream.seek(self._header.data_offset + info.start)
        values = decode(self._stream.read(info.end - info.start), info.dtype)
        return values.reshape(info.shape[0] if info.shape else 1, -1)


def _summary(norms: dict[str, float]) -> NormSummary:
    largest = max(norms, key=lambda name: norms[name])
    values = norms.values()
    return NormSummary(min=min(values), median=median(values), max=norms[largest], largest=largest)


def _norm(change: Change, reader: _Reader, alphas: dict[str, float]) -> float:
    match change:
        case LowRank():
            return scale_of(change, alphas) * _product_norm(reader.matrix(change.up), reader.matrix(change.down))
        case LoKr():
            # |kron(a, b)| = |a| |b|
            return scale_of(change, alphas) * _factor_norm(change.w1, reader) * _factor_norm(change.w2, reader)
        case Difference():
            return float(np.linalg.norm(reader.matrix(change.key)))


def _factor_norm(factor: Factor, reader: _Reader) -> float:
    matrices = [reader.matrix(key) for key in factor.keys]
    return _product_norm(*matrices) if len(matrices) > 1 else float(np.linalg.norm(matrices[0]))


def _product_norm(a: Matrix, b: Matrix) -> float:
    """|a @ b| without the product: its square is the trace of (a^T a) (b b^T), both of them [r, r]."""
    squared = float(np.sum((a.T @ a) * (b @ b.T)))
    return 0.0 if squared < 0 else sqrt(squared)  # rounding may leave it below 0; NaN stays NaN
