from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.errors import LoraInvalid
from serve_app.loras.alphas import check_alphas
from serve_app.loras.layout import check_layout
from serve_app.loras.safetensors_file import read_header
from tests.serve_app.loras.files import TINY, pair, save

MODULE = "blocks.1.ffn.0"
ALPHA = f"diffusion_model.{MODULE}.alpha"


def check(folder: Path, alpha: Any, *, dtype: type[np.floating] = np.float16) -> None:
    tensors = {key: value.astype(dtype) for key, value in pair(MODULE, 4).items()}
    path = save(folder / "x", pair("blocks.0.ffn.2") | tensors | {ALPHA: alpha})
    header = read_header(path, "mine")
    check_alphas(path, header, check_layout(header, TINY, "mine"), "mine")


@pytest.mark.parametrize(
    "alpha", [np.float32(4), np.array([2], np.float16), np.float64(0), np.float32(1e-6), np.float32(400)]
)
def test_alphas_that_diffusers_applies(tmp_path: Path, alpha: Any) -> None:
    check(tmp_path, np.asarray(alpha))


def test_a_negative_alpha_on_which_diffusers_never_returns(tmp_path: Path) -> None:
    with pytest.raises(LoraInvalid, match="negative") as caught:
        check(tmp_path, np.array([-1], np.float16))
    assert caught.value.details["keys"] == [ALPHA]


def test_an_alpha_that_overflows_the_weights_own_dtype(tmp_path: Path) -> None:
    huge = np.array([4 * 2 * 65600], np.float32)  # the weights are 0.5
    with pytest.raises(LoraInvalid, match="overflow F16"):
        check(tmp_path, huge)
    check(tmp_path, huge, dtype=np.float32)
