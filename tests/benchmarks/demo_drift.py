"""How far a recipe, fewer steps and the draft pair take the trained demo from its default, in pixels and in content.

    python -m tests.benchmarks.demo_drift [--prompts 24]

Each setting renders the same prompts with the same seeds. PSNR is that of a setting's frames to those of the
reference recipe at 25 steps, a prompt's median and the worst; `right` is in how many videos colour, shape and direction
are what the prompt says. Prints a table and, last, one line of JSON.
"""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Self

import numpy as np

from deployments.pipeline import Frames
from deployments.wan.demo import TRAINED
from deployments.wan.demo.untrained import DemoCheckpoint
from serve_app.spec import LoraFile
from tests.deployments.wan.conftest import load_demo
from tests.deployments.wan.demo.conftest import trained_pair
from tests.deployments.wan.demo.gallery import DRAFT, PREVIEW, WANTED, Gallery, Shown

SETTINGS: dict[str, tuple[tuple[LoraFile, ...], Mapping[str, Any]]] = {
    "reference, 25 steps": ((), {"sample_steps": 25}),
    "reference, 8 steps": ((), {"sample_steps": 8}),
    "preview, 25 steps": ((), {**PREVIEW, "sample_steps": 25}),
    "preview, 8 steps": ((), {**PREVIEW, "sample_steps": 8}),
    "4 steps, guidance 1": ((), DRAFT),
    "draft": ((), {**DRAFT, "draft": trained_pair("wan22_draft")}),
}


@dataclass(frozen=True)
class Row:
    """One setting beside the first one."""

    setting: str
    psnr: float  # dB, median over the prompts; infinite where all frames are equal
    worst: float
    right: int  # of the prompts

    @classmethod
    def of(cls, setting: str, shown: list[Shown], first: list[Shown]) -> Self:
        values = [psnr(one.frames, other.frames) for one, other in zip(shown, first, strict=True)]
        return cls(setting, round(median(values), 1), round(min(values), 1), sum(one.right for one in shown))


def psnr(one: Frames, other: Frames) -> float:
    """Return the peak signal-to-noise ratio in dB, over all frames of a video."""
    error = float(np.square(one.astype(float) - other.astype(float)).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def main() -> None:
    """Render and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=len(WANTED))
    wanted = WANTED[: parser.parse_args().prompts]
    checkpoint = TRAINED / "checkpoint"
    gallery = Gallery(load_demo(DemoCheckpoint(checkpoint, checkpoint)))
    shown = {name: gallery.show(wanted, *loras, **changes) for name, (loras, changes) in SETTINGS.items()}
    first = next(iter(shown.values()))
    rows = [Row.of(name, videos, first) for name, videos in shown.items()]
    print(f"| setting | PSNR, median | PSNR, worst | right of {len(wanted)} |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.setting} | {row.psnr:.1f} dB | {row.worst:.1f} dB | {row.right} |")
    print(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
