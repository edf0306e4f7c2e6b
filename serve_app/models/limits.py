"""Limits of a request's values: the reference server's, which has the same ones for every model.

They bound what the API accepts at all. What one model does with an accepted value (snapping a size, rounding a frame
count) stands in its card.
"""

from typing import NamedTuple


class Limits(NamedTuple):
    """The smallest and the largest value that is accepted."""

    least: int
    most: int


SIZE = Limits(64, 4096)  # pixels of width and of height, before they are snapped
NUM_FRAMES = Limits(1, 1000)  # before they are rounded
FPS = Limits(1, 120)
SAMPLE_STEPS = Limits(1, 150)
GUIDANCE_SCALE = Limits(0, 20)
MULTIPLIER = Limits(-2, 2)
PROMPTS = Limits(1, 1000)
RANDOM_SEED = -1  # as a seed: draw one
SEED = Limits(RANDOM_SEED, 2**64 - 1)  # torch.Generator.manual_seed takes 64 bits
MOST_SHIFT = 100  # ours: the reference has no flow shift; above 0
