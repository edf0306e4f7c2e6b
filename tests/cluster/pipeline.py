"""The made-up model, drawn slowly: a render is under way for as long as it has steps, and uses no CPU meanwhile."""

import time
from collections.abc import Callable
from pathlib import Path

from deployments.pipeline import Rendered, RenderInputs
from serve_app.spec import RenderSpec
from tests.lantern import write_card
from tests.lantern.pipeline import LanternPipeline

STEP_S = 0.1


class SlowLantern(LanternPipeline):
    """Takes its time for each step."""

    def render(self, spec: RenderSpec, inputs: RenderInputs, on_step: Callable[[int], None]) -> Rendered:
        def slowly(step: int) -> None:
            time.sleep(STEP_S)
            on_step(step)

        return super().render(spec, inputs, slowly)


def write_slow_card(path: Path, model: str) -> Path:
    """Write a card of the model, under another id, that names this class."""
    card = write_card(path, model).read_text()
    path.write_text(card.replace("tests.lantern.pipeline:LanternPipeline", f"{__name__}:SlowLantern"))
    return path
