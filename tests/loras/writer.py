"""Writes a LoRA file tensor by tensor, and keeps by its side what each change must come to, in float64 formulas."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.loras.model import Module, Shape

F64 = NDArray[np.float64]
Formula = Callable[[F64, float], F64]  # (pristine parameter, multiplier) -> parameter with the LoRA

_NUMPY = {
    **{"F16": "<f2", "F32": "<f4", "F64": "<f8"},
    **{f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
}


class Writer:
    """Collects the tensors of one file; random, but the same for the same seed."""

    def __init__(self, seed: int = 0, dtype: str = "F32") -> None:
        self.keys: dict[str, Shape] = {}
        self._data: dict[str, tuple[str, bytes]] = {}
        self._random = np.random.default_rng(seed)
        self._dtype = dtype
        self._deltas: dict[str, list[F64]] = {}
        self._whole: dict[str, Formula] = {}

    def put(self, key: str, values: F64, dtype: str | None = None) -> F64:
        """Write `values` under `key`; what a reader gets back, as the dtype rounds it."""
        kind = dtype or self._dtype
        if kind == "BF16":  # the upper half of a float32
            raw = (values.astype("<f4").view("<u4") >> 16).astype("<u2")
            stored = (raw.astype("<u4") << 16).view("<f4").astype(np.float64)
        else:
            raw = values.astype(_NUMPY[kind])
            stored = raw.astype(np.float64)
        assert key not in self._data
        self.keys[key] = values.shape
        self._data[key] = (kind, raw.tobytes())
        return stored

    def values(self, *shape: int, scale: float = 0.1) -> F64:
        """Return random numbers."""
        return self._random.normal(0, scale, shape)

    def lora(
        self,
        module: Module,
        stem: str,
        *,
        rank: int = 4,
        halves: tuple[str, str] = ("lora_A.weight", "lora_B.weight"),
        alpha: float | None = None,
        alpha_shape: Shape = (),
        alpha_dtype: str | None = None,
        alpha_elsewhere: float | None = None,
        magnitude: tuple[str, Shape] | None = None,
    ) -> None:
        """Put a LoRA of `module` under `stem`; a DoRA where `magnitude` (its ending and shape) is given.

        `alpha_elsewhere` counts as an alpha that no tensor of the file tells.
        """
        out, *wide = module.shape
        ones = [1] * (len(wide) - 1)
        down = self.put(f"{stem}.{halves[0]}", self.values(rank, *wide))
        up = self.put(f"{stem}.{halves[1]}", self.values(out, rank, *ones))
        scale = 1.0 if alpha_elsewhere is None else alpha_elsewhere / rank
        if alpha is not None:
            stored = self.put(f"{stem}.alpha", np.full(alpha_shape, alpha), alpha_dtype)
            scale = float(stored.reshape(-1)[0]) / rank
        delta = scale * np.einsum("or,ri->oi", up.reshape(out, rank), down.reshape(rank, -1)).reshape(module.shape)
        if magnitude is None:
            self._deltas.setdefault(module.parameter(), []).append(delta)
            return
        ending, shape = magnitude
        length = self.put(f"{stem}.{ending}", 0.5 + abs(self.values(*shape, scale=1)))
        self._whole[module.parameter()] = _dora(delta, length)

    def lokr(
        self,
        module: Module,
        stem: str,
        *,
        split: tuple[int, int],
        low: tuple[bool, bool],
        rank: int = 2,
        alpha: float | None = None,
    ) -> None:
        """Put a LoKr of `module` whose first factor has the shape `split`; `low` says which factors are low-rank."""
        out, wide = module.shape
        shapes = (split, (out // split[0], wide // split[1]))
        w1, w2 = (
            self._factor(f"{stem}.lokr_w{number}", shape, rank if is_low else None)
            for number, (shape, is_low) in enumerate(zip(shapes, low, strict=True), 1)
        )
        scale = 1.0
        if alpha is not None:
            stored = float(self.put(f"{stem}.alpha", np.array(alpha)).reshape(-1)[0])
            scale = stored / rank if any(low) else 1.0
        # By its definition, and not by numpy's kron: entry (i1, i2), (j1, j2) is w1[i1, j1] * w2[i2, j2].
        delta = scale * np.einsum("ac,bd->abcd", w1, w2).reshape(module.shape)
        self._deltas.setdefault(module.parameter(), []).append(delta)

    def _factor(self, stem: str, shape: tuple[int, int], rank: int | None) -> F64:
        if rank is None:
            return self.put(stem, self.values(*shape, scale=0.3))
        a = self.put(f"{stem}_a", self.values(shape[0], rank, scale=0.3))
        b = self.put(f"{stem}_b", self.values(rank, shape[1], scale=0.3))
        product: F64 = np.einsum("ar,rb->ab", a, b)
        return product

    def difference(self, parameter: str, shape: Shape, key: str) -> None:
        """Put a difference of the whole parameter."""
        self._deltas.setdefault(parameter, []).append(self.put(key, self.values(*shape, scale=0.05)))

    def merge(self, other: "Writer") -> None:
        """Take the tensors of `other` into this file; its formulas stay its own."""
        assert not self._data.keys() & other._data.keys()
        self.keys |= other.keys
        self._data |= other._data

    def expected(self) -> dict[str, Formula]:
        """Return what each changed parameter must become."""
        return {name: _sum(deltas) for name, deltas in self._deltas.items()} | self._whole

    def save(self, path: Path, metadata: dict[str, str] | None = None) -> Path:
        """Return the file, in the order in which tensors were put."""
        header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
        position = 0
        for key, (dtype, raw) in self._data.items():
            offsets = [position, position + len(raw)]
            header[key] = {"dtype": dtype, "shape": list(self.keys[key]), "data_offsets": offsets}
            position = offsets[1]
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(raw for _, raw in self._data.values()))
        return path


def _sum(deltas: list[F64]) -> Formula:
    total = sum(deltas, start=np.zeros(()))
    return lambda pristine, multiplier: pristine + multiplier * total


def _dora(delta: F64, magnitude: F64) -> Formula:
    """V = W0 + s * delta, each row (or column, where the magnitude is [1, in]) scaled to its magnitude's length."""
    by_column = magnitude.ndim == 2 and magnitude.shape[0] == 1 and delta.shape[0] != 1

    def weight(pristine: F64, multiplier: float) -> F64:
        if multiplier == 0:
            return pristine
        changed = pristine + multiplier * delta
        lengths = np.sqrt((changed**2).sum(axis=0 if by_column else 1, keepdims=True))
        wanted = magnitude.reshape(1, -1) if by_column else magnitude.reshape(-1, 1)
        result: F64 = changed * wanted / lengths
        return result

    return weight
