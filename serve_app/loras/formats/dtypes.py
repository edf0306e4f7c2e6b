"""Dtypes: the number formats of tensors, as safetensors spells them, and how their bytes are read without PyTorch."""

from dataclasses import dataclass
from math import ldexp, nan

import numpy as np
from numpy.typing import NDArray

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

WEIGHT_DTYPES = ("F16", "BF16", "F32", "F64")
"""The dtypes that LoRA weights may have; others are quantised, or no floating-point numbers."""

SCALAR_DTYPES = (
    *WEIGHT_DTYPES,
    *("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "F8_E4M3", "F8_E5M2", "F8_E8M0"),
)
"""The dtypes that an alpha may have: each holds one number exactly."""


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """A floating-point format seen through unsigned integers of its width.

    A value is usable while `bits & exponent` is below `unusable`. Exponents from there on are infinities, NaNs and,
    in float64, numbers of 2^128 and more, which become infinite in float32, the widest type the experts run in.
    """

    bits: np.dtype[np.unsignedinteger]
    exponent: int
    unusable: int


_F64_EXPONENT_OF_2_128 = (1023 + 128) << 52

FORMATS = {  # one for each of WEIGHT_DTYPES
    "F16": FloatFormat(np.dtype("<u2"), 0x7C00, 0x7C00),
    "BF16": FloatFormat(np.dtype("<u2"), 0x7F80, 0x7F80),
    "F32": FloatFormat(np.dtype("<u4"), 0x7F800000, 0x7F800000),
    "F64": FloatFormat(np.dtype("<u8"), 0x7FF0000000000000, _F64_EXPONENT_OF_2_128),
}

_NUMPY = {
    **{"F16": "<f2", "F32": "<f4", "F64": "<f8"},
    **{"I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "<u1", "U16": "<u2", "U32": "<u4", "U64": "<u8"},
}


def decode(raw: bytes, dtype: str) -> NDArray[np.float64]:
    """Return the values of `raw`, little-endian numbers of one of SCALAR_DTYPES: exact up to 2^53, 1-d."""
    if dtype.startswith("F8"):
        return np.array([_FLOAT8[dtype](byte) for byte in raw], np.float64)
    if dtype == "BF16":  # the upper half of a float32
        raw, dtype = (np.frombuffer(raw, "<u2").astype("<u4") << 16).tobytes(), "F32"
    with np.errstate(invalid="ignore"):  # numpy warns of a signalling NaN, which is a NaN like any other here
        return np.frombuffer(raw, _NUMPY[dtype]).astype(np.float64)


_ALL_ONES = 0xFF


def _e4m3(byte: int) -> float:
    """Return a float8 of 4 exponent and 3 mantissa bits, which has no infinity (arXiv 2209.05433, table 1)."""
    sign = -1.0 if byte & 0x80 else 1.0
    exponent, mantissa = (byte & 0x7F) >> 3, byte & 0x7
    if byte | 0x80 == _ALL_ONES:
        return nan
    return sign * (ldexp(mantissa, -9) if exponent == 0 else ldexp(8 + mantissa, exponent - 10))


def _e5m2(byte: int) -> float:
    """Return a float8 of 5 exponent and 2 mantissa bits: the upper half of a float16."""
    return float(np.frombuffer(bytes([0, byte]), "<f2")[0])


def _e8m0(byte: int) -> float:
    """Return a float8 that is an exponent alone (OCP Microscaling Formats 1.0, 5.4.1)."""
    return nan if byte == _ALL_ONES else ldexp(1.0, byte - 127)


_FLOAT8 = {"F8_E4M3": _e4m3, "F8_E5M2": _e5m2, "F8_E8M0": _e8m0}
