"""The names of the ways to fit a model into GPU memory; apart from the runtime, because settings import no torch."""

from enum import StrEnum


class OffloadMode(StrEnum):
    """Where the weights wait while they are not in use."""

    AUTO = "auto"  # the fastest of the others that fits into the GPU's free memory
    NONE = "none"  # everything on the GPU
    MODEL = "model"  # one component at a time on the GPU, the others in host memory
    SEQUENTIAL = "sequential"  # one layer at a time on the GPU; slow, fits almost anywhere
