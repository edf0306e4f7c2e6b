"""The service as it is, but for a prompt that breaks the CUDA context of the Generator that renders it, once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ray.serve import Application

from deployments.generator import Generator
from deployments.pipeline import Rendered, RenderInputs
from deployments.wan.runtime import WanRuntime
from serve_app import application
from serve_app.plan import ModelPlan
from serve_app.spec import RenderSpec

PROMPT = "poison"
_TAKEN = Path("var/poison-taken")  # in the working directory, which all replicas share


class PoisonableRuntime(WanRuntime):
    """Renders as ever; the poison is an index out of bounds, which a kernel finds."""

    def render(self, spec: RenderSpec, inputs: RenderInputs, on_step: Callable[[int], None]) -> Rendered:
        """Render, or break the context."""
        if spec.prompt == PROMPT and not _TAKEN.exists():
            _TAKEN.touch()
            torch.zeros(1, device="cuda")[torch.tensor([1], device="cuda")].item()
        return super().render(spec, inputs, on_step)


class PoisonableGenerator(Generator):
    """A Generator of such a runtime, whatever the card says."""

    def __init__(self, plan: ModelPlan) -> None:
        """Take the plan with another pipeline class."""
        card = plan.card.model_copy(update={"pipeline": f"{__name__}:PoisonableRuntime"})
        super().__init__(plan.model_copy(update={"card": card}))


def build(args: dict[str, Any]) -> Application:
    """As `serve_app:build`."""
    vars(application)["Generator"] = PoisonableGenerator
    return application.application(args)
