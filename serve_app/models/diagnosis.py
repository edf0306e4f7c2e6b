"""Diagnosis of a machine (`wan-lora doctor`): its GPUs, a model's memory plan on them, and what would make it faster.

`deployments.wan.doctor` makes it in a process of its own, because it needs PyTorch; the command prints it.
"""

from pydantic import BaseModel, ConfigDict


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Gpu(_Value):
    """One GPU. Sizes are bytes."""

    name: str
    capability: tuple[int, int]  # CUDA compute capability
    total: int
    free: int


class Finding(_Value):
    """A package or feature that speed depends on, and whether this machine has it."""

    name: str
    found: bool
    gives: str  # what it brings
    missing: str  # what to do if it is not there


class SizePlan(_Value):
    """The cost of one video size on this machine."""

    size: str  # width x height x frames
    tokens: int
    step_s: float | None  # at least, with guidance, by the GPU's own matrix product; None without a GPU
    draft_s: float | None  # at least, of all steps of a draft of four, which run without guidance
    shared_by: str  # how all GPUs would share a render


class Placement(_Value):
    """Where the weights would be kept; see `deployments.wan.memory.planner`."""

    offload: str
    reason: str
    originals: str


class Diagnosis(_Value):
    """Everything that was found."""

    model: str  # title
    torch: str
    gpus: tuple[Gpu, ...]
    host_free: int  # bytes
    flops: float | None  # of an 8192x8192 bfloat16 product on the first GPU; None without one
    placement: Placement | None
    sizes: tuple[SizePlan, ...]
    findings: tuple[Finding, ...]
