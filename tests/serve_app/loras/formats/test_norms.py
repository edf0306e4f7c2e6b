"""Frobenius norms of changes equal those of the whole difference."""

from pathlib import Path

import numpy as np
import pytest

from serve_app.loras.formats.norms import summarise
from serve_app.loras.formats.values import check_file
from serve_app.models.families import Family, family
from tests.loras.layouts import Written, write
from tests.loras.model import TINY as SIZES
from tests.serve_app.loras.files import TINY


@pytest.mark.parametrize(
    "layout", ["ai-toolkit-alpha", "lokr-w2", "lokr-both", "full-rank", "extracted", "patch-lora", "combined"]
)
def test_norms_are_those_of_the_whole_difference(layout: str, tmp_path: Path) -> None:
    written: Written = write(layout, tmp_path)
    checked = check_file(written.path, TINY, layout)
    with written.path.open("rb") as stream:
        found = summarise(stream, checked.header, checked.contents, checked.alphas, layout)
    whole: dict[Family, list[float]] = {}
    for formulas in [written.high, written.low] if checked.contents.combined else [written.high]:
        for parameter, formula in formulas.items():
            delta = formula(np.zeros(SIZES.shapes()[parameter]), 1.0)
            whole.setdefault(family(parameter), []).append(float(np.linalg.norm(delta)))
    if layout == "extracted":
        del whole[Family.HEAD]  # there, two changes of one weight are two numbers
    for name, norms in whole.items():
        summary = found[name]
        assert (summary.min, summary.median, summary.max) == pytest.approx(
            (min(norms), float(np.median(norms)), max(norms))
        )
