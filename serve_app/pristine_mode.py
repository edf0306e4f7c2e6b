"""The names of the places for untouched weights; apart from the runtime, because settings import no torch."""

from enum import StrEnum


class PristineMode(StrEnum):
    """Where a Generator keeps the weights that a merged LoRA has changed, as they were."""

    AUTO = "auto"  # the fastest of the others for which there is memory
    GPU = "gpu"
    HOST = "host"  # host memory, pinned where there is a GPU
    CHECKPOINT = "checkpoint"  # nowhere: read again from the checkpoint's files
