"""Random walks through what renders may ask for, one after the other."""

import random
from collections.abc import Mapping
from pathlib import Path

from serve_app.spec import PAIR, Recipe, RenderSpec, Speed
from tests.deployments.wan.conftest import lora_file, make_spec


def next_spec(choice: random.Random, files: Mapping[str, Path], last: RenderSpec) -> RenderSpec:
    """Return anything made of `files`, or the last with other multipliers, order, recipe or speed."""
    match choice.randrange(7):
        case 0:
            loras = tuple(
                lora.model_copy(update={"multiplier": choice.choice([0.0, 0.25, 1.0])}) for lora in last.loras
            )
            return last.model_copy(update={"loras": loras})
        case 1:
            return last.model_copy(update={"loras": last.loras[::-1]})
        case 2:
            return last.model_copy(update={"recipe": choice.choice(list(Recipe))})
        case 3:
            return last.model_copy(update={"speed": choice.choice(list(Speed))})
        case _:
            return _any_spec(choice, files)


def _any_spec(choice: random.Random, files: Mapping[str, Path]) -> RenderSpec:
    loras = [
        lora_file(side, files[choice.choice(list(files))], choice.choice([0.0, 0.5, 1.0, -1.5]))
        for side in PAIR
        for _ in range(choice.choice([0, 1, 1, 1, 2]))
    ]
    choice.shuffle(loras)
    return make_spec(*loras, recipe=choice.choice(list(Recipe)), speed=choice.choice(list(Speed)))
