"""Limits of request values, the same for every model: the reference server's for numbers, this service's for texts.

They bound what the API accepts. A model's card says how an accepted value is adapted (size snapped, frames rounded).
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

# Limits of this service, in characters of a text or items of a list. Longer values have no use, and cost memory.
PROMPT_LENGTH = 10_000  # Wan reads 512 tokens, of at most 16 characters each in UMT5's vocabulary
TRIGGER_LENGTH = 1_000
PATH_LENGTH = 4_096  # PATH_MAX of Linux; presigned addresses have some 2,000
TOKEN_LENGTH = 4_096
NAME_LENGTH = 255  # of a model
IMAGE_LENGTH = 400_000_000  # base64 of the largest `image_max_mib`; the length of the whole body comes first
LORAS = 16
