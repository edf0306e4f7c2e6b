"""The schedulers that a render runs: made anew, as the recipe has them, and their steps counted."""

from typing import Any

import pytest
from diffusers import UniPCMultistepScheduler

from deployments.wan.sampling import boundary_step, make_scheduler, shift_of
from serve_app.models.card import load_card
from serve_app.spec import RenderSpec, Sampler
from tests.deployments.wan.conftest import make_spec

CARD = load_card("wan22_14b_t2v")


@pytest.fixture
def shipped() -> Any:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def _ran(spec: RenderSpec, shipped: Any) -> tuple[float, int]:
    """Shift in effect, and steps of the high noise expert."""
    scheduler = make_scheduler(spec, shipped, CARD)
    scheduler.set_timesteps(spec.sample_steps)
    return shift_of(scheduler), boundary_step(scheduler, 0.875)


@pytest.mark.parametrize(
    ("steps", "euler_5", "unipc_3"), [(20, 8, 7), (25, 11, 8), (30, 13, 10), (50, 21, 16)]
)  # counted in runs of the trainer's and the reference server's own pipelines
def test_the_boundary_step_is_counted(shipped: Any, steps: int, euler_5: int, unipc_3: int) -> None:
    euler = make_spec(sampler=Sampler.EULER, sample_steps=steps)
    assert _ran(euler, shipped) == (5.0, euler_5)
    assert _ran(make_spec(sample_steps=steps), shipped) == (3.0, unipc_3)
    all_high = make_scheduler(euler, shipped, CARD)
    all_high.set_timesteps(steps)
    assert boundary_step(all_high, None) == steps


def test_a_scheduler_is_made_again_and_the_shipped_one_stays(shipped: Any) -> None:
    before = dict(shipped.config)
    plain = make_scheduler(make_spec(), shipped, CARD)
    shifted = make_scheduler(make_spec(shift=7.5), shipped, CARD)
    assert plain is not shipped
    assert dict(plain.config) == before == dict(shipped.config)
    assert shifted.config.flow_shift == 7.5
    assert {key: value for key, value in shifted.config.items() if key != "flow_shift"} == {
        key: value for key, value in before.items() if key != "flow_shift"
    }
    assert make_scheduler(make_spec(sampler=Sampler.EULER, shift=2.0), shipped, CARD).config.shift == 2.0
