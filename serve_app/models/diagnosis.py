"""What `wan-lora doctor` says of a machine: its GPUs, how a model would lie on one, and what would make it faster.

`deployments.wan.doctor` finds it out, in a process of its own, since it needs PyTorch; the command prints it.
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
    """Something that speed depends on, and whether it is there."""

    name: str
    found: bool
    gives: str  # what it brings
    missing: str  # what to do where it is not there


class SizePlan(_Value):
    """What one size asks of the machine."""

    size: str  # width x height x frames
    tokens: int
    step_s: float | None  # at least, with guidance, by the GPU's own matrix product; None without a GPU
    shared_by: str  # how all GPUs would share a render


class Placement(_Value):
    """Where the weights would lie; see `deployments.wan.memory.planner`."""

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
