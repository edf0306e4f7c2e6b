from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.loras.formats.alphas import read_alphas, scale_of, unused_keys, wrong_alphas
from serve_app.loras.formats.changes import LoKr, LowRank
from serve_app.loras.formats.header import read_header
from serve_app.loras.formats.parser import parse
from tests.serve_app.loras.files import TINY, Tensors, pair, save

MODULE = "blocks.1.ffn.0"
STEM = f"diffusion_model.{MODULE}"
ALPHA = f"{STEM}.alpha"
WHOLE_LOKR: Tensors = {f"{STEM}.lokr_w1": np.ones((2, 2)), f"{STEM}.lokr_w2": np.ones((24, 12))}


def alphas(folder: Path, tensors: Tensors) -> dict[str, float]:
    path = save(folder / "x", pair("blocks.0.ffn.2") | tensors)
    header = read_header(path, "mine")
    return read_alphas(path, header, parse(header, TINY, "mine"))


@pytest.mark.parametrize(
    "alpha", [np.float32(4), np.array([2], np.float16), np.float64(1e-300), np.float32(1e-6), np.float32(1e30)]
)
def test_alphas_of_any_format_are_read_and_any_positive_one_is_applied(tmp_path: Path, alpha: Any) -> None:
    found = alphas(tmp_path, pair(MODULE) | {ALPHA: np.asarray(alpha)})
    assert found == {ALPHA: float(np.asarray(alpha).reshape(-1)[0])}
    assert wrong_alphas(found) is None


@pytest.mark.parametrize(
    ("value", "why"), [(-1, "negative"), (np.nan, "no number"), (np.inf, "no number"), (0, "others as the rank")]
)
def test_other_alphas_are_refused_and_named(tmp_path: Path, value: float, why: str) -> None:
    fault = wrong_alphas(alphas(tmp_path, pair(MODULE) | {ALPHA: np.array([value], np.float16)}))
    assert fault is not None
    assert why in fault.reason
    assert fault.keys == [ALPHA]


def test_the_infinite_alpha_of_a_lokr_that_does_not_use_it_is_not_looked_at(tmp_path: Path) -> None:
    """AI Toolkit's lokr_full_rank saves 9999999999, in float16."""
    path = save(tmp_path / "x", WHOLE_LOKR | {ALPHA: np.array(np.inf, np.float16)})
    header = read_header(path, "mine")
    contents = parse(header, TINY, "mine")
    assert unused_keys(contents) == {ALPHA}
    assert read_alphas(path, header, contents) == {}
    (change,) = contents.changes()
    assert isinstance(change, LoKr)
    assert scale_of(change, {}) == 1


def test_the_scale_of_each_kind() -> None:
    def low_rank(alpha: str | None, scale: float | None = None) -> LowRank:
        return LowRank("p", "d", "u", alpha, None, 4, scale)

    assert scale_of(low_rank(None), {}) == 1
    assert scale_of(low_rank("a"), {"a": 2.0}) == 0.5
    assert scale_of(low_rank(None, 3.0), {}) == 3
