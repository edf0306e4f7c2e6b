"""A made-up third model: one expert, with strides, divisors and defaults of its own. See card.yaml."""

import os
from pathlib import Path

CARD = Path(__file__).with_name("card.yaml")
# For a service of this model, whose replicas find its class by its dotted name.
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
}
# In the environment of a service: how long each step of its lanterns takes, in seconds; nothing if it is not set.
STEP_VARIABLE = "LANTERN_STEP_S"


def write_card(path: Path, model: str) -> Path:
    """Write a card of the same model under another id."""
    path.write_text(CARD.read_text().replace("id: lantern_1b", f"id: {model}"))
    return path
