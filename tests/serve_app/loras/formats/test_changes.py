"""Every layout, by the formulas that `serve_app.loras.formats.changes` promises, against what its writer put in."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from serve_app.loras.formats.changes import Change, Difference, Factor, LoKr, LowRank
from serve_app.loras.formats.dtypes import decode
from serve_app.loras.formats.header import SafetensorsHeader
from serve_app.loras.formats.scales import scale_of
from serve_app.loras.formats.values import check_file
from serve_app.spec import Expert
from tests.loras.layouts import LAYOUTS, write
from tests.loras.writer import F64
from tests.serve_app.loras.files import TINY


@cache
def pristine() -> Mapping[str, F64]:
    """Return the expert's parameters before any change."""
    random = np.random.default_rng(1)
    return {name: random.normal(size=shape) for name, shape in TINY.parameters().items()}


class Applied:
    """The expert's parameters in float64, changed one change after another."""

    def __init__(self, path: Path, header: SafetensorsHeader, alphas: Mapping[str, float]) -> None:
        self.parameters = dict(pristine())
        self._data = path.read_bytes()
        self._header = header
        self._alphas = alphas

    def tensor(self, key: str) -> F64:
        info = self._header.tensors[key]
        start = self._header.data_offset
        return decode(self._data[start + info.start : start + info.end], info.dtype).reshape(info.shape)

    def factor(self, factor: Factor) -> F64:
        first, *rest = map(self.tensor, factor.keys)
        product: F64 = first @ rest[0] if rest else first
        return product

    def apply(self, change: Change, s: float) -> None:
        weight = self.parameters[change.parameter]
        match change:
            case Difference():
                weight = weight + s * self.tensor(change.key).reshape(weight.shape)
            case LoKr():
                kron = np.kron(self.factor(change.w1), self.factor(change.w2))
                weight = weight + s * scale_of(change, self._alphas) * kron
            case LowRank():
                up, down = self.tensor(change.up), self.tensor(change.down)
                delta = (up.reshape(len(up), -1) @ down.reshape(len(down), -1)).reshape(weight.shape)
                weight = weight + s * scale_of(change, self._alphas) * delta
                if change.magnitude is not None and s != 0:
                    weight = self.decomposed(weight, self.tensor(change.magnitude))
        self.parameters[change.parameter] = weight

    @staticmethod
    def decomposed(weight: F64, magnitude: F64) -> F64:
        by_column = magnitude.ndim == 2 and magnitude.shape[0] == 1
        lengths: F64 = np.linalg.norm(weight, axis=0 if by_column else 1, keepdims=True)
        result: F64 = weight * magnitude.reshape(lengths.shape) / lengths
        return result


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_changes_mean_what_the_file_was_written_for(name: str, dtype: str, tmp_path: Path) -> None:
    written = write(name, tmp_path, dtype=dtype)
    checked = check_file(written.path, TINY, name)
    for expert, expected in ((Expert.HIGH, written.high), (Expert.LOW, written.low)):
        for s in (0.0, 0.7, 1.0, -1.5):
            model = Applied(written.path, checked.header, checked.alphas)
            for change in checked.contents.changes_for(expert):
                model.apply(change, s)
            for parameter, found in model.parameters.items():
                before = pristine()[parameter]
                assert (parameter in expected and s != 0) != np.array_equal(found, before)
                if parameter in expected:
                    np.testing.assert_allclose(found, expected[parameter](before, s), rtol=1e-12, atol=1e-12)
