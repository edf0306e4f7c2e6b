"""Enums of args: what the service runs on, where weights wait, how logs look, whether old files are removed."""

from enum import StrEnum


class Profile(StrEnum):
    """What the service runs on."""

    AUTO = "auto"  # gpu if the Ray cluster has one when the application is built, else cpu
    CPU = "cpu"
    GPU = "gpu"


class OffloadMode(StrEnum):
    """Where the weights wait while they are not in use."""

    AUTO = "auto"  # the fastest of the others that fits into the GPU's free memory
    NONE = "none"  # everything on the GPU
    TEXT = "text"  # all on the GPU but the text encoder, which is streamed from host memory for each new prompt
    SWAP = "swap"  # as text, and one expert at a time: the other takes its place once a video
    MODEL = "model"  # one component at a time on the GPU, the others in host memory; auto never takes it
    GROUPS = "groups"  # as text, and the experts' blocks pass through two places on the GPU, each copied while one runs
    SEQUENTIAL = "sequential"  # one layer at a time on the GPU; slow, fits almost anywhere


class LogFormat(StrEnum):
    """How the lines of log files look."""

    TEXT = "text"
    JSON = "json"


class PristineMode(StrEnum):
    """Where a Generator keeps the weights that a merged LoRA has changed, as they were."""

    AUTO = "auto"  # the fastest of the others for which there is memory
    GPU = "gpu"
    HOST = "host"  # host memory, pinned if there is a GPU
    CHECKPOINT = "checkpoint"  # nowhere: read again from the checkpoint's files


class RetentionMode(StrEnum):
    """Whether what is beyond its time is removed."""

    OFF = "off"
    DRY_RUN = "dry-run"  # only said
    ON = "on"
