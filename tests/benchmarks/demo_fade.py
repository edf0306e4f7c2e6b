"""How the trained demo's pair fades in with its strength: both sides, one side alone, without its trigger, in a draft.

    python -m tests.benchmarks.demo_fade [--prompts 24] [--ways both draft] [--strengths 0 0.5 1 1.5]

`core` is how white the middle of the thing is, 0 to 1, as a mean over the prompts, with the least and the most beside
it; `white` in how many videos it is above 0.6; `right` in how many colour, shape and direction are as prompted.
Prints a table and, last, one line of JSON.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import mean
from typing import Any, Self

from deployments.wan.demo import TRAINED
from deployments.wan.demo.untrained import DemoCheckpoint
from tests.benchmarks.demo_drift import FEW_STEPS, WHITE
from tests.deployments.wan.conftest import load_demo
from tests.deployments.wan.demo.conftest import trained_pair
from tests.deployments.wan.demo.gallery import PREVIEW, WANTED, Gallery, Shown

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class Way:
    """How the pair is used."""

    sides: tuple[int, ...] = (0, 1)  # high noise, low noise
    word: str = "sks "
    changes: Mapping[str, Any] = field(default_factory=dict)  # of the spec


WAYS = {
    "both": Way(),
    "high noise alone": Way((0,)),
    "low noise alone": Way((1,)),
    "no trigger": Way(word=""),
    "preview": Way(changes=PREVIEW),
    "draft": Way(changes=FEW_STEPS),
}


@dataclass(frozen=True)
class Row:
    """One way at one strength."""

    way: str
    strength: float
    core: float
    least: float
    most: float
    white: int  # of the prompts
    right: int

    @classmethod
    def of(cls, way: str, strength: float, shown: list[Shown]) -> Self:
        """Measure the videos."""
        cores = [one.core for one in shown]
        return cls(
            way,
            strength,
            mean(cores),
            min(cores),
            max(cores),
            sum(core > WHITE for core in cores),
            sum(one.right for one in shown),
        )


def main() -> None:
    """Render and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=len(WANTED))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--strengths", nargs="+", type=float, default=STRENGTHS)
    args = parser.parse_args()
    wanted = WANTED[: args.prompts]
    checkpoint = TRAINED / "checkpoint"
    gallery = Gallery(load_demo(DemoCheckpoint(checkpoint, checkpoint)))
    print(f"| way | strength | core | least | most | white of {len(wanted)} | right |\n|---|---|---|---|---|---|---|")
    rows = []
    for name in args.ways:
        way = WAYS[name]
        for strength in args.strengths:
            pair = trained_pair("wan22_demo", strength)
            sides = [pair[side] for side in way.sides]
            row = Row.of(name, strength, gallery.show(wanted, *sides, word=way.word, **way.changes))
            rows.append(row)
            print(
                f"| {name} | {strength:g} | {row.core:.2f} | {row.least:.2f} | {row.most:.2f} | {row.white} "
                f"| {row.right} |",
                flush=True,
            )
    print(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
