import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serve_app.loras.formats.floats import decode


@given(st.floats(width=16, allow_nan=False))
def test_decodes_float16_exactly(value: float) -> None:
    assert decode(np.array([value], np.float16).tobytes(), "F16") == [value]


@given(st.floats(width=32, allow_nan=False))
def test_bfloat16_is_the_upper_half_of_float32(value: float) -> None:
    upper = np.array([value], np.float32).tobytes()[2:]
    assert decode(upper, "BF16") == np.frombuffer(b"\0\0" + upper, "<f4")


def test_decodes_the_wide_formats() -> None:
    assert list(decode(np.array([1.5, -2], np.float32).tobytes(), "F32")) == [1.5, -2]
    assert list(decode(np.array([1e-300], np.float64).tobytes(), "F64")) == [1e-300]
    assert decode(b"\x7f\x7f", "BF16") == float.fromhex("0x1.fep127")
