"""An alpha is read in any dtype that holds a number, and scales by exactly that number."""

from pathlib import Path

import numpy as np
import pytest
import torch

from serve_app.errors import LoraInvalid
from serve_app.loras.formats.dtypes import decode
from serve_app.loras.formats.scales import scale_of
from serve_app.loras.formats.values import check_file
from tests.serve_app.loras.files import TINY, typed

STEM = "diffusion_model.blocks.0.self_attn.q"
RANK = 4


def lora(dtype: str, shape: list[int], alpha: bytes) -> bytes:
    down, up = np.full((RANK, TINY.dim), 0.5, "<f2").tobytes(), np.full((TINY.dim, RANK), 0.25, "<f2").tobytes()
    return typed(
        {
            f"{STEM}.lora_down.weight": ("F16", [RANK, TINY.dim], down),
            f"{STEM}.lora_up.weight": ("F16", [TINY.dim, RANK], up),
            f"{STEM}.alpha": (dtype, shape, alpha),
        }
    )


NUMBERS = {
    **{f"I{8 * size}": np.array(2, f"<i{size}").tobytes() for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": np.array(2, f"<u{size}").tobytes() for size in (1, 2, 4, 8)},
    **{"F16": np.array(2, "<f2").tobytes(), "F32": np.array(2, "<f4").tobytes(), "F64": np.array(2, "<f8").tobytes()},
    **{"BF16": b"\x00\x40", "F8_E4M3": b"\x40", "F8_E5M2": b"\x40", "F8_E8M0": b"\x80"},
}


@pytest.mark.parametrize("shape", [[], [1], [1, 1], [1, 1, 1, 1]])
@pytest.mark.parametrize("dtype", NUMBERS)
def test_any_number_is_read(dtype: str, shape: list[int], tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(lora(dtype, shape, NUMBERS[dtype]))
    checked = check_file(path, TINY, "mine")
    (change,) = checked.contents.changes()
    assert scale_of(change, checked.alphas) == 2 / RANK  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [[RANK], [2, 1], [0]])
def test_several_numbers_are_no_alpha(shape: list[int], tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(lora("F32", shape, np.full(shape, 2, "<f4").tobytes()))
    with pytest.raises(LoraInvalid, match="expected one number"):
        check_file(path, TINY, "mine")


@pytest.mark.parametrize(
    ("dtype", "alpha"), [("BOOL", b"\x01"), ("C64", np.array(2, "<c8").tobytes())], ids=["bool", "complex"]
)
def test_what_is_no_number_is_refused(dtype: str, alpha: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(lora(dtype, [], alpha))
    with pytest.raises(LoraInvalid, match=dtype):
        check_file(path, TINY, "mine")


@pytest.mark.parametrize(
    ("dtype", "alpha"),
    [
        *(("I64", np.array(value, "<i8").tobytes()) for value in (0, -1)),
        *(("F8_E4M3", bytes([value])) for value in (0x00, 0x7F, 0xFF, 0xC0)),
        *(("F8_E5M2", bytes([value])) for value in (0x00, 0x7C, 0x7F, 0xC0)),
        ("F8_E8M0", b"\xff"),
        ("U8", b"\x00"),
    ],
)
def test_a_number_that_is_no_alpha_is_refused(dtype: str, alpha: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(lora(dtype, [], alpha))
    with pytest.raises(LoraInvalid, match="an alpha is"):
        check_file(path, TINY, "mine")


@pytest.mark.parametrize(
    ("dtype", "theirs"),
    [("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2), ("F8_E8M0", torch.float8_e8m0fnu)],
)
def test_every_float8_is_read_as_torch_reads_it(dtype: str, theirs: torch.dtype) -> None:
    every = bytes(range(256))
    expected = torch.frombuffer(bytearray(every), dtype=torch.uint8).view(theirs).double().numpy()
    np.testing.assert_array_equal(decode(every, dtype), expected)
