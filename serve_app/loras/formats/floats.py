"""The floating-point formats that LoRA weights come in."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """A format seen through unsigned integers of its width.

    A value is usable while `bits & exponent` is below `unusable`: exponents from there on are infinities, NaNs and,
    in float64, numbers of 2^128 and more, which become infinite in float32, the widest type the experts run in.
    """

    bits: np.dtype[np.unsignedinteger]
    exponent: int
    unusable: int


_F64_EXPONENT_OF_2_128 = (1023 + 128) << 52

FORMATS = {
    "F16": FloatFormat(np.dtype("<u2"), 0x7C00, 0x7C00),
    "BF16": FloatFormat(np.dtype("<u2"), 0x7F80, 0x7F80),
    "F32": FloatFormat(np.dtype("<u4"), 0x7F800000, 0x7F800000),
    "F64": FloatFormat(np.dtype("<u8"), 0x7FF0000000000000, _F64_EXPONENT_OF_2_128),
}


def decode(raw: bytes, dtype: str) -> NDArray[np.float64]:
    """The values of `raw`, little-endian numbers of one of `FORMATS`; exact, 1-d."""
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    return np.frombuffer(raw, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).astype(np.float64)
