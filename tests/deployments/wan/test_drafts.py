"""A draft on the CPU: few-step LoRAs act under the request's own, and a step runs one pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from deployments.wan.runtime import WanRuntime
from serve_app.spec import LoraFile, Recipe, Sampler
from tests.deployments.wan.conftest import make_spec, render_with

Pair = tuple[LoraFile, LoraFile]


@contextmanager
def counted_passes(runtime: WanRuntime) -> Iterator[list[Any]]:
    """Count the passes of both experts."""
    passes: list[Any] = []
    experts = (runtime._pipe.transformer, runtime._pipe.transformer_2)
    hooks = [expert.register_forward_pre_hook(lambda *call: passes.append(call)) for expert in experts]
    yield passes
    for hook in hooks:
        hook.remove()


def test_the_few_step_pair_acts_under_the_users_in_one_pass_a_step(
    runtime: WanRuntime, pair: Pair, other_pair: Pair
) -> None:
    few = {"sampler": Sampler.EULER, "sample_steps": 4, "guidance_scale": 1.0}
    spec = make_spec(*pair, recipe=Recipe.DRAFT, draft=other_pair, **few)
    with counted_passes(runtime) as passes:
        draft = render_with(runtime, spec)
    assert len(passes) == 4
    assert draft.resident >= {lora.content for lora in spec.acting}
    assert [lora.sha256 for lora in draft.made_with.loras] == [lora.sha256 for lora in spec.acting]
    assert draft.made_with.recipe is Recipe.DRAFT
    stacked = render_with(runtime, make_spec(*other_pair, *pair, **few))
    np.testing.assert_array_equal(draft.frames, stacked.frames)
    for other in (make_spec(*pair, **few), make_spec(*other_pair, **few)):
        assert not np.array_equal(render_with(runtime, other).frames, draft.frames)
    np.testing.assert_array_equal(render_with(runtime, spec).frames, draft.frames)
