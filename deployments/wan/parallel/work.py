"""Messages between rank 0 of a Generator and the other ranks: work, and answers, through one pipe each."""

import pickle
from dataclasses import dataclass

from deployments.pipeline import PipelineOptions, RenderInputs
from deployments.wan.memory.planner import MemoryPlan
from serve_app.results import Parallelism
from serve_app.spec import RenderSpec


@dataclass(frozen=True, slots=True)
class Start:
    """Join the world that rank 0 has opened, and load the base model."""

    options: PipelineOptions
    rank: int
    port: int  # of the rendezvous
    timeout_s: float  # of one collective


@dataclass(frozen=True, slots=True)
class Render:
    """Take part in one attempt at a render."""

    spec: RenderSpec
    inputs: RenderInputs
    mix: Parallelism


@dataclass(frozen=True, slots=True)
class LeaveGpu:
    """Free the GPU memory that only makes switching LoRAs faster."""


@dataclass(frozen=True, slots=True)
class ChangePlan:
    """Go over to another memory plan."""

    plan: MemoryPlan


@dataclass(frozen=True, slots=True)
class Probe:
    """Compute something tiny."""


Work = Render | LeaveGpu | ChangePlan | Probe


@dataclass(frozen=True, slots=True)
class Answer:
    """A rank has done what it was asked; or `error` ended it, and the rank is ready for the next."""

    error: BaseException | None = None

    @classmethod
    def failed(cls, error: BaseException) -> "Answer":
        """Return the answer with `error`, or with its words if it cannot be sent to another process."""
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - made in this process
        except Exception:
            return cls(RuntimeError(f"{type(error).__name__}: {error}"))
        return cls(error)
