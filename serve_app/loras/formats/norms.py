"""Frobenius norms: how strongly a file changes each layer, as the norm of c * (up @ down) and of the other kinds."""

from collections.abc import Mapping
from io import BufferedReader
from math import isfinite, sqrt
from statistics import median

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from serve_app.loras.formats.changes import Change, Difference, Factor, LoKr, LoraContents, LowRank
from serve_app.loras.formats.dtypes import decode
from serve_app.loras.formats.header import SafetensorsHeader
from serve_app.loras.formats.scales import scale_of
from serve_app.loras.refusals import Fault, refuse
from serve_app.models.families import Family, family

_Matrix = NDArray[np.float64]


class NormSummary(BaseModel):
    """Norms of all changes to one family of parameters, at multiplier 1. Of a DoRA, before it is rescaled."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    min: float
    """The smallest."""
    median: float
    """The middle one."""
    max: float
    """The largest."""
    largest: str
    """The parameter with the largest."""


def summarise(
    stream: BufferedReader, header: SafetensorsHeader, contents: LoraContents, alphas: Mapping[str, float], name: str
) -> dict[Family, NormSummary]:
    """Return the norms by family, over all parts. Reads every change of the file; one at a time is in memory.

    `alphas` are those of `values.read_alphas`; `name` is the file in errors.

    Raises:
        LoraInvalid: changes are not finite; named.
        OSError: the file cannot be read.
        ValueError: the file became shorter.
    """
    found: dict[Family, dict[str, float]] = {}
    with np.errstate(over="ignore", invalid="ignore"):
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
    """Reads the tensors of a file as matrices."""

    def __init__(self, stream: BufferedReader, header: SafetensorsHeader) -> None:
        self._stream = stream
        self._header = header

    def matrix(self, key: str) -> _Matrix:
        """Return the tensor as [its first dimension, all others]."""
        info = self._header.tensors[key]
        self._stream.seek(self._header.data_offset + info.start)
        values = decode(self._stream.read(info.end - info.start), info.dtype)
        return values.reshape(info.shape[0] if info.shape else 1, -1)


def _summary(norms: dict[str, float]) -> NormSummary:
    largest = max(norms, key=lambda name: norms[name])
    values = norms.values()
    return NormSummary(min=min(values), median=median(values), max=norms[largest], largest=largest)


def _norm(change: Change, reader: _Reader, alphas: Mapping[str, float]) -> float:
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


def _product_norm(a: _Matrix, b: _Matrix) -> float:
    """Return |a @ b| without computing the product: its square is the trace of (a^T a) (b b^T), both [r, r]."""
    squared = float(np.sum((a.T @ a) * (b @ b.T)))
    return 0.0 if squared < 0 else sqrt(squared)  # rounding may leave it below 0; NaN stays NaN
