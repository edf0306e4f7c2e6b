"""How far speed profiles, recipes, fewer steps and the draft take the trained demo, in latents, pixels and content.

    python -m tests.benchmarks.demo_drift [--prompts 24] [--settings turbo draft]

Each setting renders the same prompts with the same seeds and the pair `wan22_demo`, whose trigger word stands in them.
Everything is beside the first setting: `latents` is the relative L2 distance after the last step and `PSNR` that of the
frames, both as a median over the prompts; `right` is in how many videos colour, shape and direction are what the prompt
says, and `core` in how many the pair shows. `seconds` is what a video took on this machine; it says nothing of a GPU.
Prints a table and, last, one line of JSON.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Self

import numpy as np

from deployments.pipeline import Frames
from deployments.wan.demo import TRAINED
from deployments.wan.demo.untrained import DemoCheckpoint
from serve_app.spec import Speed
from tests.deployments.wan.conftest import load_demo
from tests.deployments.wan.demo.conftest import trained_pair
from tests.deployments.wan.demo.gallery import DRAFT, PREVIEW, WANTED, Gallery, Shown

FEW_STEPS = {**DRAFT, "draft": trained_pair("wan22_draft")}
TURBO = {"speed": Speed.TURBO}
SETTINGS: dict[str, Mapping[str, Any]] = {
    "exact": {},
    "fast": {"speed": Speed.FAST},
    "turbo": TURBO,
    "turbo, step cache 0.1": {**TURBO, "step_cache": 0.1},
    "turbo, step cache 0.2": {**TURBO, "step_cache": 0.2},
    "turbo, step cache 0.3": {**TURBO, "step_cache": 0.3},
    "preview": PREVIEW,
    "preview, turbo": {**PREVIEW, **TURBO},
    "draft": FEW_STEPS,
    "draft, turbo": {**FEW_STEPS, **TURBO},
    "4 steps, no draft": DRAFT,
    "25 steps": {"sample_steps": 25},
}
WHITE = 0.6  # of a core, as in tests/deployments/wan/demo/test_pairs.py


@dataclass(frozen=True)
class Row:
    """One setting beside the first one."""

    setting: str
    latents: float  # median over the prompts
    psnr: float  # dB, median; infinite if all frames are equal
    worst: float
    right: int  # of the prompts
    core: int
    seconds: float  # of a video

    @classmethod
    def of(cls, setting: str, shown: list[Shown], first: list[Shown], seconds: float) -> Self:
        """Compare the videos of a setting with those of the first one."""
        pairs = list(zip(shown, first, strict=True))
        values = [psnr(one.frames, other.frames) for one, other in pairs]
        return cls(
            setting,
            median(_distance(one, other) for one, other in pairs),
            median(values),
            min(values),
            sum(one.right for one in shown),
            sum(one.core > WHITE for one in shown),
            seconds / len(shown),
        )


def psnr(one: Frames, other: Frames) -> float:
    """Return the peak signal-to-noise ratio in dB, over all frames of a video."""
    error = float(np.square(one.astype(float) - other.astype(float)).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _distance(one: Shown, other: Shown) -> float:
    return float((one.latents - other.latents).norm() / other.latents.norm())


def main() -> None:
    """Render and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=len(WANTED))
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS)[1:], default=list(SETTINGS)[1:])
    args = parser.parse_args()
    wanted = WANTED[: args.prompts]
    checkpoint = TRAINED / "checkpoint"
    gallery = Gallery(load_demo(DemoCheckpoint(checkpoint, checkpoint)))
    pair = trained_pair("wan22_demo")
    print(
        f"| setting | latents | PSNR | worst | right of {len(wanted)} | core | seconds |\n|---|---|---|---|---|---|---|"
    )
    first: list[Shown] = []
    rows = []
    for name in ("exact", *args.settings):
        started = time.perf_counter()
        shown = gallery.show(wanted, *pair, word="sks ", **SETTINGS[name])
        first = first or shown
        row = Row.of(name, shown, first, time.perf_counter() - started)
        rows.append(row)
        print(
            f"| {row.setting} | {row.latents:.2g} | {row.psnr:.1f} dB | {row.worst:.1f} dB | {row.right} | {row.core} "
            f"| {row.seconds:.1f} |",
            flush=True,
        )
    print(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
